/** How the axes of a source array become canonical ones, and how arrays move between the
 * source's grid and the cropped one, whose axes are in the network's order. */
import { directionsOf } from "./affine.js";

const ORDERS = [
  [0, 1, 2],
  [0, 2, 1],
  [1, 0, 2],
  [1, 2, 0],
  [2, 0, 1],
  [2, 1, 0],
];

export const AS_STORED = { axes: [0, 1, 2], flips: [false, false, false] };

/** For each canonical axis (z, y, x) the source axis it comes from, and whether it runs
 * backwards: increasing x, y, z then point most nearly to right, anterior, superior. */
export function canonicalOrientation(affine) {
  const directions = directionsOf(affine);
  let best = null;
  let most = -1;
  for (const order of ORDERS) {
    let sum = 0;
    for (let world = 0; world < 3; world++) sum += Math.abs(directions[world][order[world]]);
    if (sum > most) [most, best] = [sum, order];
  }
  return {
    axes: [2, 1, 0].map((world) => 2 - best[world]),
    flips: [2, 1, 0].map((world) => directions[world][best[world]] < 0),
  };
}

/** The smallest box that holds all voxels which are not zero in every channel, in the
 * source's axes; all of it if there are none. */
export function nonzeroBox(channels, [depth, height, width]) {
  const low = [depth, height, width];
  const high = [0, 0, 0];
  for (const values of channels) {
    let index = 0;
    for (let z = 0; z < depth; z++) {
      for (let y = 0; y < height; y++, index += width) {
        let first = 0;
        while (first < width && values[index + first] === 0) first++;
        if (first === width) continue;
        let last = width - 1;
        while (values[index + last] === 0) last--;
        if (z < low[0]) low[0] = z;
        if (z >= high[0]) high[0] = z + 1;
        if (y < low[1]) low[1] = y;
        if (y >= high[1]) high[1] = y + 1;
        if (first < low[2]) low[2] = first;
        if (last >= high[2]) high[2] = last + 1;
      }
    }
  }
  if (high[0] === 0)
    return [
      [0, depth],
      [0, height],
      [0, width],
    ];
  return low.map((start, axis) => [start, high[axis]]);
}

/** Where the voxels of the cropped grid lie in the source's array. */
export class Placing {
  /** box: in the source's axes; order: of the canonical axes in the network's grid. */
  constructor(shape, orientation, box, order) {
    const strides = [shape[1] * shape[2], shape[2], 1];
    this.sourceVoxels = shape[0] * shape[1] * shape[2];
    this.shape = [];
    this.strides = [];
    this.start = 0;
    this.sourceAxes = order.map((axis) => orientation.axes[axis]);
    order.forEach((canonical, axis) => {
      const source = orientation.axes[canonical];
      const [first, end] = box[source];
      const backwards = orientation.flips[canonical];
      this.shape[axis] = end - first;
      this.strides[axis] = backwards ? -strides[source] : strides[source];
      this.start += strides[source] * (backwards ? end - 1 : first);
    });
  }

  get voxels() {
    return this.shape[0] * this.shape[1] * this.shape[2];
  }

  /** Calls `visit(cropped, source)` with the index of each voxel in both arrays. */
  each(visit) {
    const [depth, height, width] = this.shape;
    const [alongZ, alongY, alongX] = this.strides;
    let index = 0;
    for (let z = 0; z < depth; z++) {
      for (let y = 0; y < height; y++) {
        let at = this.start + z * alongZ + y * alongY;
        for (let x = 0; x < width; x++, at += alongX) visit(index++, at);
      }
    }
  }

  /** Values of the cropped grid. */
  fromSource(values) {
    const cropped = new values.constructor(this.voxels);
    this.each((index, at) => {
      cropped[index] = values[at];
    });
    return cropped;
  }

  /** Values `table[index]` on the source's grid, `table[0]` outside the box. */
  toSource(indices, table) {
    const whole = new table.constructor(this.sourceVoxels).fill(table[0]);
    this.each((index, at) => {
      whole[at] = table[indices[index]];
    });
    return whole;
  }
}
