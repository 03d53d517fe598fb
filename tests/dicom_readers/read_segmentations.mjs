// Reads DICOM SEG as cornerstone (OHIF) does, for tests: bundled by esbuild with what it
// imports. Standard input: a JSON list of {segmentation, images}; standard output: for each
// the places (LPS mm) of the voxels of every segment.
import fs from "node:fs";
import { data } from "dcmjs";
import { generateToolState } from "./node_modules/@cornerstonejs/adapters/dist/esm/adapters/Cornerstone/Segmentation_4X.js";

const { DicomMessage, DicomMetaDictionary } = data;
const log = console.log;
console.log = () => {}; // libraries talk on standard output

function read(path) {
  const bytes = fs.readFileSync(path);
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  const message = DicomMessage.readFile(buffer);
  const dataset = DicomMetaDictionary.naturalizeDataset(message.dict);
  return { buffer, dataset };
}

function only(value) {
  return Array.isArray(value) ? value[0] : value;
}

// One entry an image plane; those of a multi-frame image by their functional groups.
function planesOf(paths) {
  const planes = [];
  for (const path of paths) {
    const { dataset } = read(path);
    const count = Number(dataset.NumberOfFrames || 1);
    const shared = only(dataset.SharedFunctionalGroupsSequence) || {};
    for (let frame = 0; frame < count; frame += 1) {
      const groups = dataset.PerFrameFunctionalGroupsSequence;
      const own = groups ? [].concat(groups)[frame] : {};
      const place = only(own.PlanePositionSequence) || dataset;
      const way =
        only(own.PlaneOrientationSequence || shared.PlaneOrientationSequence) || dataset;
      const measures =
        only(own.PixelMeasuresSequence || shared.PixelMeasuresSequence) || dataset;
      planes.push({
        dataset,
        frame: count > 1 ? frame + 1 : undefined,
        id: count > 1 ? `image/frames/${frame + 1}` : `image-${planes.length}`,
        position: place.ImagePositionPatient.map(Number),
        orientation: way.ImageOrientationPatient.map(Number),
        spacing: measures.PixelSpacing.map(Number),
      });
    }
  }
  return planes;
}

function providerOf(planes) {
  const byId = Object.fromEntries(planes.map((plane) => [plane.id, plane]));
  const get = (kind, id) => {
    const { dataset, frame, orientation, position, spacing } = byId[id];
    if (kind === "imagePlaneModule") {
      return {
        frameOfReferenceUID: dataset.FrameOfReferenceUID,
        rows: dataset.Rows,
        columns: dataset.Columns,
        imageOrientationPatient: orientation,
        rowCosines: orientation.slice(0, 3),
        columnCosines: orientation.slice(3),
        imagePositionPatient: position,
        pixelSpacing: spacing,
      };
    }
    if (kind === "generalSeriesModule") {
      return { seriesInstanceUID: dataset.SeriesInstanceUID, modality: dataset.Modality };
    }
    if (kind === "sopCommonModule" || kind === "generalImageModule") {
      return {
        sopInstanceUID: dataset.SOPInstanceUID,
        sopInstanceUid: dataset.SOPInstanceUID,
        frameNumber: frame,
      };
    }
    if (kind === "instance") {
      return { ...dataset, ImagePositionPatient: position };
    }
    return undefined;
  };
  return { get };
}

// World coordinates (LPS mm) of a pixel, as dcmjs read where its image lies.
function worldOf(plane, row, column) {
  const [rowMm, columnMm] = plane.spacing;
  return [0, 1, 2].map(
    (axis) =>
      plane.position[axis] +
      plane.orientation[axis] * column * columnMm +
      plane.orientation[axis + 3] * row * rowMm,
  );
}

async function segmentsOf(job) {
  const planes = planesOf(job.images);
  const ids = planes.map((plane) => plane.id);
  const { buffer, dataset } = read(job.segmentation);
  const options = { TypedArrayConstructor: Uint16Array };
  const state = await generateToolState(ids, buffer, providerOf(planes), options);
  const maps = state.labelmapBufferArray;
  const rows = planes[0].dataset.Rows;
  const columns = planes[0].dataset.Columns;
  const voxels = {};
  for (const map of maps) {
    const values = new Uint16Array(map);
    values.forEach((value, index) => {
      if (value) {
        const plane = planes[Math.floor(index / (rows * columns))];
        const inside = index % (rows * columns);
        const at = worldOf(plane, Math.floor(inside / columns), inside % columns);
        (voxels[value] = voxels[value] || []).push(at);
      }
    });
  }
  const named = {};
  for (const segment of [].concat(dataset.SegmentSequence)) {
    named[segment.SegmentLabel] = voxels[segment.SegmentNumber] || [];
  }
  return named;
}

const jobs = JSON.parse(fs.readFileSync(0, "utf8"));

async function answers() {
  const all = [];
  for (const job of jobs) {
    try {
      all.push({ segments: await segmentsOf(job) });
    } catch (error) {
      all.push({ error: String((error && error.stack) || error) });
    }
  }
  return all;
}

answers().then((all) => log(JSON.stringify(all)));
