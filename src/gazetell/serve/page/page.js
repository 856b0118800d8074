// The page of `gazetell serve`. A picture goes to v1/look once; its handle stands for it after that.
import { Gaze } from "./gaze.js"; // of gazetell.inference

const $ = (id) => document.getElementById(id);
const on = (id, event, act) => $(id).addEventListener(event, act);
const [frame, picture, film] = ["frame", "picture", "film"].map($);
const shots = []; // the pictures that the server took
let limits = {}, shot = null, latest = 0; // shot: the picture that is shown
let answerers = [], ownBound = null; // that of the answerer, until another is chosen

function make(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

// Words and passes that show where the model looked
const gaze = new Gaze({ root: document.documentElement, stage: frame, picture, canvas: $("light"),
  line: $("where"), onplay: namePlay });

function namePlay() {
  const told = $("words").textContent;
  $("play").textContent = gaze.playing ? "Stop" : told ? "Show where it looked" : "Try again";
}

function gazeButton(label, name, attention, n) {
  const button = make("button", { type: "button", className: "gaze", ariaPressed: "false" }, label);
  gaze.add(button, attention, n, name);
  return button;
}

// The server
const ADVICE = { // it: a picture by its name
  unreachable: () => "The server does not answer: see that it is running, then try again.",
  body_too_large: (it) => `${it} is over ${(limits.body / 2 ** 20).toFixed(1)} MB, and this browser cannot `
    + "make it smaller: choose a smaller one.",
  picture_too_large: (it) => `${it} has too many pixels, and this browser cannot make it smaller: `
    + "choose a smaller one.",
  picture_unreadable: (it) => `${it} cannot be read as a picture: choose a JPEG, PNG or WebP.`,
  no_file: (it) => `${it} cannot be read: choose files, not a folder.`,
  queue_full: () => "Many are asking just now: wait a moment, then try again.",
  not_ready: () => "The model is still being loaded: wait a moment, then try again.",
  timeout: () => "This took too long: try again.",
  internal: (it) => `Something went wrong on the server with ${it}: try again, or try another picture.`,
  unauthorized: () => "Without a token this server looks at no picture: try again with one.",
};
ADVICE.unsupported_media_type = ADVICE.picture_unreadable;
ADVICE.busy = ADVICE.queue_full;
const refusal = (code, detail = "") => Object.assign(new Error(detail), { code });

for (const next of ["click", "change", "submit", "drop", "paste"]) { // what comes next takes it away
  addEventListener(next, () => { $("note").textContent = ""; }, true);
}
function complain(error, one) {
  const it = one?.name ? `“${one.name}”` : "this picture";
  const line = (ADVICE[error.code]?.(it) ?? error.message).replace(/^t/, "T");
  $("note").append(make("p", {}, line));
}

async function api(path, body) {
  const form = body instanceof FormData;
  for (;;) {
    const token = sessionStorage.getItem("gazetell-token"), headers = new Headers();
    if (token) headers.set("Authorization", `Bearer ${token}`);
    if (body && !form) headers.set("Content-Type", "application/json");
    const method = body ? "POST" : "GET", sent = form ? body : JSON.stringify(body);
    const reply = await fetch(path, { method, headers, body: sent })
      .catch(() => { throw refusal("unreachable"); });
    if (reply.ok) return reply.json();
    const problem = await reply.json().catch(() => ({}));
    if (reply.status !== 401) throw refusal(problem.code ?? "internal", problem.detail);
    await askToken(token);
  }
}

let asking = null;
function askToken(refused) {
  $("gate-title").textContent = refused ? "That token was refused" : "This server asks for a token";
  asking ??= new Promise((pass, fail) => {
    $("gate").returnValue = $("token").value = "";
    $("gate").onclose = () => {
      asking = null;
      if ($("gate").returnValue !== "given") { fail(refusal("unauthorized")); return; }
      sessionStorage.setItem("gazetell-token", $("token").value);
      pass();
    };
    $("gate").showModal();
  });
  return asking;
}

async function send(one) {
  const form = new FormData();
  form.append("image", one.file, "picture"); // its own name is nobody's business
  one.look = (await api("v1/look", form)).look;
}

async function about(one, path, fields) { // asks about a picture that was sent before
  const again = () => api(path, { look: one.look, ...fields });
  return again().catch((error) => {
    if (error.code !== "look_expired") throw error;
    return send(one).then(again);
  });
}

// Pictures. Those over the limits and those of other kinds are sent as this browser redraws them.
const SIDE = 2048; // pixels, far more than an encoder sees
const READ = /^(\xff\xd8\xff|.PNG|GIF8|RIFF....WEBP)/s; // what every server reads
const OTHER = [ // what browsers do not show, by its first bytes, and what to do with it
  [/^%PDF/, "is a PDF, not a picture: save the page as a JPEG or PNG."],
  [/^....ftyp(hei|hev|mif1|msf1)/s, "is HEIC, which neither this browser nor the server reads: export it as a JPEG."],
  [/^(....ftyp|\x1aE\xdf\xa3|RIFF....AVI)/s, "is a video: choose a picture."],
  [/^(8BPS|\0\0\0\x0cJXL|\xff\x0a|\0\0\0\x0cjP)/, "is of a kind that cannot be read here: export it as a JPEG."],
];

async function prepare(one) {
  const start = await one.file.slice(0, 16).arrayBuffer().catch(() => { throw refusal("no_file"); });
  const head = new TextDecoder("latin1").decode(start);
  one.image = make("img", { src: URL.createObjectURL(one.file) });
  const shown = await new Promise((done) => {
    one.image.onload = () => done(one.image.naturalWidth > 0);
    one.image.onerror = () => done(false);
  });
  const other = OTHER.find(([begin]) => begin.test(head))?.[1], it = `“${one.name ?? "The picture"}”`;
  if (!shown) { // perhaps the server reads it, such as TIFF
    one.image = null;
    if (other && !other.includes("HEIC")) throw new Error(`${it} ${other}`);
    if (one.file.size > limits.body) throw refusal("body_too_large");
    one.refused = other && `${it} ${other}`;
    one.note = "this browser cannot show the picture";
    return;
  }
  const pixels = one.image.naturalWidth * one.image.naturalHeight;
  if (one.file.size > limits.body || pixels > limits.pixels || !READ.test(head)) await redraw(one);
}

async function redraw(one) {
  const { naturalWidth: width, naturalHeight: height } = one.image, side = Math.max(width, height);
  const fitting = Math.sqrt((limits.pixels ?? Infinity) / (width * height));
  for (let share = Math.min(1, SIDE / side, fitting); share * side > 32; share /= 2) {
    const canvas = make("canvas", { width: Math.floor(share * width) || 1,
      height: Math.floor(share * height) || 1 });
    const brush = canvas.getContext("2d");
    brush.imageSmoothingQuality = "high";
    brush.fillStyle = "#fff"; // under what is transparent, as on the server
    brush.fillRect(0, 0, canvas.width, canvas.height);
    brush.drawImage(one.image, 0, 0, canvas.width, canvas.height);
    const file = await new Promise((done) => { canvas.toBlob(done, "image/jpeg", 0.92); });
    if (file && !(file.size + 2048 > limits.body)) { // with what a form adds
      one.note = `sent as a JPEG of ${canvas.width} × ${canvas.height} pixels`;
      Object.assign(one, { file, redrawn: true });
      return;
    }
  }
  throw refusal("body_too_large");
}

let coming = 0;
function count(more) {
  coming += more;
  $("coming").textContent = coming > 0 && shots.length ? `${coming} more to come …` : "";
}

async function take(files, example = null) { // the first that the server takes is shown
  unfilm();
  const mine = ++latest;
  let first = true;
  frame.classList.add("waiting");
  count(files.length);
  for (const file of files) {
    const one = { file, example, name: file.name, asked: [], told: null };
    try {
      await prepare(one);
      await send(one).catch((error) => {
        throw error.code === "picture_unreadable" && one.refused ? new Error(one.refused) : error;
      });
      list(one);
      count(-1);
      const now = first && mine === latest;
      first = false;
      if (now) await show(one);
      else if (!$("telling").hidden) await caption(one);
    } catch (error) {
      if (!shots.includes(one)) count(-1);
      complain(error, one);
    } finally {
      if (one.image) URL.revokeObjectURL(one.image.src);
      one.image = null;
    }
  }
  if (mine === latest) frame.classList.remove("waiting");
}

function list(one) {
  const small = make("canvas", { width: 96, height: 96, ariaHidden: "true" });
  const { image, name = "A picture" } = one;
  const brush = Object.assign(small.getContext("2d"), { font: "24px sans-serif", fillStyle: "#f3e9da",
    textAlign: "center", textBaseline: "middle" });
  if (image) {
    const share = 96 / Math.min(image.naturalWidth, image.naturalHeight);
    const [width, height] = [share * image.naturalWidth, share * image.naturalHeight];
    brush.drawImage(image, (96 - width) / 2, (96 - height) / 2, width, height);
  } else brush.fillText(name.split(".").pop(), 48, 48, 90);
  one.button = make("button", { type: "button", title: name, ariaLabel: name, ariaPressed: "false" }, small);
  one.button.addEventListener("click", () => show(one).catch((error) => complain(error, one)));
  $("shots").append(make("li", {}, one.button));
  $("shots").hidden = shots.push(one) < 2;
}

async function show(one) {
  unfilm();
  gaze.stop();
  gaze.pin(null);
  URL.revokeObjectURL(picture.src);
  shot = one;
  picture.src = URL.createObjectURL(one.file);
  picture.alt = "The picture you gave";
  await picture.decode().catch(() => {}); // a kind that the browser cannot show, such as TIFF
  if (one !== shot) return;
  frame.dataset.ratio = picture.naturalWidth / picture.naturalHeight || 1;
  frame.style.setProperty("--ratio", frame.dataset.ratio);
  for (const other of shots) other.button.ariaPressed = String(other === one);
  for (const button of $("examples").children) button.ariaPressed = String(button === one.example);
  for (const id of ["words", "facts"]) $(id).replaceChildren();
  $("said").hidden = picture.hidden = $("play").hidden = false;
  $("curl").hidden = Boolean(one.redrawn); // of the file as it is, the server may say something else
  document.body.classList.add("seeing");
  $("thread").replaceChildren(...one.asked.map(answered)); // their thumbnails are of this picture
  if (!$("telling").hidden) await tell();
}

function caption(one) { // asked for once, until another captioner is chosen
  const fields = chosen("captioner");
  if (one.told?.model !== fields.model) {
    const told = { model: fields.model, reply: about(one, "v1/caption", fields) };
    told.reply.then(({ captions: [{ alt_text: text }] }) => {
      one.button.title = one.button.ariaLabel = `${one.name ?? "A picture"}: ${text}`;
    }, () => { if (one.told === told) one.told = null; });
    one.told = told;
  }
  return one.told.reply;
}

async function tell() {
  const mine = shot, asked = caption(mine);
  frame.classList.add("waiting");
  try {
    const reply = await asked;
    if (mine === shot && mine.told?.reply === asked) tellAll(mine, reply);
  } finally {
    if (mine === shot) frame.classList.remove("waiting");
    namePlay();
  }
}

function tellAll(one, { model, captions: [told], timings }) {
  const { words, text, alt_text, ended, attention, confidence, certainty, unfamiliar } = told;
  const bar = $("words"), sure = certainty ? inCapital(certainty) : "No measure of how sure it is";
  const parts = words.map((word, n) =>
    attention ? gazeButton(word, `“${word}”`, attention, n) : make("span", {}, word));
  bar.role = attention ? "toolbar" : "group";
  bar.classList.toggle("cut", !ended); // an ellipsis follows
  bar.replaceChildren(...parts.flatMap((part) => [part, " "]));
  if (!words.length) bar.textContent = "It finds no words for this picture.";
  const facts = [unfamiliar ? "unlike the pictures it learned from" : null, model,
    `${Math.round(timings.total)} ms`, attention ? null : "it cannot show where it looks", one.note].filter(Boolean);
  const title = certainty ? `${percent(confidence)} of such captions are as good as what people say` : "";
  $("facts").replaceChildren(make("strong", { className: "certainty", title }, sure),
    ` · ${facts.join(" · ")}`);
  $("heard").textContent = `It sees: ${text}. ${sure}.`;
  Object.assign(one, { alt_text });
  picture.alt = text;
  $("play").hidden = !attention || !words.length;
}

on("file", "change", () => {
  if ($("file").files.length) take([...$("file").files]);
  $("file").value = "";
});
on("play", "click", () => {
  if (!$("words").textContent) tell().catch((error) => complain(error, shot));
  else if (gaze.playing) gaze.stop();
  else if ($("words").querySelector(".gaze")) gaze.play([...$("words").children]);
});
addEventListener("paste", ({ clipboardData: { files } }) => { if (files.length) take([...files]); });
addEventListener("dragover", (event) => { event.preventDefault(); frame.classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) frame.classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  frame.classList.remove("over");
  if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
  else complain(new Error("That was no file: save the picture first, then drop its file here."));
});
for (const button of $("examples").children) {
  button.addEventListener("click", async () => {
    const before = shots.find((one) => one.example === button), { src } = button.firstElementChild;
    if (before) { show(before).catch((error) => complain(error, before)); return; }
    const blob = await fetch(src).then((reply) => reply.blob(), () => null);
    if (blob) take([new File([blob], src.split("/").pop())], button);
    else complain(refusal("unreachable"));
  });
}

on("camera", "click", async () => {
  $("camera").disabled = true; // a second one would stay on
  try {
    film.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    gaze.stop();
    gaze.pin(null);
    $("said").inert = true; // it is about another picture
    document.body.classList.add("filming");
    film.hidden = false;
    await film.play();
    $("shutter").hidden = false;
    $("snap").focus();
  } catch {
    unfilm();
    complain(new Error("The camera cannot be used: allow it in the browser, or choose a file."));
  } finally {
    $("camera").disabled = false;
  }
});
on("snap", "click", () => {
  const photo = make("canvas", { width: film.videoWidth, height: film.videoHeight });
  photo.getContext("2d").drawImage(film, 0, 0);
  photo.toBlob((blob) => take([blob]), "image/jpeg", 0.92);
});
on("unfilm", "click", unfilm);

function unfilm() {
  const focused = $("shutter").contains(document.activeElement);
  film.srcObject?.getTracks().forEach((track) => track.stop());
  film.srcObject = null;
  $("shutter").hidden = film.hidden = true;
  $("said").inert = false;
  document.body.classList.remove("filming");
  if (focused) $("camera").focus();
}

// Questions
const whole = (share) => `${Math.round(100 * share)} %`;
const inCapital = (text) => text[0].toUpperCase() + text.slice(1);
const percent = (share) => (share >= 0.995 ? ">99 %" : share < 0.01 ? "<1 %" : whole(share));

function bar(share, bound) {
  const line = make("span", { className: "bar", ariaHidden: "true" }, make("i"), bound ? make("b") : null);
  line.firstChild.style.width = `${100 * share}%`;
  if (bound) line.lastChild.style.left = `${100 * bound}%`; // a mark at what was asked for
  return line;
}

function card({ answer, confidence, certainty, top, abstained, attention, ...found }, bound, fields) {
  const why = fields.abstain_below !== undefined ? `; you asked for at least ${whole(bound)}` : "";
  const line = (text) => make("p", {}, text), share = percent(confidence);
  const passes = (attention?.maps ?? []).map((_, n) => {
    const button = gazeButton(`Pass ${n + 1}`, `Pass ${n + 1}`, attention, n);
    button.prepend(gaze.thumbnail(button));
    return button;
  });
  const copy = make("button", { type: "button", hidden: Boolean(shot.redrawn) }, "Copy as curl");
  copy.addEventListener("click", () => clip(copy, curl("v1/answer", fields)));
  return [
    make("div", { className: "answer" }, make("strong", {}, abstained ? "I am not sure." : answer),
      make("span", {}, abstained ? `${share} at best` : `${inCapital(certainty)}, ${share}`),
      bar(confidence, bound)),
    abstained ? line(`My best guess is “${answer}”${why}.`) : null,
    make("ol", { className: "top", ariaLabel: "Likeliest answers" }, top.map((one) =>
      make("li", {}, make("span", {}, one.answer), bar(one.confidence), percent(one.confidence)))),
    found.unknown_words.length ? line(`Words I never learned: ${found.unknown_words.join(", ")}.`) : null,
    found.unfamiliar ? line("The picture is unlike those I learned from.") : null,
    found.words_cut ? line(`It is too long for me: I did not read the last ${found.words_cut} words.`) : null,
    found.without_picture === null ? null
      : line(`Without the picture I would be ${percent(found.without_picture)} sure of “${answer}”.`),
    make("div", { className: "foot" }, passes.length ? make("div", { className: "passes", role: "toolbar",
      ariaLabel: "Where it looked, pass by pass" }, passes) : null, copy),
  ].filter(Boolean);
}

// A question with its answer, as an item of the thread.
function answered({ fields, bound, found, item }) {
  item.classList.toggle("abstained", Boolean(found?.abstained));
  item.replaceChildren(make("h3", {}, fields.question),
    ...(found ? card(found, bound, fields) : [make("p", {}, "Looking …")]));
  return item;
}

on("ask", "submit", async (event) => {
  event.preventDefault();
  const question = $("question").value.trim(), bound = +$("bound").value, mine = shot;
  if (!question) return;
  const fields = { question, evidence: $("evidence").checked, ...chosen("answerer") };
  if (ownBound === null) fields.abstain_below = bound;
  const asked = { fields, bound, found: null, item: make("li", { className: "card" }) };
  $("question").value = "";
  mine.asked.unshift(asked);
  $("thread").prepend(answered(asked));
  try {
    const { answers: [found] } = await about(mine, "v1/answer", fields);
    asked.found = found;
    if (mine !== shot) return; // drawn when its picture is shown again
    answered(asked);
    $("heard").textContent = found.abstained ? `I am not sure. My best guess is ${found.answer}`
      : `${found.answer}, ${found.certainty}`;
    asked.item.scrollIntoView({ block: "nearest" });
  } catch (error) {
    mine.asked.splice(mine.asked.indexOf(asked), 1);
    asked.item.remove();
    if (mine === shot) $("question").value ||= question;
    complain(error, mine);
  }
});
on("bound", "input", () => {
  ownBound = null;
  $("bounded").textContent = whole($("bound").value);
});

// Copying
async function clip(button, text) {
  if (!navigator.clipboard) { prompt("To be copied:", text); return; } // neither https nor localhost
  await navigator.clipboard.writeText(text);
  const label = (button.dataset.label ??= button.textContent);
  button.textContent = $("heard").textContent = "Copied";
  setTimeout(() => { button.textContent = label; }, 1600);
}

function curl(path, fields) { // a command that does the same without this page
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const { example, name = "picture.jpg" } = shot;
  const file = example ? "-" : `"${name.replace(/["\\]/g, "\\$&")}"`;
  const token = sessionStorage.getItem("gazetell-token");
  return (example ? `curl -sS ${quoted(example.firstElementChild.src)} | ` : "")
    + `curl -sS -F ${quoted(`image=@${file}`)} `
    + (token ? '-H "Authorization: Bearer $GAZETELL_TOKEN" ' : "")
    + Object.entries(fields).map(([key, value]) => `--form-string ${quoted(`${key}=${value}`)} `).join("")
    + quoted(new URL(path, document.baseURI).href);
}

on("alt", "click", () => clip($("alt"), shot.alt_text));
on("curl", "click", () => clip($("curl"), curl("v1/caption", chosen("captioner"))));

// What is served
function follow() { // the bound of the answerer that is chosen
  ownBound = answerers.find((model) => model.name === $("answerer").value)?.not_sure_below || null;
  if (ownBound) $("bounded").textContent = whole($("bound").value = ownBound);
}
on("answerer", "change", follow);
const chosen = (kind) => ($(kind).options.length ? { model: $(kind).value } : {});
on("captioner", "change", () => {
  gaze.stop();
  gaze.pin(null);
  tell().catch((error) => complain(error, shot));
});
$("camera").hidden = !navigator.mediaDevices?.getUserMedia;
try {
  const served = await api("v1/models");
  ({ limits } = served);
  for (const button of [...$("examples").children]) { // only what its first model can judge
    if (!served.examples.includes(button.firstElementChild.src.split("/").pop())) button.remove();
  }
  $("try").hidden = !$("examples").children.length;
  $("question").maxLength = limits.question_length;
  for (const [kind, part] of [["captioner", "telling"], ["answerer", "asking"]]) {
    const models = served.models.filter((model) => model.kind === kind);
    if (kind === "answerer") answerers = models;
    $(part).hidden = !models.length;
    $(kind).hidden = models.length < 2;
    $(kind).append(...models.map((one) => new Option(one.name, one.name, one.default, one.default)));
  }
  follow();
} catch (error) {
  complain(error);
}
