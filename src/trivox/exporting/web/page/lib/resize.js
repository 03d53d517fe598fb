/** Images and masks on another grid, one axis after the other. */
import { rangeOf } from "./normalise.js";
import { nearest, neighbours, splineRows } from "./spline.js";

/** Multiplies an axis (0, 1, 2 for z, y, x) of float32 `values` by rows of weights. */
export function applyAlong(values, shape, rows, axis) {
  const newShape = [...shape];
  newShape[axis] = rows.length;
  const inner = shape.slice(axis + 1).reduce((product, size) => product * size, 1);
  const outer = shape.slice(0, axis).reduce((product, size) => product * size, 1);
  const result = new Float32Array(outer * rows.length * inner);
  if (inner === 1) {
    multiplyLines(values, shape[axis], rows, result);
    return { values: result, shape: newShape };
  }
  const sums = new Float64Array(inner);
  let target = 0;
  for (let block = 0; block < outer; block++) {
    const start = block * shape[axis] * inner;
    for (const { first, weights } of rows) {
      sums.fill(0);
      let source = start + first * inner;
      for (const weight of weights) {
        for (let index = 0; index < inner; index++) sums[index] += weight * values[source + index];
        source += inner;
      }
      result.set(sums, target);
      target += inner;
    }
  }
  return { values: result, shape: newShape };
}

/** The same where the axis is the last one: line by line. */
function multiplyLines(values, length, rows, result) {
  const firsts = Int32Array.from(rows, ({ first }) => first);
  const ends = [];
  for (const { weights } of rows) ends.push((ends.at(-1) ?? 0) + weights.length);
  const weights = Float64Array.from(rows.flatMap((row) => Array.from(row.weights)));
  let target = 0;
  for (let start = 0; start < values.length; start += length) {
    let at = 0;
    for (let row = 0; row < rows.length; row++) {
      let source = start + firsts[row];
      let sum = 0;
      for (; at < ends[row]; at++) sum += weights[at] * values[source++];
      result[target++] = sum;
    }
  }
}

/** Takes slices of an axis. */
function selected(values, shape, slices, axis) {
  const rows = Array.from(slices, (first) => ({ first, weights: [1] }));
  return applyAlong(values, shape, rows, axis);
}

function clip(values, low, high) {
  for (let index = 0; index < values.length; index++) {
    if (values[index] < low) values[index] = low;
    else if (values[index] > high) values[index] = high;
  }
}

/** A channel resized by splines and clipped to its old range; along `nearestAxis` the
 * nearest slice is taken instead. */
export function resizeImage(channel, sizes, shape, order, nearestAxis) {
  let changed = [0, 1, 2].filter((axis) => shape[axis] !== sizes[axis]);
  if (changed.length === 0) return channel;
  const { low, high } = rangeOf(channel);
  let part = { values: channel, shape: sizes };
  if (nearestAxis !== null && changed.includes(nearestAxis)) {
    const slices = nearest(sizes[nearestAxis], shape[nearestAxis]);
    part = selected(part.values, part.shape, slices, nearestAxis);
    changed = changed.filter((axis) => axis !== nearestAxis);
  }
  // shrink first, grow last
  changed.sort((one, other) => shape[one] / sizes[one] - shape[other] / sizes[other]);
  for (const axis of changed) {
    const rows = splineRows(sizes[axis], shape[axis], order);
    part = applyAlong(part.values, part.shape, rows, axis);
  }
  if (changed.length > 0 && order > 1) clip(part.values, low, high);
  return part.values;
}

/** A channel resized slice by slice, each clipped to its own range, then along `axis` by
 * splines of `orderAcross`: what nnU-Net does with anisotropic scans. */
export function resizeSlices(channel, sizes, shape, axis, order, orderAcross) {
  let part = { values: channel, shape: sizes };
  const ranges = slicesOf(channel, sizes, axis).map(rangeOf);
  for (const other of [0, 1, 2]) {
    if (other === axis || shape[other] === sizes[other]) continue;
    const rows = splineRows(sizes[other], shape[other], order);
    part = applyAlong(part.values, part.shape, rows, other);
  }
  clipSlices(part, axis, ranges, part.values === channel);
  if (shape[axis] === sizes[axis]) return part.values;
  if (orderAcross === 0) {
    return selected(part.values, part.shape, nearest(sizes[axis], shape[axis]), axis).values;
  }
  const rows = splineRows(sizes[axis], shape[axis], orderAcross);
  return applyAlong(part.values, part.shape, rows, axis).values;
}

/** Copies of the slices along an axis. */
function slicesOf(values, shape, axis) {
  return Array.from(
    { length: shape[axis] },
    (_, slice) => selected(values, shape, [slice], axis).values,
  );
}

function clipSlices({ values, shape }, axis, ranges, unchanged) {
  if (unchanged) return;
  const inner = shape.slice(axis + 1).reduce((product, size) => product * size, 1);
  const count = values.length / inner;
  for (let block = 0; block < count; block++) {
    const { low, high } = ranges[block % shape[axis]];
    clip(values.subarray(block * inner, (block + 1) * inner), low, high);
  }
}

/** A mask of zeros and ones resized by the linear vote; equal weights give zero. */
export function resizeMask(mask, sizes, shape, nearestAxis) {
  let values = Float32Array.from(mask);
  let old = sizes;
  if (nearestAxis !== null && sizes[nearestAxis] !== shape[nearestAxis]) {
    const slices = nearest(sizes[nearestAxis], shape[nearestAxis]);
    ({ values, shape: old } = selected(values, sizes, slices, nearestAxis));
  }
  if (old.join() === shape.join()) return values;
  const [alongZ, alongY, alongX] = old.map((size, axis) => neighbours(size, shape[axis]));
  const result = new Float32Array(shape[0] * shape[1] * shape[2]);
  let index = 0;
  for (let z = 0; z < shape[0]; z++) {
    for (let y = 0; y < shape[1]; y++) {
      for (let x = 0; x < shape[2]; x++, index++) {
        result[index] = voteAt(values, old, [alongZ, alongY, alongX], [z, y, x]);
      }
    }
  }
  return result;
}

/** The sums are rounded as float32 sums are, so that ties are ties. */
function voteAt(values, [, height, width], axes, voxel) {
  let ones = 0;
  let all = 0;
  let least = 1;
  for (let corner = 0; corner < 8; corner++) {
    let at = 0;
    let share = 1;
    for (let axis = 0; axis < 3; axis++) {
      const { low, high, weight } = axes[axis];
      const upper = (corner >> (2 - axis)) & 1;
      const place = voxel[axis];
      const index = upper ? high[place] : low[place];
      at = at * [1, height, width][axis] + index;
      share = Math.fround(share * (upper ? weight[place] : Math.fround(1 - weight[place])));
    }
    all = Math.fround(all + share);
    if (values[at] === 0) {
      ones = Math.fround(ones + share);
      least = 0;
    }
  }
  if (least === 1) return 1;
  return ones >= Math.fround(all - ones) ? 0 : 1;
}
