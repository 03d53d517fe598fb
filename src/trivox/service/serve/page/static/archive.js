/** Series of an archive: searched for, and one of them picked in the place of files. */
import { json } from "./api.js";
import { at, element } from "./lib/dom.js";
import { lineOf } from "./lib/problem.js";

const FIELDS = {
  patient_id: "patient-id",
  patient_name: "patient-name",
  dates: "days",
  modality: "modality",
};
/** What was picked: its reference and what it is called; null: nothing. */
let picked = null;

export function prepareArchives(archives) {
  at("archive-choice").hidden = archives.length === 0;
  at("archive").replaceChildren(...archives.map((name) => new Option(name, name)));
  at("search").onclick = search;
  at("unpick").onclick = () => pick(null);
  for (const id of Object.values(FIELDS)) {
    at(id).onkeydown = (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault(); // the form is for sending
      search();
    };
  }
}

export function pickedSeries() {
  return picked;
}

function pick(series) {
  picked = series;
  at("picked").hidden = series === null;
  at("drop").hidden = series !== null;
  at("picked-series").textContent = series === null ? "" : `From the archive: ${series.name}`;
  if (series !== null) at("archive-choice").open = false;
  (series === null ? at("archive-choice").querySelector("summary") : at("unpick")).focus();
}

async function asked(what, query) {
  return json(`archives/${encodeURIComponent(at("archive").value)}/${what}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(query),
  });
}

async function search() {
  const pairs = Object.entries(FIELDS).map(([name, id]) => [name, at(id).value.trim()]);
  at("studies").replaceChildren();
  at("search").disabled = true;
  say("Searching");
  try {
    const { studies, more } = await asked("studies", Object.fromEntries(pairs));
    at("studies").replaceChildren(...studies.map(itemOf));
    const count = studies.length === 1 ? "1 study" : `${studies.length} studies`;
    say(more ? `The first ${count}; search for less to see others.` : `${count}.`);
  } catch (error) {
    say(lineOf(error));
  } finally {
    at("search").disabled = false;
  }
}

function say(line) {
  at("search-status").textContent = line;
}

/** What an archive says, with dots between; it may say nothing. */
function joined(...parts) {
  return parts.filter(Boolean).join(" · ");
}

function dayOf(text) {
  return /^\d{8}$/.test(text) ? text.replace(/(....)(..)(..)/, "$1-$2-$3") : text;
}

function personOf({ patient_name: name, patient_id: id }) {
  const plain = name.replaceAll("^", " ").trim();
  return plain && id ? `${plain} (${id})` : plain || id;
}

function itemOf(study) {
  const item = element("li");
  const person = personOf(study);
  const line = joined(dayOf(study.date), study.modalities, study.description);
  const show = element("button", "Series", { type: "button", className: "plain" });
  show.setAttribute("aria-label", `Series of ${joined(person, line)}`);
  const list = element("ul");
  show.onclick = () => showSeries(study, list, show);
  item.append(
    element("p", person, { className: "person" }),
    element("p", line || "study without a description"),
    show,
    list,
  );
  return item;
}

async function showSeries({ study }, list, button) {
  button.disabled = true;
  try {
    const { series, more } = await asked("series", { study });
    list.replaceChildren(...series.map(lineOfSeries));
    if (!series.length) say("The study has no series that can be taken.");
    if (more) say(`The first ${series.length} series of the study; it has others.`);
    list.querySelector("button")?.focus();
  } catch (error) {
    button.disabled = false;
    say(lineOf(error));
  }
}

function lineOfSeries(series) {
  const objects = series.objects === null ? "" : `${series.objects} images`;
  const number = series.number && `series ${series.number}`;
  const name = joined(series.modality, number, series.description, objects);
  const item = element("li");
  const take = element("button", "Take", { type: "button" });
  take.setAttribute("aria-label", `Take ${name}`);
  take.onclick = () => pick({ reference: series.reference, name });
  item.append(element("span", name), take);
  return item;
}
