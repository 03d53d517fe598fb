/** The page: which view is shown, and what the server has to offer. */
import { Refusal, json, setToken } from "./api.js";
import { showCards } from "./cards.js";
import { showComparison } from "./comparison.js";
import { showJob } from "./job.js";
import { showQueue } from "./queue.js";
import { showReviews } from "./reviews.js";
import { prepareForm } from "./scans.js";
import { at } from "./lib/dom.js";
import { lineOf } from "./lib/problem.js";

const UNSAVED = "Leave without saving the correction?";
const FORM = "multipart/form-data";
/** Models of the server, whether it has a folder of scans, and archives. */
const server = { models: [], hasData: false, archives: [] };
const NOTHING = { close() {}, isUnsaved: () => false };
/** The view that is shown, and its address. */
let shown = { ...NOTHING, hash: null };
let routing = Promise.resolve();

const VIEWS = {
  scans: () => showQueue(),
  reviews: () => showReviews(server),
  models: () => showCards(at("cards"), server.models),
  job: (id) => showJob(server, id),
  compare: (first, second) => showComparison(server, first, second),
};

/** What the address says: `#/job/ID` and the like. */
function placeOf(hash) {
  const [name, ...rest] = hash.replace(/^#\/?/, "").split("/");
  return name in VIEWS ? [name, ...rest] : ["scans"];
}

/** One view after the other: what a slow one still loads must not come into the next. */
function goOn() {
  routing = routing.then(route);
}

async function route() {
  if (location.hash === "#main" || location.hash === shown.hash) return;
  if (shown.isUnsaved() && !confirm(UNSAVED)) {
    history.replaceState(null, "", shown.hash);
    return;
  }
  const [name, ...rest] = placeOf(location.hash);
  shown.close();
  shown = { ...NOTHING, hash: location.hash };
  for (const view of document.querySelectorAll(".view")) view.hidden = true;
  const view = at(`view-${name}`);
  view.hidden = false;
  markCurrent(name);
  const heading = view.querySelector("h1");
  document.title = `${heading.textContent} - trivox`;
  if (route.before) heading.focus();
  route.before = true;
  showProblem("");
  try {
    const { hash } = location;
    shown = { ...((await VIEWS[name](...rest)) ?? NOTHING), hash };
  } catch (error) {
    problem(error);
  }
}

function markCurrent(name) {
  for (const link of document.querySelectorAll("nav a")) {
    const isIt = link.getAttribute("href") === (name === "scans" ? "#/" : `#/${name}`);
    if (isIt) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function problem(error) {
  if (error instanceof Refusal && error.status === 401) askForToken(true);
  else showProblem(lineOf(error));
}

function showProblem(line) {
  at("unserved").textContent = line;
  at("unserved").hidden = line === "";
}

function askForToken(again) {
  for (const view of document.querySelectorAll(".view")) view.hidden = true;
  at("token-form").hidden = false;
  if (again && at("token").value) showProblem("The server does not know this token.");
  at("token").focus();
}

at("token-form").onsubmit = (event) => {
  event.preventDefault();
  setToken(at("token").value.trim());
  showProblem("");
  begin();
};

/** Dark or light: by the system's setting until it is chosen. */
function prepareTheme() {
  const button = at("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () =>
    (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "")) === "dark";
  const label = () => {
    button.textContent = isDark() ? "Light" : "Dark";
  };
  button.onclick = () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    sessionStorage.setItem("theme", theme);
    label();
  };
  system.onchange = label;
  label();
}

async function begin() {
  try {
    server.models = (await json("models")).models;
    server.archives = (await json("archives")).archives;
    const description = await json("../openapi.json");
    const { schema } = description.paths["/v1/jobs"].post.requestBody.content[FORM];
    server.hasData = (schema.oneOf ?? [schema]).some(({ properties }) => "path" in properties);
  } catch (error) {
    problem(error);
    return;
  }
  at("token-form").hidden = true;
  prepareForm(server);
  shown = { ...NOTHING, hash: null };
  onhashchange = goOn;
  goOn();
}

addEventListener("beforeunload", (event) => {
  if (shown.isUnsaved()) event.preventDefault();
});
prepareTheme();
begin();
