/** A volume to its label map: all steps, with whatever computes the networks. */
import { voxelMl } from "./affine.js";
import { prepare, recordOf, requireNumbers } from "./grid.js";
import { countsOf, isExclusive, painted, valueTable, volumesOf } from "./labels.js";
import { requireMemory } from "./memory.js";
import { Problem } from "./problem.js";
import { restore } from "./restore.js";
import { applyRules } from "./rules.js";
import { SlidingWindows } from "./windows.js";

/** Label map and volumes of `{channels, shape, affine, unitMm}`.
 *
 * networks: functions from a window to its logits; report(stage, share): is told how far
 * the work is. */
export async function segment(volume, pipeline, networks, report = () => {}) {
  requireChannels(volume, pipeline);
  requireNumbers(volume.channels);
  const record = recordOf(volume, pipeline);
  const { outputs } = pipeline;
  requireMemory(volume, record, pipeline);
  report("preparing", 0);
  const image = prepare(volume, record, pipeline);
  let windows = 0;
  const sliding = new SlidingWindows(networks, pipeline, (step) => {
    windows += step;
    report("computing", Math.min(1, windows / sliding.count(record.shape)));
  });
  report("computing", 0);
  const exclusive = isExclusive(pipeline);
  const restored = await restore(sliding.slabs(image), record.shape, record.placing.shape, {
    outputs,
    nearestAxis: record.logitsAxis,
    exclusive,
    half: pipeline.grid.logits.half && exclusive,
  });
  report("finishing", 1);
  const indices = exclusive ? restored : painted(restored, pipeline.paint);
  const ml = voxelMl(volume.affine);
  applyRules(indices, record.placing.shape, pipeline, 1000 * ml);
  return answer(indices, volume, record, pipeline, ml);
}

function answer(indices, volume, record, pipeline, ml) {
  const { shape, affine, unitMm } = volume;
  const table = valueTable(pipeline.values);
  const plain = Int16Array.from(pipeline.values, (_, index) => index);
  return {
    labels: { data: record.placing.toSource(indices, table), shape, affine, unitMm },
    indices: { data: record.placing.toSource(indices, plain), shape, affine, unitMm },
    centre: centreOf(indices, record.placing, volume),
    volumes: volumesOf(countsOf(indices, pipeline.values.length), pipeline.targets, ml),
  };
}

/** The place in RAS mm of a labelled voxel near the middle of all of them; null of none. */
function centreOf(indices, placing, { shape, affine }) {
  let count = 0;
  for (const index of indices) if (index > 0) count++;
  let left = Math.ceil(count / 2);
  let place = null;
  placing.each((index, at) => {
    if (indices[index] > 0 && --left === 0) place = at;
  });
  if (place === null) return null;
  const x = place % shape[2];
  const y = Math.floor(place / shape[2]) % shape[1];
  const z = Math.floor(place / (shape[1] * shape[2]));
  return [0, 1, 2].map((row) => {
    const [alongX, alongY, alongZ, start] = affine[row];
    return alongX * x + alongY * y + alongZ * z + start;
  });
}

function requireChannels(volume, pipeline) {
  const names = pipeline.channels;
  if (volume.channels.length !== names.length) {
    throw new Problem(
      `The files hold ${volume.channels.length} channels, the model needs ${names.length}: ` +
        `${names.join(", ")}.`,
    );
  }
}
