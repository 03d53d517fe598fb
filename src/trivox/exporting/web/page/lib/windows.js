/** Sliding windows that give finished slabs of logits along z; nothing of the size
 * classes x volume is ever held. */
import { roundHalfEven, toHalf } from "./numbers.js";
import { Problem } from "./problem.js";
import { HalfSums, SingleSums } from "./sums.js";

/** First voxels of the windows that cover an axis, evenly spread, as nnU-Net has them. */
export function windowStarts(size, patch, overlap) {
  if (size <= patch) return [0];
  const room = size - patch;
  const steps = Math.ceil(room / (patch * (1 - overlap)));
  const step = room / steps;
  const starts = new Set();
  for (let index = 0; index <= steps; index++) starts.add(roundHalfEven(index * step));
  return [...starts].sort((one, other) => one - other);
}

/** All combinations of flipped axes, the unflipped first. */
export function mirrored(axes, half) {
  const copies = [];
  for (let number = 0; number < 2 ** axes.length; number++) {
    copies.push(axes.filter((_, index) => (number >> (axes.length - 1 - index)) & 1));
  }
  if (half) {
    copies.sort((one, other) => one.length - other.length || compare(one, other));
  }
  return copies;
}

function compare(one, other) {
  for (let index = 0; index < one.length; index++) {
    if (one[index] !== other[index]) return one[index] - other[index];
  }
  return 0;
}

export class SlidingWindows {
  /** networks: functions from a window `(channels, z, y, x)` to its logits; seen: is told
   * after each window how many are done. */
  constructor(networks, pipeline, seen = () => {}) {
    this.networks = networks;
    this.patch = pipeline.patch_size;
    this.overlap = pipeline.overlap;
    this.half = pipeline.grid.sums === "half";
    this.flips = mirrored(pipeline.mirror_axes, this.half);
    this.outputs = pipeline.outputs;
    this.seen = seen;
  }

  /** First voxels of the windows along each axis of an image of `shape`. */
  starts(shape) {
    return this.padded(shape).map((size, axis) =>
      windowStarts(size, this.patch[axis], this.overlap),
    );
  }

  /** How many times windows are computed for an image. */
  count(shape) {
    const windows = this.starts(shape).reduce((product, axis) => product * axis.length, 1);
    return windows * this.networks.length;
  }

  /** Slabs `{start, depth, logits}` in order of z that together cover the image
   * `{channels, shape}` exactly once; logits are `(outputs, depth, y, x)`. */
  async *slabs(image) {
    if (!this.half || this.networks.length === 1) {
      yield* this.slabsOf(image, this.networks);
      return;
    }
    const streams = this.networks.map((network) => this.slabsOf(image, [network]));
    const count = streams.length;
    for await (const first of streams[0]) {
      const others = [];
      for (const stream of streams.slice(1)) others.push((await stream.next()).value);
      addHalves(
        first.logits,
        others.map((other) => other.logits),
        count,
      );
      yield first;
    }
  }

  async *slabsOf(image, networks) {
    const size = this.padded(image.shape);
    const before = size.map((voxels, axis) => Math.floor((voxels - image.shape[axis]) / 2));
    const starts = this.starts(image.shape);
    const copies = networks.length * this.flips.length;
    const sums = this.half
      ? new HalfSums(this.outputs, this.patch, size, copies)
      : new SingleSums(this.outputs, this.patch, size, starts, copies);
    const ends = [...starts[0].slice(1), size[0]];
    for (const [layer, z] of starts[0].entries()) {
      for (const y of starts[1]) {
        for (const x of starts[2]) {
          const window = cut(image, [z - before[0], y - before[1], x - before[2]], this.patch);
          sums.add(await this.logitsOf(window, image.channels.length, networks), [z, y, x]);
        }
      }
      const slab = this.finished(sums, z, ends[layer] - z, before, image.shape);
      if (slab.depth > 0) yield slab;
      sums.advance(ends[layer] - z);
    }
  }

  padded(shape) {
    return shape.map((size, axis) => Math.max(size, this.patch[axis]));
  }

  /** Sum of the logits over networks and mirrored copies. */
  async logitsOf(window, channels, networks) {
    let total = null;
    for (const flip of this.flips) {
      const copy = flipped(window, channels, this.patch, flip);
      for (const network of networks) {
        const logits = flipped(await network(copy), this.outputs, this.patch, flip);
        if (total === null) {
          total = new Float32Array(logits);
        } else {
          for (let index = 0; index < total.length; index++) total[index] += logits[index];
        }
        this.seen(1 / this.flips.length);
      }
    }
    return total;
  }

  /** The rows that no further window reaches, without the padding. */
  finished(sums, start, count, before, [depth, height, width]) {
    const first = Math.max(start - before[0], 0);
    const end = Math.min(start + count - before[0], depth);
    const rows = Math.max(end - first, 0);
    const logits = new Float32Array(this.outputs * rows * height * width);
    const plane = new Float32Array(sums.plane);
    let target = 0;
    let total = 0;
    for (let output = 0; output < this.outputs; output++) {
      for (let row = 0; row < rows; row++) {
        sums.mean(output, first + before[0] - start + row, start, plane);
        for (let y = 0; y < height; y++, target += width) {
          const at = (y + before[1]) * sums.width + before[2];
          const line = plane.subarray(at, at + width);
          for (const value of line) total += value;
          logits.set(line, target);
        }
      }
    }
    if (!Number.isFinite(total)) {
      throw new Problem("The network gives NaN or infinity for this image, no answer.");
    }
    return { start: first, depth: rows, logits };
  }
}

/** A window of an image, zero beyond its edges. */
function cut({ channels, shape }, origin, patch) {
  const [depth, height, width] = patch;
  const window = new Float32Array(channels.length * depth * height * width);
  const from = Math.max(origin[2], 0);
  const to = Math.min(origin[2] + width, shape[2]);
  channels.forEach((values, channel) => {
    for (let z = 0; z < depth; z++) {
      const plane = origin[0] + z;
      if (plane < 0 || plane >= shape[0]) continue;
      for (let y = 0; y < height; y++) {
        const row = origin[1] + y;
        if (row < 0 || row >= shape[1]) continue;
        const source = (plane * shape[1] + row) * shape[2];
        const target = ((channel * depth + z) * height + y) * width - origin[2];
        window.set(values.subarray(source + from, source + to), target + from);
      }
    }
  });
  return window;
}

/** `(channels, z, y, x)` mirrored along axes of the volume. */
export function flipped(values, channels, [depth, height, width], axes) {
  if (axes.length === 0) return values;
  const [backZ, backY, backX] = [0, 1, 2].map((axis) => axes.includes(axis));
  const result = new Float32Array(values.length);
  for (let channel = 0; channel < channels; channel++) {
    for (let z = 0; z < depth; z++) {
      const plane = channel * depth + (backZ ? depth - 1 - z : z);
      for (let y = 0; y < height; y++) {
        const source = (plane * height + (backY ? height - 1 - y : y)) * width;
        const row = values.subarray(source, source + width);
        const target = ((channel * depth + z) * height + y) * width;
        result.set(row, target);
        if (backX) result.subarray(target, target + width).reverse();
      }
    }
  }
  return result;
}

function addHalves(total, others, count) {
  for (let index = 0; index < total.length; index++) {
    let sum = total[index];
    for (const other of others) sum = toHalf(sum + other[index]);
    total[index] = toHalf(sum / count);
  }
}
