
(() => {
  "use strict";
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const veil = bytes("$veil"); // red, green, blue, opacity for each heat 0..255
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  function start(root) {
    root.dataset.ready = "";
    const columns = +root.dataset.columns, rows = +root.dataset.rows, cells = columns * rows;
    const maps = bytes(root.dataset.maps);
    const words = [...root.querySelectorAll(".gg-words button")];
    const bar = root.querySelector(".gg-words"), play = root.querySelector(".gg-play");
    const line = root.querySelector(".gg-where"), hint = line.textContent;
    const canvas = root.querySelector("canvas"), brush = canvas.getContext("2d");
    const picture = root.querySelector("img"), tiled = root.classList.contains("gg-tiled");
    canvas.width = columns;
    canvas.height = rows;
    const image = brush.createImageData(columns, rows);
    const heat = new Float32Array(cells);
    let now = -1, pinned = -1, timer = 0, turn = 0;

    function paint(levels) {
      for (let cell = 0; cell < cells; cell++) {
        const from = 4 * Math.round(levels[cell]);
        for (let part = 0; part < 4; part++) image.data[4 * cell + part] = veil[from + part];
      }
      brush.putImageData(image, 0, 0);
    }

    // The gaze moves from word to word instead of jumping.
    function move(index, jump) {
      const begin = heat.slice(), started = performance.now(), mine = ++turn;
      const step = (time) => {
        if (mine !== turn) return;
        const part = jump ? 1 : Math.min(1, Math.max(0, (time - started) / 220));
        const eased = part * part * (3 - 2 * part);
        for (let cell = 0; cell < cells; cell++) {
          heat[cell] = begin[cell] + eased * (maps[index * cells + cell] - begin[cell]);
        }
        paint(heat);
        if (part < 1) requestAnimationFrame(step);
      };
      step(started);
    }

    function tile() {
      const width = 200, height = Math.max(1, Math.round(width * picture.naturalHeight
        / picture.naturalWidth));
      words.forEach((word, index) => {
        const small = document.createElement("canvas"), pen = small.getContext("2d");
        small.width = width;
        small.height = height;
        small.setAttribute("aria-hidden", "true");
        paint(maps.subarray(index * cells, (index + 1) * cells));
        pen.imageSmoothingQuality = "high";
        pen.drawImage(picture, 0, 0, width, height);
        pen.drawImage(canvas, 0, 0, width, height);
        word.prepend(small);
      });
    }

    function show(index) {
      if (index === now) return;
      const jump = now < 0 || still.matches;
      now = index;
      root.classList.toggle("gg-looking", index >= 0);
      words.forEach((word, at) => word.classList.toggle("gg-now", at === index));
      line.textContent = index < 0 ? hint
        : "\u201c" + words[index].textContent + "\u201d: " + words[index].dataset.where;
      if (index >= 0) move(index, jump);
    }

    function pin(index) {
      pinned = index;
      words.forEach((word, at) => word.setAttribute("aria-pressed", String(at === index)));
      show(index);
    }

    function stop() {
      clearInterval(timer);
      timer = 0;
      play.classList.remove("gg-playing");
      play.setAttribute("aria-label", "Show word after word");
    }

    function rove(index) {
      words.forEach((word, at) => { word.tabIndex = at === index ? 0 : -1; });
    }

    words.forEach((word, index) => {
      word.addEventListener("pointerenter", (event) => {
        if (event.pointerType === "mouse" && !timer) show(index);
      });
      word.addEventListener("focus", () => {
        rove(index);
        if (word.matches(":focus-visible")) { stop(); show(index); }
      });
      word.addEventListener("click", () => { stop(); pin(pinned === index ? -1 : index); });
    });
    bar.addEventListener("pointerleave", () => { if (!timer) show(pinned); });
    bar.addEventListener("focusout", () => { if (!timer) show(pinned); });
    bar.addEventListener("keydown", (event) => {
      const at = words.indexOf(document.activeElement);
      const forward = getComputedStyle(bar).direction === "rtl" ? -1 : 1;
      const goal = { ArrowRight: at + forward, ArrowLeft: at - forward, ArrowDown: at + 1,
        ArrowUp: at - 1, Home: 0, End: words.length - 1 }[event.key];
      if (event.key === "Escape") { stop(); pin(-1); }
      if (at < 0 || goal === undefined) return;
      event.preventDefault();
      words[(goal + words.length) % words.length].focus();
    });
    play.addEventListener("click", () => {
      if (timer) { stop(); pin(now); return; }
      let next = 0;
      const advance = () => {
        if (next === words.length) { stop(); pin(-1); return; }
        show(next++);
      };
      pin(-1);
      timer = setInterval(advance, 750);
      play.classList.add("gg-playing");
      play.setAttribute("aria-label", "Stop");
      advance();
    });
    if (tiled && picture.complete) tile();
    else if (tiled) picture.addEventListener("load", tile);
    if (words.length) {
      rove(0);
      root.querySelector(".gg-foot").hidden = false;
    }
  }

  for (const root of document.querySelectorAll(".gazetell-gaze:not([data-ready])")) start(root);
})();
