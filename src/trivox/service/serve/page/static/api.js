/** What the page asks the server, with the token of this tab. */
import { Problem } from "./lib/problem.js";

const KEY = "token";
const base = new URL("v1/", document.baseURI);

/** What the server answered in place of what was asked for. */
export class Refusal extends Problem {
  constructor(status, { title, detail, code }) {
    super([title, detail].filter(Boolean).join(": "));
    this.status = status;
    this.code = code;
  }
}

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

/** The answer to a request; throws `Refusal`, or an error in one line where none comes. */
export async function asked(path, { headers = {}, ...options } = {}) {
  const token = sessionStorage.getItem(KEY);
  const sent = token ? { Authorization: `Bearer ${token}`, ...headers } : headers;
  let response;
  try {
    response = await fetch(new URL(path, base), { headers: sent, ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer; look whether it runs, and try again.");
  }
  if (!response.ok) throw new Refusal(response.status, await problemOf(response));
  return response;
}

async function problemOf(response) {
  try {
    return await response.json();
  } catch {
    return { title: `The server answered with ${response.status}` };
  }
}

export async function json(path, options) {
  return (await asked(path, options)).json();
}

/** The events of a job one after the other, as `{name, job}`. */
export async function* events(id, signal) {
  const response = await asked(`jobs/${id}/events`, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const event = eventOf(part);
      if (event) yield event;
    }
  }
}

function eventOf(part) {
  const lines = part.split("\n");
  const field = (name) =>
    lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
  const data = field("data");
  return data ? { name: field("event"), job: JSON.parse(data) } : null;
}

/** Sends a form and tells how much of it has gone; fetch cannot say that. */
export function sent(path, form, onShare) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", new URL(path, base));
    const token = sessionStorage.getItem(KEY);
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.upload.onprogress = ({ loaded, total }) => onShare(total ? loaded / total : 0);
    request.onerror = () =>
      reject(new Problem("The upload was cut off; look whether the server runs, and try again."));
    request.onload = () => {
      const answer = parsed(request.responseText);
      if (request.status < 300) resolve(answer);
      else reject(new Refusal(request.status, answer));
    };
    request.send(form);
  });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { title: "The server failed" };
  }
}

/** The bytes of a result, offered as a file. */
export async function download(path, name) {
  const response = await asked(path);
  const address = URL.createObjectURL(await response.blob());
  const link = Object.assign(document.createElement("a"), { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
