/** Rules that clean a label map, in place and in this order: the largest component of the
 * foreground, of labels, then those of regions, outer ones first. */
import { componentsOf } from "./components.js";
import { isExclusive, paintedIndex } from "./labels.js";

/** Relative error of a voxel's volume as headers store it. */
const ROUNDING = 1e-4;

/** Cleans label indices; mm3: volume of a voxel. */
export function applyRules(indices, shape, pipeline, mm3) {
  const rules = pipeline.postprocessing ?? {};
  if (rules.largest_foreground) {
    keepLargest(
      indices,
      indices.map((index) => (index > 0 ? 1 : 0)),
      shape,
      () => true,
    );
  }
  const chosen = new Set(rules.largest_of ?? []);
  if (chosen.size) keepLargest(indices, Int16Array.from(indices), shape, (key) => chosen.has(key));
  cleanRegions(indices, shape, pipeline, mm3);
}

/** Removes all but the largest component of each key that is chosen. */
function keepLargest(indices, keys, shape, isChosen) {
  const { parts, sizes } = componentsOf(keys, shape);
  const keyOf = new Int16Array(sizes.length);
  for (let voxel = 0; voxel < keys.length; voxel++) keyOf[parts[voxel]] = keys[voxel];
  const best = new Map();
  for (let number = 1; number < sizes.length; number++) {
    const leader = best.get(keyOf[number]);
    if (leader === undefined || sizes[number] > sizes[leader]) best.set(keyOf[number], number);
  }
  for (let voxel = 0; voxel < indices.length; voxel++) {
    const key = keys[voxel];
    if (key !== 0 && isChosen(key) && best.get(key) !== parts[voxel]) indices[voxel] = 0;
  }
}

function cleanRegions(indices, shape, pipeline, mm3) {
  const rules = pipeline.postprocessing ?? {};
  const targets = Object.entries(pipeline.targets);
  const order = [...targets.keys()].sort(
    (one, other) => targets[other][1].length - targets[one][1].length,
  );
  for (const row of order) {
    const [name, members] = targets[row];
    const rule = {
      largest: (rules.largest_of_regions ?? []).includes(name),
      removeSmall: rules.remove_small?.[name] ?? 0,
      replaceSmall: rules.replace_small?.[name] ?? 0,
    };
    if (!rule.largest && !rule.removeSmall && !rule.replaceSmall) continue;
    const isMember = new Set(members);
    const mask = Uint8Array.from(indices, (index) => (isMember.has(index) ? 1 : 0));
    const { parts, sizes } = componentsOf(mask, shape);
    const stays = staying(sizes, rule, mm3);
    const fallback = fallbackOf(row, targets, pipeline);
    for (let voxel = 0; voxel < indices.length; voxel++) {
      if (mask[voxel] && !stays[parts[voxel]]) indices[voxel] = fallback[indices[voxel]];
    }
  }
}

/** Which components stay under a rule; of equally large ones the first. */
function staying(sizes, rule, mm3) {
  const volumes = sizes.map((size) => size * mm3);
  let stays = sizes.map((_, number) => number > 0);
  if (rule.largest) {
    const most = Math.max(...volumes.slice(1));
    const leader = volumes.indexOf(most, 1);
    stays = stays.map((_, number) => number === leader);
  }
  stays = stays.map((stay, number) => stay && volumes[number] >= rule.removeSmall * (1 - ROUNDING));
  const total = volumes.reduce((sum, volume, number) => (stays[number] ? sum + volume : sum), 0);
  if (rule.replaceSmall && total < rule.replaceSmall * (1 - ROUNDING))
    return stays.map(() => false);
  return stays;
}

/** The index that a voxel of each index takes when it leaves a target: it leaves what is
 * inside the target as well, and the others of its regions are painted. */
function fallbackOf(row, targets, pipeline) {
  const sets = targets.map(([, indices]) => new Set(indices));
  const isInside = sets.map((set) => [...set].every((index) => sets[row].has(index)));
  return pipeline.values.map((_, index) => {
    if (!sets[row].has(index)) return index;
    if (isExclusive(pipeline)) return 0;
    let remaining = 0;
    sets.forEach((set, target) => {
      if (set.has(index) && !isInside[target]) remaining |= 1 << target;
    });
    const painted = paintedIndex(remaining, pipeline.paint);
    const gains = sets.some((set, target) => set.has(painted) && !((remaining >>> target) & 1));
    return gains ? 0 : painted;
  });
}
