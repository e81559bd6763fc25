// Pictures in, cards with answers out. Without this file the page is a plain form that the server answers.

const form = document.getElementById("form");
const input = document.getElementById("files");
const cards = document.getElementById("cards");
const answers = document.getElementById("answers");
const summary = document.getElementById("summary");

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

const waiting = []; // jobs {file, card, address} not yet sent
let jobs = []; // all jobs on the page
let active = 0;

document.documentElement.classList.add("scripting");

// ---- ways in ----

input.addEventListener("change", () => {
  add([...input.files]);
  input.value = ""; // so that the same file can be chosen again
});

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

document.getElementById("clear").addEventListener("click", () => {
  for (const job of jobs) URL.revokeObjectURL(job.address);
  waiting.length = 0;
  jobs = [];
  cards.replaceChildren();
  answers.hidden = true;
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

// ---- sending ----

function add(files) {
  if (!files.length) return;
  answers.hidden = false;
  const added = files.map(newJob);
  jobs.push(...added);
  cards.prepend(...added.map((job) => job.card));
  for (const job of added) enqueue(job);
  report();
  pump();
}

function newJob(file) {
  const card = document.getElementById("card").content.firstElementChild.cloneNode(true);
  const job = { file, card, address: URL.createObjectURL(file), state: "waiting" };
  const image = card.querySelector("img");
  card.querySelector(".kind").textContent = kindOf(file.name);
  image.addEventListener("error", () => image.remove()); // a format that this browser cannot show
  image.src = job.address;
  part(card, ".file").textContent = file.name;
  part(card, ".file").title = file.name;
  part(card, ".again").addEventListener("click", () => {
    enqueue(job);
    report();
    pump();
  });
  return job;
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
    const response = await fetch(form.dataset.predict, { method: "POST", body });
    const content = await response.json();
    if (response.ok) batch.forEach((job, place) => show(job, content.predictions[place]));
    else for (const job of batch) showFailure(job, content.detail, { again: response.status >= 500 });
  } catch {
    const text = "The server could not be reached, or the file changed meanwhile.";
    for (const job of batch) showFailure(job, text, { again: true });
  }
}

// ---- showing ----

function show(job, answer) {
  if (answer.error) {
    showFailure(job, answer.error.detail);
    return;
  }
  setState(job, answer.sure ? "answered" : "unsure", answer.sure ? answer.label : "Not sure");
  if (!answer.sure) {
    const least = `${(100 * threshold).toFixed(0)} %`;
    showNote(job, `Best guess: ${answer.label}. Below ${least} this model prefers not to decide.`);
  }
  const [first, rest] = [answer.probabilities.slice(0, shownBars), answer.probabilities.slice(shownBars)];
  fillBars(part(job.card, ".words > .bars"), first);
  const more = part(job.card, ".rest");
  more.hidden = !rest.length;
  more.querySelector("summary").textContent = `${rest.length} more`;
  fillBars(more.querySelector(".bars"), rest);
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
}

function say(text) {
  answers.hidden = false;
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
