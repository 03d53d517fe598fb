/** How much memory an image takes, and a line where that is more than there is. */
import { Problem } from "./problem.js";

/** Browsers say no more than this of a larger memory, GB. */
const MOST_TOLD = 8;
/** Share of a computer's memory that a page may hope for. */
const SHARE = 0.75;
/** Longest array that browsers make, bytes. */
const LONGEST = 2 ** 32 - 2 ** 16;
/** What a page gets at most, bytes. */
const MOST = 16 * 2 ** 30;

/** About how many bytes at once, from the volume read to its label map. */
export function bytesNeeded(volume, record, pipeline) {
  const source = product(volume.shape);
  const cropped = record.placing.voxels;
  const onGrid = product(record.shape);
  const inputs = pipeline.inputs.length;
  const plane = record.shape[1] * record.shape[2];
  const padded = Math.max(plane, pipeline.patch_size[1] * pipeline.patch_size[2]);
  const rows = 4 * (pipeline.outputs + 1) * pipeline.patch_size[0] * padded;
  const preparing = 4 * (inputs * (cropped + onGrid) + 2 * Math.max(cropped, onGrid));
  const computing = 4 * inputs * onGrid + 3.5 * rows + 4 * cropped;
  const finishing = 6 * cropped + 6 * source;
  const networks = 4 * 60 * product(pipeline.patch_size);
  const read = 4 * volume.channels.length * source;
  return {
    total: read + networks + Math.max(preparing, computing, finishing),
    longest: Math.max(rows, 4 * onGrid),
  };
}

function product(shape) {
  return shape.reduce((voxels, size) => voxels * size, 1);
}

/** Throws before the work begins where it is known that it cannot end. */
export function requireMemory(volume, record, pipeline) {
  const { total, longest } = bytesNeeded(volume, record, pipeline);
  const installed = globalThis.navigator?.deviceMemory;
  const isKnown = installed !== undefined && installed < MOST_TOLD;
  const most = isKnown ? SHARE * installed * 2 ** 30 : MOST;
  if (total <= most && longest <= LONGEST) return;
  const gb = (bytes) => (bytes / 2 ** 30).toFixed(1);
  const has = isKnown ? `this computer has ${installed} GB` : "a browser gives less";
  throw new Problem(
    `This image of ${volume.shape.join(" x ")} voxels (z y x) takes about ${gb(total)} GB ` +
      `(${record.shape.join(" x ")} voxels on the model's grid), ${has}; crop it, or run ` +
      "'trivox predict' on a computer with more memory.",
  );
}
