/** Where a NIfTI header puts its voxels: the sform before the qform, as nibabel and ITK
 * take them (nifti1.h, "3D image orientation and location in space"). */
import { Problem } from "../problem.js";

const MM_OF_UNIT = { 1: 1000, 2: 1, 3: 0.001 };
/** Rounding of the sum of squares of a quaternion, single and double precision. */
const ROUNDING = { 348: 3 * 2 ** -23, 540: 3 * 2 ** -52 };

/** Affine to mm, the unit's length in mm, and remarks; an unknown unit is taken for mm. */
export function placementOf(raw) {
  const unitMm = MM_OF_UNIT[raw.units % 8] ?? 1;
  const remarks = [];
  const affine = chosen(raw, remarks);
  for (let row = 0; row < 3; row++) affine[row] = affine[row].map((value) => value * unitMm);
  return { affine, unitMm, remarks };
}

function chosen(raw, remarks) {
  if (raw.sformCode !== 0) {
    return [...raw.srows.map((row) => [...row]), [0, 0, 0, 1]];
  }
  const sizes = voxelSizes(raw);
  if (!sizes.every((size) => Number.isFinite(size) && size > 0)) {
    throw new Problem(
      `pixdim holds ${sizes.join(" x ")} (x y z), which are no voxel sizes; repair the header`,
    );
  }
  if (raw.qformCode !== 0) return qform(raw, sizes);
  remarks.push(
    "no sform and no qform: the header does not say where right and left are; read as " +
      "Analyze files are, x from right to left",
  );
  const steps = [-sizes[0], sizes[1], sizes[2]];
  const [z, y, x] = raw.shape;
  const middle = [x, y, z].map((size, axis) => (-(size - 1) / 2) * steps[axis]);
  return [
    [steps[0], 0, 0, middle[0]],
    [0, steps[1], 0, middle[1]],
    [0, 0, steps[2], middle[2]],
    [0, 0, 0, 1],
  ];
}

function voxelSizes(raw) {
  return [0, 1, 2].map((axis) => {
    const size = raw.pixdim[axis + 1];
    return axis >= raw.axes && size === 0 ? 1 : size;
  });
}

function qform(raw, sizes) {
  const [b, c, d] = raw.quaternion;
  const rest = 1 - (b * b + c * c + d * d);
  const small = Math.abs(rest) < ROUNDING[raw.headerSize];
  if (!Number.isFinite(rest) || (rest < 0 && !small)) {
    throw new Problem(`the quaternion (${b}, ${c}, ${d}) is no rotation; repair the qform`);
  }
  const rotation = rotationOf(small ? 0 : Math.sqrt(rest), b, c, d);
  const steps = [...sizes];
  if (raw.pixdim[0] === -1) steps[2] = -steps[2];
  const rows = rotation.map((row, index) => [
    ...row.map((value, column) => value * steps[column]),
    raw.offset[index],
  ]);
  return [...rows, [0, 0, 0, 1]];
}

/** In the order of nibabel's sums, so that spacings are equal to the last bit. */
function rotationOf(w, x, y, z) {
  const s = 2 / (w * w + x * x + y * y + z * z);
  const [sx, sy, sz] = [x * s, y * s, z * s];
  return [
    [1 - (y * sy + z * sz), x * sy - w * sz, x * sz + w * sy],
    [x * sy + w * sz, 1 - (x * sx + z * sz), y * sz - w * sx],
    [x * sz - w * sy, y * sz + w * sx, 1 - (x * sx + y * sy)],
  ];
}
