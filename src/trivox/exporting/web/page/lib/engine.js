/** The networks of an export, computed by ONNX Runtime: WebAssembly, in threads where the
 * page is isolated, or WebGPU where it gives the same logits. */
import { inflated } from "./bytes.js";
import { Problem } from "./problem.js";

const MOST_THREADS = 8;
/** Largest difference of logits, relative to their range, that counts as equal. */
const EQUAL = 1e-4;
/** How ONNX Runtime names a node that failed; it adds `_token_` to the name of the file. */
const FAILED_NODE = /Name:\s?'([^']+?)(_token_\d+)?'/;
/** Nodes left to the CPU, above which WebGPU is of no use. */
const MOST_ON_CPU = 16;
const RUNTIMES = {
  wasm: { module: "ort.wasm.min.js", glue: "ort-wasm.js", binary: "ort-wasm.wasm.gz" },
  webgpu: { module: "ort.webgpu.min.js", glue: "ort-webgpu.js", binary: "ort-webgpu.wasm.gz" },
};

/** `{networks, how}`: functions from a window to its logits, and what computes them.
 *
 * base: URL of the page's folder; window: an example, on which WebGPU is compared. */
export async function openNetworks(description, base, { gpu, report }) {
  const files = [];
  for (const [number, name] of description.pipeline.networks.entries()) {
    report("loading", number / description.pipeline.networks.length);
    files.push(await loaded(new URL(name, base), digestOf(description, name)));
  }
  const shape = [1, description.pipeline.inputs.length, ...description.pipeline.patch_size];
  const names = description.pipeline;
  const plain = await opened("wasm", base, files, names, shape);
  if (!gpu) return plain;
  report("trying", 0);
  try {
    const onGpu = await openedOnGpu(base, files, names, shape);
    const objection = await objectionTo(onGpu, plain.networks, noiseOf(shape));
    if (!objection) return { networks: onGpu, how: "WebGPU" };
    return { ...plain, remark: `WebGPU ${objection} here; WebAssembly is used.` };
  } catch (error) {
    console.warn(error);
    return { ...plain, remark: "WebGPU does not run this model here; WebAssembly is used." };
  }
}

/** The networks on WebGPU; nodes that it cannot compute are left to the CPU. */
async function openedOnGpu(base, files, names, shape) {
  const onCpu = new Set();
  const window = noiseOf(shape);
  for (;;) {
    try {
      const { networks } = await opened("webgpu", base, files, names, shape, [...onCpu]);
      for (const network of networks) await network(window);
      return networks;
    } catch (error) {
      const node = FAILED_NODE.exec(error.message)?.[1];
      if (node === undefined || onCpu.has(node) || onCpu.size >= MOST_ON_CPU) throw error;
      onCpu.add(node);
    }
  }
}

function digestOf(description, name) {
  return description.files?.find(({ file }) => file === name)?.sha256;
}

/** The bytes of a file of the export; throws if they are not those that were written. */
async function loaded(url, digest) {
  const response = await fetch(url).catch(() => null);
  if (!response?.ok) {
    throw new Problem(
      `${nameOf(url)} cannot be loaded from the server; copy the whole folder again.`,
    );
  }
  const bytes = await response.arrayBuffer();
  // browsers compute sums on https and localhost only
  if (digest && globalThis.crypto?.subtle) {
    const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const text = Array.from(sum, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (text !== digest)
      throw new Problem(`${nameOf(url)} was altered or cut off; copy the folder again.`);
  }
  return new Uint8Array(bytes);
}

function nameOf(url) {
  return url.pathname.split("/").pop();
}

async function opened(kind, base, files, names, shape, forceCpuNodeNames = []) {
  const ort = await runtime(kind, base);
  const onGpu = { name: "webgpu", ...(forceCpuNodeNames.length ? { forceCpuNodeNames } : {}) };
  const providers = kind === "webgpu" ? [onGpu, "wasm"] : ["wasm"];
  const networks = [];
  for (const bytes of files) {
    const session = await ort.InferenceSession.create(bytes, { executionProviders: providers });
    networks.push(async (window) => {
      const results = await session.run({
        [names.input]: new ort.Tensor("float32", window, shape),
      });
      return results[names.output].data;
    });
  }
  const threads = ort.env.wasm.numThreads;
  return { networks, how: `WebAssembly, ${threads} thread${threads === 1 ? "" : "s"}` };
}

async function runtime(kind, base) {
  const { module, glue, binary } = RUNTIMES[kind];
  const vendor = new URL("vendor/", base);
  const ort = await import(new URL(module, vendor).href);
  const response = await fetch(new URL(binary, vendor)).catch(() => null);
  if (!response?.ok)
    throw new Problem(
      `vendor/${binary} cannot be loaded from the server; copy the whole folder again.`,
    );
  ort.env.wasm.wasmBinary = await inflated(await response.blob());
  ort.env.wasm.wasmPaths = { mjs: new URL(glue, vendor).href };
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated
    ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS)
    : 1;
  return ort;
}

/** A window of reproducible noise. */
function noiseOf(shape) {
  const size = shape.reduce((product, length) => product * length, 1);
  return Float32Array.from({ length: size }, (_, index) => ((index * 7919) % 1009) / 504 - 1);
}

/** Why networks are not taken in place of others, or null. */
async function objectionTo(networks, others, window) {
  let seconds = 0;
  let otherSeconds = 0;
  for (const [number, network] of networks.entries()) {
    const first = await timed(network, window);
    const second = await timed(others[number], window);
    if (!isNear(first.logits, second.logits)) return "gives other logits";
    seconds += first.seconds;
    otherSeconds += second.seconds;
  }
  return seconds < otherSeconds ? null : "is slower";
}

async function timed(network, window) {
  const started = performance.now();
  const logits = await network(window);
  return { logits, seconds: (performance.now() - started) / 1000 };
}

function isNear(ones, others) {
  let apart = 0;
  let range = 0;
  for (let index = 0; index < ones.length; index++) {
    apart = Math.max(apart, Math.abs(ones[index] - others[index]));
    range = Math.max(range, Math.abs(others[index]));
  }
  return apart <= EQUAL * range;
}
