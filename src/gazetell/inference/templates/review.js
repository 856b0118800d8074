
(() => {
  "use strict";
  const { key, name, base, model, rows } = JSON.parse(document.getElementById("sheet").textContent);
  const CHUNK = 60; // rows drawn at once
  const one = (selector, root = document) => root.querySelector(selector);
  const list = one(".rows"), more = one(".more"), none = one(".none"), said = one("[role=status]");
  const find = one("[type=search]"), filters = [...document.querySelectorAll("[name=show]")];
  const mine = `gazetell-review/${key}/`, pending = `gazetell-pending/${key}`;
  let shown = [], drawn = 0, unsaved = false;

  // What the browser keeps: an entry for each picture that was edited or approved.

  function keep(entry, value) {
    try {
      if (value === null) localStorage.removeItem(entry);
      else localStorage.setItem(entry, value);
    } catch {
      warn("This browser keeps nothing for this page: download before you close it.");
    }
  }

  function kept(entry) {
    try { return localStorage.getItem(entry); } catch { return null; }
  }

  function warn(text) {
    const notice = one(".notice");
    notice.textContent = text;
    notice.hidden = false;
  }

  function mark(yes) {
    unsaved = yes;
    keep(pending, yes ? "1" : null);
  }

  function save(row) {
    const changed = isEdited(row) || row.approved;
    row.other = false;
    keep(mine + row.picture, changed ? JSON.stringify({ text: isEdited(row) ? row.text : null,
      approved: row.approved, caption: row.caption, stamp: row.stamp }) : null);
    mark(true);
  }

  function restore(row, value) {
    row.text = row.caption;
    row.approved = row.other = false;
    let entry = null;
    try { entry = JSON.parse(value); } catch { /* not ours */ }
    if (!entry) return;
    // A person's words outlive a new model; an approval does not outlive what was approved.
    const own = typeof entry.text === "string";
    if (own) row.text = entry.text;
    row.other = own && entry.stamp !== row.stamp; // written for another picture of that name
    row.approved = entry.approved === true && entry.stamp === row.stamp
      && (own || entry.caption === row.caption);
  }

  const isEdited = (row) => row.text !== row.caption;
  const plain = (text) => text.replace(/\s+/g, " ").trim();

  // Rows: made when they are first drawn.

  function sureness(row) {
    if (row.unfamiliar) return [row.certainty, "unlike the pictures it learned from"].filter(Boolean).join(", ");
    if (row.certainty) return row.certainty;
    if (row.part === null) return "";
    if (row.rank === 0) return "least sure";
    if (row.part === 1) return "surest";
    return `surer than ${Math.max(1, Math.min(99, Math.round(100 * row.rank / (rows.length - 1))))} % of the others`;
  }

  function build(row) {
    const item = one("template").content.firstElementChild.cloneNode(true);
    const link = one(".look", item), image = one("img", item), text = one("textarea", item);
    item.classList.toggle("unsure", row.unsure);
    link.href = [base, ...row.picture.split("/").map(encodeURIComponent)].join("/");
    link.setAttribute("aria-label", `Open ${row.picture}`);
    image.width = row.width;
    image.height = row.height;
    image.src = row.thumb;
    one(".name", item).textContent = row.picture;
    one(".sure > span", item).textContent = sureness(row);
    one(".sure", item).title = (row.certainty
      ? `${Math.round(100 * row.confidence)} % of such captions are as good as what people say, ` : "")
      + `surer than ${row.rank} of the other ${rows.length - 1}`;
    one(".sure i", item).style.setProperty("--level", `${100 * (row.confidence ?? row.part)}%`);
    one(".sure", item).hidden = row.part === null && row.confidence === undefined;
    text.setAttribute("aria-label", `Alt text of ${row.picture}`);
    one(".approve input", item).setAttribute("aria-label", `Approve ${row.picture}`);
    text.addEventListener("input", () => { row.text = text.value; row.approved = false; done(row); });
    text.addEventListener("keydown", (event) => onKey(event, row));
    one(".approve input", item).addEventListener("change", (event) => {
      approve(row, event.target.checked);
    });
    one(".undo", item).addEventListener("click", () => {
      row.text = row.caption;
      row.approved = false;
      done(row);
      text.focus();
    });
    row.item = item;
    refresh(row);
    return item;
  }

  function refresh(row) {
    if (!row.item) return;
    const text = one("textarea", row.item);
    if (text.value !== row.text) text.value = row.text;
    row.item.classList.toggle("approved", row.approved);
    one(".approve input", row.item).checked = row.approved;
    one(".approve span", row.item).textContent = row.approved ? "Approved" : "Approve";
    one(".undo", row.item).hidden = !isEdited(row);
    one(".note", row.item).textContent = row.other ? "written for an earlier picture of this name"
      : !plain(row.text) ? (isEdited(row) ? "empty: decorative" : "the model found no words")
        : !row.ended && !isEdited(row) ? "cut off before its end" : "";
  }

  function done(row) {
    save(row);
    refresh(row);
    count();
  }

  function approve(row, yes) {
    row.approved = yes;
    done(row);
    const approved = rows.filter((other) => other.approved).length;
    said.textContent = `${yes ? "Approved" : "Not approved"}, ${approved} of ${rows.length}.`;
  }

  function onKey(event, row) {
    if (event.isComposing) return;
    const enter = event.key === "Enter" && !event.shiftKey;
    const step = enter || (event.altKey && event.key === "ArrowDown") ? 1
      : event.altKey && event.key === "ArrowUp" ? -1 : 0;
    if (!step) return;
    event.preventDefault();
    if (enter) approve(row, true);
    const next = shown[shown.indexOf(row) + step];
    if (!next) {
      said.textContent += step > 0 ? " That was the last one shown." : "";
      return;
    }
    while (!next.item || !next.item.isConnected) draw();
    one("textarea", next.item).focus({ preventScroll: true });
    next.item.scrollIntoView({ block: "nearest" });
  }

  // The list: a filter holds until it is chosen again, so that nothing moves under one's hands.

  const KINDS = { all: () => true, unsure: (row) => row.unsure && !row.approved,
    open: (row) => !row.approved, edited: isEdited, approved: (row) => row.approved };

  function count() {
    for (const filter of filters) {
      one("b", filter.parentElement).textContent = rows.filter(KINDS[filter.value]).length;
    }
    const part = rows.length ? rows.filter(KINDS.approved).length / rows.length : 0;
    one(".along").style.width = `${100 * part}%`;
    one("progress").value = part;
  }

  function choose() {
    const kind = KINDS[filters.find((filter) => filter.checked).value];
    const sought = find.value.trim().toLowerCase();
    shown = rows.filter((row) => kind(row)
      && `${row.picture} ${row.text}`.toLowerCase().includes(sought));
    list.replaceChildren();
    drawn = 0;
    draw();
    none.hidden = shown.length > 0;
    none.textContent = rows.length ? "No picture here." : "No pictures.";
  }

  function draw() {
    const next = shown.slice(drawn, drawn + CHUNK);
    list.append(...next.map((row) => row.item || build(row)));
    drawn += next.length;
    more.hidden = drawn >= shown.length;
    more.textContent = `Show more (${shown.length - drawn})`;
  }

  // Download: RFC 4180, with the mark that lets a spreadsheet see UTF-8.

  function download() {
    // An apostrophe keeps a spreadsheet from running a text as a formula.
    let guarded = 0;
    const formula = /^[=+\-@\t\r\n]/;
    const safe = (text) => (formula.test(text) ? (guarded += 1, `'${text}`) : text);
    const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const table = [["picture", "caption", "alt_text", "approved", "model"]];
    for (const row of [...rows].sort((a, b) => (a.picture < b.picture ? -1 : 1))) {
      const text = safe(plain(row.text));
      const name = formula.test(row.picture) ? `./${row.picture}` : row.picture; // the same file
      table.push([name, text, row.approved ? text : "", row.approved ? "yes" : "no", model]);
    }
    const lines = table.map((cells) => cells.map(cell).join(",") + "\r\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", ...lines], { type: "text/csv" }));
    link.download = `${name}-alt-text.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    mark(false);
    said.textContent = "Downloaded.";
    if (guarded) warn(`In the CSV an apostrophe stands before a text that begins with =, +, - or @: ${guarded}.`);
  }

  function forget() {
    if (!confirm("Forget every edit and approval on this sheet? The model's captions come back."))
      return;
    for (const row of rows) {
      keep(mine + row.picture, null);
      restore(row, null);
      refresh(row);
    }
    mark(false);
    count();
    choose();
  }

  // Rows come least sure first; rank: how many are less sure. Those as sure share a rank.
  rows.forEach((row, at) => {
    const before = rows[at - 1];
    row.rank = before?.level === row.level ? before.rank : at;
  });
  const last = rows.length ? rows[rows.length - 1].rank : 0;
  rows.forEach((row) => {
    row.part = last ? row.rank / last : null;
    row.unsure = row.sure === undefined ? row.rank < rows.length / 4 : !row.sure;
    restore(row, kept(mine + row.picture));
  });
  mark(kept(pending) !== null); // also tells at once where the browser keeps nothing
  const byEntry = new Map(rows.map((row) => [mine + row.picture, row]));
  // The same sheet in another tab.
  addEventListener("storage", (event) => {
    if (event.key === pending) unsaved = event.newValue !== null;
    const row = byEntry.get(event.key);
    if (!row) return;
    restore(row, event.newValue);
    refresh(row);
    count();
  });
  addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });
  for (const filter of filters) filter.addEventListener("change", choose);
  find.addEventListener("input", choose);
  more.addEventListener("click", draw);
  one(".download").addEventListener("click", download);
  one(".forget").addEventListener("click", forget);
  new IntersectionObserver((seen) => {
    if (seen.some((entry) => entry.isIntersecting)) draw();
  }, { rootMargin: "1500px" }).observe(more);
  count();
  choose();
})();
