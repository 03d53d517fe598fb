/** A result: the image with what the model says of it, and what people say of that. */
import { download, json } from "./api.js";
import { linesOf, listOf } from "./cards.js";
import {
  bytesOf,
  centreOf,
  doubtOf,
  imageOf,
  labelsOf,
  overlayOf,
  recordOf,
  resultOf,
  reviewedLabels,
} from "./images.js";
import { nameOf } from "./names.js";
import { stateOf } from "./queue.js";
import { Reviewing } from "./reviewing.js";
import { say, sayReduced, showRecord, showVolumes } from "./saying.js";
import { picturesOf } from "./xrays.js";
import { at, element } from "./lib/dom.js";
import { Problem, lineOf } from "./lib/problem.js";

const OPACITY = 0.5;
const DOUBT_OPACITY = 0.7;
export const NO_VIEWER =
  "Images cannot be shown: this server lacks NiiVue. Its operator starts it once with a " +
  "network, or gives --assets. Results can be downloaded.";

export async function showJob(server, id) {
  clear();
  const job = await json(`jobs/${id}`);
  at("job-columns").hidden = false;
  at("job-title").textContent = `${nameOf(job)} · ${job.model}`;
  document.title = `${at("job-title").textContent} - trivox`;
  if (job.expired || job.state !== "done") {
    at("job-problem").hidden = false;
    at("job-problem").textContent = job.expired ? "The results are kept no longer." : stateOf(job);
    at("job-columns").hidden = true;
    return null;
  }
  const model = server.models.find(({ name }) => name === job.model);
  const view = new JobView(job, model);
  await view.open();
  return { close: () => view.close(), isUnsaved: () => view.editor?.isChanged };
}

function clear() {
  at("job-columns").hidden = true;
  for (const id of ["abstention", "synthetic", "job-problem", "reduced", "class-panel"])
    at(id).hidden = true;
  for (const id of ["doubt-panel", "views", "edit-panel", "save-edit"]) at(id).hidden = true;
  for (const id of ["stage", "viewer-controls", "files", "history", "remarks", "xrays"])
    at(id).replaceChildren();
  for (const id of ["volumes", "classes"]) at(id).tBodies[0].replaceChildren();
  showEditing(false);
  for (const id of ["place", "volumes-note", "class-calibration"]) at(id).textContent = "";
}

class JobView {
  constructor(job, model) {
    this.job = job;
    this.model = model;
    this.opacity = OPACITY;
    this.hasLabels = Object.keys(model?.labels ?? {}).length > 0;
  }

  async open() {
    at("job-card").replaceChildren(element("summary", "Model"), listOf(linesOf(this.model)));
    at("files").replaceChildren(...this.job.results.map((name) => this.fileOf(name)));
    at("labels-panel").hidden = !this.hasLabels;
    at("edit").hidden = !this.hasLabels;
    at("edit").disabled = true;
    at("edit-file-choice").hidden = !this.hasLabels;
    at("synthetic").hidden = this.hasLabels;
    this.record = await recordOf(this.job);
    showRecord(this.record, this.model);
    this.reviewing = new Reviewing(
      this.job,
      () => this.editor?.file(),
      (decision) => this.stored(decision),
    );
    await this.reviewing.open();
    try {
      await this.showImage();
    } catch (error) {
      this.problem(lineOf(error));
    }
  }

  close() {
    if (this.editor) this.stopEditing();
    this.looker?.close();
  }

  problem(line) {
    at("job-problem").textContent = line;
    at("job-problem").hidden = false;
  }

  fileOf(name) {
    const item = element("li");
    const button = element("button", name, { type: "button", className: "link" });
    button.setAttribute("aria-label", `Download ${name}`);
    button.onclick = () =>
      download(`jobs/${this.job.id}/results/${name}`, name).catch((error) =>
        this.problem(lineOf(error)),
      );
    item.append(button);
    return item;
  }

  // -- the image ---------------------------------------------------------------------------
  async showImage() {
    const sent = await imageOf(this.job);
    if (sent.kind === "views") await this.showViews(sent);
    const image = this.hasLabels ? sent : await resultOf(this.job);
    sayReduced(image.step);
    const looking = await import("./looking.js").catch(() => null);
    if (!looking) throw new Problem(NO_VIEWER);
    this.looking = looking;
    this.image = await bytesOf(image);
    this.isWhole = image.step.every((each) => each === 1);
    if (this.hasLabels) this.labels = await this.currentLabels();
    this.looker = new looking.Looker(canvasOf(at("stage"), "Image with labels"), say("place"));
    const { labels } = this;
    await this.looker.show(
      {
        image: this.image,
        overlay: labels && overlayOf(labels),
        centre: labels && centreOf(labels),
      },
      labels?.names ?? [""],
      this.opacity,
    );
    await this.showDoubt();
    this.controls(sent);
    at("stage").dataset.shows = this.job.id;
    at("edit").disabled = !labels?.canBeDrawn || !this.isWhole;
    at("edit").onclick = () => this.edit();
  }

  async showViews(image) {
    at("xrays").replaceChildren(...(await picturesOf(image)));
    at("views").hidden = false;
  }

  /** The label map that somebody corrected, else that of the model. */
  async currentLabels() {
    const isCorrected = this.reviewing.latest?.decision === "edit";
    const isShown = isCorrected && this.isWhole;
    const labels = await (isShown ? reviewedLabels : labelsOf)(this.job, this.model);
    if (this.isWhole) showVolumes(labels, isShown);
    return labels;
  }

  async showDoubt() {
    const doubt = await doubtOf(this.job);
    if (!doubt) return;
    const { low, high, colours } = await this.looker.addDoubt(doubt, 0);
    at("doubt-panel").hidden = false;
    at("doubt-heading").textContent = `Doubt (${doubt.name})`;
    at("doubt-low").textContent = low.toPrecision(2);
    at("doubt-high").textContent = high.toPrecision(2);
    drawScale(at("doubt-scale"), colours, `${low.toPrecision(2)} to ${high.toPrecision(2)}`);
    const box = element("input", "", { type: "checkbox" });
    box.onchange = () => this.looker.setDoubt(box.checked ? DOUBT_OPACITY : 0);
    const label = element("label", "", { className: "check" });
    label.append(box, " show over the image");
    at("doubt-controls").replaceChildren(label);
  }

  controls(sent) {
    const { labelled, opacityOf, planesOf, windowsOf } = this.looking;
    const controls = [
      labelled(
        "View",
        planesOf((name) => this.looker.showPlanes(name)),
      ),
    ];
    if (this.hasLabels) {
      const opacity = opacityOf(this.opacity, (value) => this.setOpacity(value));
      controls.push(labelled("Opacity of labels", opacity));
    }
    if (this.looker.looksLikeCt) {
      controls.push(
        labelled(
          "Window",
          windowsOf((window) => this.looker.setWindow(window)),
        ),
      );
    }
    if (this.hasLabels && sent.channels > 1) {
      controls.push(labelled("Channel", this.channels(sent.channels)));
    }
    at("viewer-controls").replaceChildren(...controls);
  }

  channels(count) {
    const select = element("select");
    const names = this.model.channels;
    const options = Array.from({ length: count }, (_, number) => number);
    select.append(...options.map((number) => new Option(names[number] ?? number, number)));
    select.onchange = async () => {
      const image = await imageOf(this.job, select.value);
      await this.looker.change({ image: await bytesOf(image) });
    };
    return select;
  }

  setOpacity(value) {
    this.opacity = value;
    if (this.editor) this.editor.setOpacity(value);
    else this.looker.setOpacity(value);
  }

  // -- correcting --------------------------------------------------------------------------
  async edit() {
    if (this.editor) {
      this.stopEditing();
      return;
    }
    const { Editor } = await import("./editing.js");
    this.editor = new Editor(this.looker, this.labels, this.opacity);
    await this.editor.open();
    showEditing(true);
    this.looker.canvas.focus();
  }

  stopEditing() {
    this.editor.close();
    this.editor = null;
    showEditing(false);
  }

  async stored(decision) {
    if (decision !== "edit") return;
    if (this.editor) this.stopEditing();
    if (!this.isWhole || !this.looker) return;
    this.labels = await reviewedLabels(this.job, this.model);
    await this.looker.change({ overlay: overlayOf(this.labels) });
    showVolumes(this.labels, true);
  }
}

/** A result that is being corrected is neither accepted nor rejected as it is. */
function showEditing(isOn) {
  at("edit").textContent = isOn ? "Discard correction" : "Edit";
  at("save-edit").hidden = !isOn;
  for (const button of at("review-form").querySelectorAll("[value=accept], [value=reject]")) {
    button.disabled = isOn;
  }
}

export function canvasOf(stage, text) {
  const canvas = element("canvas");
  canvas.setAttribute("aria-label", text);
  canvas.setAttribute("role", "application");
  stage.replaceChildren(canvas);
  return canvas;
}

function drawScale(canvas, colours, text) {
  canvas.setAttribute("aria-label", `Scale of the doubt, ${text}`);
  const pen = canvas.getContext("2d");
  const picture = pen.createImageData(canvas.width, canvas.height);
  for (let index = 0; index < canvas.width * canvas.height; index++) {
    const at = Math.floor((255 * (index % canvas.width)) / (canvas.width - 1));
    picture.data.set([...colours.slice(4 * at, 4 * at + 3), 255], 4 * index);
  }
  pen.putImageData(picture, 0, 0);
}
