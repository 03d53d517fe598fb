/** Where the image comes from: for each channel a NIfTI file, or a DICOM series of a
 * folder. */

export class Sources {
  /** list(files): the image series of a folder; onProblem(line): what to tell. */
  constructor(place, channels, list, onProblem) {
    this.list = list;
    this.onProblem = onProblem;
    this.rows = channels.map((name) => this.rowOf(place, name));
  }

  rowOf(place, name) {
    const row = { name, files: [], series: null };
    const line = element("div", { className: "source" });
    const chosen = element("span", { className: "chosen", textContent: "nothing chosen" });
    const select = element("select", { hidden: true });
    select.setAttribute("aria-label", `Series for ${name}`);
    const file = chooser(`File (.nii, .nii.gz)`, `${name}: NIfTI file`);
    const folder = chooser("DICOM folder", `${name}: DICOM folder`);
    file.input.accept = ".nii,.gz,.nii.gz";
    folder.input.webkitdirectory = true;
    file.input.onchange = () => {
      if (file.input.files.length) this.useFile(row, file.input.files[0], chosen, select);
    };
    folder.input.onchange = () => this.useFolder(row, [...folder.input.files], chosen, select);
    select.onchange = () => {
      row.series = select.value;
    };
    line.append(
      element("span", { className: "name", textContent: name }),
      file.label,
      folder.label,
      chosen,
      select,
    );
    line.addEventListener("dragover", (event) => event.preventDefault());
    line.addEventListener("drop", (event) => {
      event.preventDefault();
      const files = [...event.dataTransfer.files];
      if (files.length === 1) this.useFile(row, files[0], chosen, select);
      else if (files.length) this.useFolder(row, files, chosen, select);
    });
    place.append(line);
    return row;
  }

  useFile(row, file, chosen, select) {
    Object.assign(row, { files: [file], series: null });
    chosen.textContent = file.name;
    select.hidden = true;
  }

  async useFolder(row, files, chosen, select) {
    Object.assign(row, { files: [], series: null });
    if (!files.length) return;
    chosen.textContent = "looking for image series ...";
    select.hidden = true;
    try {
      const series = await this.list(files);
      Object.assign(row, { files, series: series[0].uid });
      const options = series.map(({ uid, title }) =>
        element("option", { value: uid, textContent: title }),
      );
      select.replaceChildren(...options);
      select.hidden = series.length < 2;
      chosen.textContent =
        series.length < 2 ? series[0].title : `${series.length} series, choose one:`;
    } catch (error) {
      chosen.textContent = "nothing chosen";
      this.onProblem(error.message);
    }
  }

  /** What was chosen, or a line that says what is missing; one file may hold all
   * channels. */
  chosen() {
    const given = this.rows.filter((row) => row.files.length);
    const missing = this.rows.filter((row) => !row.files.length).map((row) => row.name);
    if (given.length === 0) return { line: `Choose an image: ${missing.join(", ")}.` };
    const sources = given.map(({ files, series }) => ({ files, series }));
    if (missing.length && given.length > 1)
      return { line: `Choose the image of ${missing.join(", ")} as well.` };
    return { sources };
  }
}

function chooser(text, described) {
  const label = element("label", { className: "file", textContent: text });
  const input = element("input", { type: "file" });
  input.setAttribute("aria-label", described);
  label.append(input);
  return { label, input };
}

function element(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}
