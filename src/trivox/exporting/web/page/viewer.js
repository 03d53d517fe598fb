/** The image and its labels in NiiVue, as radiologists look at them: the patient's right on
 * the left of the screen, noses to the left. */
import { NVImage, Niivue } from "./vendor/niivue.js";
import { colourOf } from "./lib/colours.js";

export class Viewer {
  /** onPlace(line): is told in words where the cross stands. */
  constructor(canvas, onPlace) {
    this.canvas = canvas;
    this.niivue = new Niivue({
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      isCornerOrientationText: true,
      crosshairWidth: 0.3,
      crosshairWidthUnit: "percent",
      crosshairColor: [1, 0.3, 0.3, 0.7],
      fontColor: [1, 1, 1, 1],
      isColorbar: false,
      dragAndDropEnabled: false,
      logLevel: "error",
      fontMinPx: 16,
      onLocationChange: (place) => onPlace(this.described(place)),
    });
    this.names = [];
  }

  /** Shows an image and the indices of its labels, if there are any, both NIfTI files in
   * memory, at the centre of the labels. */
  async show({ image, overlay, centre }, names, opacity) {
    if (!this.attached) {
      this.attached = await this.niivue.attachToCanvas(this.canvas);
      this.niivue.setSliceType(this.niivue.sliceTypeMultiplanar);
    }
    while (this.niivue.volumes.length) this.niivue.removeVolumeByIndex(0);
    this.niivue.addVolume(await NVImage.new(image, "image.nii", "gray", 1));
    this.names = names;
    if (overlay) await this.addLabels(overlay, opacity);
    this.niivue.updateGLVolume();
    if (centre) this.niivue.scene.crosshairPos = this.niivue.mm2frac(centre);
    this.niivue.createOnLocationChange();
    this.niivue.drawScene();
  }

  async addLabels(overlay, opacity) {
    const labels = await NVImage.new(overlay, "labels.nii", "gray", opacity);
    labels.setColormapLabel(tableOf(this.names));
    this.niivue.addVolume(labels);
  }

  /** Where the cross stands, the image's value there, and the label. */
  described({ mm, values }) {
    const [x, y, z] = Array.from(mm, (value) => value.toFixed(1));
    const [image, label] = values;
    const name = label && label.value > 0 ? `, ${this.names[label.value]}` : "";
    return `x ${x}, y ${y}, z ${z} mm: ${Number(image.value.toPrecision(5))}${name}`;
  }

  setOpacity(value) {
    if (this.niivue.volumes.length > 1) this.niivue.setOpacity(1, value);
  }
}

/** The colour table of indices 0 (transparent) to n. */
export function tableOf(names) {
  const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [""] };
  names.slice(1).forEach((name, position) => {
    const [red, green, blue] = colourOf(position + 1);
    table.R.push(red);
    table.G.push(green);
    table.B.push(blue);
    table.A.push(255);
    table.I.push(position + 1);
    table.labels.push(name);
  });
  return table;
}
