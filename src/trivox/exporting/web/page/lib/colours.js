/** Colours of labels that people with colour-blindness tell apart: those of Okabe and Ito
 * (2008), then hues by the golden angle in three steps of lightness. */
const OKABE_ITO = [
  [230, 159, 0],
  [86, 180, 233],
  [0, 158, 115],
  [240, 228, 66],
  [0, 114, 178],
  [213, 94, 0],
  [204, 121, 167],
];
const GOLDEN_ANGLE = 137.508;
const LIGHTNESS = [0.65, 0.4, 0.82];

/** `[red, green, blue]` of the label with an index from 1 on. */
export function colourOf(index) {
  if (index <= OKABE_ITO.length) return OKABE_ITO[index - 1];
  const hue = (index * GOLDEN_ANGLE) % 360;
  return fromHsl(hue, 0.75, LIGHTNESS[index % LIGHTNESS.length]);
}

function fromHsl(hue, saturation, lightness) {
  const span = saturation * Math.min(lightness, 1 - lightness);
  return [0, 8, 4].map((shift) => {
    const part = (shift + hue / 30) % 12;
    return Math.round(255 * (lightness - span * Math.max(-1, Math.min(part - 3, 9 - part, 1))));
  });
}
