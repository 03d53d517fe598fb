/** A NIfTI file, plain or gzip-compressed, read in parts straight into float32. */
import { requirePlace } from "../affine.js";
import { isGzip, opened } from "../bytes.js";
import { Problem } from "../problem.js";
import { parseHeader, restOfHeader } from "./header.js";
import { placementOf } from "./grid.js";

/** Values that are read at once. */
const PART = 2 ** 18;
/** What deflate can make of a byte at most. */
const RATIO = 1032;

/** `{channels: [Float32Array], shape, affine, unitMm, remarks}` of a file. */
export async function readNifti(file) {
  const packed = await isGzip(file);
  const stream = opened(file, packed);
  try {
    return await volumeOf(stream, file.size * (packed ? RATIO : 1));
  } finally {
    await stream.close();
  }
}

async function volumeOf(stream, most) {
  const start = await stream.take(348);
  const rest = await stream.take(restOfHeader(start));
  const bytes = new Uint8Array([...start, ...rest]);
  const header = parseHeader(bytes);
  const placement = placementOf(header);
  requirePlace(header.shape, placement.affine);
  const voxels = header.shape[0] * header.shape[1] * header.shape[2];
  if (header.voxOffset + voxels * header.channels * header.itemsize > most) {
    throw new Problem("holds fewer bytes than its header declares; it is truncated, copy it again");
  }
  await stream.skip(header.voxOffset - bytes.length);
  const channels = [];
  for (let channel = 0; channel < header.channels; channel++) {
    channels.push(await valuesOf(stream, header, voxels));
  }
  if (await stream.more()) {
    throw new Problem("holds more voxels than its header declares; it is damaged, export it again");
  }
  const remarks = [...placement.remarks, ...header.remarks];
  return { channels, shape: header.shape, ...placement, remarks };
}

async function valuesOf(stream, header, count) {
  const values = new Float32Array(count);
  for (let start = 0; start < count; start += PART) {
    const length = Math.min(PART, count - start);
    const bytes = await stream.take(length * header.itemsize);
    if (!header.little) swap(bytes, header.itemsize);
    let stored = new header.Values(bytes.buffer);
    if (typeof stored[0] === "bigint") stored = Array.from(stored, Number);
    values.set(stored, start);
  }
  scale(values, Math.fround(header.slope), Math.fround(header.intercept));
  return values;
}

function swap(bytes, itemsize) {
  for (let start = 0; start < bytes.length; start += itemsize) {
    bytes.subarray(start, start + itemsize).reverse();
  }
}

function scale(values, slope, intercept) {
  if (slope === 1 && intercept === 0) return;
  for (let index = 0; index < values.length; index++) {
    values[index] = Math.fround(values[index] * slope) + intercept;
  }
}
