/** Bytes of a file, plain or gzip-compressed, a part at a time and never more of them
 * than are asked for. */
import { Problem } from "./problem.js";

const TRUNCATED = "holds fewer bytes than its header declares; it is truncated, copy it again";

export class ByteStream {
  /** @param {ReadableStream<Uint8Array>} readable */
  constructor(readable) {
    this.reader = readable.getReader();
    this.waiting = new Uint8Array(0);
  }

  /** `count` bytes in memory of their own. */
  async take(count) {
    const target = new Uint8Array(count);
    let filled = 0;
    while (filled < count) {
      if (!(await this.more())) throw new Problem(TRUNCATED);
      const part = this.waiting.subarray(0, count - filled);
      target.set(part, filled);
      filled += part.length;
      this.waiting = this.waiting.subarray(part.length);
    }
    return target;
  }

  async skip(count) {
    while (count > 0) {
      const step = Math.min(count, 2 ** 20);
      await this.take(step);
      count -= step;
    }
  }

  /** Whether bytes are left; verifies the checksum of a gzip file at its end. */
  async more() {
    while (this.waiting.length === 0) {
      const { done, value } = await this.reader.read().catch(damaged);
      if (done) return false;
      this.waiting = value;
    }
    return true;
  }

  async close() {
    await this.reader.cancel().catch(() => {});
  }
}

function damaged() {
  throw new Problem(
    "its gzip stream is damaged, cut off, or made of several parts; copy it again, or " +
      "store it as plain .nii",
  );
}

/** Whether a file begins as gzip files do, whatever its name is. */
export async function isGzip(blob) {
  const start = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  return start[0] === 0x1f && start[1] === 0x8b;
}

/** The content of a file as a stream. */
export function opened(blob, packed) {
  const stream = blob.stream();
  return new ByteStream(packed ? stream.pipeThrough(new DecompressionStream("gzip")) : stream);
}

/** All bytes of a small gzip file, or of a file that a server has inflated already. */
export async function inflated(blob) {
  if (!(await isGzip(blob))) return blob.arrayBuffer();
  const stream = blob.stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

/** `parts` as one gzip-compressed blob. */
export function deflated(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new CompressionStream("gzip"));
  return new Response(stream).blob();
}
