/** Intensities on a common scale, channel by channel and in place, as the model's training
 * images had them. */
import { foregroundMask } from "./mask.js";

const TINY = 1e-8;

/** how: one scheme a channel; a channel of zeros stays zero under every scheme. */
export function normalise(channels, shape, how) {
  const mask = how.some((one) => one.masked) ? foregroundMask(channels, shape) : null;
  channels.forEach((values, index) => {
    const one = how[index];
    if (values.some((value) => value !== 0))
      SCHEMES[one.scheme](values, one, one.masked ? mask : null);
  });
}

const SCHEMES = {
  ct: (values, { low, high, mean, std }) => {
    const [least, most] = [Math.fround(low), Math.fround(high)];
    const [middle, spread] = [Math.fround(mean), Math.fround(std)];
    for (let index = 0; index < values.length; index++) {
      const clipped = Math.min(Math.max(values[index], least), most);
      values[index] = Math.fround(clipped - middle) / spread;
    }
  },
  "z-score": (values, _, mask) => {
    const { mean, std } = statistics(values, mask);
    const [middle, spread] = [Math.fround(mean), Math.fround(Math.max(std, TINY))];
    for (let index = 0; index < values.length; index++) {
      const inside = mask === null || mask[index] === 1;
      values[index] = inside ? Math.fround(values[index] - middle) / spread : 0;
    }
  },
  "rescale-0-1": (values) => {
    const { low, high } = rangeOf(values);
    const span = Math.max(Math.fround(high - low), Math.fround(TINY));
    for (let index = 0; index < values.length; index++) {
      values[index] = Math.fround(values[index] - low) / span;
    }
  },
  "rgb-0-1": (values) => {
    for (let index = 0; index < values.length; index++) values[index] /= 255;
  },
  none: () => {},
};

/** Smallest and largest value. */
export function rangeOf(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return { low, high };
}

function statistics(values, mask) {
  let count = 0;
  let sum = 0;
  for (let index = 0; index < values.length; index++) {
    if (mask === null || mask[index] === 1) {
      sum += values[index];
      count++;
    }
  }
  if (count === 0) return { mean: 0, std: 1 };
  const mean = sum / count;
  let squares = 0;
  for (let index = 0; index < values.length; index++) {
    if (mask === null || mask[index] === 1) squares += (values[index] - mean) ** 2;
  }
  return { mean, std: Math.sqrt(squares / count) };
}
