/** The jobs of this client: how far they are, and what can be done with them. */
import { asked, events, json } from "./api.js";
import { nameOf } from "./names.js";
import { at, element } from "./lib/dom.js";
import { lineOf } from "./lib/problem.js";

/** Streams at a time: browsers keep few connections to a server. */
const STREAMS = 2;
const PAUSE = 3000;
const SHOWN = 50;
const OPEN = ["queued", "running"];
const STATES = {
  queued: "waiting",
  running: "running",
  done: "done",
  failed: "failed",
  cancelled: "cancelled",
};

let jobs = new Map();
let streams = new Map();
let timer = null;
/** Ids that were picked for a comparison, the last two count. */
let picked = [];

/** Shows the queue; returns what ends it. */
export async function showQueue() {
  at("compare").onclick = () => {
    location.hash = `#/compare/${picked[0]}/${picked[1]}`;
  };
  await refresh();
  timer = setInterval(() => refresh().catch(() => {}), PAUSE);
  const close = () => {
    clearInterval(timer);
    for (const stream of streams.values()) stream.abort();
    streams = new Map();
  };
  return { close, isUnsaved: () => false };
}

/** Jobs that were just queued are picked for a comparison where there are two. */
export function followed(queued) {
  if (queued.length === 2) picked = queued.map(({ id }) => id);
  say(queued.length === 2 ? "Two jobs are queued." : "The scan is queued.");
  refresh().catch(() => {});
}

async function refresh() {
  const list = (await json(`jobs?limit=${SHOWN}`)).jobs.filter((job) => !job.expired);
  jobs = new Map(list.map((job) => [job.id, job]));
  picked = picked.filter((id) => jobs.has(id));
  draw();
  follow();
}

function follow() {
  const open = [...jobs.values()].filter(({ state }) => OPEN.includes(state)).reverse();
  for (const { id } of open) {
    if (streams.size >= STREAMS) return;
    if (!streams.has(id)) listen(id);
  }
}

async function listen(id) {
  const stream = new AbortController();
  streams.set(id, stream);
  try {
    for await (const { name, job } of events(id, stream.signal)) {
      jobs.set(id, job);
      update(job);
      if (name === "end") say(`${nameOf(job)}: ${STATES[job.state]}`);
    }
  } catch {
    // the list is asked for again in any case
  }
  streams.delete(id);
}

function showProblem(line) {
  at("queue-problem").textContent = line;
  at("queue-problem").hidden = line === "";
}

function say(line) {
  at("queue-status").textContent = line;
}

function draw() {
  const list = at("queue");
  const there = new Map([...list.children].map((item) => [item.dataset.id, item]));
  const items = [...jobs.values()].map((job) => there.get(job.id) ?? itemOf(job));
  const isSame =
    items.length === list.children.length && items.every((item, i) => item === list.children[i]);
  if (!isSame) list.replaceChildren(...items); // the focus stays where nothing changes
  for (const job of jobs.values()) update(job);
  at("queue-empty").hidden = jobs.size > 0;
  showPicked();
}

function itemOf(job) {
  const item = element("li", "", { className: "job" });
  item.dataset.id = job.id;
  const bar = element("progress", "", { max: 1 });
  item.append(
    element("p", "", { className: "job-name" }),
    element("p", "", { className: "job-state" }),
    bar,
    element("div", "", { className: "buttons" }),
  );
  return item;
}

function update(job) {
  const item = at("queue").querySelector(`[data-id="${job.id}"]`);
  if (!item) return;
  const name = nameOf(job);
  item.querySelector(".job-name").textContent = `${name} · ${job.model}`;
  item.querySelector(".job-state").textContent = stateOf(job);
  item.classList.toggle("failed", job.state === "failed");
  const bar = item.querySelector("progress");
  bar.value = job.progress;
  bar.hidden = !OPEN.includes(job.state);
  bar.setAttribute("aria-label", `Progress of ${name}`);
  if (item.dataset.state !== job.state) {
    item.dataset.state = job.state;
    item.querySelector(".buttons").replaceChildren(...buttonsOf(job, name));
  }
}

/** State and stage in words, with the time that is left, or why it failed. */
export function stateOf(job) {
  if (job.error) return `${STATES[job.state]}: ${job.error.detail}`;
  if (!OPEN.includes(job.state)) return STATES[job.state];
  const stage = job.state === "running" ? `, ${job.stage}` : "";
  const again = job.tries ? `, try ${job.tries + 1}` : "";
  return `${STATES[job.state]}${stage}${again}${left(job.eta_seconds)}`;
}

function left(seconds) {
  if (seconds === null) return "";
  if (seconds < 1) return ", nearly done";
  if (seconds < 90) return `, about ${Math.ceil(seconds)} s left`;
  return `, about ${Math.ceil(seconds / 60)} min left`;
}

function buttonsOf(job, name) {
  const isOpen = OPEN.includes(job.state);
  const remove = element("button", isOpen ? "Cancel" : "Delete", {
    type: "button",
    className: "plain",
  });
  remove.setAttribute("aria-label", `${remove.textContent} ${name}`);
  remove.onclick = () => ended(job.id);
  if (job.state !== "done") return [remove];
  const show = element("a", "Show", { className: "button", href: `#/job/${job.id}` });
  show.setAttribute("aria-label", `Show ${name}, ${job.model}`);
  return [show, pickerOf(job, name), remove];
}

function pickerOf(job, name) {
  const label = element("label", "", { className: "check" });
  const box = element("input", "", { type: "checkbox", checked: picked.includes(job.id) });
  box.setAttribute("aria-label", `Compare ${name}, ${job.model}`);
  box.onchange = () => {
    picked = picked.filter((id) => id !== job.id);
    if (box.checked) picked = [...picked, job.id].slice(-2);
    showPicked();
  };
  label.append(box, " compare");
  return label;
}

function showPicked() {
  for (const item of at("queue").children) {
    const box = item.querySelector("input[type=checkbox]");
    if (box) box.checked = picked.includes(item.dataset.id);
  }
  const done = picked.filter((id) => jobs.get(id)?.state === "done");
  at("compare").disabled = done.length !== 2;
}

async function ended(id) {
  try {
    await asked(`jobs/${id}`, { method: "DELETE" });
    await refresh();
    showProblem("");
  } catch (error) {
    showProblem(lineOf(error));
  }
}
