// The page of `gazetell serve`. A picture goes to v1/look once; its handle stands for it after that.
import { Gaze, still } from "./gaze.js"; // of gazetell.inference

const $ = (id) => document.getElementById(id);
const on = (id, event, act) => $(id).addEventListener(event, act);
const [frame, picture, film] = ["frame", "picture", "film"].map($);
let limits = {}, shot = null, latest = new AbortController(); // shot: the picture that is shown

function make(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

// Words and passes that show where the model looked
const gaze = new Gaze({ root: document.documentElement, stage: frame, picture, canvas: $("light"),
  line: $("where"),
  onplay(playing) {
    $("play").textContent = playing ? "Stop" : "Look again";
    if (!playing) $("words").classList.remove("unfolding");
  } });

function gazeButton(label, name, attention, n) {
  const button = make("button", { type: "button", className: "gaze", ariaPressed: "false" }, label);
  gaze.add(button, attention, n, name);
  return button;
}

// The server
const ADVICE = {
  unreachable: () => "The server does not answer: see that it is running, then try again.",
  body_too_large: () => `This file is over ${(limits.body / 2 ** 20).toFixed(1)} MB: choose a smaller one.`,
  picture_too_large: () => "This picture has too many pixels: choose a smaller one.",
  picture_unreadable: () => "This file cannot be read as a picture: choose a JPEG, PNG or WebP.",
  queue_full: () => "Many are asking just now: wait a moment, then try again.",
  not_ready: () => "The model is still being loaded: wait a moment, then try again.",
  timeout: () => "This took too long: try again.",
  internal: () => "Something went wrong on the server: try again, or try another picture.",
  unauthorized: () => "Without a token this server looks at no picture: try again with one.",
};
ADVICE.unsupported_media_type = ADVICE.picture_unreadable;
ADVICE.busy = ADVICE.queue_full;
const refusal = (code, detail = "") => Object.assign(new Error(detail), { code });

for (const next of ["click", "change", "submit", "drop", "paste"]) { // what comes next takes it away
  addEventListener(next, () => { $("note").textContent = ""; }, true);
}
function complain(error) {
  if (error.name !== "AbortError") $("note").textContent = ADVICE[error.code]?.() || error.message;
}

async function api(path, body, signal) {
  const form = body instanceof FormData;
  for (;;) {
    const token = sessionStorage.getItem("gazetell-token"), headers = new Headers();
    if (token) headers.set("Authorization", `Bearer ${token}`);
    if (body && !form) headers.set("Content-Type", "application/json");
    const method = body ? "POST" : "GET", sent = form ? body : JSON.stringify(body);
    const reply = await fetch(path, { method, headers, signal, body: sent })
      .catch((error) => { throw error.name === "AbortError" ? error : refusal("unreachable"); });
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

async function send(one, signal) {
  const form = new FormData();
  form.append("image", one.file, "picture"); // its own name is nobody's business
  one.look = (await api("v1/look", form, signal)).look;
}

async function about(one, path, fields, signal) { // asks about a picture that was sent before
  const again = () => api(path, { look: one.look, ...fields }, signal);
  return again().catch((error) => {
    if (error.code !== "look_expired") throw error;
    return send(one, signal).then(again);
  });
}

// A picture
async function take(file, example = null) {
  unfilm();
  latest.abort();
  const { signal } = (latest = new AbortController());
  frame.classList.add("waiting");
  try {
    if (file.size > limits.body) throw refusal("body_too_large");
    const one = { file, example, name: file.name ?? "picture.jpg", text: "" };
    await send(one, signal);
    await unveil(one);
    if (!$("telling").hidden) await tell();
  } catch (error) {
    complain(error);
  } finally {
    if (!signal.aborted) frame.classList.remove("waiting");
  }
}

async function unveil(one) { // only a picture that the server took replaces the one before
  gaze.stop();
  gaze.pin(null);
  URL.revokeObjectURL(picture.src);
  shot = one;
  picture.src = URL.createObjectURL(one.file);
  picture.alt = "The picture you gave";
  await picture.decode().catch(() => {}); // a kind that the browser cannot show, such as TIFF
  frame.dataset.ratio = picture.naturalWidth / picture.naturalHeight || 1;
  frame.style.setProperty("--ratio", frame.dataset.ratio);
  for (const button of $("examples").children) button.ariaPressed = String(button === one.example);
  for (const id of ["thread", "words", "facts"]) $(id).replaceChildren();
  $("said").hidden = picture.hidden = $("play").hidden = false;
  document.body.classList.add("seeing");
}

async function tell() {
  const mine = shot, reply = await about(mine, "v1/caption", chosen("captioner"), latest.signal);
  if (mine !== shot) return;
  const { words, text, alt_text, ended, attention, log_prob, confidence, sure } = reply.captions[0];
  const bar = $("words"), unsure = sure === false ? "I am not sure. " : "";
  const parts = words.map((word, n) =>
    attention ? gazeButton(word, `“${word}”`, attention, n) : make("span", {}, word));
  bar.role = attention ? "toolbar" : "group";
  bar.classList.toggle("cut", !ended); // an ellipsis follows
  bar.replaceChildren(...parts.flatMap((part) => [part, " "]));
  if (!words.length) bar.textContent = "It finds no words for this picture.";
  $("facts").textContent = `${unsure}${reply.model} · `
    + (confidence === null ? `log-probability ${log_prob.toFixed(2)}` : `${percent(confidence)} sure`) + " · "
    + `${Math.round(reply.timings.total)} ms` + (attention ? "" : " · it cannot show where it looks");
  $("heard").textContent = `${unsure}It sees: ${text}`;
  Object.assign(mine, { alt_text });
  picture.alt = text;
  $("play").hidden = !attention || !words.length;
  if ($("play").hidden || still.matches) return;
  gaze.play(parts);
  bar.classList.add("unfolding");
}

on("file", "change", () => {
  if ($("file").files.length) take($("file").files[0]);
  $("file").value = "";
});
on("play", "click", () => {
  if (!$("words").textContent) tell().catch(complain);
  else if (gaze.playing) gaze.stop();
  else if ($("words").querySelector(".gaze")) gaze.play([...$("words").children]);
});
addEventListener("paste", ({ clipboardData: { files } }) => { if (files.length) take(files[0]); });
addEventListener("dragover", (event) => { event.preventDefault(); frame.classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) frame.classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  frame.classList.remove("over");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  else complain(new Error("That was no file: save the picture first, then drop its file here."));
});
for (const button of $("examples").children) {
  button.addEventListener("click", async () => {
    const blob = await fetch(button.firstElementChild.src).then((reply) => reply.blob(), () => null);
    if (blob) take(blob, button);
    else complain(refusal("unreachable"));
  });
}

on("camera", "click", async () => {
  try {
    film.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    document.body.classList.add("filming");
    film.hidden = false;
    await film.play();
    $("shutter").hidden = false;
    $("snap").focus();
  } catch {
    unfilm();
    complain(new Error("The camera cannot be used: allow it in the browser, or choose a file."));
  }
});
on("snap", "click", () => {
  const photo = make("canvas", { width: film.videoWidth, height: film.videoHeight });
  photo.getContext("2d").drawImage(film, 0, 0);
  photo.toBlob((blob) => take(blob), "image/jpeg", 0.92);
});
on("unfilm", "click", unfilm);

function unfilm() {
  const focused = $("shutter").contains(document.activeElement);
  film.srcObject?.getTracks().forEach((track) => track.stop());
  film.srcObject = null;
  $("shutter").hidden = film.hidden = true;
  document.body.classList.remove("filming");
  if (focused) $("camera").focus();
}

// Questions
const whole = (share) => `${Math.round(100 * share)} %`;
const percent = (share) => (share >= 0.995 ? ">99 %" : share < 0.01 ? "<1 %" : whole(share));

function bar(share, bound) {
  const line = make("span", { className: "bar", ariaHidden: "true" }, make("i"), bound ? make("b") : null);
  line.firstChild.style.width = `${100 * share}%`;
  if (bound) line.lastChild.style.left = `${100 * bound}%`; // a mark at what was asked for
  return line;
}

function card({ question, answer, confidence, top, abstained, attention, ...found }, bound, fields) {
  const line = (text) => make("p", {}, text), sure = `${percent(confidence)} sure`;
  const passes = (attention?.maps ?? []).map((_, n) => {
    const button = gazeButton(`Pass ${n + 1}`, `Pass ${n + 1}`, attention, n);
    button.prepend(gaze.thumbnail(button));
    return button;
  });
  const copy = make("button", { type: "button" }, "Copy as curl");
  copy.addEventListener("click", () => clip(copy, curl("v1/answer", fields)));
  return [
    make("div", { className: "answer" }, make("strong", {}, abstained ? "I am not sure." : answer),
      make("span", {}, abstained ? `${sure} at best` : sure), bar(confidence, bound)),
    abstained ? line(`My best guess is “${answer}”; you asked for at least ${whole(bound)}.`) : null,
    make("ol", { className: "top", ariaLabel: "Likeliest answers" }, top.map((one) =>
      make("li", {}, make("span", {}, one.answer), bar(one.confidence), percent(one.confidence)))),
    found.unknown_words.length ? line(`Words I never learned: ${found.unknown_words.join(", ")}.`) : null,
    found.words_cut ? line(`It is too long for me: I did not read the last ${found.words_cut} words.`) : null,
    found.without_picture === null ? null
      : line(`Without the picture I would be ${percent(found.without_picture)} sure of “${answer}”.`),
    make("div", { className: "foot" }, passes.length ? make("div", { className: "passes", role: "toolbar",
      ariaLabel: "Where it looked, pass by pass" }, passes) : null, copy),
  ].filter(Boolean);
}

on("ask", "submit", async (event) => {
  event.preventDefault();
  const question = $("question").value.trim(), bound = +$("bound").value, mine = shot;
  if (!question) return;
  const fields = { question, abstain_below: bound, evidence: $("evidence").checked, ...chosen("answerer") };
  const item = make("li", { className: "card" }, make("h3", {}, question), make("p", {}, "Looking …"));
  $("question").value = "";
  $("thread").prepend(item);
  try {
    const { answers: [found] } = await about(mine, "v1/answer", fields, latest.signal);
    if (mine !== shot) return; // about the picture before
    item.classList.toggle("abstained", found.abstained);
    item.replaceChildren(item.firstChild, ...card(found, bound, fields));
    $("heard").textContent = (found.abstained ? "I am not sure. My best guess is " : "")
      + `${found.answer}, ${percent(found.confidence)} sure`;
    item.scrollIntoView({ block: "nearest" });
    if (!still.matches && found.attention) gaze.play([...item.querySelectorAll(".gaze")]);
  } catch (error) {
    item.remove();
    if (mine === shot) $("question").value ||= question;
    complain(error);
  }
});
on("bound", "input", () => { $("bounded").textContent = whole($("bound").value); });

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
  const { example, name } = shot, file = example ? "-" : `"${name.replace(/["\\]/g, "\\$&")}"`;
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
let answerers = [];
function follow() { // the bound of the answerer that is chosen
  const bound = answerers.find((model) => model.name === $("answerer").value)?.not_sure_below;
  if (bound) $("bounded").textContent = whole($("bound").value = bound);
}
on("answerer", "change", follow);
const chosen = (kind) => ($(kind).options.length ? { model: $(kind).value } : {});
on("captioner", "change", () => { gaze.stop(); gaze.pin(null); tell().catch(complain); });
$("camera").hidden = !navigator.mediaDevices?.getUserMedia;
try {
  const served = await api("v1/models");
  ({ limits } = served);
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
