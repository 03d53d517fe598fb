/** Pieces of the document. */

export const at = (id) => document.getElementById(id);

export function element(tag, text = "", properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text, ...properties });
}

/** A small square of a colour, drawn because inline styles are not allowed. */
export function swatch([red, green, blue]) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: 14, height: 14, className: "swatch" });
  const pen = canvas.getContext("2d");
  pen.fillStyle = `rgb(${red} ${green} ${blue})`;
  pen.fillRect(0, 0, 14, 14);
  return canvas;
}

/** A row of a table: its heading, then numbers as texts. */
export function row(heading, ...numbers) {
  const line = document.createElement("tr");
  line.append(element("th", heading, { scope: "row" }));
  line.append(...numbers.map((text) => element("td", text, { className: "number" })));
  return line;
}
