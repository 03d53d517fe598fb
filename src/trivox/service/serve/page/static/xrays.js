/** The X-rays of an exam as pictures. */
import { bytesOf } from "./images.js";
import { element } from "./lib/dom.js";
import { readNifti } from "./lib/nifti/read.js";

/** Parts of the pixels that are black and white. */
const BLACK = 0.01;
const WHITE = 0.995;

/** A picture for each view. */
export async function picturesOf(image) {
  const bytes = await bytesOf(image);
  const { channels, shape } = await readNifti(new File([bytes], "views.nii"));
  const [views, rows, columns] = shape;
  const size = rows * columns;
  return Array.from({ length: views }, (_, view) => {
    const values = channels[0].subarray(view * size, (view + 1) * size);
    return pictureOf(values, rows, columns, `X-ray view ${view + 1} of ${views}`);
  });
}

function pictureOf(values, height, width, text) {
  const sorted = Float32Array.from(values).sort();
  const at = (part) => sorted[Math.floor(part * (sorted.length - 1))];
  const [low, high] = [at(BLACK), at(WHITE)];
  const canvas = element("canvas", "", { width, height });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", text);
  const pen = canvas.getContext("2d");
  const picture = pen.createImageData(width, height);
  values.forEach((value, index) => {
    const grey = (255 * (value - low)) / (high - low || 1);
    picture.data.set([grey, grey, grey, 255], 4 * index);
  });
  pen.putImageData(picture, 0, 0);
  const item = element("li");
  item.append(canvas, element("p", text));
  return item;
}
