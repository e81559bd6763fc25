// Answers as files to keep, in the form of `results.py`, which answers the plain form.

const COLUMNS = ["name", "label", "confidence", "sure", "unlike", "error"]; // then follow the classes

export function toCsv(answers, classes) {
  const rows = answers.map((answer) => row(answer, classes));
  return [[...COLUMNS, ...classes.map(harmless)], ...rows].map((cells) => `${cells.map(quoted).join(",")}\r\n`).join("");
}

export function toJson(answers) {
  return `${JSON.stringify(answers, null, 2)}\n`;
}

export function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // browsers read it later than `click` returns
}

function row(answer, classes) {
  if (answer.error) return [harmless(answer.name), "", "", "", "", answer.error.detail, ...classes.map(() => "")];
  const shares = new Map(answer.probabilities.map(({ label, probability }) => [label, probability.toFixed(6)]));
  const found = classes.map((name) => shares.get(name) ?? "");
  const unlike = answer.novelty ? word(answer.novelty.unlike) : "";
  const told = [answer.confidence.toFixed(6), word(answer.sure), unlike];
  return [harmless(answer.name), harmless(answer.label), ...told, "", ...found];
}

function word(value) {
  return value ? "yes" : "no";
}

// A spreadsheet computes what begins so, and a file's name is for strangers to choose.
function harmless(text) {
  return /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
}

function quoted(cell) {
  return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}
