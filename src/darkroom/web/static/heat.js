// Where in a picture a class was seen, as a veil over its preview.

const COLOUR = [217, 98, 47];
const MOST = 170; // of 255: what lies below stays visible

export function draw(canvas, weights) {
  canvas.width = weights[0].length;
  canvas.height = weights.length;
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  weights.flat().forEach((weight, place) => image.data.set([...COLOUR, Math.round(MOST * weight)], 4 * place));
  context.putImageData(image, 0, 0);
}
