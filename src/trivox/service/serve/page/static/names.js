/** What scans are called in this tab: names of files stay in the browser. */

const KEY = "names";

function all() {
  return JSON.parse(sessionStorage.getItem(KEY) ?? "{}");
}

export function remember(id, name) {
  sessionStorage.setItem(KEY, JSON.stringify({ ...all(), [id]: name }));
}

/** The name of a job's scan, or when it was sent. */
export function nameOf(job) {
  return all()[job.id] ?? `Scan of ${clock(job.created)}`;
}

/** A time as people read it here. */
export function clock(text) {
  const when = new Date(text);
  const isToday = when.toDateString() === new Date().toDateString();
  const time = when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return isToday ? time : `${when.toLocaleDateString()} ${time}`;
}
