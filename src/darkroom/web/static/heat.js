// Where in a picture a class was seen, as a veil over its preview: dark where nothing speaks for the class.

const DARK = [18, 12, 9, 158]; // red, green, blue, and how thick of 255: what lies below stays visible
const GLOW = [255, 150, 80, 36];
const MIDDLE = 0.7; // the power that lifts middling weights out of the dark

const ROWS = ["top", "", "bottom"];
const COLUMNS = ["left", "", "right"];

// `box` is what the network saw: left, top, right, bottom in fractions of the picture, which the canvas' parent shows.
export function draw(canvas, weights, [left, top, right, bottom]) {
  canvas.width = weights[0].length;
  canvas.height = weights.length;
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  weights.flat().forEach((weight, place) => image.data.set(veil(weight), 4 * place));
  context.putImageData(image, 0, 0);
  const [width, height] = [right - left, bottom - top];
  for (const [side, part] of Object.entries({ left, top, width, height })) canvas.style[side] = `${100 * part}%`;
}

// The place of the largest weight; nothing where none speaks for the class.
export function placeInWords(weights) {
  const all = weights.flat();
  const most = Math.max(...all);
  if (!most) return "";
  const place = all.indexOf(most);
  const row = ROWS[third(Math.floor(place / weights[0].length), weights.length)];
  const column = COLUMNS[third(place % weights[0].length, weights[0].length)];
  if (row) return `at the ${[row, column].filter(Boolean).join(" ")}`;
  return column ? `on the ${column}` : "in the middle";
}

function third(place, number) {
  return Math.floor((3 * (place + 0.5)) / number);
}

function veil(weight) {
  const share = weight ** MIDDLE;
  return DARK.map((level, channel) => Math.round(level + share * (GLOW[channel] - level)));
}
