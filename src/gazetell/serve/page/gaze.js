// Where the model looked, as light on the picture: the same veil and the same cubic as
// gazetell.inference.maps, so that the page and saved gazes look alike.
const GRAIN = 64, SHADE = 0.24, GLOW = 0.34, EMBER = [255, 104, 16], AMBER = [255, 206, 96];
const $ = (id) => document.getElementById(id);
const [frame, picture, light] = ["frame", "picture", "light"].map($);
export const still = matchMedia("(prefers-reduced-motion: reduce)");

const veil = Array.from({ length: 256 }, (_, n) => { // red, green, blue, opacity at each heat
  const level = n / 255, glow = GLOW * level ** 0.8;
  const opacity = 1 - (1 - glow) * (SHADE + (1 - SHADE) * level);
  const part = (k) => glow * ((1 - level) * EMBER[k] + level * AMBER[k]) / opacity;
  return [part(0), part(1), part(2), 255 * opacity];
});

function along(rows) { // a cubic (Catmull-Rom) through rows of numbers, taken at GRAIN places
  const row = (i) => rows[Math.min(rows.length - 1, Math.max(0, i))];
  return Array.from({ length: GRAIN }, (_, at) => {
    const place = (at + 0.5) * rows.length / GRAIN - 0.5, i = Math.floor(place), t = place - i;
    const [a, b, c, d] = [row(i - 1), row(i), row(i + 1), row(i + 2)];
    return b.map((_, k) => (1 + 2 * t) * (1 - t) ** 2 * b[k] + t * t * (3 - 2 * t) * c[k]
      + t * (1 - t) ** 2 * (c[k] - a[k]) / 2 + t * t * (t - 1) * (d[k] - b[k]) / 2);
  });
}

const turned = (rows) => rows[0].map((_, k) => rows.map((row) => row[k]));
const mean = (map) => map.reduce((sum, weight) => sum + weight) / map.length;

function heat(map, { height, width }) { // GRAIN * GRAIN levels, 0 to 1
  const top = Math.max(...map, 2 * mean(map)) || 1;
  const rows = Array.from({ length: height }, (_, r) => map.slice(r * width, (r + 1) * width));
  const fine = along(turned(along(turned(rows)))).flat();
  return fine.map((level) => Math.min(1, Math.max(0, level / top)));
}

function where(map, { height, width }) { // in words: the ninth of the picture with the peak
  const peak = Math.max(...map), at = map.indexOf(peak);
  if (peak <= 2 * mean(map)) return "spread over the picture";
  let x = 0, y = 0, sum = 0;
  map.forEach((weight, cell) => {
    const row = Math.floor(cell / width), column = cell % width;
    if (Math.abs(row - Math.floor(at / width)) > 1 || Math.abs(column - at % width) > 1) return;
    x += weight * (column + 0.5), y += weight * (row + 0.5), sum += weight;
  });
  const third = (middle, size, names) => names[Math.min(2, Math.floor(3 * middle / sum / size))];
  const names = [third(y, height, ["upper", "", "lower"]), third(x, width, ["left", "", "right"])];
  return "mostly " + (names.filter(Boolean).join(" ") || "the middle");
}

function paint(canvas, levels) {
  const brush = canvas.getContext("2d"), image = brush.createImageData(GRAIN, GRAIN);
  levels.forEach((level, cell) => image.data.set(veil[Math.round(255 * level)], 4 * cell));
  brush.putImageData(image, 0, 0);
}

let lit = new Float32Array(GRAIN * GRAIN), turn = 0;
function shine(levels) { // the light goes from where it is to where it shall be
  const from = lit, begun = performance.now(), mine = ++turn;
  const jump = still.matches || !frame.classList.contains("looking");
  frame.classList.toggle("looking", Boolean(levels));
  const step = (time) => {
    if (mine !== turn || !levels) return;
    const part = jump ? 1 : Math.min(1, Math.max(0, (time - begun) / 400));
    lit = from.map((level, cell) => level + part * part * (3 - 2 * part) * (levels[cell] - level));
    paint(light, lit);
    if (part < 1) requestAnimationFrame(step);
  };
  step(begun);
}

// Gazes: buttons (a word, a pass) that show where the model looked.
const gazes = new WeakMap(); // button -> { levels, line }
let shown = null, pinned = null, timer = 0;

export function gazeButton(label, name, { maps, ...grid }, n) {
  const button = document.createElement("button"), levels = heat(maps[n], grid);
  Object.assign(button, { type: "button", className: "gaze", tabIndex: n ? -1 : 0, ariaPressed: "false" });
  button.append(label);
  gazes.set(button, { levels, line: `${name}: ${where(maps[n], grid)}` });
  return button;
}

export function thumbnail(button) { // the picture as the gaze of a button shows it
  const [small, layer] = [0, 1].map(() => document.createElement("canvas"));
  const ratio = +frame.dataset.ratio, width = Math.round(160 * Math.min(1, ratio / 0.75));
  [small.width, small.height] = [Math.max(1, width), Math.max(1, Math.round(width / ratio))];
  small.style.width = `${small.width / 160 * 4.75}rem`;
  layer.width = layer.height = GRAIN;
  paint(layer, gazes.get(button).levels);
  const brush = small.getContext("2d");
  if (picture.naturalWidth) brush.drawImage(picture, 0, 0, small.width, small.height);
  brush.drawImage(layer, 0, 0, small.width, small.height);
  return small;
}

function show(button) {
  if (button === shown) return;
  shown?.classList.remove("now");
  button?.classList.add("now");
  shown = button;
  const gaze = gazes.get(button);
  $("where").textContent = gaze ? gaze.line : "";
  shine(gaze?.levels);
}

export function pin(button) {
  if (pinned) pinned.ariaPressed = "false";
  if (button) button.ariaPressed = "true";
  show(pinned = button);
}

export function stop() {
  clearInterval(timer);
  timer = 0;
  $("words").classList.remove("unfolding");
  $("play").textContent = "Look again";
  $("where").ariaLive = "polite";
}

export function play(buttons) { // the gaze goes from one to the next by itself
  stop();
  pin(null);
  let next = 0;
  const step = () => {
    if (next === buttons.length) { stop(); show(null); return; }
    buttons[next].classList.add("told");
    show(buttons[next++]);
  };
  timer = setInterval(step, 620);
  $("play").textContent = "Stop";
  $("where").ariaLive = "off"; // nobody wants each word read out while it plays
  step();
}

const at = (event) => event.target.closest?.(".gaze") ?? null;
addEventListener("pointerover", (event) => {
  if (event.pointerType === "mouse" && !timer) show(at(event) ?? pinned);
});
addEventListener("focusin", (event) => {
  const button = at(event);
  for (const one of button?.parentElement.children ?? []) one.tabIndex = one === button ? 0 : -1;
  if (button?.matches(":focus-visible")) stop();
  if (!timer) show(button?.matches(":focus-visible") ? button : pinned);
});
addEventListener("click", (event) => {
  const button = at(event);
  if (!button) return;
  stop();
  pin(pinned === button ? null : button);
  const behavior = still.matches ? "auto" : "smooth", gone = frame.getBoundingClientRect().bottom < 80;
  if (pinned && gone) frame.scrollIntoView({ block: "nearest", behavior });
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") { stop(); pin(null); }
  const button = at(event), all = [...(button?.parentElement.children ?? [])], from = all.indexOf(button);
  const forward = button && getComputedStyle(button.parentElement).direction === "rtl" ? -1 : 1;
  const goal = { ArrowRight: from + forward, ArrowLeft: from - forward, ArrowDown: from + 1,
    ArrowUp: from - 1, Home: 0, End: all.length - 1 }[event.key];
  if (!button || goal === undefined) return;
  event.preventDefault();
  all[(goal + all.length) % all.length].focus();
});
$("play").addEventListener("click", () => {
  if (timer) stop();
  else if ($("words").querySelector(".gaze")) play([...$("words").children]);
});
