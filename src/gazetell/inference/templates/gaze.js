// Where the model looked, as light on a picture: inlined in the pages that gazetell writes, and
// served to the page of the service. Light and numbers are those of gazetell.inference.gaze.

const GRAIN = 64; // sides of the map of light, which the browser scales to the picture
const SHADE = 0.24, GLOW = 0.34, EMBER = [255, 104, 16], AMBER = [255, 206, 96];
export const still = matchMedia("(prefers-reduced-motion: reduce)");

// Red, green, blue and opacity at heat 0, 1/255, ..., 1.
export const veil = Array.from({ length: 256 }, (_, n) => {
  const level = n / 255, glow = GLOW * level ** 0.8;
  const opacity = 1 - (1 - glow) * (SHADE + (1 - SHADE) * level);
  const part = (k) => glow * ((1 - level) * EMBER[k] + level * AMBER[k]) / opacity;
  return [part(0), part(1), part(2), 255 * opacity];
});

// A cubic (Catmull-Rom) through rows of numbers, which lie from first to last of the picture's
// length, taken at GRAIN places of it; 0 where the model saw nothing.
function along(rows, [first, last], [begin, end]) {
  const row = (i) => rows[Math.min(rows.length - 1, Math.max(0, i))];
  return Array.from({ length: GRAIN }, (_, at) => {
    const share = (at + 0.5) / GRAIN;
    if (share < begin || share > end) return rows[0].map(() => 0);
    const place = (share - first) / (last - first) * rows.length - 0.5;
    const i = Math.floor(place), t = place - i;
    const [a, b, c, d] = [row(i - 1), row(i), row(i + 1), row(i + 2)];
    return b.map((_, k) => (1 + 2 * t) * (1 - t) ** 2 * b[k] + t * t * (3 - 2 * t) * c[k]
      + t * (1 - t) ** 2 * (c[k] - a[k]) / 2 + t * t * (t - 1) * (d[k] - b[k]) / 2);
  });
}

const transposed = (rows) => rows[0].map((_, k) => rows.map((row) => row[k]));
const WHOLE = [0, 0, 1, 1];
const across = ([left, , right]) => [left, right], down = ([, top, , bottom]) => [top, bottom];
const mean = (map) => map.reduce((sum, weight) => sum + weight) / map.length;

// GRAIN * GRAIN levels from 0 to 1 of a map, an array of height * width weights. Of the picture the
// model saw the area `seen`, and the cells tile the area `cells`: left, top, right, bottom.
export function heat(map, { height, width, seen = WHOLE, cells = WHOLE }) {
  const top = Math.max(...map, 2 * mean(map)) || 1;
  const rows = Array.from({ length: height }, (_, r) => map.slice(r * width, (r + 1) * width));
  const columns = along(transposed(rows), across(cells), across(seen));
  const fine = along(transposed(columns), down(cells), down(seen)).flat();
  return fine.map((level) => Math.min(1, Math.max(0, level / top)));
}

// In words: the ninth of the picture with the peak, weighed with the cells around it.
export function where(map, { height, width, cells = WHOLE }) {
  const peak = Math.max(...map), at = map.indexOf(peak);
  if (peak <= 2 * mean(map)) return "spread over the picture";
  let x = 0, y = 0, sum = 0;
  map.forEach((weight, cell) => {
    const row = Math.floor(cell / width), column = cell % width;
    if (Math.abs(row - Math.floor(at / width)) > 1 || Math.abs(column - at % width) > 1) return;
    x += weight * (column + 0.5), y += weight * (row + 0.5), sum += weight;
  });
  const on = (middle, size, [from, to]) => from + (middle / sum / size) * (to - from);
  const places = [on(y, height, down(cells)), on(x, width, across(cells))];
  if (places.some((share) => share < 0 || share > 1)) return "mostly in the padding";
  const third = (share, names) => names[Math.min(2, Math.floor(3 * share))];
  const names = [third(places[0], ["upper", "", "lower"]), third(places[1], ["left", "", "right"])];
  return "mostly " + (names.filter(Boolean).join(" ") || "the middle");
}

function paint(canvas, levels) {
  const brush = canvas.getContext("2d"), image = brush.createImageData(GRAIN, GRAIN);
  levels.forEach((level, cell) => image.data.set(veil[Math.round(255 * level)], 4 * cell));
  brush.putImageData(image, 0, 0);
}

// A picture, and buttons (words, passes) that show where the model looked for them.
export class Gaze {
  #maps = new WeakMap(); // button -> { levels, line }
  #lit = new Float32Array(GRAIN * GRAIN);
  #turn = 0;
  #timer = 0;
  #shown = null;
  #pinned = null;

  // root: holds all buttons. stage: holds the picture and the canvas. line: says where it looked.
  // onplay: called with true when the gaze begins to go from button to button by itself.
  constructor({ root, stage, picture, canvas, line, onplay }) {
    Object.assign(this, { stage, picture, canvas, line, onplay, hint: line.textContent });
    canvas.width = canvas.height = GRAIN;
    const at = (event) => (event.target.closest?.("button") ?? null);
    const mine = (event) => (this.#maps.has(at(event)) ? at(event) : null);
    const rest = () => { if (!this.#timer) this.#show(this.#pinned); };
    root.addEventListener("pointerover", (event) => {
      if (event.pointerType === "mouse" && !this.#timer) this.#show(mine(event) ?? this.#pinned);
    });
    root.addEventListener("pointerleave", rest);
    root.addEventListener("focusout", (event) => { if (!this.#maps.has(event.relatedTarget)) rest(); });
    root.addEventListener("focusin", (event) => {
      const button = mine(event);
      if (!button) return;
      for (const other of button.parentElement.children) other.tabIndex = other === button ? 0 : -1;
      if (!button.matches(":focus-visible")) return;
      this.stop();
      this.#show(button);
    });
    root.addEventListener("click", (event) => {
      const button = mine(event);
      if (!button) return;
      this.stop();
      this.pin(this.#pinned === button ? null : button);
      const behavior = still.matches ? "auto" : "smooth";
      const hidden = stage.getBoundingClientRect().bottom < 80;
      if (this.#pinned && hidden) stage.scrollIntoView({ block: "nearest", behavior });
    });
    root.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { this.stop(); this.pin(null); }
      const button = mine(event);
      if (!button) return;
      const all = [...button.parentElement.children], from = all.indexOf(button);
      const forward = getComputedStyle(button.parentElement).direction === "rtl" ? -1 : 1;
      const goal = { ArrowRight: from + forward, ArrowLeft: from - forward, ArrowDown: from + 1,
        ArrowUp: from - 1, Home: 0, End: all.length - 1 }[event.key];
      if (goal === undefined) return;
      event.preventDefault();
      all[(goal + all.length) % all.length].focus();
    });
  }

  // Make a button show map n. name: what the line calls it.
  add(button, { maps, ...grid }, n, name) {
    button.tabIndex = n ? -1 : 0;
    let levels = null;
    this.#maps.set(button, {
      get levels() { return (levels ??= heat(maps[n], grid)); },
      line: `${name}: ${where(maps[n], grid)}`,
    });
  }

  // A small copy of the picture as the gaze of a button shows it.
  thumbnail(button, width = 200) {
    const [small, layer] = [0, 1].map(() => document.createElement("canvas"));
    const { naturalWidth, naturalHeight } = this.picture;
    small.width = width;
    small.height = Math.max(1, Math.round(width * (naturalHeight / naturalWidth || 1)));
    small.setAttribute("aria-hidden", "true");
    layer.width = layer.height = GRAIN;
    paint(layer, this.#maps.get(button).levels);
    const brush = small.getContext("2d");
    brush.imageSmoothingQuality = "high";
    if (naturalWidth) brush.drawImage(this.picture, 0, 0, small.width, small.height);
    brush.drawImage(layer, 0, 0, small.width, small.height);
    return small;
  }

  get playing() { return this.#timer !== 0; }

  #show(button) {
    if (button === this.#shown) return;
    this.#shown?.classList.remove("gg-now");
    button?.classList.add("gg-now");
    this.#shown = button;
    const gaze = this.#maps.get(button);
    this.line.textContent = gaze?.line ?? this.hint;
    this.#shine(gaze?.levels);
  }

  // The light goes from where it is to where it shall be.
  #shine(levels) {
    const from = this.#lit, begun = performance.now(), mine = ++this.#turn;
    const jump = still.matches || !this.stage.classList.contains("gg-looking");
    this.stage.classList.toggle("gg-looking", Boolean(levels));
    const step = (time) => {
      if (mine !== this.#turn || !levels) return;
      const part = jump ? 1 : Math.min(1, Math.max(0, (time - begun) / 300));
      const eased = part * part * (3 - 2 * part);
      this.#lit = from.map((level, cell) => level + eased * (levels[cell] - level));
      paint(this.canvas, this.#lit);
      if (part < 1) requestAnimationFrame(step);
    };
    step(begun);
  }

  pin(button) {
    this.#pinned?.setAttribute("aria-pressed", "false");
    button?.setAttribute("aria-pressed", "true");
    this.#pinned = button;
    this.#show(button);
  }

  stop() {
    clearInterval(this.#timer);
    this.#timer = 0;
    this.line.ariaLive = "polite";
    this.onplay(false);
  }

  // The gaze goes from one button to the next by itself.
  play(buttons) {
    this.stop();
    this.pin(null);
    let next = 0;
    const step = () => {
      if (next === buttons.length) { this.stop(); this.#show(null); return; }
      buttons[next].classList.add("gg-told");
      this.#show(buttons[next++]);
    };
    this.#timer = setInterval(step, 620);
    this.line.ariaLive = "off"; // nobody wants each word read out while it plays
    this.onplay(true);
    step();
  }
}

// A figure that gazetell.inference.gaze wrote.
function start(root) {
  root.dataset.ready = "";
  const find = (selector) => root.querySelector(selector), play = find(".gg-play");
  const height = +root.dataset.height, width = +root.dataset.width;
  const [seen, tiled] = [root.dataset.seen, root.dataset.cells].map((x) => x.split(" ").map(Number));
  const bytes = Uint8Array.from(atob(root.dataset.maps), (letter) => letter.charCodeAt(0));
  const weights = [...new Float32Array(bytes.buffer)]; // browsers run on little-endian machines
  const words = [...root.querySelectorAll(".gg-words button")], cells = height * width;
  const maps = words.map((_, n) => weights.slice(n * cells, (n + 1) * cells));
  const picture = find("img");
  const gaze = new Gaze({ root, stage: find(".gg-stage"), picture, canvas: find("canvas"),
    line: find(".gg-where"),
    onplay(playing) {
      play.classList.toggle("gg-playing", playing);
      play.setAttribute("aria-label", playing ? "Stop" : "Show word after word");
    } });
  words.forEach((word, n) => gaze.add(word, { maps, height, width, seen, cells: tiled }, n, `“${word.textContent}”`));
  play.addEventListener("click", () => { if (gaze.playing) gaze.stop(); else gaze.play(words); });
  find(".gg-foot").hidden = !words.length;
  if (root.classList.contains("gg-tiled")) {
    picture.decode().then(() => words.forEach((word) => word.prepend(gaze.thumbnail(word))));
  }
}

for (const root of document.querySelectorAll(".gazetell-gaze:not([data-ready])")) start(root);
