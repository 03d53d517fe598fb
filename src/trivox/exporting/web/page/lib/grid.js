/** From a source image to the network's grid, and what leads back: the steps of
 * `export.json`'s pipeline. */
import { spacingOf } from "./affine.js";
import { foregroundMask } from "./mask.js";
import { normalise } from "./normalise.js";
import { AS_STORED, canonicalOrientation, nonzeroBox, Placing } from "./orientation.js";
import { Problem } from "./problem.js";
import { resizeImage, resizeMask, resizeSlices } from "./resize.js";
import { resampledSize } from "./spline.js";

/** Where a volume lies on the grids of a pipeline: `placing` (source and cropped grid),
 * `shape` (network's grid), and the axes along which slices are resampled one by one. */
export function recordOf(volume, pipeline) {
  const rules = pipeline.grid;
  const orientation = rules.axes === "stored" ? AS_STORED : canonicalOrientation(volume.affine);
  const box = nonzeroBox(volume.channels, volume.shape);
  const placing = new Placing(volume.shape, orientation, box, pipeline.axis_order);
  const edges = spacingOf(volume.affine);
  const spacing = placing.sourceAxes.map((axis) => edges[axis]);
  const target = [...pipeline.spacing];
  if (rules.slices !== "resampled") target[0] = spacing[0];
  let shape = placing.shape;
  if (rules.image !== null) {
    shape = shape.map((size, axis) => resampledSize(size, spacing[axis], target[axis]));
  }
  return {
    placing,
    shape,
    imageAxis: coarseAxis(rules.image ?? rules.labels, spacing, target),
    labelsAxis: coarseAxis(rules.labels, spacing, target),
    logitsAxis: coarseAxis(rules.logits, target, spacing),
  };
}

/** The axis along which slices are resampled one by one, or null. */
export function coarseAxis(rule, old, target) {
  if (rule.slicewise === false) return null;
  const grids = rule.looks_at === "old" ? [old, target] : [target, old];
  if (rule.slicewise) return singleLongest(grids[0]);
  for (const edges of grids) {
    if (Math.max(...edges) / Math.min(...edges) > rule.threshold) return singleLongest(edges);
  }
  return null;
}

function singleLongest(edges) {
  const most = Math.max(...edges);
  const longest = edges.map((edge) => Math.abs(edge - most) <= 1e-8 + 1e-5 * most);
  return longest.filter(Boolean).length === 1 ? longest.indexOf(true) : null;
}

/** Throws for values that are no numbers. */
export function requireNumbers(channels) {
  for (const values of channels) {
    if (!values.every(Number.isFinite)) {
      throw new Problem("The image holds NaN or infinite values; repair it.");
    }
  }
}

/** The network's input channels on its grid; the source's channels are left as they are. */
export function prepare(volume, record, pipeline) {
  const cropped = volume.channels.map((values) => record.placing.fromSource(values));
  const size = record.placing.shape;
  let mask = null;
  if (pipeline.mask_channel) mask = foregroundMask(cropped, size);
  normalise(cropped, size, pipeline.normalisations);
  const channels = [];
  while (cropped.length) channels.push(resized(cropped.shift(), record, pipeline.grid.image));
  if (mask) channels.push(resizeMask(mask, size, record.shape, record.labelsAxis));
  return { channels, shape: record.shape };
}

function resized(channel, record, rule) {
  if (rule === null) return channel;
  const size = record.placing.shape;
  const axis = record.imageAxis;
  if (axis === null || rule.clip === "channel") {
    return resizeImage(channel, size, record.shape, rule.order, axis);
  }
  return resizeSlices(channel, size, record.shape, axis, rule.order, rule.order_across);
}
