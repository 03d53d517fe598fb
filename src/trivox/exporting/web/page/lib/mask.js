/** Voxels that are not zero in every channel, with holes filled: 1 inside, 0 outside. */
export function foregroundMask(channels, shape) {
  const mask = new Uint8Array(shape[0] * shape[1] * shape[2]);
  for (const values of channels) {
    for (let index = 0; index < mask.length; index++) {
      if (values[index] !== 0) mask[index] = 1;
    }
  }
  fillHoles(mask, shape);
  return mask;
}

/** Holes are what cannot be reached from the border through faces of zeros. */
function fillHoles(mask, [depth, height, width]) {
  const OUTSIDE = 2;
  const plane = height * width;
  const stack = [];
  const reach = (index) => {
    if (mask[index] !== 0) return;
    mask[index] = OUTSIDE;
    stack.push(index);
  };
  for (let z = 0; z < depth; z++) {
    for (let y = 0; y < height; y++) {
      const row = z * plane + y * width;
      const onEdge = z === 0 || z === depth - 1 || y === 0 || y === height - 1;
      const step = onEdge ? 1 : Math.max(1, width - 1);
      for (let x = 0; x < width; x += step) reach(row + x);
    }
  }
  while (stack.length) {
    const index = stack.pop();
    const x = index % width;
    const y = Math.floor(index / width) % height;
    const z = Math.floor(index / plane);
    if (x > 0) reach(index - 1);
    if (x < width - 1) reach(index + 1);
    if (y > 0) reach(index - width);
    if (y < height - 1) reach(index + width);
    if (z > 0) reach(index - plane);
    if (z < depth - 1) reach(index + plane);
  }
  for (let index = 0; index < mask.length; index++) mask[index] = mask[index] === OUTSIDE ? 0 : 1;
}
