/** Scans, label maps and maps of doubt, fetched and made ready for the viewer. */
import { asked } from "./api.js";
import { inflated } from "./lib/bytes.js";
import { readNifti } from "./lib/nifti/read.js";
import { plainNifti } from "./lib/nifti/write.js";

const LABELS = "case.nii.gz";
const DOUBT = /^case_(entropy|mutual_information|variance)\.nii\.gz$/;
/** Labels that can be drawn: NiiVue's drawings hold bytes. */
const MOST_DRAWN = 254;

/** A volume to look at: `{blob, kind, step, channels, tag}`. */
async function viewed(path) {
  const response = await asked(path);
  const header = (name) => response.headers.get(name) ?? "";
  return {
    blob: await response.blob(),
    kind: header("Trivox-Kind"),
    step: header("Trivox-Step").split(",").map(Number),
    channels: Number(header("Trivox-Channels")),
    tag: header("ETag"),
  };
}

export function imageOf(job, channel = 0) {
  return viewed(`jobs/${job.id}/image?channel=${channel}`);
}

/** The label map of a job as indices of `names`, which are ordered by value. */
export async function labelsOf(job, model) {
  const { blob } = await viewed(`jobs/${job.id}/results/${LABELS}/view`);
  return indexed(blob, model);
}

/** The label map that was accepted or corrected last. */
export async function reviewedLabels(job, model) {
  const response = await asked(`jobs/${job.id}/review/labels`);
  return indexed(await response.blob(), model);
}

/** Whatever volume a job results in. */
export async function resultOf(job) {
  return viewed(`jobs/${job.id}/results/${LABELS}/view`);
}

/** Name, value and index of labels. */
export function tableOf(model) {
  const pairs = Object.entries(model.labels).sort(([, one], [, other]) => one - other);
  return {
    names: ["", ...pairs.map(([name]) => name)],
    values: [model.background, ...pairs.map(([, value]) => value)],
  };
}

async function indexed(blob, model) {
  const { names, values } = tableOf(model);
  const { channels, ...grid } = await readNifti(new File([blob], LABELS));
  const index = new Map(values.map((value, position) => [value, position]));
  const Indices = names.length > 256 ? Uint16Array : Uint8Array;
  const data = Indices.from(channels[0], (value) => index.get(value) ?? 0);
  return { data, ...grid, names, values, canBeDrawn: names.length <= MOST_DRAWN };
}

/** NIfTI bytes of indices, for the viewer. */
export function overlayOf(labels) {
  return plainNifti(labels);
}

export async function bytesOf({ blob }) {
  return inflated(blob);
}

/** Where the middle of the labels is in RAS mm, null without any. */
export function centreOf({ data, shape, affine }) {
  const [depth, rows, columns] = shape;
  const sum = [0, 0, 0];
  let count = 0;
  for (let index = 0; index < data.length; index++) {
    if (!data[index]) continue;
    sum[0] += index % columns;
    sum[1] += Math.floor(index / columns) % rows;
    sum[2] += Math.floor(index / (columns * rows)) % depth;
    count++;
  }
  if (!count) return null;
  const at = sum.map((each) => Math.round(each / count));
  return affine.slice(0, 3).map((row) => row[0] * at[0] + row[1] * at[1] + row[2] * at[2] + row[3]);
}

/** The map of doubt of a job, null if none was asked for. */
export async function doubtOf(job) {
  const name = job.results.find((each) => DOUBT.test(each));
  if (!name) return null;
  const volume = await viewed(`jobs/${job.id}/results/${name}/view`);
  return { bytes: await bytesOf(volume), name: name.match(DOUBT)[1].replace("_", " ") };
}

/** What the prediction says of the case. */
export async function recordOf(job) {
  if (!job.results.includes("predictions.json")) return { settings: {} };
  const content = await (await asked(`jobs/${job.id}/results/predictions.json`)).json();
  return { ...Object.values(content.cases)[0], settings: content.settings ?? {} };
}
