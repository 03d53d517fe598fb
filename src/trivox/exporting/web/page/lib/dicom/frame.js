/** One image of a DICOM series, described and decoded. */
import { Problem } from "../problem.js";
import { compressionOf, Elements, isDicom, PIXELS } from "./elements.js";

const TAG = {
  imageType: 0x00080008,
  sopClass: 0x00080016,
  modality: 0x00080060,
  description: 0x0008103e,
  patient: 0x00100020,
  thickness: 0x00180050,
  between: 0x00180088,
  detectorSpacing: 0x00181164,
  series: 0x0020000e,
  number: 0x00200011,
  position: 0x00200032,
  orientation: 0x00200037,
  samples: 0x00280002,
  photometric: 0x00280004,
  frames: 0x00280008,
  rows: 0x00280010,
  columns: 0x00280011,
  pixelSpacing: 0x00280030,
  allocated: 0x00280100,
  stored: 0x00280101,
  signed: 0x00280103,
  intercept: 0x00281052,
  slope: 0x00281053,
  units: 0x00541001,
};
const NO_IMAGES = new Set("SEG RTSTRUCT RTPLAN RTDOSE RTRECORD SR PR KO REG DOC FID".split(" "));
/** By how much directions may differ from unit vectors at right angles. */
const TURNED = 1e-2;

/** What a file holds: a frame, or null where it is no DICOM image at all. */
export async function frameOf(file) {
  const start = new Uint8Array(await file.slice(0, 133).arrayBuffer());
  if (!isDicom(start)) return null;
  const bytes = new Uint8Array(await file.arrayBuffer());
  try {
    return described(file, new Elements(bytes));
  } catch (error) {
    if (error instanceof RangeError) throw new Problem(`${file.name}: is cut off; copy it again.`);
    if (error instanceof Problem) throw new Problem(`${file.name}: ${error.message}.`);
    throw error;
  }
}

function described(file, elements) {
  const modality = elements.text(TAG.modality);
  const isLocalizer = elements
    .text(TAG.imageType)
    .toUpperCase()
    .split("\\")
    .some((kind) => kind === "LOCALIZER" || kind === "SCOUT");
  if (NO_IMAGES.has(modality) || isLocalizer || !elements.short(TAG.rows, 0)) return null;
  return {
    file,
    series: elements.text(TAG.series),
    patient: elements.text(TAG.patient),
    modality: modality || "?",
    description: elements.text(TAG.description),
    number: elements.text(TAG.number),
    size: [elements.short(TAG.rows, 0), elements.short(TAG.columns, 0)],
    position: elements.numbers(TAG.position, 3),
    orientation: directionsOf(elements.numbers(TAG.orientation, 6)),
    spacing: elements.numbers(TAG.pixelSpacing, 2) ?? elements.numbers(TAG.detectorSpacing, 2),
    depth: Math.abs(elements.number(TAG.between, 0)) || Math.abs(elements.number(TAG.thickness, 0)),
    slope: elements.number(TAG.slope, 1),
    intercept: elements.number(TAG.intercept, 0),
    units: elements.text(TAG.units).toUpperCase(),
    problem: problemOf(elements),
  };
}

/** The directions of rows and columns as unit vectors. */
function directionsOf(numbers) {
  if (!numbers) return null;
  const [row, column] = [numbers.slice(0, 3), numbers.slice(3)];
  const lengths = [row, column].map((vector) => Math.sqrt(dot(vector, vector)));
  if (
    lengths.some((length) => Math.abs(length - 1) > TURNED) ||
    Math.abs(dot(row, column)) > TURNED
  ) {
    throw new Problem(
      `ImageOrientationPatient ${numbers.join(", ")} is no pair of unit vectors; repair the file`,
    );
  }
  return numbers.map((value, index) => value / lengths[Math.floor(index / 3)]);
}

function dot(one, other) {
  return one.reduce((sum, value, axis) => sum + value * other[axis], 0);
}

/** Why an image cannot be part of a volume here, or null. */
function problemOf(elements) {
  const compression = compressionOf(elements.syntax);
  if (compression) {
    return `is compressed (${compression}), which this page does not read; store it uncompressed, or as NIfTI`;
  }
  if (elements.number(TAG.frames, 1) > 1) {
    return "is a multi-frame image, which this page does not read; store it as NIfTI";
  }
  const photometric = elements.text(TAG.photometric) || "MONOCHROME2";
  if (elements.short(TAG.samples, 1) !== 1 || !photometric.startsWith("MONOCHROME")) {
    return `is a colour image (${photometric}), which is not supported`;
  }
  if (![8, 16, 32].includes(elements.short(TAG.allocated, 0))) {
    return `has pixels of ${elements.short(TAG.allocated, 0)} bits, which are not supported`;
  }
  const spacing = elements.numbers(TAG.pixelSpacing, 2) ?? elements.numbers(TAG.detectorSpacing, 2);
  if (!spacing || Math.min(...spacing) <= 0) return "has no PixelSpacing; export the series again";
  return null;
}

/** The pixels of a frame rescaled to real values, float32 `(rows, columns)`. */
export async function pixelsOf(frame) {
  const elements = new Elements(new Uint8Array(await frame.file.arrayBuffer()));
  const place = elements.places.get(PIXELS);
  const allocated = elements.short(TAG.allocated, 16);
  const stored = elements.short(TAG.stored, allocated) || allocated;
  const isSigned = elements.short(TAG.signed, 0) === 1;
  const count = frame.size[0] * frame.size[1];
  const needed = (count * allocated) / 8;
  if (!place || place.start + needed > elements.bytes.length || place.length < needed) {
    throw new Problem(`${frame.file.name}: holds fewer pixels than it declares; copy it again.`);
  }
  const values = new Float32Array(count);
  const { little } = elements.layout;
  const unused = 32 - stored;
  const [slope, intercept] = [Math.fround(frame.slope), Math.fround(frame.intercept)];
  const read = readerOf(elements.view, allocated, little);
  for (let index = 0; index < count; index++) {
    const raw = read(place.start, index);
    const value = isSigned ? (raw << unused) >> unused : (raw << unused) >>> unused;
    values[index] = Math.fround(value * slope) + intercept;
  }
  return values;
}

function readerOf(view, allocated, little) {
  if (allocated === 8) return (start, index) => view.getUint8(start + index);
  if (allocated === 16) return (start, index) => view.getUint16(start + 2 * index, little);
  return (start, index) => view.getUint32(start + 4 * index, little);
}
