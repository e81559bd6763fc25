// Pictures in, cards with answers out. Without this file the page is a plain form that the server answers.

import { save, toCsv, toJson } from "./results.js";
import { draw, placeInWords } from "./heat.js";

const form = document.getElementById("form");
const input = document.getElementById("files");
const camera = document.getElementById("camera");
const key = document.getElementById("key"); // only where the server asks for one
const cards = document.getElementById("cards");
const answers = document.getElementById("answers");
const summary = document.getElementById("summary");
const spoken = document.getElementById("spoken"); // for those who do not see what a card shows
const progress = document.getElementById("progress");
const savers = { csv: document.getElementById("csv"), json: document.getElementById("json") };

const limits = {
  files: Number(form.dataset.maxFiles),
  file: Number(form.dataset.maxFileBytes),
  request: Number(form.dataset.maxRequestBytes),
};
const threshold = Number(form.dataset.threshold);
const shownBars = Number(form.dataset.bars);

// Small requests bring the first answers early; two at a time keep the server busy and the page fair to others.
const FILES_A_REQUEST = Math.min(8, limits.files);
const BYTES_A_REQUEST = Math.min(8e6, limits.request * 0.9);
const FORM_BYTES = 2000; // what the multipart form adds to the bytes of one picture
const REQUESTS_AT_ONCE = 2;
const MOST_TRIES = 4; // of a request that a busy server sends away
const LONGEST_WAIT = 30; // seconds
const UNREACHABLE = "The server could not be reached, or the file changed meanwhile.";

const KEY_WANTED = "This server asks for an API key: type it into the field for it, and try again.";
const KEY_UNKNOWN = "This server does not know that API key: type another one, and try again.";

const waiting = []; // jobs {file, card, address, state, tries, answer, map, explaining} not yet sent
let jobs = []; // all jobs on the page
let made = 0; // cards so far, which numbers them
let active = 0;

document.documentElement.classList.add("scripting");

// ---- ways in ----

for (const chooser of [input, camera]) {
  chooser.addEventListener("change", () => {
    add([...chooser.files]);
    chooser.value = ""; // so that the same file can be chosen again
  });
}

form.addEventListener("submit", (event) => event.preventDefault());

document.addEventListener("paste", (event) => add([...(event.clipboardData?.files ?? [])]));

let depth = 0; // dragenter and dragleave come for every element that is crossed
document.addEventListener("dragenter", () => document.body.classList.toggle("dragging", ++depth > 0));
document.addEventListener("dragleave", () => document.body.classList.toggle("dragging", --depth > 0));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  depth = 0;
  document.body.classList.remove("dragging");
  const files = await droppedFiles(event.dataTransfer);
  if (files.length) add(files);
  else say("No file arrived: save the picture first, then drop its file here.");
});

for (const button of document.querySelectorAll(".samples button")) {
  button.addEventListener("click", async (event) => {
    event.preventDefault(); // without this script it submits the form
    try {
      const response = await fetch(part(button, "img").src);
      if (!response.ok) throw new Error(response.statusText);
      const content = await response.blob();
      add([new File([content], `sample ${button.value}`, { type: content.type })]);
    } catch {
      say("The sample could not be fetched: is the server still there?");
    }
  });
}

document.getElementById("clear").addEventListener("click", () => {
  for (const job of jobs) URL.revokeObjectURL(job.address);
  waiting.length = 0;
  jobs = [];
  cards.replaceChildren();
  answers.toggleAttribute("data-empty", true);
  say("");
  input.focus();
});

async function droppedFiles(transfer) {
  // Entries must be taken before the first await: the list is emptied when the event is over.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [...transfer.files];
  if (!entries.some((entry) => entry.isDirectory)) return files;
  return (await Promise.all(entries.map(filesOf))).flat();
}

async function filesOf(entry) {
  if (entry.name.startsWith(".")) return [];
  if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed)); // at most 100 at a time
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map(filesOf))).flat();
}

// ---- ways out ----

savers.csv.addEventListener("click", () => {
  const classes = [...document.querySelectorAll(".classes li")].map((item) => item.textContent);
  save("answers.csv", "text/csv", toCsv(jobs.map((job) => job.answer).filter(Boolean), classes));
});

savers.json.addEventListener("click", () => {
  save("answers.json", "application/json", toJson(jobs.map((job) => job.answer).filter(Boolean)));
});

// ---- sending ----

function add(files) {
  if (!files.length) return;
  const added = files.map(newJob);
  jobs.unshift(...added);
  cards.prepend(...added.map((job) => job.card));
  answers.removeAttribute("data-empty");
  const narrow = matchMedia("(max-width: 600px)").matches; // there, they lie below what was touched, and fill the screen
  answers.scrollIntoView({ block: narrow ? "start" : "nearest" });
  for (const job of added) enqueue(job);
  report();
  pump();
}

function newJob(file) {
  const card = document.getElementById("card").content.firstElementChild.cloneNode(true);
  const job = { file, card, address: URL.createObjectURL(file), state: "waiting", tries: 0, answer: null };
  showPreview(job);
  nameCard(card, file.name);
  part(card, ".again").addEventListener("click", () => {
    job.tries = 0;
    enqueue(job);
    report();
    pump();
  });
  part(card, ".where").addEventListener("click", () => toggleMap(job));
  return job;
}

function nameCard(card, name) {
  const title = part(card, ".file");
  title.textContent = name;
  title.title = name;
  title.id = `file-${++made}`;
  for (const button of card.querySelectorAll("button")) button.setAttribute("aria-describedby", title.id);
}

function showPreview({ card, file, address }) {
  const [picture, image] = [part(card, ".picture"), part(card, "img")];
  part(card, ".kind").textContent = kindOf(file.name);
  image.addEventListener("load", () => {
    part(card, ".kind").hidden = true; // what stands there until then would shine through
    picture.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
    image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) < 100);
  });
  image.addEventListener("error", () => picture.remove()); // a format that this browser cannot show
  image.src = address;
}

function enqueue(job) {
  const most = Math.min(limits.file, limits.request - FORM_BYTES);
  if (job.file.size > most) {
    showFailure(job, `too large: ${megabytes(job.file.size)}, where ${megabytes(most)} are allowed`);
    return;
  }
  setState(job, "waiting", "Waiting…");
  waiting.push(job);
}

function nextBatch() {
  const batch = [waiting.shift()];
  let bytes = batch[0].file.size;
  while (waiting.length && batch.length < FILES_A_REQUEST && bytes + waiting[0].file.size <= BYTES_A_REQUEST) {
    bytes += waiting[0].file.size;
    batch.push(waiting.shift());
  }
  return batch;
}

function pump() {
  while (waiting.length && active < REQUESTS_AT_ONCE) {
    active += 1;
    send(nextBatch()).finally(() => {
      active -= 1;
      report();
      pump();
    });
  }
}

async function send(batch) {
  for (const job of batch) setState(job, "looking", "Looking…");
  const body = new FormData();
  for (const job of batch) body.append("files", job.file, job.file.name);
  try {
    const response = await fetch(form.dataset.predict, { method: "POST", body, headers: credentials() });
    if (isBusy(response) && batch.every((job) => ++job.tries < MOST_TRIES)) return await comeBack(batch, response);
    const content = await response.json();
    if (response.ok) batch.forEach((job, place) => show(job, content.predictions[place]));
    else for (const job of batch) showFailure(job, wrong(response, content), { again: mayBetter(response) });
  } catch {
    for (const job of batch) showFailure(job, UNREACHABLE, { again: true });
  }
}

async function comeBack(batch, response) {
  for (const job of batch) setState(job, "waiting", "The server is busy, waiting…");
  await asLongAsTold(response);
  const kept = batch.filter((job) => jobs.includes(job)); // the others were cleared away meanwhile
  waiting.unshift(...kept);
}

function asLongAsTold(response) {
  const seconds = Math.min(Number(response.headers.get("Retry-After")) || 1, LONGEST_WAIT);
  return new Promise((done) => setTimeout(done, 1000 * seconds * (1 + Math.random() / 4)));
}

function isBusy(response) {
  return response.status === 503 || response.status === 429;
}

function mayBetter(response) {
  return response.status >= 500 || response.status === 429 || response.status === 401;
}

function wrong(response, content) {
  if (response.status === 401) return key?.value ? KEY_UNKNOWN : KEY_WANTED;
  return content.detail;
}

function credentials() {
  return key?.value ? { Authorization: `Bearer ${key.value}` } : {};
}

// ---- where a class is seen ----

// Costs the server fifty answers: a map is asked for once, and kept.
async function toggleMap(job) {
  if (job.explaining) return;
  const button = part(job.card, ".where");
  if (!job.map) {
    setExplaining(job, true);
    await explain(job);
    setExplaining(job, false);
  }
  if (!job.map) return;
  const shown = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(shown));
  part(job.card, ".heat").hidden = !shown;
  tellOfMap(job, shown ? job.map : "");
}

async function explain(job, tries = 1) {
  const address = `${form.dataset.explain}?label=${encodeURIComponent(job.answer.label)}`;
  const headers = { ...credentials(), "Content-Type": "application/octet-stream" };
  try {
    const response = await fetch(address, { method: "POST", body: job.file, headers });
    if (isBusy(response) && tries < MOST_TRIES) {
      tellOfMap(job, "The server is busy, waiting…");
      await asLongAsTold(response);
      if (jobs.includes(job)) await explain(job, tries + 1);
      return;
    }
    const content = await response.json();
    if (response.ok) keepMap(job, content);
    else tellOfMap(job, wrong(response, content));
  } catch {
    tellOfMap(job, UNREACHABLE);
  }
}

function keepMap(job, { label, weights, box }) {
  const [heat, place] = [part(job.card, ".heat"), placeInWords(weights)];
  draw(heat, weights, box);
  job.map = place
    ? `What speaks for ${label} is left bright, most of it ${place}.`
    : `No single part of the picture speaks for ${label}.`;
  heat.setAttribute("aria-label", `Map over ${job.file.name}. ${job.map}`);
}

// The button stays where the keyboard is: a disabled one would lose the focus.
function setExplaining(job, explaining) {
  const button = part(job.card, ".where");
  job.explaining = explaining;
  button.setAttribute("aria-disabled", String(explaining));
  button.setAttribute("aria-busy", String(explaining));
  if (explaining) tellOfMap(job, "Looking where…");
}

function tellOfMap(job, text) {
  const legend = part(job.card, ".legend");
  legend.textContent = text;
  legend.hidden = !text;
  spoken.textContent = text && `${job.file.name}: ${text}`;
}

// ---- showing ----

function show(job, answer) {
  job.answer = answer;
  if (answer.error) {
    showFailure(job, answer.error.detail);
    return;
  }
  setState(job, answer.sure ? "answered" : "unsure", answer.sure ? answer.label : "Not sure");
  if (!answer.sure) {
    const least = `${(100 * threshold).toFixed(0)}\u202f%`;
    showNote(job, `Best guess: ${answer.label}. Below ${least} this model does not decide.`);
  }
  part(job.card, ".unlike").textContent = form.dataset.unlike;
  part(job.card, ".unlike").hidden = !answer.novelty?.unlike;
  part(job.card, ".where").hidden = false;
  const [first, rest] = [answer.probabilities.slice(0, shownBars), answer.probabilities.slice(shownBars)];
  fillBars(part(job.card, ".words > .bars"), first);
  const more = part(job.card, ".rest");
  more.hidden = !rest.length;
  part(more, "summary").textContent = `${rest.length} more`;
  fillBars(part(more, ".bars"), rest);
}

function fillBars(list, ranked) {
  list.hidden = false;
  list.replaceChildren(...ranked.map(newBar));
  // The next frame widens the bars, so that they are seen to grow.
  requestAnimationFrame(() => {
    list.querySelectorAll(".fill").forEach((fill, place) => {
      fill.setAttribute("width", `${(100 * ranked[place].probability).toFixed(2)}%`);
    });
  });
}

function newBar({ label, probability }) {
  const bar = document.getElementById("bar").content.firstElementChild.cloneNode(true);
  part(bar, ".label").textContent = label;
  part(bar, ".label").title = label;
  part(bar, ".percent").textContent = percent(probability);
  return bar;
}

function showFailure(job, text, { again = false } = {}) {
  setState(job, "failed", "No answer");
  job.answer ??= { name: job.file.name, error: { detail: text } };
  showNote(job, text);
  part(job.card, ".again").hidden = !again;
}

function showNote(job, text) {
  part(job.card, ".note").textContent = text;
  part(job.card, ".note").hidden = false;
}

function setState(job, state, verdict) {
  job.state = state;
  job.card.dataset.state = state;
  if (state === "looking") job.answer = null;
  part(job.card, ".verdict").textContent = verdict;
  part(job.card, ".note").hidden = true;
  part(job.card, ".again").hidden = true;
}

function report() {
  if (!jobs.length) return; // cleared while requests were under way
  const count = (...states) => jobs.filter((job) => states.includes(job.state)).length;
  const open = count("waiting", "looking");
  const parts = [
    [count("answered"), "answered"],
    [count("unsure"), "not sure"],
    [count("failed"), "without an answer"],
  ];
  const done = parts.filter(([number]) => number).map(([number, words]) => `${number} ${words}`).join(", ");
  say(open ? `Looking at ${open} of ${jobs.length} ${jobs.length === 1 ? "picture" : "pictures"}…` : done);
  progress.max = jobs.length;
  progress.value = jobs.length - open;
  progress.hidden = !open;
  for (const saver of Object.values(savers)) saver.hidden = open > 0;
}

function say(text) {
  summary.textContent = text;
}

function part(element, selector) {
  return element.querySelector(selector);
}

function percent(probability) {
  if (probability >= 0.9995) return ">\u200999.9\u202f%";
  return probability >= 0.0005 ? `${(100 * probability).toFixed(1)}\u202f%` : "<\u20090.1\u202f%";
}

function megabytes(bytes) {
  return bytes >= 1e5 ? `${Number((bytes / 1e6).toPrecision(3))} MB` : `${Number((bytes / 1e3).toPrecision(3))} kB`;
}

function kindOf(name) {
  const dot = name.lastIndexOf(".");
  return dot > 0 && name.length - dot <= 6 ? name.slice(dot + 1).toUpperCase() : "FILE";
}
