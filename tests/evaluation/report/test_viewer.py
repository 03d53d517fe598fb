import base64
import json
import re
import shutil
import subprocess
from itertools import product

import numpy as np
import pytest

from drawn_case import AFFINE, view
from trivox.evaluation.report.surface_meshes import mask_surface
from trivox.evaluation.report.viewer import surface_scene, write_viewer


def decoded(mesh, scene):
    positions = np.frombuffer(base64.b64decode(mesh["positions"]), "<i2").reshape(-1, 3)
    triangles = np.frombuffer(base64.b64decode(mesh["triangles"]), "<u2").reshape(-1, 3)
    return positions / 32767 * scene["radius_mm"] + scene["centre_mm"], triangles


def test_a_scene_holds_every_surface_to_a_hundredth_of_a_mm():
    case = view()
    scene = surface_scene(case, None)
    meshes = {}
    for mesh in scene["meshes"]:
        meshes[mesh["region"], mesh["kind"]] = decoded(mesh, scene)
    assert set(meshes) == set(product(("whole", "core"), ("prediction", "reference")))
    for (region, kind), (points, triangles) in meshes.items():
        labels = case.prediction if kind == "prediction" else case.reference
        expected = mask_surface(
            np.isin(labels, case.targets[region]), AFFINE, limit=10**6
        )
        assert np.allclose(points, expected.vertices, atol=0.01)
        assert np.array_equal(triangles, expected.triangles)


def test_outer_regions_come_first_and_let_inner_ones_shine_through():
    scene = surface_scene(view(targets={"core": (2,), "whole": (1, 2)}), None)
    assert [mesh["region"] for mesh in scene["meshes"]] == [
        "whole",
        "whole",
        "core",
        "core",
    ]
    assert [region["opacity"] for region in scene["regions"]] == [1.0, 0.5]


def test_what_is_empty_is_left_out():
    case = view()
    no_core = surface_scene(
        view(prediction=case.prediction.clip(max=1), reference=case.reference * 0), None
    )
    assert [(mesh["region"], mesh["kind"]) for mesh in no_core["meshes"]] == [
        ("whole", "prediction")
    ]
    assert (
        surface_scene(view(prediction=case.prediction * 0, reference=None), None)
        is None
    )


def test_a_page_stays_below_three_megabytes(tmp_path):
    """The worst there is: rough labels everywhere."""
    for count in (2, 60):
        labels = (
            np.random.default_rng(0)
            .integers(0, count + 1, (60, 60, 60))
            .astype(np.int16)
        )
        targets = {f"label {i}": (i,) for i in range(1, count + 1)}
        case = view(
            labels.shape,
            image=np.ones((1, *labels.shape)),
            prediction=labels,
            reference=labels[::-1].copy(),
            channels=["a"],
            labels=list(targets),
            targets=targets,
            dice={},
        )
        scene = surface_scene(case, None)
        assert len(scene["meshes"]) == 2 * count
        write_viewer(tmp_path / "case.html", scene, title="x")
        assert (tmp_path / "case.html").stat().st_size < 3e6


def test_a_page_loads_nothing_and_escapes_names(tmp_path):
    evil = "</script><script>alert(1)</script>"
    case = view(targets={evil: (1, 2)}, dice={evil: 0.5})
    write_viewer(tmp_path / "case.html", surface_scene(case, None), title=evil)
    text = (tmp_path / "case.html").read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["case.html"]
    assert evil not in text
    assert text.count("<script") == 2
    assert not re.search(
        r"(?:https?:)?//[a-z0-9]+\.|src=|@import|fetch\(|XMLHttp|import\(", text
    )
    assert "default-src 'none'" in text
    scene = json.loads(
        re.search(r'class="scene">(.*?)</script>', text, re.DOTALL).group(1)
    )
    assert scene["regions"][0]["name"] == evil


# without a screen no frame is ever due
AT_ONCE = "window.requestAnimationFrame = draw => setTimeout(draw, 0);"
PROBE = """
const canvas = document.querySelector("canvas"), seen = {};
const press = (key, more = {}) =>
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, ...more }));
const frame = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
async function look(name) {
  await frame();
  const { width, height } = canvas;
  const copy = Object.assign(document.createElement("canvas"), { width, height });
  const context = copy.getContext("2d");
  context.drawImage(canvas, 0, 0);
  const { data } = context.getImageData(0, 0, copy.width, copy.height);
  let [count, x, y] = [0, 0, 0];
  for (let i = 0; i < data.length; i += 4) if (data[i] > data[i + 2] + 40) {
    count++;
    x += i / 4 % width / width;
    y += Math.floor(i / 4 / width) / height;
  }
  const text = place => document.querySelector(place).textContent;
  const marks = ["left", "right", "top", "bottom"].map(edge => text(".mark." + edge));
  seen[name] = { count, x: x / count, y: y / count, marks, bar: text(".bar") };
}
(async () => {
  for (const key of ["a", "l", "s", "i"]) { press(key); await look(key); }
  press("a"); press("-"); press("-"); await look("smaller"); press("+"); await look("larger");
  press("ArrowRight", { shiftKey: true });
  press("ArrowRight", { shiftKey: true });
  await look("moved");
  press("0"); press("a"); press("ArrowRight"); await look("turned");
  const boxes = document.querySelectorAll("tbody input[type=checkbox]");
  press("a"); await look("again");
  boxes[0].click(); await look("hidden");
  boxes[1].click(); await look("reference");
  document.title = JSON.stringify(seen);
})();
"""


def looked_at(scene, folder):
    """What `PROBE` saw of a page with the scene in a browser, by the name of the look."""
    page = folder / "case.html"
    write_viewer(page, scene, title="x")
    text = page.read_text(encoding="utf-8")
    head, tail = text.split("<body>")
    page.write_text(
        f"{head}<body><script>{AT_ONCE}</script>{tail}<script>{PROBE}</script>",
        encoding="utf-8",
    )
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--use-gl=angle",
        "--use-angle=swiftshader",
        "--enable-webgl",
        "--enable-unsafe-swiftshader",
        f"--user-data-dir={folder}/profile",
        "--window-size=900,800",
        "--virtual-time-budget=8000",
        "--dump-dom",
        f"file://{page}",
    ]
    browser = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False
    )
    title = re.search(r"<title>(\{.*?\})</title>", browser.stdout, re.DOTALL)
    return json.loads(title.group(1))


@pytest.mark.skipif(
    shutil.which("chromium") is None, reason="no chromium to open the page with"
)
def test_a_browser_shows_the_patient_the_right_way_round(tmp_path):
    """A block at the patient's right, front and top, opened, looked at, zoomed, moved,
    turned and hidden.
    """
    labels = np.zeros((40, 40, 40), np.int16)
    labels[28:38, 28:38, 28:38] = 1
    image = np.zeros((1, 40, 40, 40))
    body = mask_surface(np.pad(np.ones((38, 38, 38), bool), 1), np.eye(4), limit=2000)
    case = view(
        labels.shape,
        image=image,
        prediction=labels,
        reference=labels,
        channels=["a"],
        labels=["a"],
        targets={"a": (1,)},
        affine=np.eye(4),
        dice={},
    )
    seen = looked_at(surface_scene(case, body), tmp_path)
    assert seen["a"]["marks"] == ["R", "L", "S", "I"]
    assert seen["l"]["marks"] == ["A", "P", "S", "I"]
    assert seen["s"]["marks"] == ["L", "R", "A", "P"]
    assert seen["i"]["marks"] == ["R", "L", "A", "P"]
    # of the block: left or right, up or down
    places = {"a": (-1, -1), "l": (-1, -1), "s": (1, -1), "i": (-1, -1)}
    for key, (across, down) in places.items():
        assert seen[key]["count"] > 500
        assert (seen[key]["x"] - 0.5) * across > 0.05
        assert (seen[key]["y"] - 0.5) * down > 0.05
    counts = {name: look["count"] for name, look in seen.items()}
    assert counts["smaller"] < 0.8 * counts["a"]
    assert counts["smaller"] < counts["larger"] < counts["a"]
    assert seen["moved"]["x"] > seen["larger"]["x"] + 0.02
    assert seen["turned"]["x"] > seen["a"]["x"] + 0.005, "the near side follows the key"
    assert counts["hidden"] == 0
    assert 0 < counts["reference"] < 0.8 * counts["again"], "level lines leave gaps"
    assert seen["a"]["bar"].endswith(" mm")
