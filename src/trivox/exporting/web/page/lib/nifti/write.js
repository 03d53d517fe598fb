/** NIfTI files of one channel: the affine as sform and, if it is not sheared, as qform. */
import { determinant, directionsOf, isSheared, spacingOf } from "../affine.js";
import { deflated } from "../bytes.js";

const UNITS = { 1000: 1, 1: 2, 0.001: 3 };
const CODES = new Map([
  [Uint8Array, 2],
  [Int16Array, 4],
  [Int32Array, 8],
  [Float32Array, 16],
  [Int8Array, 256],
  [Uint16Array, 512],
  [Uint32Array, 768],
]);
const LARGEST = 32767;

/** A gzip-compressed file as a blob. */
export function packedNifti(volume) {
  return deflated([headerOf(volume), volume.data]);
}

/** A plain file in one buffer, for the viewer. */
export function plainNifti(volume) {
  const header = headerOf(volume);
  const bytes = new Uint8Array(header.length + volume.data.byteLength);
  bytes.set(header);
  const { buffer, byteOffset, byteLength } = volume.data;
  bytes.set(new Uint8Array(buffer, byteOffset, byteLength), header.length);
  return bytes.buffer;
}

/** The header of `{data, shape, affine, unitMm}` and the four zeros after it. */
export function headerOf({ data, shape, affine, unitMm = 1 }) {
  const raw = {
    dim: [3, shape[2], shape[1], shape[0], 1, 1, 1, 1],
    datatype: CODES.get(data.constructor),
    bits: 8 * data.BYTES_PER_ELEMENT,
    units: UNITS[unitMm] ?? 2,
    affine: affine.map((row, index) => (index < 3 ? row.map((value) => value / unitMm) : row)),
  };
  raw.spacing = spacingOf(raw.affine);
  raw.turn = isSheared(raw.affine) ? null : quaternionOf(raw.affine);
  return Math.max(...shape) > LARGEST ? second(raw) : first(raw);
}

function first(raw) {
  const bytes = new Uint8Array(352);
  const view = new DataView(bytes.buffer);
  const float = (at, value) => view.setFloat32(at, value, true);
  const short = (at, value) => view.setInt16(at, value, true);
  view.setInt32(0, 348, true);
  raw.dim.forEach((size, index) => short(40 + 2 * index, size));
  short(70, raw.datatype);
  short(72, raw.bits);
  [raw.turn?.handedness ?? 1, ...raw.spacing.toReversed(), 1, 1, 1, 1].forEach((size, index) =>
    float(76 + 4 * index, size),
  );
  float(108, 352);
  float(112, 1);
  view.setUint8(123, raw.units);
  short(252, raw.turn ? 1 : 0);
  short(254, 1);
  raw.turn?.quaternion.forEach((value, index) => float(256 + 4 * index, value));
  for (let row = 0; row < 3; row++) {
    if (raw.turn) float(268 + 4 * row, raw.affine[row][3]);
    raw.affine[row].forEach((value, column) => float(280 + 16 * row + 4 * column, value));
  }
  bytes.set([0x6e, 0x2b, 0x31, 0], 344);
  return bytes;
}

function second(raw) {
  const bytes = new Uint8Array(544);
  const view = new DataView(bytes.buffer);
  const double = (at, value) => view.setFloat64(at, value, true);
  const int = (at, value) => view.setInt32(at, value, true);
  const long = (at, value) => view.setBigInt64(at, BigInt(value), true);
  int(0, 540);
  bytes.set([0x6e, 0x2b, 0x32, 0, 0x0d, 0x0a, 0x1a, 0x0a], 4);
  view.setInt16(12, raw.datatype, true);
  view.setInt16(14, raw.bits, true);
  raw.dim.forEach((size, index) => long(16 + 8 * index, size));
  [raw.turn?.handedness ?? 1, ...raw.spacing.toReversed(), 1, 1, 1, 1].forEach((size, index) =>
    double(104 + 8 * index, size),
  );
  long(168, 544);
  double(176, 1);
  int(344, raw.turn ? 1 : 0);
  int(348, 1);
  raw.turn?.quaternion.forEach((value, index) => double(352 + 8 * index, value));
  for (let row = 0; row < 3; row++) {
    if (raw.turn) double(376 + 8 * row, raw.affine[row][3]);
    raw.affine[row].forEach((value, column) => double(400 + 32 * row + 8 * column, value));
  }
  int(500, raw.units);
  return bytes;
}

/** The rotation of an affine as (b, c, d), and -1 where its third axis is turned round. */
function quaternionOf(affine) {
  const rows = directionsOf(affine);
  const handedness = determinant(affine) < 0 ? -1 : 1;
  const [[xx, xy, xz], [yx, yy, yz], [zx, zy, zz]] = rows.map(([x, y, z]) => [
    x,
    y,
    z * handedness,
  ]);
  // the largest of the four is the one to divide by (Shepperd 1978)
  const [squareW, squareX, squareY] = [1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz];
  const squareZ = 1 - xx - yy + zz;
  const largest = Math.max(squareW, squareX, squareY, squareZ);
  const half = Math.sqrt(largest);
  let four;
  if (largest === squareW) four = [largest, zy - yz, xz - zx, yx - xy];
  else if (largest === squareX) four = [zy - yz, largest, xy + yx, xz + zx];
  else if (largest === squareY) four = [xz - zx, xy + yx, largest, yz + zy];
  else four = [yx - xy, xz + zx, yz + zy, largest];
  const sign = four[0] < 0 ? -1 : 1;
  return { handedness, quaternion: four.slice(1).map((value) => (sign * value) / (2 * half)) };
}
