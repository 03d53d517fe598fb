/** The cards of models: what they are for, and where they fail. */
import { element } from "./lib/dom.js";

/** Fills a place with the cards of models. */
export function showCards(place, models) {
  place.replaceChildren(...models.map((model) => cardOf(model, "h2")));
}

/** A panel about a model. */
export function cardOf(model, tag) {
  const panel = element("section", "", { className: "panel card" });
  panel.append(element(tag, model.name), listOf(linesOf(model)));
  return panel;
}

/** Heading and text, or texts, of what is known of a model. */
export function linesOf(model) {
  const labels = Object.entries(model.labels).map(([name, value]) => `${name} (${value})`);
  const card = model.card ?? {};
  return [
    ["Summary", card.summary],
    ["Task", model.task],
    ["Labels", labels.join(", ")],
    ["Classes", model.classes.join(", ")],
    ["Images", model.channels.join(", ")],
    ["Use it for", card.intended_use],
    ["It fails", card.failure_modes],
    ["Measured on", card.measured_on],
    ["Measured", (card.metrics ?? []).map(measured)],
    ["Learnt from", card.data],
    ["Licence of the weights", card.licence],
    ["Attribution", card.attribution],
    ["Identity", model.identity],
  ].filter(([, text]) => text && text.length);
}

function measured({ target, metric, mean, ci95, cases }) {
  const interval = ci95 ? ` (${ci95.map(short).join(" to ")})` : "";
  return `${target}: ${metric} ${short(mean)}${interval}, ${cases} cases`;
}

function short(value) {
  return Number(value.toPrecision(3)).toString();
}

export function listOf(lines) {
  const list = element("dl");
  for (const [heading, text] of lines) {
    list.append(element("dt", heading));
    for (const each of [text].flat()) list.append(element("dd", each));
  }
  return list;
}
