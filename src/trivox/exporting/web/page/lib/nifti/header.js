/** Headers of single-file NIfTI-1 and NIfTI-2. */
import { Problem } from "../problem.js";

const TYPES = {
  2: [Uint8Array, 1],
  4: [Int16Array, 2],
  8: [Int32Array, 4],
  16: [Float32Array, 4],
  64: [Float64Array, 8],
  256: [Int8Array, 1],
  512: [Uint16Array, 2],
  768: [Uint32Array, 4],
  1024: [BigInt64Array, 8],
  1280: [BigUint64Array, 8],
};

/** The rest of a NIfTI-2 header, which is longer. */
export function restOfHeader(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const sizes = [view.getInt32(0, true), view.getInt32(0, false)];
  if (sizes.includes(540)) return 540 - 348;
  if (sizes.includes(348)) return 0;
  throw new Problem("is no NIfTI file; check which program wrote it");
}

/** What a header says: shape (z, y, x), channels, type and scaling of the voxels, where
 * they begin, and the raw numbers of its placement. */
export function parseHeader(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const little = [348, 540].includes(view.getInt32(0, true));
  const headerSize = view.getInt32(0, little);
  const raw = headerSize === 348 ? first(view, little) : second(view, little);
  if (raw.magic !== "n+1" && raw.magic !== "n+2") {
    throw new Problem("is no single-file NIfTI (its magic is not n+1 or n+2); store it as .nii");
  }
  const type = TYPES[raw.datatype];
  if (!type) {
    throw new Problem(
      `holds voxels of NIfTI type ${raw.datatype} (colour, complex or extended), which are ` +
        "not supported; convert the file",
    );
  }
  const { shape, channels } = sizesOf(raw.dim);
  return {
    ...raw,
    ...scalingOf(raw),
    headerSize,
    little,
    shape,
    channels,
    axes: raw.dim[0],
    Values: type[0],
    itemsize: type[1],
    voxOffset: Math.max(Math.trunc(raw.voxOffset) || 0, headerSize + 4),
  };
}

function numbers(count, read) {
  return Array.from({ length: count }, (_, index) => read(index));
}

function first(view, little) {
  const float = (at) => view.getFloat32(at, little);
  const short = (at) => view.getInt16(at, little);
  return {
    magic: magicAt(view, 344),
    dim: numbers(8, (index) => short(40 + 2 * index)),
    datatype: short(70),
    pixdim: numbers(8, (index) => float(76 + 4 * index)),
    voxOffset: float(108),
    slope: float(112),
    intercept: float(116),
    units: view.getUint8(123),
    qformCode: short(252),
    sformCode: short(254),
    quaternion: numbers(3, (index) => float(256 + 4 * index)),
    offset: numbers(3, (index) => float(268 + 4 * index)),
    srows: numbers(3, (row) => numbers(4, (column) => float(280 + 16 * row + 4 * column))),
  };
}

function second(view, little) {
  const double = (at) => view.getFloat64(at, little);
  const long = (at) => Number(view.getBigInt64(at, little));
  const int = (at) => view.getInt32(at, little);
  return {
    magic: magicAt(view, 4),
    dim: numbers(8, (index) => long(16 + 8 * index)),
    datatype: view.getInt16(12, little),
    pixdim: numbers(8, (index) => double(104 + 8 * index)),
    voxOffset: long(168),
    slope: double(176),
    intercept: double(184),
    units: int(500),
    qformCode: int(344),
    sformCode: int(348),
    quaternion: numbers(3, (index) => double(352 + 8 * index)),
    offset: numbers(3, (index) => double(376 + 8 * index)),
    srows: numbers(3, (row) => numbers(4, (column) => double(400 + 32 * row + 8 * column))),
  };
}

function magicAt(view, at) {
  return numbers(3, (index) => String.fromCharCode(view.getUint8(at + index))).join("");
}

/** `(z, y, x)` and channels from `(x, y, z, t, c, ...)`, where t or c must be 1. */
function sizesOf(dim) {
  const count = dim[0];
  if (count < 1 || count > 7) throw new Problem(`declares ${count} axes; the file is damaged`);
  const size = dim.slice(1, count + 1);
  while (size.length > 3 && size.at(-1) === 1) size.pop();
  if (size.length === 5 && size[3] === 1) size.splice(3, 1);
  if (size.length < 2 || size.length > 4) {
    throw new Problem(
      `an image of size ${size.join(" x ")} is not 3-D with one kind of channel; split it`,
    );
  }
  while (size.length < 4) size.push(1);
  const [x, y, z, channels] = size;
  if (Math.min(...size) < 1) {
    throw new Problem(`declares a size of ${size.join(" x ")}; the file is damaged`);
  }
  return { shape: [z, y, x], channels };
}

/** A slope of 0 is called unset by the standard; one that is no number is unset as well. */
function scalingOf({ slope, intercept }) {
  if (slope === 0 || !Number.isFinite(slope)) {
    const isSaid = Math.abs(slope) === Infinity;
    const remarks = isSaid ? ["scl_slope is infinite: values are read as they are stored"] : [];
    return { slope: 1, intercept: 0, remarks };
  }
  if (!Number.isFinite(intercept)) {
    throw new Problem(
      `scales its values by ${slope} and adds ${intercept}; repair scl_slope and scl_inter`,
    );
  }
  return { slope, intercept, remarks: [] };
}
