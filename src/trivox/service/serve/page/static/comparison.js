/** Two results of one scan side by side, with their volumes and how far they agree. */
import { json } from "./api.js";
import { bytesOf, centreOf, imageOf, labelsOf, overlayOf, recordOf } from "./images.js";
import { NO_VIEWER, canvasOf } from "./job.js";
import { nameOf } from "./names.js";
import { ml, say } from "./saying.js";
import { at, element, row } from "./lib/dom.js";
import { Problem, lineOf } from "./lib/problem.js";

const OPACITY = 0.5;
const PLACES = ["first", "second"];
const LETTERS = ["A", "B"];

export async function showComparison(server, ...ids) {
  at("compare-problem").hidden = true;
  at("compared").tHead.replaceChildren();
  at("compared").tBodies[0].replaceChildren();
  at("compared-note").textContent = "";
  const sides = await Promise.all(ids.map((id) => sideOf(server, id)));
  sides.forEach((side, number) => {
    const name = `${LETTERS[number]}: ${nameOf(side.job)} · ${side.job.model}`;
    at(`${PLACES[number]}-title`).textContent = name;
  });
  const isSame = sides[0].image.tag === sides[1].image.tag;
  if (!isSame) problem("These are two different scans: only their volumes are compared.");
  fillTable(sides, isSame);
  try {
    return await showImages(sides);
  } catch (error) {
    problem(lineOf(error));
    return null;
  }
}

async function sideOf(server, id) {
  const job = await json(`jobs/${id}`);
  const model = server.models.find(({ name }) => name === job.model);
  if (job.state !== "done" || job.expired || !Object.keys(model?.labels ?? {}).length) {
    throw new Problem("Compare two results with label maps that are done.");
  }
  const [image, labels, record] = await Promise.all([
    imageOf(job),
    labelsOf(job, model),
    recordOf(job),
  ]);
  return { job, model, image, labels, record };
}

function problem(line) {
  at("compare-problem").textContent = line;
  at("compare-problem").hidden = false;
}

async function showImages(sides) {
  const looking = await import("./looking.js").catch(() => null);
  if (!looking) throw new Problem(NO_VIEWER);
  const lookers = [];
  const close = () => lookers.forEach((looker) => looker.close());
  const isUnsaved = () => false;
  for (const [number, { image, labels, job }] of sides.entries()) {
    const canvas = canvasOf(at(`${PLACES[number]}-stage`), `Result ${LETTERS[number]}`);
    const looker = new looking.Looker(canvas, number ? () => {} : say("compare-place"));
    lookers.push(looker);
    const volumes = {
      image: await bytesOf(image),
      overlay: overlayOf(labels),
      centre: centreOf(sides[0].labels),
    };
    await looker.show(volumes, labels.names, OPACITY);
    at(`${PLACES[number]}-stage`).dataset.shows = job.id;
  }
  const [first, second] = lookers;
  first.niivue.broadcastTo(second.niivue, { "2d": true });
  second.niivue.broadcastTo(first.niivue, { "2d": true });
  const { labelled, opacityOf, planesOf } = looking;
  const each = (does) => (value) => lookers.forEach((looker) => does(looker, value));
  at("compare-controls").replaceChildren(
    labelled("View", planesOf(each((looker, name) => looker.showPlanes(name)))),
    labelled(
      "Opacity of labels",
      opacityOf(
        OPACITY,
        each((looker, value) => looker.setOpacity(value)),
      ),
    ),
  );
  return { close, isUnsaved };
}

// -- numbers ------------------------------------------------------------------------------
function fillTable(sides, isSame) {
  const [first, second] = sides;
  const volumes = sides.map(({ job }, number) => `${LETTERS[number]}: ${job.model}, ml`);
  const heads = ["Label", ...volumes, "Difference", "Dice"];
  const head = element("tr");
  head.append(...heads.map((text) => element("th", text, { scope: "col" })));
  at("compared").tHead.replaceChildren(head);
  const canMeet = isSame && alike(first.labels, second.labels);
  const names = [...new Set(sides.flatMap(({ labels }) => labels.names.slice(1)))];
  const rows = names.map((name) => {
    const volumes = sides.map(({ record }) => record.volumes?.[name]?.volume_ml ?? null);
    const texts = volumes.map((volume) => (volume === null ? "" : ml(volume)));
    const dice = canMeet ? diceOf(first.labels, second.labels, name) : null;
    return row(name, ...texts, change(...volumes), dice === null ? "" : dice.toFixed(3));
  });
  at("compared").tBodies[0].replaceChildren(...rows);
  at("compared-note").textContent = noteOf(first.image.step, isSame);
}

function noteOf(step, isSame) {
  if (!isSame) return "";
  const how = "Dice between both results, where both know the label: 1 is full agreement.";
  const thinned = step.some((each) => each > 1);
  return thinned ? `${how} Of every ${step.join(" x ")} voxels one is compared.` : how;
}

function change(one, other) {
  if (one === null || other === null) return "";
  const sign = other >= one ? "+" : "-";
  return `${sign}${ml(Math.abs(other - one))}`;
}

function alike(one, other) {
  return one.shape.every((size, axis) => size === other.shape[axis]);
}

/** How far two label maps agree in a label; null where one does not know it. */
function diceOf(one, other, name) {
  const [index, otherIndex] = [one, other].map(({ names }) => names.indexOf(name));
  if (index < 1 || otherIndex < 1) return null;
  let [size, otherSize, common] = [0, 0, 0];
  for (let voxel = 0; voxel < one.data.length; voxel++) {
    const isIn = one.data[voxel] === index;
    const isInOther = other.data[voxel] === otherIndex;
    if (isIn) size++;
    if (isInOther) otherSize++;
    if (isIn && isInOther) common++;
  }
  return size + otherSize ? (2 * common) / (size + otherSize) : null;
}
