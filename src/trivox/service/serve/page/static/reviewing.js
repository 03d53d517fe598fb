/** Accepting, rejecting and correcting a result, and what was said of it before. */
import { asked, json } from "./api.js";
import { clock } from "./names.js";
import { at, element } from "./lib/dom.js";
import { lineOf } from "./lib/problem.js";

const WHO = "who";
const WORDS = {
  accept: "accepted",
  reject: "rejected",
  edit: "corrected",
  withdrawn: "files removed",
};

export class Reviewing {
  /** corrected(): the label map that was drawn, or null where nothing is edited. */
  constructor(job, corrected, onStored) {
    this.job = job;
    this.corrected = corrected;
    this.onStored = onStored;
  }

  async open() {
    at("who").value = sessionStorage.getItem(WHO) ?? "";
    at("note").value = "";
    at("edit-file").value = "";
    at("review-status").textContent = "";
    at("review-form").onsubmit = (event) => event.preventDefault();
    for (const button of at("review-form").querySelectorAll("button[value]")) {
      button.onclick = () => this.decide(button.value);
    }
    at("edit-file").onchange = () => this.file(at("edit-file").files[0]);
    at("withdraw").onclick = () => this.withdraw();
    await this.showHistory();
  }

  async decide(decision) {
    if (!at("review-form").reportValidity()) return;
    at("review-status").textContent = "Saving ...";
    const file = decision === "edit" ? await this.corrected() : null;
    await this.put(decision, file);
  }

  /** A label map that another program corrected. */
  async file(file) {
    if (!at("review-form").reportValidity()) {
      at("edit-file").value = "";
      return;
    }
    if (!file) return;
    at("review-status").textContent = "Saving ...";
    await this.put("edit", file);
  }

  async put(decision, file) {
    const form = new FormData();
    form.append("decision", decision);
    form.append("who", at("who").value);
    form.append("note", at("note").value);
    if (file) form.append("file", file, "labels.nii.gz");
    sessionStorage.setItem(WHO, at("who").value);
    try {
      await asked(`jobs/${this.job.id}/review`, { method: "PUT", body: form });
      at("review-status").textContent = `Saved: ${WORDS[decision]}.`;
      at("note").value = "";
      await this.showHistory();
      await this.onStored(decision);
    } catch (error) {
      at("review-status").textContent = lineOf(error);
    }
  }

  async withdraw() {
    try {
      await asked(`jobs/${this.job.id}/review`, { method: "DELETE" });
      at("review-status").textContent = "Removed.";
      await this.showHistory();
    } catch (error) {
      at("review-status").textContent = lineOf(error);
    }
  }

  async showHistory() {
    const { reviews } = await json(`jobs/${this.job.id}/review`);
    at("history").replaceChildren(...reviews.map(entryOf));
    at("withdraw").hidden = !reviews.at(-1)?.sha256;
    this.latest = reviews.at(-1) ?? null;
  }
}

function entryOf({ decision, who, when, note, model, identity }) {
  const text = `${WORDS[decision]} by ${who}, ${clock(when)}, result of ${model} ${identity}`;
  return element("li", note ? `${text}: ${note}` : text);
}

/** A word for a decision. */
export function wordOf(decision) {
  return WORDS[decision];
}
