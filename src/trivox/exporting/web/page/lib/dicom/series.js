/** DICOM series as volumes: the grid comes from positions and orientations alone, never
 * from SliceThickness; a tilted gantry gives a sheared affine, which is the truth. */
import { requirePlace } from "../affine.js";
import { Problem } from "../problem.js";
import { frameOf, pixelsOf } from "./frame.js";

/** mm; positions in headers are rounded to about this. */
const SAME_PLACE = 0.01;
/** Share of the usual distance by which a step between slices may differ from it. */
const UNEVEN = 0.01;

/** The image series of some files, largest first: `{uid, title, frames}`. */
export async function scanFiles(files) {
  const byUid = new Map();
  for (const file of files) {
    const frame = await frameOf(file);
    if (!frame) continue;
    const uid = frame.series || `unnamed ${frame.size.join(" x ")}`;
    if (!byUid.has(uid)) byUid.set(uid, []);
    byUid.get(uid).push(frame);
  }
  const series = [...byUid].map(([uid, frames]) => ({ uid, frames, title: titleOf(frames) }));
  series.sort((one, other) => other.frames.length - one.frames.length);
  if (series.length === 0) {
    throw new Problem(
      "No DICOM image is in this folder; localizers, SEG, RTSTRUCT and reports do not count.",
    );
  }
  return { series };
}

function titleOf(frames) {
  const [{ number, modality, description, size }] = frames;
  const name = description ? ` ${description},` : "";
  return `${number || "-"}: ${modality},${name} ${frames.length} images of ${size.join(" x ")}`;
}

/** `{channels, shape, affine, unitMm, remarks}` of the series with a UID. */
export async function readSeries(files, uid) {
  const { series } = await scanFiles(files);
  const chosen = series.find((one) => one.uid === uid);
  if (!chosen) throw new Problem("The chosen series is no longer there; choose the folder again.");
  const places = placesOf(chosen.frames);
  const first = places[0][0];
  const shape = [places.length, ...first.size];
  const { affine, remarks } = gridOf(places);
  requirePlace(shape, affine);
  const plane = first.size[0] * first.size[1];
  const values = new Float32Array(plane * places.length);
  for (const [z, place] of places.entries()) values.set(await planeOf(place), z * plane);
  if (first.modality === "PT" && first.units !== "GML") {
    throw new Problem(
      "This is a PET series in no SUV, which 'trivox predict' computes; use it, or NIfTI in SUV.",
    );
  }
  return { channels: [values], shape, affine, unitMm: 1, remarks };
}

/** Frames by their height along the normal; throws where they are no even stack. */
function placesOf(frames) {
  const [first] = frames;
  const broken = frames.find((frame) => frame.problem);
  if (broken) throw new Problem(`${broken.file.name}: ${broken.problem}.`);
  const patients = new Set(frames.map((frame) => frame.patient).filter(Boolean));
  if (patients.size > 1)
    throw new Problem(`This series holds images of ${patients.size} patients.`);
  const other = frames.find((frame) => !isAlike(first, frame));
  if (other) {
    throw new Problem(
      `${other.file.name}: has another size, pixel spacing or orientation than ` +
        `${first.file.name}; move it to another folder.`,
    );
  }
  if (!frames.every((frame) => frame.position && frame.orientation)) {
    if (frames.length === 1) return [frames];
    throw new Problem(
      "Images without ImagePositionPatient or ImageOrientationPatient cannot be ordered.",
    );
  }
  const places = stacked(frames);
  requireEven(places.map(({ height }) => height));
  requireLine(places.map(({ frames: [frame] }) => frame));
  return places.map((place) => place.frames);
}

function isAlike(one, other) {
  if (one.size.join() !== other.size.join()) return false;
  const sameSpacing = one.spacing.every(
    (mm, axis) => Math.abs(mm - other.spacing[axis]) <= 1e-8 + 1e-3 * other.spacing[axis],
  );
  if (!sameSpacing) return false;
  if (!one.orientation || !other.orientation) return one.orientation === other.orientation;
  return one.orientation.every(
    (value, index) => Math.abs(value - other.orientation[index]) <= 1e-3,
  );
}

function normalOf({ orientation: [a, b, c, d, e, f] }) {
  return [b * f - c * e, c * d - a * f, a * e - b * d];
}

function stacked(frames) {
  const normal = normalOf(frames[0]);
  const heights = frames.map(({ position }) =>
    position.reduce((sum, mm, axis) => sum + mm * normal[axis], 0),
  );
  const order = [...frames.keys()].sort((one, other) => heights[one] - heights[other]);
  const places = [];
  let previous = -Infinity;
  for (const index of order) {
    if (heights[index] - previous > SAME_PLACE) places.push({ height: heights[index], frames: [] });
    places.at(-1).frames.push(frames[index]);
    previous = heights[index];
  }
  return places;
}

function requireEven(heights) {
  if (heights.length < 3) return;
  const steps = heights.slice(1).map((height, index) => height - heights[index]);
  const sorted = [...steps].sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  const usual = sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  const worst = Math.max(...steps.map((step) => Math.abs(step - usual)));
  if (worst <= Math.max(UNEVEN * usual, SAME_PLACE)) return;
  throw new Problem(
    `The slices lie at uneven distances, ${sorted[0].toPrecision(3)} to ` +
      `${sorted.at(-1).toPrecision(3)} mm, usually ${usual.toPrecision(3)} mm: slices are ` +
      "missing, or several series are mixed.",
  );
}

/** The corners of all images must lie on one straight line. */
function requireLine(frames) {
  const tolerance = 0.1 * Math.min(...frames[0].spacing) + SAME_PLACE;
  const normal = normalOf(frames[0]);
  const height = ({ position }) => position.reduce((sum, mm, axis) => sum + mm * normal[axis], 0);
  const last = frames.at(-1);
  const whole = height(last) - height(frames[0]);
  for (const frame of frames) {
    const share = frames.length > 1 ? (height(frame) - height(frames[0])) / whole : 0;
    frame.position.forEach((mm, axis) => {
      const ideal =
        frames[0].position[axis] + share * (last.position[axis] - frames[0].position[axis]);
      if (Math.abs(mm - ideal) > tolerance) {
        throw new Problem(
          `${frame.file.name}: is shifted sideways against the other images; the series joins several volumes.`,
        );
      }
    });
  }
}

function gridOf(places) {
  const [first] = places[0];
  const remarks = [];
  if (!first.position || !first.orientation) {
    remarks.push("The image does not say where it lies: right and left are not known.");
    return { affine: diagonal(first.spacing[1], first.spacing[0], first.depth || 1), remarks };
  }
  const last = places.at(-1)[0];
  const count = places.length - 1;
  const step = count
    ? last.position.map((mm, axis) => (mm - first.position[axis]) / count)
    : normalOf(first).map((share) => share * (first.depth || 1));
  const rows = [0, 1, 2].map((axis) => [
    first.orientation[axis] * first.spacing[1],
    first.orientation[axis + 3] * first.spacing[0],
    step[axis],
    first.position[axis],
  ]);
  const ras = rows.map((row, axis) => (axis < 2 ? row.map((value) => -value) : row));
  return { affine: [...ras, [0, 0, 0, 1]], remarks };
}

function diagonal(x, y, z) {
  return [
    [x, 0, 0, 0],
    [0, y, 0, 0],
    [0, 0, z, 0],
    [0, 0, 0, 1],
  ];
}

/** The pixels of a place; further images there must be equal. */
async function planeOf(place) {
  const plane = await pixelsOf(place[0]);
  for (const copy of place.slice(1)) {
    const other = await pixelsOf(copy);
    if (!plane.every((value, index) => value === other[index])) {
      throw new Problem(
        `${place[0].file.name} and ${copy.file.name}: different images at one position; give each volume a folder of its own.`,
      );
    }
  }
  return plane;
}
