/** The page: what is chosen goes to the worker, what comes back is shown. */
import { colourOf } from "./lib/colours.js";
import { at, element, row, swatch } from "./lib/dom.js";
import { lineOf } from "./lib/problem.js";
import { Sources } from "./sources.js";
import { Viewer } from "./viewer.js";

const base = new URL(".", import.meta.url).href;
const STAGES = {
  reading: "reading the image",
  loading: "loading the networks",
  trying: "trying WebGPU",
  preparing: "preparing the image",
  computing: "computing",
  finishing: "putting the labels back",
};

let worker = null;
/** Those who wait for answers of the worker, by the number of their task. */
const waiting = new Map();
let asking = 0;
let viewer = null;
let address = null;

/** A worker under the same content security policy as the page. */
function newWorker() {
  const start = new Blob([`import ${JSON.stringify(`${base}worker.js`)};`], {
    type: "text/javascript",
  });
  const url = URL.createObjectURL(start);
  const started = new Worker(url, { type: "module" });
  started.onmessage = ({ data }) => received(data);
  started.onerror = (event) => {
    event.preventDefault();
    failed(lineOf(event.message || "the browser ended the work, perhaps out of memory"));
  };
  return started;
}

function received(data) {
  if (data.kind === "progress") {
    showProgress(data.stage, data.share);
    return;
  }
  const { resolve, reject } = waiting.get(data.number);
  waiting.delete(data.number);
  if (data.kind === "done") resolve(data.result);
  else reject(new Error(data.line));
}

/** Ends the worker; whoever waits for it is told why. */
function failed(line) {
  worker?.terminate();
  worker = null;
  const ended = [...waiting.values()];
  waiting.clear();
  for (const { reject } of ended) reject(new Error(line));
}

/** Sends a task to the worker and waits for what comes back. */
function asked(task) {
  worker ??= newWorker();
  return new Promise((resolve, reject) => {
    asking += 1;
    waiting.set(asking, { resolve, reject });
    worker.postMessage({ ...task, number: asking });
  });
}

function showProgress(stage, share) {
  at("work").hidden = false;
  at("progress").value = share;
  const percent = stage === "computing" ? ` ${Math.floor(100 * share)} %` : "";
  at("stage").textContent = `${STAGES[stage]}${percent}`;
}

function showProblem(line) {
  at("problem").textContent = line;
  at("problem").hidden = line === "";
}

function setBusy(isBusy) {
  at("start").disabled = isBusy;
  at("cancel").hidden = !isBusy;
  at("work").hidden = !isBusy;
  at("sources").disabled = isBusy;
}

async function start(description, sources) {
  const { line, sources: chosen } = sources.chosen();
  showProblem(line ?? "");
  if (line) return;
  at("result").hidden = true;
  setBusy(true);
  try {
    const gpu = at("gpu").checked;
    const result = await asked({ task: "segment", description, base, sources: chosen, gpu });
    await show(result, description, chosen[0].files[0].name);
  } catch (error) {
    failed(error.message); // the worker's memory may be used up
    showProblem(error.message);
  } finally {
    setBusy(false);
  }
}

async function show(result, description, name) {
  const { names } = description.pipeline;
  at("result").hidden = false;
  fillTable(result.volumes);
  at("legend").replaceChildren(...names.slice(1).map(legendOf));
  offer(result.file, name);
  at("remarks").replaceChildren(...result.remarks.map((text) => element("li", text)));
  at("how").textContent = `Computed in ${result.seconds.toFixed(1)} s (${result.how}).`;
  try {
    viewer ??= new Viewer(at("canvas"), (line) => {
      at("place").textContent = line;
    });
    await viewer.show(result, names, Number(at("opacity").value));
  } catch (error) {
    console.error(error);
    showProblem(
      "The image cannot be shown here (no WebGL2, or too large for it); the label map can be downloaded.",
    );
  }
}

function fillTable(volumes) {
  const rows = volumes.map(({ name, voxels, ml }) =>
    row(name, ml.toFixed(ml < 1 ? 3 : 2), String(voxels)),
  );
  at("volumes").tBodies[0].replaceChildren(...rows);
}

function legendOf(name, position) {
  const entry = element("li", name);
  entry.prepend(swatch(colourOf(position + 1)));
  return entry;
}

function offer(file, name) {
  if (address) URL.revokeObjectURL(address);
  address = URL.createObjectURL(file);
  const stem = name.replace(/(_\d{4})?\.nii(\.gz)?$|\.dcm$/i, "");
  Object.assign(at("download"), { href: address, download: `${stem}_labels.nii.gz` });
}

async function ready() {
  const response = await fetch(new URL("export.json", base)).catch(() => null);
  if (!response?.ok)
    throw new Error("export.json cannot be loaded from the server; copy the whole folder again.");
  const description = await response.json();
  const { pipeline } = description;
  at("title").textContent =
    `Segment ${pipeline.names.slice(1, 6).join(", ")}${pipeline.names.length > 6 ? " ..." : ""}`;
  const list = async (files) => (await asked({ task: "list", files })).series;
  const sources = new Sources(at("sources"), pipeline.channels, list, showProblem);
  at("gpu-choice").hidden = !navigator.gpu;
  at("form").onsubmit = (event) => {
    event.preventDefault();
    start(description, sources);
  };
  at("cancel").onclick = () => failed("Cancelled.");
  at("opacity").oninput = () => viewer?.setOpacity(Number(at("opacity").value));
  at("unserved").hidden = true;
  at("main").hidden = false;
}

ready().catch((error) => {
  at("unserved").textContent = error.message;
});
