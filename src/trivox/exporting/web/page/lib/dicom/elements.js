/** The elements of a DICOM file that a volume is made of (PS3.5, PS3.10), uncompressed. */
import { Problem } from "../problem.js";

export const SYNTAXES = {
  "1.2.840.10008.1.2": { implicit: true, little: true },
  "1.2.840.10008.1.2.1": { implicit: false, little: true },
  "1.2.840.10008.1.2.2": { implicit: false, little: false },
};
const COMPRESSED = {
  "1.2.840.10008.1.2.1.99": "deflated",
  "1.2.840.10008.1.2.4.50": "JPEG",
  "1.2.840.10008.1.2.4.51": "JPEG",
  "1.2.840.10008.1.2.4.57": "JPEG lossless",
  "1.2.840.10008.1.2.4.70": "JPEG lossless",
  "1.2.840.10008.1.2.4.80": "JPEG-LS",
  "1.2.840.10008.1.2.4.81": "JPEG-LS",
  "1.2.840.10008.1.2.4.90": "JPEG 2000",
  "1.2.840.10008.1.2.4.91": "JPEG 2000",
  "1.2.840.10008.1.2.5": "RLE",
};
const LONG = new Set([
  "OB",
  "OD",
  "OF",
  "OL",
  "OV",
  "OW",
  "SQ",
  "SV",
  "UC",
  "UN",
  "UR",
  "UT",
  "UV",
]);
const UNDEFINED = 0xffffffff;
const ITEM_END = 0xfffee00d;
const SEQUENCE_END = 0xfffee0dd;
export const PIXELS = 0x7fe00010;
const TRANSFER_SYNTAX = 0x00020010;

/** Whether bytes begin as DICOM files do. */
export function isDicom(bytes) {
  return bytes.length > 132 && String.fromCharCode(...bytes.subarray(128, 132)) === "DICM";
}

/** What a compressed or unknown transfer syntax is called, or null for those that are
 * read. */
export function compressionOf(syntax) {
  if (SYNTAXES[syntax]) return null;
  return COMPRESSED[syntax] ?? `transfer syntax ${syntax || "missing"}`;
}

/** Elements at the top of a file: tag -> `{start, length}`, with ways to read them; what
 * lies in sequences is skipped. */
export class Elements {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.places = new Map();
    this.read(132, { implicit: false, little: true }, (tag) => tag >>> 16 !== 2);
    this.syntax = this.text(TRANSFER_SYNTAX);
    this.layout = SYNTAXES[this.syntax] ?? { implicit: false, little: true };
    if (this.syntax !== "1.2.840.10008.1.2.1.99") this.read(this.end, this.layout, () => false);
  }

  /** Notes elements from `at` on until the end, or the first that `isOver`. */
  read(at, layout, isOver) {
    while (at + 8 <= this.bytes.length) {
      const head = this.headAt(at, layout);
      if (isOver(head.tag)) break;
      if (head.tag >>> 16 !== 0xfffe) this.places.set(head.tag, head);
      if (head.tag === PIXELS) break;
      at =
        head.length === UNDEFINED
          ? this.afterSequence(head.start, layout)
          : head.start + head.length;
    }
    this.end = at;
  }

  headAt(at, { implicit, little }) {
    const tag =
      ((this.view.getUint16(at, little) << 16) | this.view.getUint16(at + 2, little)) >>> 0;
    if (implicit || tag >>> 16 === 0xfffe) {
      return { tag, start: at + 8, length: this.view.getUint32(at + 4, little), vr: "" };
    }
    const vr = String.fromCharCode(this.bytes[at + 4], this.bytes[at + 5]);
    if (!LONG.has(vr))
      return { tag, start: at + 8, length: this.view.getUint16(at + 6, little), vr };
    if (at + 12 > this.bytes.length) throw new Problem("is cut off; copy it again");
    return { tag, start: at + 12, length: this.view.getUint32(at + 8, little), vr };
  }

  /** Where a sequence, or an item, of undefined length ends. */
  afterSequence(at, layout) {
    while (at + 8 <= this.bytes.length) {
      const head = this.headAt(at, layout);
      if (head.tag === SEQUENCE_END || head.tag === ITEM_END) return head.start;
      const isOpen = head.length === UNDEFINED;
      at = isOpen ? this.afterSequence(head.start, layout) : head.start + head.length;
    }
    throw new Problem("is cut off within a sequence; copy it again");
  }

  has(tag) {
    return this.places.has(tag);
  }

  text(tag) {
    const place = this.places.get(tag);
    if (!place || place.length === UNDEFINED) return "";
    const bytes = this.bytes.subarray(place.start, place.start + place.length);
    return Array.from(bytes, (byte) => String.fromCharCode(byte))
      .join("")
      .replace(/[\0 ]+$/, "")
      .trimStart();
  }

  /** Decimal strings as numbers; null unless there are `count` finite ones. */
  numbers(tag, count) {
    const parts = this.text(tag).split("\\");
    const values = parts.map((part) => (part.trim() === "" ? NaN : Number(part)));
    return values.length >= count && values.slice(0, count).every(Number.isFinite)
      ? values.slice(0, count)
      : null;
  }

  number(tag, otherwise) {
    return this.numbers(tag, 1)?.[0] ?? otherwise;
  }

  short(tag, otherwise) {
    const place = this.places.get(tag);
    if (!place || place.length < 2) return otherwise;
    return this.view.getUint16(place.start, this.layout.little);
  }
}
