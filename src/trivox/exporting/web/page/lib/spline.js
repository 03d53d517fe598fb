/** Interpolation of one axis as rows of weights: for each new voxel the first old voxel
 * that it takes from, and the weights of that one and those after it. */
import { roundHalfEven } from "./numbers.js";

/** Weights below this are left out, far below float32 rounding of the sum. */
const NEGLIGIBLE = 1e-9;
/** Voxels by which the edge value is continued before splines are fitted, as scipy does. */
const PADDING = 12;
/** Poles of the filters that make B-spline coefficients of values (Unser 1993). */
const POLES = {
  2: [Math.sqrt(8) - 3],
  3: [Math.sqrt(3) - 2],
  4: [
    Math.sqrt(664 - Math.sqrt(438976)) + Math.sqrt(304) - 19,
    Math.sqrt(664 + Math.sqrt(438976)) - Math.sqrt(304) - 19,
  ],
  5: [
    Math.sqrt(67.5 - Math.sqrt(4436.25)) + Math.sqrt(26.25) - 6.5,
    Math.sqrt(67.5 + Math.sqrt(4436.25)) - Math.sqrt(26.25) - 6.5,
  ],
};

/** Voxels at a new spacing, at least one. */
export function resampledSize(size, spacing, target) {
  return Math.max(1, roundHalfEven((spacing / target) * size));
}

/** Centres of the new voxels in old voxel coordinates, not clamped. */
export function positions(size, newSize) {
  const step = size / newSize;
  return Float64Array.from({ length: newSize }, (_, index) => (index + 0.5) * step - 0.5);
}

/** Index of the old voxel nearest to each new one; halves go up. */
export function nearest(size, newSize) {
  return Int32Array.from(positions(size, newSize), (at) =>
    Math.min(Math.max(Math.floor(at + 0.5), 0), size - 1),
  );
}

/** Lower index, upper index (both clamped) and the upper one's float32 weight. */
export function neighbours(size, newSize) {
  const low = new Int32Array(newSize);
  const high = new Int32Array(newSize);
  const weight = new Float32Array(newSize);
  positions(size, newSize).forEach((centre, index) => {
    const at = Math.min(Math.max(centre, 0), size - 1);
    low[index] = Math.floor(at);
    high[index] = Math.min(low[index] + 1, size - 1);
    weight[index] = at - low[index];
  });
  return { low, high, weight };
}

/** The nearest slice alone, in the form of `neighbours`. */
export function nearestNeighbours(size, newSize) {
  const low = nearest(size, newSize);
  return { low, high: low, weight: new Float32Array(newSize) };
}

/** Rows `{first, weights}` that resize an axis by splines of an order from 0 to 5. */
export function splineRows(size, newSize, order) {
  if (order === 0) {
    return Array.from(nearest(size, newSize), (first) => ({ first, weights: [1] }));
  }
  if (order === 1 || size === 1) return linearRows(size, newSize);
  const columns = [];
  for (let voxel = 0; voxel < size; voxel++) columns.push(coefficientsOf(voxel, size, order));
  return Array.from(positions(size, newSize), (at) => {
    const basis = basisAt(at + PADDING, order, size + 2 * PADDING);
    const dense = columns.map((column) => {
      let sum = 0;
      basis.forEach(({ index, weight }) => {
        sum += column[index] * weight;
      });
      return sum;
    });
    return trimmed(dense);
  });
}

function linearRows(size, newSize) {
  const { low, high, weight } = neighbours(size, newSize);
  return Array.from(low, (first, index) => {
    const upper = weight[index];
    if (high[index] === first) return { first, weights: [1] };
    return { first, weights: [Math.fround(1 - upper), upper] };
  });
}

function trimmed(dense) {
  let first = 0;
  let end = dense.length;
  while (first < end - 1 && Math.abs(dense[first]) < NEGLIGIBLE) first++;
  while (end > first + 1 && Math.abs(dense[end - 1]) < NEGLIGIBLE) end--;
  return { first, weights: Float64Array.from(dense.slice(first, end)) };
}

/** B-spline coefficients of a signal that is 1 at one voxel of an axis and 0 elsewhere,
 * its edge values continued. */
function coefficientsOf(voxel, size, order) {
  const values = new Float64Array(size + 2 * PADDING);
  const from = voxel === 0 ? 0 : voxel + PADDING;
  const to = voxel === size - 1 ? values.length : voxel + PADDING + 1;
  values.fill(1, from, to);
  for (const pole of POLES[order]) filter(values, pole);
  return values;
}

/** The recursive filter of a pole, forwards and backwards, in place; beyond its ends the
 * signal is reflected. */
function filter(values, pole) {
  const count = values.length;
  const gain = (1 - pole) * (1 - 1 / pole);
  for (let index = 0; index < count; index++) values[index] *= gain;
  let power = pole;
  let sum = values[0];
  const start = values[0];
  const last = pole ** count;
  sum = values[0] + last * values[count - 1];
  for (let index = 1; index < count; index++) {
    sum += power * (values[index] + last * values[count - 1 - index]);
    power *= pole;
  }
  values[0] = start + (sum * pole) / (1 - last * last);
  for (let index = 1; index < count; index++) values[index] += pole * values[index - 1];
  values[count - 1] *= pole / (pole - 1);
  for (let index = count - 2; index >= 0; index--) {
    values[index] = pole * (values[index + 1] - values[index]);
  }
}

/** Which coefficients a spline of `order` takes at a position, and their weights; beyond
 * the ends they are reflected. */
function basisAt(at, order, count) {
  const middle = order % 2 ? Math.floor(at) : Math.floor(at + 0.5);
  const first = middle - Math.floor(order / 2);
  return Array.from({ length: order + 1 }, (_, step) => {
    let index = first + step;
    if (index < 0) index = -index - 1;
    if (index >= count) index = 2 * count - 1 - index;
    return { index, weight: bSpline(order, at - first - step) };
  });
}

/** The B-spline of an order at a distance from its centre, by de Boor's recursion. */
function bSpline(order, distance) {
  if (order === 0) return distance >= -0.5 && distance < 0.5 ? 1 : 0;
  const half = (order + 1) / 2;
  const left = (half + distance) * bSpline(order - 1, distance + 0.5);
  const right = (half - distance) * bSpline(order - 1, distance - 0.5);
  return (left + right) / order;
}
