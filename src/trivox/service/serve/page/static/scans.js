/** A new scan: its model, its files, and what is wanted of it. */
import { sent } from "./api.js";
import { pickedSeries, prepareArchives } from "./archive.js";
import { followed } from "./queue.js";
import { remember } from "./names.js";
import { at, element } from "./lib/dom.js";
import { lineOf } from "./lib/problem.js";

const USUAL = "nifti";
const DOUBTS = ["entropy"];
const FORMAT_NAMES = {
  nifti: "label map or volume (NIfTI)",
  entropy: "map of doubt",
  "dicom-seg": "DICOM segmentation (of DICOM images)",
  rtstruct: "RT structure set (of DICOM images)",
  sr: "DICOM report of measurements (of DICOM images)",
  "dicom-ct": "synthetic CT as DICOM",
  png: "preview (PNG)",
};
let server = null;
/** Files by the number of their channel; a whole series or zip is at 0. */
let chosen = [];

export function prepareForm(offer) {
  server = offer;
  const options = () => server.models.map(({ name }) => new Option(name, name));
  at("model").replaceChildren(...options());
  at("second").replaceChildren(new Option("no other model", ""), ...options());
  at("second-choice").hidden = server.models.length < 2;
  at("path-choice").hidden = !server.hasData;
  prepareArchives(server.archives);
  at("model").onchange = showModel;
  at("scan-form").onsubmit = (event) => {
    event.preventDefault();
    submit();
  };
  prepareDrop();
  showModel();
}

function modelNamed(name) {
  return server.models.find((model) => model.name === name);
}

function showModel() {
  const model = modelNamed(at("model").value);
  if (!model) return;
  at("model-summary").textContent = model.card?.summary ?? "";
  chosen = [];
  at("sources").replaceChildren(at("sources").firstElementChild, ...sourcesOf(model));
  at("formats").replaceChildren(at("formats").firstElementChild, ...model.formats.map(formatOf));
  for (const option of at("second").options) option.disabled = option.value === model.name;
  if (at("second").value === model.name) at("second").value = "";
}

/** A chooser for each channel; files of one channel may be many: a DICOM series. */
function sourcesOf(model) {
  const names = model.channels.length ? model.channels : ["X-rays and geometry (zip)"];
  return names.map((name, number) => {
    const line = element("div", "", { className: "source" });
    const files = element("output", "no file", { className: "chosen", id: `chosen-${number}` });
    const chooser = chooserOf(`Choose ${name}`, { multiple: true }, (list) => choose(number, list));
    line.append(element("span", name, { className: "name" }), chooser);
    if (names.length === 1) {
      const folder = { multiple: true, webkitdirectory: true };
      line.append(chooserOf("Folder (DICOM)", folder, (list) => choose(0, list.filter(isPart))));
    }
    line.append(files);
    return line;
  });
}

function chooserOf(text, properties, onFiles) {
  const label = element("label", text, { className: "file" });
  const input = element("input", "", { type: "file", ...properties });
  input.onchange = () => onFiles([...input.files]);
  label.append(input);
  return label;
}

function choose(number, files) {
  chosen[number] = files;
  const names = files.map(({ name }) => name);
  const text = names.length > 2 ? `${names.length} files` : names.join(", ");
  at(`chosen-${number}`).textContent = text || "no file";
}

/** Files that are dropped go to the channels whose names they hold, else in order. */
function dropped(files) {
  const { channels } = modelNamed(at("model").value);
  if (channels.length < 2 || files.length < 2) {
    const free = channels.findIndex((_, number) => !chosen[number]?.length);
    choose(Math.max(free, 0), files);
    return;
  }
  const sorted = [...files].sort((one, other) => one.name.localeCompare(other.name));
  channels.forEach((channel, number) => {
    const file = byName(files, channel, channels) ?? sorted[number];
    if (file) choose(number, [file]);
  });
}

/** The file whose name ends in that of a channel and of no longer one. */
function byName(files, channel, channels) {
  const ends = (file, name) =>
    file.name.toLowerCase().replace(/\..*$/, "").endsWith(name.toLowerCase());
  const longer = channels.filter((other) => other.length > channel.length);
  return files.find((file) => ends(file, channel) && !longer.some((name) => ends(file, name)));
}

function prepareDrop() {
  const place = at("drop");
  place.ondragover = (event) => {
    event.preventDefault();
    place.classList.add("over");
  };
  place.ondragleave = () => place.classList.remove("over");
  place.ondrop = (event) => {
    event.preventDefault();
    place.classList.remove("over");
    filesOf(event.dataTransfer).then(dropped);
  };
}

/** The files that are dropped, those in folders too. */
async function filesOf({ items, files }) {
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some(({ isDirectory }) => isDirectory)) return [...files];
  return (await Promise.all(entries.map(filesIn))).flat().filter(isPart);
}

async function filesIn(entry) {
  if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
  const reader = entry.createReader();
  const inside = [];
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return (await Promise.all(inside.map(filesIn))).flat();
    inside.push(...some);
  }
}

/** Whether a file of a folder belongs to a series: not what systems and discs add. */
function isPart({ name }) {
  return !name.startsWith(".") && name !== "DICOMDIR";
}

function formatOf(name) {
  const label = element("label", "", { className: "check" });
  const isUsual = name === USUAL;
  const box = element("input", "", { type: "checkbox", value: name, checked: isUsual });
  box.disabled = isUsual; // the viewer needs it
  label.append(box, ` ${FORMAT_NAMES[name] ?? name}`);
  return label;
}

/** The formats to ask for; without any, the server writes what suits the case. */
function formats() {
  const boxes = [...at("formats").querySelectorAll("input:checked")];
  const names = boxes.map(({ value }) => value);
  const others = names.filter((name) => name !== USUAL);
  return others.every((name) => DOUBTS.includes(name)) ? others : names;
}

/** Why a series of an archive is not what a model reads, null if it may be. */
function unlike(model) {
  if (!pickedSeries() || model.channels.length === 1) return null;
  return `${model.name} reads something else than one image, which a series of an archive is.`;
}

/** What is wrong with what was chosen, null if nothing is. */
function lacking(model, path) {
  if (path || pickedSeries()) return null;
  const count = Math.max(model.channels.length, 1);
  const missing = Array.from({ length: count }, (_, number) => number).filter(
    (number) => !chosen[number]?.length,
  );
  if (!missing.length) return null;
  if (chosen[0]?.length === 1 && chosen[0][0].name.toLowerCase().endsWith(".zip")) return null;
  const names = missing.map((number) => model.channels[number] ?? "the zip");
  return `Choose ${names.join(", ")}.`;
}

async function submit() {
  const names = [at("model").value, at("second").value].filter(Boolean);
  const models = names.map(modelNamed);
  const path = server.hasData ? at("path").value.trim() : "";
  const line = models.map(unlike).find(Boolean) ?? lacking(models[0], path);
  showProblem(line ?? "");
  if (line) return;
  at("send").disabled = true;
  try {
    const jobs = [];
    for (const model of models) jobs.push(await queued(model, path));
    at("sending").textContent = "";
    followed(jobs);
  } catch (error) {
    at("sending").textContent = "";
    showProblem(lineOf(error));
  } finally {
    at("send").disabled = false;
  }
}

async function queued(model, path) {
  const form = new FormData();
  form.append("model", model.name);
  const wanted = formats().filter((name) => model.formats.includes(name));
  if (wanted.length) form.append("format", wanted.join(","));
  const which = at("series").value.trim();
  if (which) form.append("series", which);
  const series = pickedSeries();
  const files = chosen.flat();
  if (series) form.append("reference", series.reference);
  else if (path) form.append("path", path);
  else for (const file of files) form.append("file", file);
  const job = await sent("jobs", form, (share) => {
    at("sending").textContent = `Sending ${Math.floor(100 * share)} %`;
  });
  const names = files.length > 2 ? `${files.length} files` : files[0]?.name;
  remember(job.id, series?.name ?? (path || names));
  return job;
}

function showProblem(line) {
  at("scan-problem").textContent = line;
  at("scan-problem").hidden = line === "";
}
