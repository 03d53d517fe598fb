/** From logits on the network's grid to labels on the cropped one, slab by slab: the argmax
 * of linearly interpolated logits.
 *
 * Where all eight surrounding voxels agree on the winning class, interpolation cannot
 * change it. Elsewhere the classes that win at a corner are interpolated, and all classes
 * only where the interpolated runner-up values come near the best of those. */
import { toHalf } from "./numbers.js";
import { nearestNeighbours, neighbours } from "./spline.js";

/** Rounding of interpolated logits: what is that close is computed for all classes. */
const TIE = 1e-5;
/** Twice the relative rounding of half precision. */
const HALF_STEP = 2 ** -10;

/** Label indices (or, for regions, numbers whose bit r says that region r is there)
 * of `shape` from slabs of a grid of `size`. */
export async function restore(slabs, size, shape, { outputs, nearestAxis, exclusive, half }) {
  const corners = size.map((old, axis) =>
    axis === nearestAxis ? nearestNeighbours(old, shape[axis]) : neighbours(old, shape[axis]),
  );
  const plane = size[1] * size[2];
  const labels = exclusive ? new Int16Array(volumeOf(shape)) : new Uint32Array(volumeOf(shape));
  let rows = { start: 0, depth: 0, logits: new Float32Array(0) };
  let done = 0;
  for await (const slab of slabs) {
    rows = joined(rows, slab, outputs, plane);
    const end = rows.start + rows.depth;
    const first = done;
    while (done < shape[0] && corners[0].high[done] < end) done++;
    const decide = exclusive ? winners : regions;
    decide(new Interpolator(rows, size, outputs, half), corners, shape, first, done, labels);
    const keep = done < shape[0] ? Math.min(corners[0].low[done], end) : end;
    rows = withoutRows(rows, keep - rows.start, outputs, plane);
  }
  return labels;
}

function volumeOf(shape) {
  return shape[0] * shape[1] * shape[2];
}

function joined(held, slab, outputs, plane) {
  if (held.depth === 0) return slab;
  const depth = held.depth + slab.depth;
  const logits = new Float32Array(outputs * depth * plane);
  for (let output = 0; output < outputs; output++) {
    const target = output * depth * plane;
    const before = held.depth * plane;
    const after = slab.depth * plane;
    logits.set(held.logits.subarray(output * before, (output + 1) * before), target);
    logits.set(slab.logits.subarray(output * after, (output + 1) * after), target + before);
  }
  return { start: held.start, depth, logits };
}

function withoutRows(rows, count, outputs, plane) {
  const depth = rows.depth - count;
  const logits = new Float32Array(outputs * depth * plane);
  for (let output = 0; output < outputs; output++) {
    const start = (output * rows.depth + count) * plane;
    logits.set(rows.logits.subarray(start, start + depth * plane), output * depth * plane);
  }
  return { start: rows.start + count, depth, logits };
}

/** Logits between the voxels of some rows. */
class Interpolator {
  constructor(rows, [, height, width], outputs, half) {
    this.rows = rows;
    this.logits = rows.logits;
    this.height = height;
    this.width = width;
    this.outputs = outputs;
    this.half = half;
    this.upper = 0;
    this.stride = rows.depth * height * width;
    this.starts = new Int32Array(4);
    this.shares = new Float64Array(4);
    this.at = new Int32Array(8);
    this.share = new Float64Array(8);
  }

  /** Goes to a row of new voxels. */
  moveToRow([alongZ, alongY], z, y) {
    const { starts, shares, height, width } = this;
    for (let corner = 0; corner < 4; corner++) {
      const isBelow = corner < 2;
      const isBefore = corner % 2 === 0;
      const plane = (isBelow ? alongZ.low[z] : alongZ.high[z]) - this.rows.start;
      const row = isBefore ? alongY.low[y] : alongY.high[y];
      starts[corner] = (plane * height + row) * width;
      const first = isBelow ? 1 - alongZ.weight[z] : alongZ.weight[z];
      shares[corner] = first * (isBefore ? 1 - alongY.weight[y] : alongY.weight[y]);
    }
  }

  /** Goes to a new voxel of the row. */
  moveTo(alongX, x) {
    const { at, starts } = this;
    const low = alongX.low[x];
    const high = alongX.high[x];
    for (let corner = 0; corner < 4; corner++) {
      at[2 * corner] = starts[corner] + low;
      at[2 * corner + 1] = starts[corner] + high;
    }
    this.upper = alongX.weight[x];
  }

  /** Weighs the corners of the present voxel. */
  weigh() {
    for (let corner = 0; corner < 4; corner++) {
      this.share[2 * corner] = this.shares[corner] * (1 - this.upper);
      this.share[2 * corner + 1] = this.shares[corner] * this.upper;
    }
  }

  /** Values `(depth, y, x)` of one output at the present voxel. */
  of(values, offset) {
    let sum = 0;
    for (let corner = 0; corner < 8; corner++)
      sum += values[offset + this.at[corner]] * this.share[corner];
    return sum;
  }

  /** The logit of an output there. */
  logit(output) {
    const value = this.of(this.logits, output * this.stride);
    return this.half ? toHalf(Math.fround(value)) : Math.fround(value);
  }
}

function regions(between, corners, shape, first, end, labels) {
  let index = first * shape[1] * shape[2];
  for (let z = first; z < end; z++) {
    for (let y = 0; y < shape[1]; y++) {
      between.moveToRow(corners, z, y);
      for (let x = 0; x < shape[2]; x++, index++) {
        between.moveTo(corners[2], x);
        between.weigh();
        let present = 0;
        for (let output = 0; output < between.outputs; output++) {
          const value = Math.fround(between.of(between.logits, output * between.stride));
          if (value > 0) present |= 1 << output;
        }
        labels[index] = present;
      }
    }
  }
}

function winners(between, corners, shape, first, end, labels) {
  const { best, second } = extremes(between);
  let index = first * shape[1] * shape[2];
  for (let z = first; z < end; z++) {
    for (let y = 0; y < shape[1]; y++) {
      between.moveToRow(corners, z, y);
      for (let x = 0; x < shape[2]; x++, index++) {
        between.moveTo(corners[2], x);
        const winner = best[between.at[0]];
        labels[index] = agree(best, between.at) ? winner : winnerAt(between, best, second);
      }
    }
  }
}

function agree(best, at) {
  const first = best[at[0]];
  for (let corner = 1; corner < 8; corner++) if (best[at[corner]] !== first) return false;
  return true;
}

/** The class of the largest logit of each voxel, and the second largest logit. */
function extremes({ logits, outputs, stride }) {
  const best = new Int16Array(stride);
  const highest = logits.slice(0, stride);
  const second = new Float32Array(stride).fill(-Infinity);
  for (let output = 1; output < outputs; output++) {
    const offset = output * stride;
    for (let index = 0; index < stride; index++) {
      const value = logits[offset + index];
      if (value > highest[index]) {
        second[index] = highest[index];
        highest[index] = value;
        best[index] = output;
      } else if (value > second[index]) {
        second[index] = value;
      }
    }
  }
  return { best, second };
}

function winnerAt(between, best, second) {
  between.weigh();
  let winner = -1;
  let most = -Infinity;
  for (const corner of between.at) {
    const candidate = best[corner];
    if (candidate === winner) continue;
    const value = between.logit(candidate);
    if (value > most || (value === most && candidate < winner)) [most, winner] = [value, candidate];
  }
  if (between.outputs < 3) return winner;
  const near = between.half ? TIE + HALF_STEP * Math.abs(most) : TIE;
  if (between.of(second, 0) < most - near) return winner;
  return winnerOfAll(between);
}

function winnerOfAll(between) {
  let winner = 0;
  let most = between.logit(0);
  for (let output = 1; output < between.outputs; output++) {
    const value = between.logit(output);
    if (value > most) [most, winner] = [value, output];
  }
  return winner;
}
