/** The chosen files as one volume: NIfTI files or DICOM series, one or more channels each. */
import { mismatch } from "./affine.js";
import { readSeries, scanFiles } from "./dicom/series.js";
import { readNifti } from "./nifti/read.js";
import { Problem } from "./problem.js";

/** The image series among files, for a person to choose from. */
export async function seriesOf(files) {
  const { series } = await scanFiles(files);
  return series.map(({ uid, title }) => ({ uid, title }));
}

/** `{channels, shape, affine, unitMm, remarks}` of sources `{files, series}`, one a channel
 * or one with all channels; series: UID of a DICOM series, or null for a NIfTI file. */
export async function readChannels(sources, names) {
  const volumes = [];
  for (const source of sources) volumes.push(await readSource(source));
  const [first, ...others] = volumes;
  others.forEach((other, index) => {
    const problem = mismatch(first.shape, first.affine, other.shape, other.affine);
    if (!problem) return;
    throw new Problem(
      `The images of ${names[0]} and ${names[index + 1]} do not lie on one grid: ${problem}; ` +
        "resample them to one grid first.",
    );
  });
  return {
    ...first,
    channels: volumes.flatMap((volume) => volume.channels),
    remarks: volumes.flatMap((volume) => volume.remarks),
  };
}

async function readSource({ files, series }) {
  if (files.length === 0) throw new Problem("No file was chosen.");
  if (series !== null) return readSeries(files, series);
  const [file] = files;
  try {
    return await readNifti(file);
  } catch (error) {
    if (error instanceof Problem) throw new Problem(`${file.name}: ${error.message}.`);
    throw error;
  }
}
