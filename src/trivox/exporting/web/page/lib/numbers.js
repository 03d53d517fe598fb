/** Rounding as Python and half precision have it. */

/** To whole numbers, halves to the even one. */
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest < 0.5) return floor;
  if (rest > 0.5) return floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);
/** What is added and taken away again to round to the 11 bits of half precision, by the
 * exponent of the float32. */
const ROUNDERS = Float64Array.from({ length: 256 }, (_, exponent) => {
  const power = Math.max(exponent - 127, -14);
  return 1.5 * 2 ** (42 + power);
});
const LARGEST_HALF = 65504;

/** A float32 rounded to half precision, halves to even; beyond its range infinite. */
export function toHalf(value) {
  float[0] = value;
  const rounder = ROUNDERS[(bits[0] >>> 23) & 255];
  const rounded = value + rounder - rounder;
  if (rounded > LARGEST_HALF) return Infinity;
  if (rounded < -LARGEST_HALF) return -Infinity;
  return rounded;
}
