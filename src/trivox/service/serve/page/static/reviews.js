/** All reviews, and the dataset that is made of them. */
import { download, json } from "./api.js";
import { clock, nameOf } from "./names.js";
import { wordOf } from "./reviewing.js";
import { at, element } from "./lib/dom.js";
import { lineOf } from "./lib/problem.js";

const SHOWN = 200;

export async function showReviews({ models }) {
  const labelled = models.filter(({ labels }) => Object.keys(labels).length);
  at("dataset-model").replaceChildren(...labelled.map(({ name }) => new Option(name, name)));
  at("dataset-form").onsubmit = (event) => {
    event.preventDefault();
    fetchDataset();
  };
  const { reviews } = await json(`reviews?limit=${SHOWN}`);
  at("reviews-empty").hidden = reviews.length > 0;
  at("reviews").hidden = !reviews.length;
  at("reviews").tBodies[0].replaceChildren(...reviews.map(rowOf));
}

function rowOf({ job, model, decision, who, note, when }) {
  const line = document.createElement("tr");
  const link = element("a", nameOf({ id: job, created: when }), { href: `#/job/${job}` });
  const scan = document.createElement("td");
  scan.append(link);
  const cells = [model, wordOf(decision), who, note].map((text) => element("td", text));
  line.append(element("td", clock(when)), scan, ...cells);
  return line;
}

async function fetchDataset() {
  const model = at("dataset-model").value;
  const accepted = at("dataset-accepted").checked;
  at("dataset-status").textContent = "Preparing ...";
  try {
    const query = new URLSearchParams({ model, accepted });
    await download(`reviews/dataset?${query}`, `${model}-reviewed.zip`);
    at("dataset-status").textContent = "Done.";
  } catch (error) {
    at("dataset-status").textContent = lineOf(error);
  }
}
