/** The viewer with what people ask of it: layers, planes, contrast, keys. */
import { NVImage } from "./vendor/niivue.js";
import { Viewer } from "./viewer.js";
import { element } from "./lib/dom.js";

const DOUBT_COLOURS = "inferno";
/** Below this part of the largest doubt nothing is drawn. */
const CLEAR = 0.1;
/** Where the arrows lead in each plane: right, up, and forward through the planes. */
const WAYS = {
  axial: [
    [-1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ],
  coronal: [
    [-1, 0, 0],
    [0, 0, 1],
    [0, 1, 0],
  ],
  sagittal: [
    [0, -1, 0],
    [0, 0, 1],
    [-1, 0, 0],
  ],
};
export const PLANES = Object.keys(WAYS);
/** Level and width in HU. */
export const WINDOWS = {
  "soft tissue": [40, 400],
  lung: [-600, 1500],
  bone: [400, 1800],
  brain: [40, 80],
};
const KEYS = {
  ArrowRight: [0, 1],
  ArrowLeft: [0, -1],
  ArrowUp: [1, 1],
  ArrowDown: [1, -1],
  PageUp: [2, 1],
  PageDown: [2, -1],
};

export class Looker extends Viewer {
  constructor(canvas, onPlace) {
    super(canvas, onPlace);
    this.plane = "axial";
    this.listen();
  }

  async show(volumes, names, opacity) {
    this.shown = { volumes, names, opacity };
    await super.show(volumes, names, opacity);
  }

  /** Shows another image or label map in place of the one that is there. */
  async change(volumes) {
    const { names, opacity } = this.shown;
    const cross = [...this.niivue.scene.crosshairPos];
    await this.show({ ...this.shown.volumes, ...volumes, centre: null }, names, opacity);
    if (this.doubt) await this.addDoubt(this.doubt, this.doubtOpacity);
    this.niivue.scene.crosshairPos = cross;
    this.niivue.createOnLocationChange();
    this.niivue.drawScene();
  }

  /** Adds a map of doubt above the labels; returns `{low, high, colours}` of its scale. */
  async addDoubt(doubt, opacity) {
    this.doubt = doubt;
    this.doubtOpacity = opacity;
    const volume = await NVImage.new(doubt.bytes, "doubt.nii", DOUBT_COLOURS, opacity);
    const high = volume.global_max || 1;
    volume.cal_min = CLEAR * high;
    volume.cal_max = high;
    this.niivue.addVolume(volume);
    this.niivue.updateGLVolume();
    this.niivue.createOnLocationChange();
    return { low: CLEAR * high, high, colours: this.niivue.colormap(DOUBT_COLOURS) };
  }

  setOpacity(value) {
    this.shown.opacity = value;
    super.setOpacity(value);
  }

  setDoubt(opacity) {
    this.doubtOpacity = opacity;
    this.niivue.setOpacity(this.niivue.volumes.length - 1, opacity);
  }

  /** Gives the graphics memory back: browsers keep few contexts. */
  close() {
    this.niivue.cleanup?.();
    this.canvas.getContext("webgl2")?.getExtension("WEBGL_lose_context")?.loseContext();
    this.canvas.remove();
  }

  described(place) {
    const doubt = this.doubt && place.values[2];
    const more = doubt ? `, ${this.doubt.name} ${Number(doubt.value.toPrecision(2))}` : "";
    return `${super.described(place)}${more}`;
  }

  get looksLikeCt() {
    return this.niivue.volumes[0].global_min < -200;
  }

  /** Sets level and width; null: as the image suggests. */
  setWindow(window) {
    const [image] = this.niivue.volumes;
    const [low, high] = window
      ? [window[0] - window[1] / 2, window[0] + window[1] / 2]
      : [image.robust_min, image.robust_max];
    image.cal_min = low;
    image.cal_max = high;
    this.niivue.updateGLVolume();
  }

  showPlanes(name) {
    const { niivue } = this;
    const types = {
      all: niivue.sliceTypeMultiplanar,
      axial: niivue.sliceTypeAxial,
      coronal: niivue.sliceTypeCoronal,
      sagittal: niivue.sliceTypeSagittal,
    };
    niivue.setSliceType(types[name]);
    if (name !== "all") this.plane = name;
  }

  /** Arrows move the cross; keys of others are left to them. */
  listen() {
    this.canvas.tabIndex = 0;
    this.canvas.addEventListener(
      "keydown",
      (event) => {
        const way = KEYS[event.key];
        if (!way || event.ctrlKey || event.altKey || event.metaKey) return;
        event.preventDefault();
        event.stopImmediatePropagation();
        const [axis, sign] = way;
        const step = WAYS[this.plane][axis].map((each) => sign * each);
        this.niivue.moveCrosshairInVox(...step);
      },
      { capture: true },
    );
  }
}

// -- controls -----------------------------------------------------------------------------
export function labelled(text, control) {
  const label = element("label", `${text} `, { className: "control" });
  label.append(control);
  return label;
}

export function planesOf(onChange) {
  const select = element("select");
  select.append(...["all", ...PLANES].map((name) => new Option(name, name)));
  select.onchange = () => onChange(select.value);
  return select;
}

export function opacityOf(value, onChange) {
  const range = element("input", "", { type: "range", min: 0, max: 1, step: 0.05 });
  range.value = value;
  range.oninput = () => onChange(Number(range.value));
  return range;
}

export function windowsOf(onChange) {
  const select = element("select");
  select.append(...["automatic", ...Object.keys(WINDOWS)].map((name) => new Option(name, name)));
  select.onchange = () => onChange(WINDOWS[select.value] ?? null);
  return select;
}
