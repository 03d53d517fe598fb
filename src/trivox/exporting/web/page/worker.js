/** Does the work beside the page, which stays responsive and may end it at any time. */
import { openNetworks } from "./lib/engine.js";
import { packedNifti, plainNifti } from "./lib/nifti/write.js";
import { segment } from "./lib/pipeline.js";
import { lineOf } from "./lib/problem.js";
import { readChannels, seriesOf } from "./lib/source.js";

/** Networks once they are loaded, and whether WebGPU was asked for. */
let opened = null;

const report = (stage, share) => postMessage({ kind: "progress", stage, share });

const TASKS = {
  /** Lists the image series of a folder of DICOM files. */
  list: async ({ files }) => ({ series: await seriesOf(files) }),
  /** Reads, segments and answers with a label map, volumes and what the viewer shows. */
  segment: async ({ description, base, sources, gpu }) => {
    const { pipeline } = description;
    report("reading", 0);
    const volume = await readChannels(sources, pipeline.channels);
    if (opened?.gpu !== gpu)
      opened = { gpu, ...(await openNetworks(description, base, { gpu, report })) };
    const started = performance.now();
    const { labels, indices, volumes, centre } = await segment(
      volume,
      pipeline,
      opened.networks,
      report,
    );
    const seconds = (performance.now() - started) / 1000;
    const image = plainNifti({ ...volume, data: volume.channels[0] });
    const overlay = plainNifti(indices);
    const file = await packedNifti(labels);
    const remarks = [...volume.remarks, ...(opened.remark ? [opened.remark] : [])];
    return { image, overlay, file, volumes, centre, seconds, how: opened.how, remarks };
  },
};

onmessage = async ({ data }) => {
  const { number } = data;
  try {
    const result = await TASKS[data.task](data);
    const buffers = [result.image, result.overlay].filter(Boolean);
    postMessage({ kind: "done", number, result }, buffers);
  } catch (error) {
    console.error(error);
    postMessage({ kind: "failed", number, line: lineOf(error) });
  }
};
