/** Correcting a label map with brush and eraser. */
import { NVImage } from "./vendor/niivue.js";
import { PLANES, labelled } from "./looking.js";
import { overlayOf } from "./images.js";
import { tableOf } from "./viewer.js";
import { at, element } from "./lib/dom.js";
import { packedNifti } from "./lib/nifti/write.js";

const PENS = { axial: 0, coronal: 1, sagittal: 2 };
const LARGEST = 15;
const UNDOS = 20;
const KEYS = [
  ["Arrows, page up, page down", "move the cross"],
  ["Space", "paint at the cross"],
  ["E", "eraser on or off"],
  ["1 to 9", "choose a label"],
  ["[ and ]", "smaller and larger brush"],
  ["P", "next plane for arrows and brush"],
  ["Ctrl + Z", "undo"],
];

export class Editor {
  /** looker: the viewer; labels: what is corrected, on the grid of the image. */
  constructor(looker, labels, opacity) {
    this.looker = looker;
    this.labels = labels;
    this.opacity = opacity;
    this.pen = 1;
    this.size = 1;
    this.erases = false;
    this.isChanged = false;
  }

  async open() {
    const { niivue } = this.looker;
    niivue.opts.maxDrawUndoBitmaps = UNDOS;
    niivue.setDrawColormap(tableOf(this.labels.names));
    niivue.loadDrawing(await NVImage.new(overlayOf(this.labels), "drawing.nii", "gray", 1));
    niivue.setDrawOpacity(this.opacity);
    niivue.setOpacity(1, 0);
    niivue.setDrawingEnabled(true);
    niivue.onDrawingChanged = () => {
      this.isChanged = true;
    };
    niivue.drawPenAxCorSag = PENS[this.looker.plane];
    this.onKey = (event) => this.key(event);
    this.looker.canvas.addEventListener("keydown", this.onKey, { capture: true });
    this.controls();
    this.apply();
    at("edit-panel").hidden = false;
  }

  close() {
    const { niivue } = this.looker;
    this.looker.canvas.removeEventListener("keydown", this.onKey, { capture: true });
    niivue.onDrawingChanged = () => {};
    niivue.setDrawingEnabled(false);
    niivue.closeDrawing();
    niivue.setOpacity(1, this.opacity);
    at("edit-panel").hidden = true;
  }

  setOpacity(value) {
    this.opacity = value;
    this.looker.niivue.setDrawOpacity(value);
  }

  controls() {
    const { names } = this.labels;
    this.choice = element("select", "", { id: "pen" });
    this.choice.append(...names.slice(1).map((name, index) => new Option(name, index + 1)));
    this.choice.onchange = () => this.choose(Number(this.choice.value));
    this.range = element("input", "", { type: "range", min: 1, max: LARGEST, value: 1, step: 2 });
    this.range.oninput = () => this.resize(Number(this.range.value));
    this.eraser = element("button", "Eraser", { type: "button", className: "plain" });
    this.eraser.onclick = () => this.erase(!this.erases);
    const undo = element("button", "Undo", { type: "button", className: "plain" });
    undo.onclick = () => this.undo();
    this.planes = element("select");
    this.planes.append(...PLANES.map((name) => new Option(name, name)));
    this.planes.onchange = () => this.turn(this.planes.value);
    at("edit-controls").replaceChildren(
      labelled("Label", this.choice),
      labelled("Brush size", this.range),
      this.eraser,
      undo,
      labelled("Plane for keys", this.planes),
    );
    at("keys").replaceChildren(
      ...KEYS.flatMap(([key, what]) => [element("dt", key), element("dd", what)]),
    );
  }

  apply() {
    const { niivue } = this.looker;
    niivue.opts.penSize = this.size;
    niivue.setPenValue(this.erases ? 0 : this.pen, false);
    this.eraser.setAttribute("aria-pressed", String(this.erases));
    this.choice.value = String(this.pen);
    this.range.value = String(this.size);
    this.planes.value = this.looker.plane;
    const tool = this.erases ? "eraser" : this.labels.names[this.pen];
    const width = this.size === 1 ? "1 voxel" : `${this.size} voxels`;
    this.say(`${tool}, ${width} wide, ${this.looker.plane}`);
  }

  say(line) {
    at("edit-status").textContent = line;
  }

  choose(pen) {
    if (pen < 1 || pen >= this.labels.names.length) return;
    this.pen = pen;
    this.erases = false;
    this.apply();
  }

  resize(size) {
    this.size = Math.min(Math.max(size, 1), LARGEST);
    this.apply();
  }

  erase(isOn) {
    this.erases = isOn;
    this.apply();
  }

  turn(plane) {
    this.looker.plane = plane;
    this.looker.niivue.drawPenAxCorSag = PENS[plane];
    this.apply();
  }

  undo() {
    this.looker.niivue.drawUndo();
    this.say("undone");
  }

  /** Paints where the cross is. */
  paint() {
    const { niivue } = this.looker;
    const [x, y, z] = niivue.frac2vox(niivue.scene.crosshairPos);
    niivue.drawPenAxCorSag = PENS[this.looker.plane];
    niivue.drawPt(x, y, z, this.erases ? 0 : this.pen);
    niivue.drawAddUndoBitmap();
    niivue.refreshDrawing(true);
    this.isChanged = true;
    this.say(`${this.erases ? "erased" : "painted"} at ${x}, ${y}, ${z}`);
  }

  key(event) {
    const action = this.actionOf(event);
    if (!action) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    action();
  }

  actionOf({ key, ctrlKey, metaKey, altKey }) {
    if ((ctrlKey || metaKey) && key.toLowerCase() === "z") return () => this.undo();
    if (ctrlKey || metaKey || altKey) return null;
    if (/^[1-9]$/.test(key)) return () => this.choose(Number(key));
    const next = PLANES[(PLANES.indexOf(this.looker.plane) + 1) % PLANES.length];
    const actions = {
      " ": () => this.paint(),
      e: () => this.erase(!this.erases),
      "[": () => this.resize(this.size - 2),
      "]": () => this.resize(this.size + 2),
      p: () => this.turn(next),
    };
    return actions[key.length === 1 ? key.toLowerCase() : key];
  }

  /** The corrected indices in the order of the file. */
  async indices() {
    const { niivue } = this.looker;
    const file = await niivue.saveImage({ filename: "", isSaveDrawing: true, volumeByIndex: 0 });
    return file.slice(file.length - this.labels.data.length);
  }

  /** The corrected label map as a NIfTI file with the values of the model. */
  async file() {
    const { values, shape, affine, unitMm } = this.labels;
    const indices = await this.indices();
    const Values = Math.max(...values) > 255 ? Int32Array : Uint8Array;
    const data = Values.from(indices, (index) => values[index]);
    return packedNifti({ data, shape, affine, unitMm });
  }
}
