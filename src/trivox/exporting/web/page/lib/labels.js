/** What the indices of a label map mean: values in files, regions, names. */

/** The value in a file of each index, in the smallest integer type that holds all. */
export function valueTable(values) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const Values = low < 0 ? signed(low, high) : unsigned(high);
  return Values.from(values);
}

function unsigned(high) {
  if (high < 2 ** 8) return Uint8Array;
  return high < 2 ** 16 ? Uint16Array : Uint32Array;
}

function signed(low, high) {
  if (low >= -(2 ** 7) && high < 2 ** 7) return Int8Array;
  return low >= -(2 ** 15) && high < 2 ** 15 ? Int16Array : Int32Array;
}

export function isExclusive(pipeline) {
  return pipeline.paint.length === 0;
}

/** Index painted for each combination of regions, whose bit r says that region r is
 * there: later regions over earlier ones, a nested region only inside those that hold it. */
export function paintedIndex(present, paint) {
  let index = 0;
  paint.forEach(([painting, holders], region) => {
    const needed = [region, ...holders];
    if (needed.every((one) => (present >>> one) & 1)) index = painting;
  });
  return index;
}

/** Paints numbers of combinations as indices. */
export function painted(combinations, paint) {
  const known = new Map();
  const result = new Int16Array(combinations.length);
  for (let voxel = 0; voxel < result.length; voxel++) {
    const present = combinations[voxel];
    if (!known.has(present)) known.set(present, paintedIndex(present, paint));
    result[voxel] = known.get(present);
  }
  return result;
}

/** Voxels of each index. */
export function countsOf(indices, count) {
  const counts = new Array(count).fill(0);
  for (const index of indices) counts[index]++;
  return counts;
}

/** Volume in ml of each target `{name: [indices]}`. */
export function volumesOf(counts, targets, ml) {
  return Object.entries(targets).map(([name, indices]) => {
    const voxels = indices.reduce((sum, index) => sum + counts[index], 0);
    return { name, indices, voxels, ml: voxels * ml };
  });
}
