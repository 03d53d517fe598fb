/** What a prediction says of itself, in words and tables. */
import { colourOf } from "./lib/colours.js";
import { tableOf } from "./images.js";
import { voxelMl } from "./lib/affine.js";
import { at, element, row, swatch } from "./lib/dom.js";

/** A function that writes a line into a place. */
export function say(id) {
  return (line) => {
    at(id).textContent = line;
  };
}

export function sayReduced(step) {
  const isWhole = step.every((each) => each === 1);
  at("reduced").hidden = isWhole;
  if (isWhole) return;
  at("reduced").textContent =
    `This image is too large for a browser: one of ${step.join(" x ")} voxels (x, y, z) is ` +
    "shown. The results hold all of them. Correct it in another program, and choose the " +
    "label map below.";
}

export function showRecord(record, model) {
  sayAbstention(record);
  fillVolumes(record, model);
  sayClass(record.class, model);
  const warnings = record.warnings ?? [];
  at("remarks").replaceChildren(...warnings.map((text) => element("li", text)));
}

function sayAbstention({ abstain, reason }) {
  at("abstention").hidden = !abstain;
  if (!abstain) return;
  const why = reason ? `: ${reason}` : "";
  at("abstention").textContent = `The model abstains${why}. Do not rely on this result.`;
}

/** `1.34`: millilitres with as many digits as are worth it. */
export function ml(value) {
  return value < 1 ? value.toFixed(3) : value.toFixed(2);
}

function interval(volume) {
  const ends = volume?.ci95_ml;
  return ends ? `${ml(ends[0])} to ${ml(ends[1])}` : "";
}

function fillVolumes({ volumes = {}, agreement }, model) {
  if (!model) return;
  const { names } = tableOf(model);
  const rows = Object.entries(volumes).map(([name, volume]) => {
    const line = row(name, ml(volume.volume_ml), interval(volume));
    const index = names.indexOf(name);
    if (index > 0) line.firstChild.prepend(swatch(colourOf(index)));
    return line;
  });
  const others = names
    .slice(1)
    .filter((name) => !(name in volumes))
    .map((name) => {
      const line = row(name, "", "");
      line.firstChild.prepend(swatch(colourOf(names.indexOf(name))));
      return line;
    });
  at("volumes").tBodies[0].replaceChildren(...rows, ...others);
  at("volumes-corrected").hidden = true;
  const notes = [];
  if (rows.some((line) => line.lastChild.textContent === "")) {
    notes.push("Intervals come with the map of doubt.");
  }
  if (agreement) notes.push(`Agreement of its votes: ${agreement.toFixed(2)} (1: all alike).`);
  at("volumes-note").textContent = notes.join(" ");
}

/** Volumes of the labels that are shown: those of which the model says nothing, or all of
 * them in a column of their own where somebody corrected them. */
export function showVolumes(labels, isCorrected) {
  const volumes = volumesOf(labels);
  at("volumes-corrected").hidden = !isCorrected;
  for (const line of at("volumes").tBodies[0].rows) {
    const volume = volumes.get(line.firstChild.textContent);
    const text = volume === undefined ? "" : ml(volume);
    for (const cell of line.querySelectorAll(".corrected")) cell.remove();
    if (isCorrected) line.append(element("td", text, { className: "number corrected" }));
    else if (!line.cells[1].textContent) line.cells[1].textContent = text;
  }
}

function volumesOf({ data, names, affine }) {
  const counts = new Array(names.length).fill(0);
  for (const index of data) counts[index]++;
  return new Map(
    names.slice(1).map((name, position) => [name, counts[position + 1] * voxelMl(affine)]),
  );
}

function sayClass(answer, model) {
  at("class-panel").hidden = !answer;
  if (!answer) return;
  const chance = answer.probabilities[answer.answer];
  at("class-answer").textContent = `${answer.answer}, probability ${chance.toFixed(2)}`;
  const rows = Object.entries(answer.probabilities).map(([name, value]) =>
    row(name, value.toFixed(3)),
  );
  at("classes").tBodies[0].replaceChildren(...rows);
  const calibrated = calibrationOf(model?.class_temperature);
  const flags = answer.flags.length ? ` ${answer.flags.join(", ")}` : "";
  at("class-calibration").textContent = `${calibrated}${flags}`;
}

function calibrationOf(temperature) {
  if (!temperature || temperature === 1) return "Probabilities are not calibrated.";
  const found = `by a temperature of ${temperature.toFixed(2)}, found in validation`;
  return `Probabilities are calibrated ${found}.`;
}
