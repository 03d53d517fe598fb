"use strict";
// Draws the scenes of `viewer.py` with WebGL: turned, moved and zoomed by mouse, touch and
// keyboard. No library. World axes are RAS millimetres: x to the right, y to the front, z
// upwards. The camera looks from `yaw` and `pitch` at the scene: yaw 0, pitch 0 is the view
// from the front. The projection is orthographic, so the scale bar holds everywhere.

const VERTEX_SHADER = `
attribute vec3 position, normal;
uniform mat3 camera;          // world to screen: right, up, towards the viewer
uniform vec3 shift;           // of the scene on the screen, in the scene's radii
uniform vec2 zoom;            // screen units for one radius, across and up
uniform float lift;           // towards the viewer, so that surfaces do not coincide
varying vec3 facing, place;
void main() {
  place = position;
  facing = camera * normal;
  vec3 seen = camera * position + shift;
  gl_Position = vec4(seen.xy * zoom, -(seen.z + lift) / 4.0, 1.0);
}`;

const FRAGMENT_SHADER = `
precision mediump float;
uniform vec3 colour;
uniform float opacity, bands; // bands: level lines over the height of the scene, or 0
uniform bool rim;             // only the silhouette: the outline of the body
varying vec3 facing, place;
void main() {
  // about 0 where two parts touch in a vertex: their normals cancel out
  float size = length(facing);
  float towards = size > 0.05 ? abs(facing.z) / size : 0.6;
  if (bands > 0.0 && fract(place.z * bands) > 0.42) discard;
  float alpha = rim ? opacity * pow(1.0 - towards, 2.0) : opacity;
  vec3 lit = rim ? colour : colour * (0.35 + 0.65 * towards) + 0.12 * pow(towards, 24.0);
  gl_FragColor = vec4(lit * alpha, alpha);
}`;

const VIEWS = {
  Anterior: [0, 0], Left: [-90, 0], Superior: [180, 90],
  Posterior: [180, 0], Right: [90, 0], Inferior: [0, -90],
};
const KEYS = { a: "Anterior", p: "Posterior", l: "Left", r: "Right", s: "Superior", i: "Inferior" };
const START = { yaw: -35, pitch: 20, zoom: 0.9, x: 0, y: 0 };
const BANDS = 18, LIFT_STEPS = 0.6;
const radians = degrees => degrees * Math.PI / 180;
const limited = (value, least, most) => Math.min(most, Math.max(least, value));

function decoded(text, Kind) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  return new Kind(bytes.buffer);
}

// Unit normals as bytes: each vertex gets the sum of its triangles' area vectors.
function normalsOf(positions, triangles) {
  const sums = new Float32Array(positions.length), normals = new Int8Array(positions.length);
  for (let t = 0; t < triangles.length; t += 3) {
    const [a, b, c] = [3 * triangles[t], 3 * triangles[t + 1], 3 * triangles[t + 2]];
    const u = [0, 1, 2].map(i => positions[b + i] - positions[a + i]);
    const v = [0, 1, 2].map(i => positions[c + i] - positions[a + i]);
    const area = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    for (const vertex of [a, b, c]) for (let i = 0; i < 3; i++) sums[vertex + i] += area[i];
  }
  for (let v = 0; v < sums.length; v += 3) {
    const length = Math.hypot(sums[v], sums[v + 1], sums[v + 2]) || 1;
    for (let i = 0; i < 3; i++) normals[v + i] = Math.round(127 * sums[v + i] / length);
  }
  return normals;
}

function compiled(gl) {
  const program = gl.createProgram();
  const sources = [[gl.VERTEX_SHADER, VERTEX_SHADER], [gl.FRAGMENT_SHADER, FRAGMENT_SHADER]];
  for (const [kind, source] of sources) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.bindAttribLocation(program, 0, "position");
  gl.bindAttribLocation(program, 1, "normal");
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
  const uniform = name => gl.getUniformLocation(program, name);
  const names = ["camera", "shift", "zoom", "colour", "opacity", "bands", "rim", "lift"];
  return { program, ...Object.fromEntries(names.map(name => [name, uniform(name)])) };
}

function uploaded(gl, mesh) {
  const positions = decoded(mesh.positions, Int16Array);
  const triangles = decoded(mesh.triangles, Uint16Array);
  const buffer = (target, data) => {
    const made = gl.createBuffer();
    gl.bindBuffer(target, made);
    gl.bufferData(target, data, gl.STATIC_DRAW);
    return made;
  };
  // Attributes are read in steps of 4 bytes: shorts and bytes in threes are padded to fours.
  const padded = (data, Kind) => {
    const wide = new Kind(data.length / 3 * 4);
    for (let v = 0; v < data.length / 3; v++) wide.set(data.subarray(3 * v, 3 * v + 3), 4 * v);
    return wide;
  };
  return {
    positions: buffer(gl.ARRAY_BUFFER, padded(positions, Int16Array)),
    normals: buffer(gl.ARRAY_BUFFER, padded(normalsOf(positions, triangles), Int8Array)),
    triangles: buffer(gl.ELEMENT_ARRAY_BUFFER, triangles),
    count: triangles.length,
  };
}

function element(tag, settings = {}, ...children) {
  const made = Object.assign(document.createElement(tag), settings);
  made.append(...children);
  return made;
}

// The screen's axes in the world: right, up, towards the viewer.
function axesOf({ yaw, pitch }) {
  const s = Math.sin(radians(yaw));
  const c = Math.cos(radians(yaw));
  const p = Math.sin(radians(pitch));
  const q = Math.cos(radians(pitch));
  return { right: [-c, s, 0], up: [-s * p, -c * p, q], towards: [s * q, c * q, p] };
}

// Anatomical directions along an axis, the strongest first: "R", "LP".
function directions(axis) {
  const named = axis.map((value, i) => [Math.abs(value), ["LR", "PA", "IS"][i][value > 0 ? 1 : 0]]);
  const large = named.filter(([size]) => size > 0.35).sort(([a], [b]) => b - a);
  return large.map(([, letter]) => letter).join("");
}

const OPPOSITE = { R: "L", L: "R", A: "P", P: "A", S: "I", I: "S" };
const opposite = letters => letters.replace(/./g, letter => OPPOSITE[letter]);

function surfaceViewer(root) {
  const scene = JSON.parse(root.querySelector(".scene").textContent);
  const canvas = root.querySelector("canvas"), stage = root.querySelector(".stage");
  const settings = { antialias: true, alpha: false, preserveDrawingBuffer: true };
  const gl = canvas.getContext("webgl", settings);
  let shader = gl && compiled(gl);
  if (!shader) return;  // the text for browsers without WebGL stays
  stage.querySelector(".fallback").hidden = true;

  const shownFirst = () => ({ prediction: true, reference: false });
  const regions = scene.regions.map(region => ({ ...region, shown: shownFirst() }));
  const byName = Object.fromEntries(regions.map(region => [region.name, region]));
  const camera = { ...START };
  const body = { shown: true };
  let buffers = scene.meshes.map(mesh => uploaded(gl, mesh));
  let waiting = false;

  const rgb = colour => [1, 3, 5].map(i => parseInt(colour.slice(i, i + 2), 16) / 255);
  const isOutline = mesh => mesh.kind === "outline";
  const regionOf = mesh => byName[mesh.region];
  const isShown = mesh => isOutline(mesh) ? body.shown : regionOf(mesh).shown[mesh.kind];
  const opacityOf = mesh => isOutline(mesh) ? 0.6 : regionOf(mesh).opacity;
  const colourOf = mesh => isOutline(mesh) ? scene.outline : regionOf(mesh).colour;

  const lift = LIFT_STEPS * scene.step_mm / scene.radius_mm;

  // `side` is 1 for surfaces that face the viewer, -1 for those that face away: inner ones
  // lie within the outer ones.
  function drawMesh(mesh, buffer, side) {
    const lifted = isOutline(mesh) ? 0 : -side * lift * regionOf(mesh).depth;
    gl.uniform1f(shader.lift, lifted);
    gl.uniform3fv(shader.colour, rgb(colourOf(mesh)));
    gl.uniform1f(shader.opacity, opacityOf(mesh));
    gl.uniform1f(shader.bands, mesh.kind === "reference" ? BANDS : 0);
    gl.uniform1i(shader.rim, mesh.kind === "outline" ? 1 : 0);
    const attributes = [[0, buffer.positions, gl.SHORT], [1, buffer.normals, gl.BYTE]];
    for (const [place, data, kind] of attributes) {
      gl.bindBuffer(gl.ARRAY_BUFFER, data);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, 3, kind, true, kind === gl.SHORT ? 8 : 4, 0);
    }
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffer.triangles);
    gl.drawElements(gl.TRIANGLES, buffer.count, gl.UNSIGNED_SHORT, 0);
  }

  // Solid surfaces first; then those one can look through, their far sides from the
  // outermost inwards, their near sides from the innermost outwards: nested surfaces so
  // blend in the right order without sorting triangles.
  function draw() {
    waiting = false;
    const density = Math.min(2, window.devicePixelRatio || 1);
    const pixels = size => Math.max(1, Math.round(size * density));
    const width = pixels(canvas.clientWidth);
    const height = pixels(canvas.clientHeight);
    if (canvas.width !== width || canvas.height !== height) {
      Object.assign(canvas, { width, height });
    }
    gl.viewport(0, 0, width, height);
    gl.clearColor(0x15 / 255, 0x18 / 255, 0x1c / 255, 1);
    gl.depthMask(true);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.useProgram(shader.program);
    const { right, up, towards } = axesOf(camera), side = Math.min(width, height);
    const columns = [0, 1, 2].flatMap(i => [right[i], up[i], towards[i]]);
    gl.uniformMatrix3fv(shader.camera, false, columns);
    gl.uniform3f(shader.shift, camera.x, camera.y, 0);
    gl.uniform2f(shader.zoom, camera.zoom * side / width, camera.zoom * side / height);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    const pairs = scene.meshes.map((mesh, i) => [mesh, buffers[i]]);
    const shown = pairs.filter(([mesh]) => isShown(mesh) && opacityOf(mesh) > 0);
    const solid = ([mesh]) => mesh.kind !== "outline" && opacityOf(mesh) >= 1;
    gl.disable(gl.BLEND);
    gl.disable(gl.CULL_FACE);
    for (const pair of shown.filter(solid)) drawMesh(...pair, 1);
    gl.enable(gl.BLEND);
    gl.enable(gl.CULL_FACE);
    gl.depthMask(false);
    const clear = shown.filter(pair => !solid(pair));
    gl.cullFace(gl.FRONT);
    for (const pair of clear) drawMesh(...pair, -1);
    gl.cullFace(gl.BACK);
    for (const pair of clear.reverse()) drawMesh(...pair, 1);
    annotate(right, up, side / density);
  }

  function annotate(right, up, side) {
    const [r, u] = [directions(right), directions(up)];
    const texts = { left: opposite(r), right: r, top: u, bottom: opposite(u) };
    for (const [edge, text] of Object.entries(texts)) {
      stage.querySelector(`.mark.${edge}`).textContent = text;
    }
    const perMm = camera.zoom * side / 2 / scene.radius_mm;  // CSS pixels
    const lengths = [-1, 0, 1, 2].flatMap(power => [1, 2, 5].map(step => step * 10 ** power));
    const length = lengths.filter(mm => mm * perMm <= 140).pop() ?? lengths[0];
    const bar = stage.querySelector(".bar");
    bar.textContent = `${+length.toPrecision(1)} mm`;
    bar.style.width = `${length * perMm}px`;
  }

  function redraw() {
    if (!waiting) requestAnimationFrame(draw);
    waiting = true;
  }
  const turn = (across, down) => {
    camera.yaw -= across;
    camera.pitch = limited(camera.pitch + down, -90, 90);
    redraw();
  };
  // radii in a CSS pixel
  const unit = () => 2 / (camera.zoom * Math.min(canvas.clientWidth, canvas.clientHeight));
  const move = (across, down) => {
    camera.x = limited(camera.x + across * unit(), -2, 2);
    camera.y = limited(camera.y - down * unit(), -2, 2);
    redraw();
  };
  const zoom = factor => {
    camera.zoom = limited(camera.zoom * factor, 0.2, 40);
    redraw();
  };
  const look = name => {
    [camera.yaw, camera.pitch] = VIEWS[name];
    redraw();
  };
  const reset = () => {
    Object.assign(camera, START);
    redraw();
  };

  // One finger or the left button turns; two fingers, the right button or shift move; two
  // fingers also zoom.
  const pointers = new Map();
  const middle = () => {
    const all = [...pointers.values()];
    const mean = key => all.reduce((sum, point) => sum + point[key], 0) / all.length;
    const [one, other = one] = all;
    const spread = Math.hypot(one.x - other.x, one.y - other.y);
    return { x: mean("x"), y: mean("y"), spread };
  };
  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  canvas.addEventListener("pointermove", event => {
    if (!pointers.has(event.pointerId)) return;
    const before = middle();
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const after = middle(), [across, down] = [after.x - before.x, after.y - before.y];
    if (pointers.size > 1 && before.spread > 0) zoom(after.spread / before.spread);
    if (pointers.size > 1 || event.shiftKey || event.buttons & 6) move(across, down);
    else turn(-across * 0.5, down * 0.5);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, event => pointers.delete(event.pointerId));
  }
  canvas.addEventListener("contextmenu", event => event.preventDefault());
  canvas.addEventListener("dblclick", reset);
  canvas.addEventListener("wheel", event => {
    // the page scrolls until the viewer has been chosen
    if (document.activeElement !== canvas) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.0015));
  }, { passive: false });
  canvas.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (arrows[event.key]) {
      const [across, down] = arrows[event.key];
      if (event.shiftKey) move(20 * across, 20 * down);
      else turn(-5 * across, 5 * down);
    } else if (event.key === "+" || event.key === "=") zoom(1.15);
    else if (event.key === "-") zoom(1 / 1.15);
    else if (event.key === "0" || event.key === "Home") reset();
    else if (KEYS[event.key]) look(KEYS[event.key]);
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("webglcontextlost", event => event.preventDefault());
  canvas.addEventListener("webglcontextrestored", () => {
    shader = compiled(gl);
    buffers = scene.meshes.map(mesh => uploaded(gl, mesh));
    redraw();
  });
  new ResizeObserver(redraw).observe(canvas);

  const button = (textContent, onclick) =>
    element("button", { type: "button", textContent, onclick });
  const tick = (label, checked, present, set) => {
    const state = { checked: checked && present, disabled: !present, ariaLabel: label };
    const box = element("input", { type: "checkbox", ...state });
    box.onchange = () => { set(box.checked); redraw(); };
    return box;
  };
  const has = kind => region =>
    scene.meshes.some(mesh => mesh.region === region.name && mesh.kind === kind);
  const kinds = ["prediction", "reference"].filter(kind => regions.some(has(kind)));
  const row = region => {
    const range = { type: "range", min: 0, max: 1, step: 0.05, value: region.opacity };
    const slider = element("input", { ...range, ariaLabel: `opacity of ${region.name}` });
    slider.oninput = () => { region.opacity = +slider.value; redraw(); };
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = region.colour;
    const dice = typeof region.dice === "number" ? `Dice ${region.dice.toFixed(3)}` : "";
    const score = element("span", { className: "dice", textContent: dice });
    const head = element("th", { scope: "row" }, swatch, region.name, score);
    const boxes = kinds.map(kind => {
      const set = on => { region.shown[kind] = on; };
      const label = `${kind} of ${region.name}`;
      return element("td", {}, tick(label, region.shown[kind], has(kind)(region), set));
    });
    return element("tr", {}, head, ...boxes, element("td", {}, slider));
  };
  const all = kind => {
    const box = tick(`${kind} of all`, kind === "prediction", true, on => {
      const column = kinds.indexOf(kind);
      regions.forEach((region, i) => {
        const own = table.tBodies[0].rows[i].cells[column + 1].firstChild;
        if (!own.disabled) region.shown[kind] = own.checked = on;
      });
    });
    return element("th", {}, `${kind[0].toUpperCase()}${kind.slice(1)}`, element("br"), box);
  };
  const opacityHead = element("th", { textContent: "Opacity" });
  const headRow = element("tr", {}, element("th"), ...kinds.map(all), opacityHead);
  const table = element("table", {},
    element("thead", {}, headRow),
    element("tbody", {}, ...regions.map(row)));
  const outlineTick = () => {
    const box = tick("outline", true, true, on => { body.shown = on; });
    return element("p", {}, element("label", {}, box, " Outline of the image"));
  };
  const outline = scene.meshes.some(mesh => mesh.kind === "outline")
    ? [outlineTick()] : [];
  const lines = kinds.length > 1 ? " The reference is drawn as level lines." : "";
  const help = "Drag or arrow keys: turn. Right button, two fingers or Shift: move. Wheel (after "
    + "a click), pinch or + and −: zoom. Keys a p l r s i: views; 0: reset."
    + `${lines} Surfaces are smoothed, from voxels of up to ${+scene.step_mm.toPrecision(2)} mm; `
    + "do not measure on them.";
  const views = Object.keys(VIEWS).map(name => button(name, () => look(name)));
  root.querySelector(".controls").append(
    element("div", { className: "views" }, ...views, button("Reset", reset)),
    element("div", { className: "regions" }, table),
    ...outline,
    element("p", { className: "note", textContent: help }));
  redraw();
}

for (const root of document.querySelectorAll(".viewer")) surfaceViewer(root);
