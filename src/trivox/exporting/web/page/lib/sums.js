/** Weighted sums of windows of logits, layer by layer, that become a mean: in single
 * precision, or step by step in half precision as nnU-Net has it. */
import { toHalf } from "./numbers.js";

/** Standard deviation of the window weight as a share of the patch. */
const SIGMA = 1 / 8;
/** Smallest weight along an axis relative to its peak. */
const WEIGHT_FLOOR = 1e-4;
const HALF_PEAK = 10;

/** Gaussian weight along one axis, peak 1 at voxel `patch // 2`. */
export function axisWeight(patch) {
  return bell(patch).map((weight) => Math.max(weight, Math.fround(WEIGHT_FLOOR)));
}

function bell(patch) {
  const width = Math.fround(patch * SIGMA);
  return Float32Array.from({ length: patch }, (_, index) => {
    const deviation = Math.fround((index - Math.floor(patch / 2)) / width);
    return Math.exp(Math.fround(-0.5 * Math.fround(deviation * deviation)));
  });
}

/** What both kinds of sums share: rows `(outputs, patch depth, y, x)`. */
class Rows {
  constructor(channels, patch, [, height, width]) {
    this.channels = channels;
    this.patch = patch;
    this.height = height;
    this.width = width;
    this.plane = height * width;
    this.values = new Float32Array(channels * patch[0] * this.plane);
  }

  /** Calls `visit(row, window)` with indices in the rows and in a window of one channel. */
  eachOf(channel, [, y, x], visit) {
    const [depth, height, width] = this.patch;
    let index = 0;
    for (let z = 0; z < depth; z++) {
      for (let row = 0; row < height; row++) {
        let at = (channel * depth + z) * this.plane + (y + row) * this.width + x;
        for (let column = 0; column < width; column++) visit(at++, index++);
      }
    }
  }

  /** Moves the rows towards the front; zeros follow. */
  advance(steps) {
    const depth = this.patch[0] * this.plane;
    for (let channel = 0; channel < this.channels; channel++) {
      const start = channel * depth;
      this.values.copyWithin(start, start + steps * this.plane, start + depth);
      this.values.fill(0, start + depth - steps * this.plane, start + depth);
    }
  }
}

export class SingleSums extends Rows {
  /** copies: networks x mirrored copies that a window is the sum of. */
  constructor(outputs, patch, size, starts, copies) {
    super(outputs, patch, size);
    this.outputs = outputs;
    const weights = patch.map(axisWeight);
    this.totals = weights.map((weight, axis) => totalWeight(starts[axis], weight, size[axis]));
    this.weight = outer(weights).map((weight) => weight / copies);
  }

  /** Adds the logits of a window at its place. */
  add(window, place) {
    const { values, weight } = this;
    const size = weight.length;
    for (let output = 0; output < this.outputs; output++) {
      const first = output * size;
      this.eachOf(output, place, (at, index) => {
        values[at] += window[first + index] * weight[index];
      });
    }
  }

  /** Mean logits of an output at a row, written to `target`. */
  mean(output, row, start, target) {
    const [alongZ, alongY, alongX] = this.totals;
    let at = (output * this.patch[0] + row) * this.plane;
    let index = 0;
    for (let y = 0; y < this.height; y++) {
      const share = Math.fround(alongZ[start + row] * alongY[y]);
      for (let x = 0; x < this.width; x++) {
        target[index++] = this.values[at++] / Math.fround(share * alongX[x]);
      }
    }
  }
}

export class HalfSums extends Rows {
  constructor(outputs, patch, size, copies) {
    super(outputs + 1, patch, size);
    this.outputs = outputs;
    this.copies = copies;
    this.weight = halfWeight(patch);
  }

  /** Adds the logits of a window at its place, and its weights to the last channel. */
  add(window, place) {
    const { values, weight, copies } = this;
    const size = weight.length;
    for (let output = 0; output < this.outputs; output++) {
      const first = output * size;
      this.eachOf(output, place, (at, index) => {
        const share = Math.fround(window[first + index] / copies);
        values[at] = toHalf(Math.fround(values[at] + Math.fround(share * weight[index])));
      });
    }
    this.eachOf(this.outputs, place, (at, index) => {
      values[at] = toHalf(Math.fround(values[at] + weight[index]));
    });
  }

  /** See `SingleSums`. */
  mean(output, row, _, target) {
    let at = (output * this.patch[0] + row) * this.plane;
    let weight = (this.outputs * this.patch[0] + row) * this.plane;
    for (let index = 0; index < target.length; index++) {
      target[index] = toHalf(Math.fround(this.values[at++] / this.values[weight++]));
    }
  }
}

function halfWeight(patch) {
  const axes = patch.map(bell);
  const weights = new Float32Array(patch[0] * patch[1] * patch[2]);
  let least = Infinity;
  let index = 0;
  for (const z of axes[0]) {
    for (const y of axes[1]) {
      for (const x of axes[2]) {
        const weight = toHalf(HALF_PEAK * (z * y * x));
        if (weight > 0 && weight < least) least = weight;
        weights[index++] = weight;
      }
    }
  }
  return weights.map((weight) => Math.max(weight, least));
}

function outer([alongZ, alongY, alongX]) {
  const product = new Float32Array(alongZ.length * alongY.length * alongX.length);
  let index = 0;
  for (const z of alongZ) {
    for (const y of alongY) {
      const share = Math.fround(z * y);
      for (const x of alongX) product[index++] = share * x;
    }
  }
  return product;
}

function totalWeight(starts, weight, size) {
  const total = new Float32Array(size);
  for (const start of starts) {
    weight.forEach((value, index) => {
      total[start + index] += value;
    });
  }
  return total;
}
