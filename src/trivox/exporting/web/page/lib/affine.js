/** 4x4 affines that map a voxel index (x, y, z, 1) to RAS mm; spacings are (z, y, x). */
import { Problem } from "./problem.js";

const FARTHEST_MM = 1e12;
const COARSEST_MM = 100;
const LONGEST_MM = 10000;
/** Cosine between axes that counts as a right angle. */
const UPRIGHT = 1e-5;

/** Lengths of the columns, reversed. */
export function spacingOf(affine) {
  return [2, 1, 0].map((column) => Math.sqrt(squares(affine, column)));
}

function squares(affine, column) {
  return affine[0][column] ** 2 + affine[1][column] ** 2 + affine[2][column] ** 2;
}

export function determinant(affine) {
  const [[a, b, c], [d, e, f], [g, h, i]] = affine;
  return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
}

/** Volume of a voxel in millilitres. */
export function voxelMl(affine) {
  return Math.abs(determinant(affine)) / 1000;
}

/** Unit vectors along x, y, z, a column each. */
export function directionsOf(affine) {
  const lengths = [0, 1, 2].map((column) => Math.sqrt(squares(affine, column)));
  return [0, 1, 2].map((row) => lengths.map((length, column) => affine[row][column] / length));
}

export function isSheared(affine) {
  const directions = directionsOf(affine);
  for (const [first, second] of [
    [0, 1],
    [0, 2],
    [1, 2],
  ]) {
    let cosine = 0;
    for (const row of directions) cosine += row[first] * row[second];
    if (Math.abs(cosine) > UPRIGHT) return true;
  }
  return false;
}

/** Throws unless a grid of `shape` (z, y, x) voxels can be one of a scanner. */
export function requirePlace(shape, affine) {
  const numbers = affine.flat();
  if (!numbers.every(Number.isFinite)) {
    throw new Problem("its affine is no finite matrix; the header is damaged");
  }
  if (Math.max(...numbers.map(Math.abs)) > FARTHEST_MM) {
    throw new Problem("its affine leads to no place; repair the header");
  }
  if (Math.abs(determinant(affine)) < 1e-12) {
    throw new Problem("its affine is singular (a spacing of 0?); repair the header");
  }
  spacingOf(affine).forEach((mm, axis) => {
    if (shape[axis] > 1 && mm > COARSEST_MM && mm * shape[axis] > LONGEST_MM) {
      throw new Problem(
        `voxels of ${mm.toPrecision(4)} mm make an image of ` +
          `${((mm * shape[axis]) / 1000).toPrecision(3)} m; correct the header's unit or voxel size`,
      );
    }
  });
}

/** Says how two grids differ, or null: no corner may be further apart than 0.1 of the
 * smallest voxel edge. */
export function mismatch(shape, affine, otherShape, otherAffine) {
  if (shape.join() !== otherShape.join()) {
    return `sizes differ: ${shape.join(" x ")} and ${otherShape.join(" x ")} voxels (z y x)`;
  }
  let farthest = 0;
  for (let corner = 0; corner < 8; corner++) {
    const [z, y, x] = shape.map((size, axis) => ((corner >> axis) & 1) * (size - 1));
    let square = 0;
    for (let row = 0; row < 3; row++) {
      const step = affine[row].map((value, column) => value - otherAffine[row][column]);
      square += (step[0] * x + step[1] * y + step[2] * z + step[3]) ** 2;
    }
    farthest = Math.max(farthest, Math.sqrt(square));
  }
  if (farthest <= 0.1 * Math.min(...spacingOf(affine))) return null;
  return `grids lie up to ${farthest.toPrecision(3)} mm apart`;
}
