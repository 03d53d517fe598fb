/** 26-connected components. */

/** Numbers of the components from 1 on, in the order of their first voxels, and the voxels
 * of each (index 0: none); `keys` are 0 outside, and a component lies within one key. */
export function componentsOf(keys, [depth, height, width]) {
  const parts = new Int32Array(keys.length);
  const sizes = [0];
  const stack = [];
  const plane = height * width;
  for (let seed = 0; seed < keys.length; seed++) {
    if (keys[seed] === 0 || parts[seed] !== 0) continue;
    const number = sizes.length;
    let size = 0;
    parts[seed] = number;
    stack.push(seed);
    while (stack.length) {
      const index = stack.pop();
      size++;
      const x = index % width;
      const y = Math.floor(index / width) % height;
      const z = Math.floor(index / plane);
      for (let nextZ = Math.max(z - 1, 0); nextZ <= Math.min(z + 1, depth - 1); nextZ++) {
        for (let nextY = Math.max(y - 1, 0); nextY <= Math.min(y + 1, height - 1); nextY++) {
          const row = nextZ * plane + nextY * width;
          for (let nextX = Math.max(x - 1, 0); nextX <= Math.min(x + 1, width - 1); nextX++) {
            const next = row + nextX;
            if (parts[next] !== 0 || keys[next] !== keys[seed]) continue;
            parts[next] = number;
            stack.push(next);
          }
        }
      }
    }
    sizes.push(size);
  }
  return { parts, sizes };
}
