/** Runs the page's own modules in node: a list of calls as JSON on standard input, their
 * results as JSON on standard output. Arrays travel as `{type, base64}`. */
import { readFile } from "node:fs/promises";

const [folder] = process.argv.slice(2);
const lib = (name) => import(`${folder}/lib/${name}.js`);

const TYPES = {
  Float32Array,
  Float64Array,
  Int8Array,
  Int16Array,
  Int32Array,
  Uint8Array,
  Uint16Array,
  Uint32Array,
};

function unpacked(value) {
  if (Array.isArray(value)) return value.map(unpacked);
  if (value === null || typeof value !== "object") return value;
  if ("base64" in value) {
    const bytes = new Uint8Array(Buffer.from(value.base64, "base64"));
    return new TYPES[value.type](bytes.buffer);
  }
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, unpacked(one)]));
}

function packed(value) {
  if (ArrayBuffer.isView(value)) {
    const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    return { type: value.constructor.name, base64: bytes.toString("base64") };
  }
  if (Array.isArray(value)) return value.map(packed);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, packed(one)]));
}

/** A network that is known in both languages: each output is a weighted sum of the inputs
 * and of how they change along x. */
function toyNetwork(weights, steps, patch) {
  const size = patch[0] * patch[1] * patch[2];
  return async (window) => {
    const logits = new Float32Array(weights.length * size);
    weights.forEach((row, output) => {
      row.forEach((weight, channel) => {
        for (let index = 0; index < size; index++) {
          const value = window[channel * size + index];
          const before = index % patch[2] ? window[channel * size + index - 1] : value;
          logits[output * size + index] += weight * value + steps[output] * before;
        }
      });
    });
    return logits;
  };
}

const CALLS = {
  async nifti({ path }) {
    const { readNifti } = await lib("nifti/read");
    const file = new File([await readFile(path)], path);
    return readNifti(file);
  },
  async series({ paths }) {
    const { readSeries, scanFiles } = await lib("dicom/series");
    const files = [];
    for (const path of paths) files.push(new File([await readFile(path)], path));
    const { series } = await scanFiles(files);
    const volume = await readSeries(files, series[0].uid);
    return { ...volume, titles: series.map((one) => one.title) };
  },
  async written({ volume }) {
    const { packedNifti, plainNifti } = await lib("nifti/write");
    const file = await packedNifti(volume);
    const plain = new Uint8Array(plainNifti(volume));
    return { packed: new Uint8Array(await file.arrayBuffer()), plain };
  },
  async rows({ size, newSize, order }) {
    const { splineRows } = await lib("spline");
    const matrix = new Float64Array(size * newSize);
    splineRows(size, newSize, order).forEach(({ first, weights }, row) => {
      weights.forEach((weight, index) => {
        matrix[row * size + first + index] = weight;
      });
    });
    return matrix;
  },
  async halves({ values }) {
    const { toHalf } = await lib("numbers");
    return Float32Array.from(values, toHalf);
  },
  async line({ message }) {
    const { lineOf } = await lib("problem");
    return lineOf(new RangeError(message));
  },
  async starts({ size, patch, overlap }) {
    const { windowStarts } = await lib("windows");
    return windowStarts(size, patch, overlap);
  },
  async orientation({ affine }) {
    const { canonicalOrientation } = await lib("orientation");
    return canonicalOrientation(affine);
  },
  async prepared({ volume, pipeline }) {
    const { prepare, recordOf } = await lib("grid");
    return prepare(volume, recordOf(volume, pipeline), pipeline);
  },
  async rules({ indices, shape, pipeline, mm3 }) {
    const { applyRules } = await lib("rules");
    applyRules(indices, shape, pipeline, mm3);
    return indices;
  },
  async segmented({ volume, pipeline, toys }) {
    const { segment } = await lib("pipeline");
    const networks = toys.map(({ weights, steps }) =>
      toyNetwork(weights, steps, pipeline.patch_size),
    );
    const stages = [];
    const report = (stage) => stages.at(-1) === stage || stages.push(stage);
    return { ...(await segment(volume, pipeline, networks, report)), stages };
  },
};

let text = "";
for await (const part of process.stdin) text += part;
const results = [];
for (const { call, ...options } of JSON.parse(text)) {
  try {
    results.push({ result: packed(await CALLS[call](unpacked(options))) });
  } catch (error) {
    results.push({ error: error.message, kind: error.name });
  }
}
process.stdout.write(JSON.stringify(results));
