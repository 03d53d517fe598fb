"""The page in a headless Chromium, from an upload to a dataset, with the hippocampus
model on a real scan.

Pictures of the page are left in the folder of --basetemp, and in that of the variable
TRIVOX_PICTURES, from which the documentation has them.
"""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image

import page_axe
import review_desk
from clinic import web_archive, write_profiles
from dicom_slices import slice_of
from page_browser import needs_chromium, opened
from serve_client import answering, until
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.thoraxes import ThoraxSettings, write_thoraxes
from trivox.errors import ResourceError
from trivox.inference.zoo.shelves import ready_models
from trivox.service.serve.page.files import PageFiles, viewer_archives
from trivox.service.serve.review import reader, scans
from trivox.service.serve.review.process import said_of
from trivox.volumes.formats import read_labels, read_volume, write_volume
from trivox.volumes.geometry import Orientation, reorient
from trivox.volumes.volume import Volume

pytestmark = [pytest.mark.browser, needs_chromium]
WIDE = (1200, 900)
PHONE = (360, 740)
LOADED = "document.getElementById('model')?.options.length > 0"
SHOWN = "!!document.getElementById('stage')?.dataset.shows"
READY = f"{SHOWN} || document.getElementById('job-problem')?.hidden === false"
BOTH = """['first-stage', 'second-stage'].every(
    (name) => document.getElementById(name).dataset.shows)"""
HARMLESS = ("GL Driver Message", "GPU stall")
KEYS = {" ": ("Space", 32), "Tab": ("Tab", 9), "PageUp": ("PageUp", 33)}
PICTURES = os.environ.get("TRIVOX_PICTURES")


# -- servers ---------------------------------------------------------------------------
@pytest.fixture(scope="module")
def niivue():
    """Skips where NiiVue can neither be read nor fetched."""
    try:
        viewer_archives(None).require()
    except ResourceError as error:
        pytest.skip(f"no assets of the page: {error}")


@contextmanager
def serving(folder, *options):
    """The address of `trivox serve` in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "trivox", "serve", *map(str, options)]
    rest = ["--port", str(port), "--state", str(folder / "state"), "--device", "cpu"]
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen([*command, *rest], stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}/"
    try:
        until(lambda: answers(url, process, log), patience=120)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def answers(url, process, log):
    assert process.poll() is None, log.read_text(encoding="utf-8")
    try:
        return httpx.get(f"{url}healthz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Names or folders of models; one is the other without mirrored copies."""
    ready = ready_models()
    if not {"hippocampus", "xray-phantom"} <= set(ready):
        pytest.skip("no ready models: run the tests in a checkout")
    plain = tmp_path_factory.mktemp("models") / "hippocampus-plain"
    shutil.copytree(ready["hippocampus"], plain)
    content = json.loads((plain / "bundle.json").read_text(encoding="utf-8"))
    content["mirror_axes"] = []
    (plain / "bundle.json").write_text(json.dumps(content), encoding="utf-8")
    return ["hippocampus", plain, "xray-phantom"]


@pytest.fixture(scope="module")
def url(models, niivue, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("serve"), *models) as address:
        yield address


@pytest.fixture
def browse(tmp_path):
    """Opens an address in a browser of its own, which must be content at the end."""
    with ExitStack() as stack:

        def browser_of(address, *, size=WIDE):
            browser = stack.enter_context(opened(tmp_path / "profile"))
            browser.address = address
            resize(browser, size)
            browser.open(address)
            stack.callback(require_private, browser)
            return browser

        yield browser_of


def require_private(browser):
    """Nothing was asked of anybody else, and nothing went wrong unseen."""
    allowed = (browser.address, "blob:", "data:")
    assert not [url for url in browser.requests if not url.startswith(allowed)]
    said = [line for line in browser.console if not any(w in line for w in HARMLESS)]
    assert not said


@pytest.fixture(scope="module")
def scan_file(data_root):
    return data_root / "hippocampus/imagesTr/hippocampus_001.nii.gz"


# -- what people do --------------------------------------------------------------------
def resize(browser, size):
    width, height = size
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=False,
    )
    browser.call("Emulation.setScrollbarsHidden", hidden=True)


def choose_model(browser, name):
    browser.value(
        f"(() => {{ const select = document.getElementById('model'); "
        f"select.value = '{name}'; select.onchange(); }})()"
    )


def listed(url):
    """The jobs that the server knows, by id."""
    jobs = httpx.get(f"{url}v1/jobs", timeout=60).json()["jobs"]
    return {job["id"]: job["state"] for job in jobs}


def send(browser, *files, model="hippocampus", second="", doubt=False):
    """Send a scan with the form; returns the ids of the jobs, the first model's first."""
    browser.wait_for(LOADED)
    before = listed(browser.address)
    choose_model(browser, model)
    browser.choose("#sources input", *files)
    browser.value(f"document.getElementById('second').value = '{second}'")
    if doubt:
        browser.click("#formats input[value=entropy]")
    browser.click("#send")
    number = 2 if second else 1
    until(lambda: len(listed(browser.address)) == len(before) + number)
    return [job for job in listed(browser.address) if job not in before][::-1]


def show(browser, job):
    """Open a result of the queue."""
    link = f"#queue a[href='#/job/{job}']"
    browser.wait_for(f'!!document.querySelector("{link}")')
    browser.click(link)
    browser.wait_for(READY)


def result_of(browser, *files, **options):
    """Send a scan and look at its result; returns the id of the job."""
    (job,) = send(browser, *files, **options)
    show(browser, job)
    return job


def press(browser, key, *, control=False):
    code, number = KEYS.get(key) or (f"Key{key.upper()}", ord(key.upper()))
    fields = {
        "key": key,
        "code": code,
        "windowsVirtualKeyCode": number,
        "modifiers": 2 if control else 0,
    }
    browser.call("Input.dispatchKeyEvent", type="rawKeyDown", **fields)
    browser.call("Input.dispatchKeyEvent", type="keyUp", **fields)


def drag(browser, selector, start, end):
    """Drag with the mouse over part of an element, by shares of its size."""
    box = browser.value(
        f"(() => {{ const box = document.querySelector('{selector}')"
        ".getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; })()"
    )
    at = [
        {"x": box[0] + box[2] * x, "y": box[1] + box[3] * y, "button": "left"}
        for x, y in (start, end)
    ]
    browser.call("Input.dispatchMouseEvent", type="mousePressed", clickCount=1, **at[0])
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", buttons=1, **at[1])
    browser.call(
        "Input.dispatchMouseEvent", type="mouseReleased", clickCount=1, **at[1]
    )


def edit(browser):
    browser.wait_for("!document.getElementById('edit').disabled")
    browser.click("#edit")
    browser.wait_for("!document.getElementById('edit-panel').hidden")
    browser.value("document.querySelector('#stage canvas').focus()")


def review(browser, decision, who="Dr. Example"):
    reviews = "document.querySelectorAll('#history li').length"
    before = browser.value(reviews)
    browser.value(f"document.getElementById('who').value = '{who}'")
    browser.click(f"#review-form button[value={decision}]")
    browser.wait_for(f"{reviews} > {before}")
    assert browser.text("#review-status").startswith("Saved")


def label_map(url, job, folder, *, reviewed=False):
    """The label map of a job, or that which was corrected."""
    path = "review/labels" if reviewed else "results/case.nii.gz"
    answer = httpx.get(f"{url}v1/jobs/{job}/{path}", timeout=60)
    assert answer.status_code == 200, answer.text
    file = folder / "labels.nii.gz"
    file.write_bytes(answer.content)
    return read_labels(file)


def picture(browser, folder, name):
    """A picture of the page, in few colours."""
    file = folder / f"{name}.png"
    browser.screenshot(file)
    if PICTURES:
        few = (
            Image.open(file)
            .convert("RGB")
            .quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        )
        few.save(Path(PICTURES) / f"page-{name}.png", optimize=True)


def require_accessible(browser, axe):
    """Nothing is wrong in light and dark."""
    for _ in range(2):
        browser.click("#theme")
        assert page_axe.violations(browser, axe) == []


# -- tests -----------------------------------------------------------------------------
def test_a_scan_goes_from_upload_to_a_dataset(url, browse, scan_file, tmp_path):
    browser = browse(url)
    browser.wait_for(LOADED)
    picture(browser, tmp_path, "upload")
    job, _ = send(browser, scan_file, second="hippocampus-plain", doubt=True)
    states = (
        "[...document.querySelectorAll('.job-state')].map((each) => each.innerText)"
    )
    browser.wait_for(f"{states}.some((state) => state.includes('computing'))")
    picture(browser, tmp_path, "running")
    assert "hippocampus_001.nii.gz" in browser.text(".job-name")
    show(browser, job)
    assert "Research use only" in browser.text(".notice")
    rows = browser.text("#volumes")
    assert "Anterior" in rows
    assert "to" in rows.partition("Anterior")[2]
    assert "Posterior" in browser.text("#place")
    picture(browser, tmp_path, "result")
    browser.click("#doubt-controls input")
    assert float(browser.text("#doubt-high")) > float(browser.text("#doubt-low")) > 0
    picture(browser, tmp_path, "doubt")
    browser.click("#doubt-controls input")

    edit(browser)
    press(browser, " ")
    assert browser.text("#edit-status").startswith("painted at")
    for _ in range(3):
        press(browser, "]")
    drag(browser, "#stage canvas", (0.17, 0.25), (0.26, 0.27))
    picture(browser, tmp_path, "correction")
    review(browser, "edit")
    before = label_map(url, job, tmp_path)
    after = label_map(url, job, tmp_path, reviewed=True)
    changed = before.array != after.array
    assert changed.sum() > 10
    assert set(np.unique(after.array[changed])) == {1}
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-5)
    browser.wait_for("!document.getElementById('volumes-corrected').hidden")
    assert "corrected, ml" in browser.text("#volumes")

    review(browser, "reject")
    review(browser, "accept")
    assert "rejected by Dr. Example" in browser.text("#history")
    assert browser.value("document.querySelectorAll('#history li').length") == 3
    browser.open(f"{url}#/reviews")
    browser.wait_for("document.querySelectorAll('#reviews tbody tr').length > 0")
    answer = httpx.get(f"{url}v1/reviews/dataset", params={"model": "hippocampus"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path / "data")
    dataset = load_dataset(tmp_path / "data")
    assert [case.name for case in dataset.cases] == [f"case-{job[:12]}"]


def test_a_series_of_an_archive_is_found_and_segmented(
    models, niivue, browse, data_root, tmp_path
):
    """A real MR study; what the archive says of the patient is drawn by the tests."""
    scans = sorted((data_root / "dicom/mr-study/11_HCropVolume").glob("*.dcm"))
    axe = page_axe.script()
    with web_archive() as archive, ExitStack() as stack:
        for file in scans:
            dataset = pydicom.dcmread(file)
            dataset.PatientName, dataset.PatientID = "Example^Ada", "TEST-0001"
            dataset.StudyDescription = "head"
            buffer = io.BytesIO()
            dataset.save_as(buffer)
            archive.put(buffer.getvalue())
        profiles = write_profiles(tmp_path, archive)
        options = (*models[:2], "--profiles", profiles)
        url = stack.enter_context(serving(tmp_path, *options))
        browser = browse(url)
        browser.wait_for(LOADED)
        browser.click("#archive-choice summary")
        browser.value("document.getElementById('patient-id').value = 'TEST-*'")
        browser.click("#search")
        browser.wait_for("document.querySelectorAll('#studies > li').length === 1")
        assert "Example Ada (TEST-0001)" in browser.text("#studies")
        assert browser.text("#search-status") == "1 study."
        browser.click("#studies > li > button")
        browser.wait_for("!!document.querySelector('#studies ul button')")
        assert f"{len(scans)} images" in browser.text("#studies ul")
        picture(browser, tmp_path, "archive")
        require_accessible(browser, axe)
        browser.click("#studies ul button")
        browser.wait_for("!document.getElementById('picked').hidden")
        browser.click("#send")
        until(lambda: len(listed(url)) == 1)
        (job,) = listed(url)
        show(browser, job)
        assert "Anterior" in browser.text("#volumes")
        picture(browser, tmp_path, "archive-result")
        log = (tmp_path / "log.txt").read_text(encoding="utf-8")
        assert "TEST-0001" not in log
        assert "Example" not in log


def test_two_models_are_compared_on_one_scan(url, browse, scan_file, tmp_path):
    browser = browse(url)
    jobs = send(browser, scan_file, second="hippocampus-plain")
    browser.wait_for("!document.getElementById('compare').disabled")
    browser.click("#compare")
    browser.wait_for(BOTH)
    rows = browser.value(
        "[...document.querySelectorAll('#compared tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.innerText))"
    )
    first, second = (label_map(url, job, tmp_path) for job in jobs)
    for value, (name, one, other, _, dice) in enumerate(rows, start=1):
        here, there = first.array == value, second.array == value
        expected = 2 * (here & there).sum() / (here.sum() + there.sum())
        assert float(dice) == pytest.approx(expected, abs=6e-4), name
        assert float(one) == pytest.approx(here.sum() * first.voxel_ml, abs=6e-3)
        assert float(other) == pytest.approx(there.sum() * first.voxel_ml, abs=6e-3)
    assert any(float(row[4]) < 1 for row in rows)
    assert browser.value("document.getElementById('compare-problem').hidden")
    picture(browser, tmp_path, "comparison")


@pytest.mark.parametrize(
    ("axes", "flips"),
    [((2, 0, 1), (True, False, True)), ((1, 2, 0), (False, True, False))],
)
def test_what_is_not_painted_stays_in_any_order_of_axes(
    url, browse, scan_file, tmp_path, axes, flips
):
    turned = reorient(read_volume(scan_file), Orientation(axes, flips))
    angle = np.deg2rad(12)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    file = tmp_path / "turned.nii.gz"
    write_volume(file, Volume(turned.array, turn @ turned.affine))
    browser = browse(url)
    job = result_of(browser, file)
    edit(browser)
    review(browser, "edit")
    before = label_map(url, job, tmp_path)
    after = label_map(url, job, tmp_path, reviewed=True)
    assert before.array.any()
    np.testing.assert_array_equal(after.array, before.array)
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-5)
    edit(browser)
    browser.value("document.querySelectorAll('#edit-controls button')[0].click()")
    browser.value("document.querySelector('#stage canvas').focus()")
    press(browser, " ")
    review(browser, "edit")
    erased = label_map(url, job, tmp_path, reviewed=True)
    changed = erased.array != before.array
    assert changed.sum() == 1
    assert erased.array[changed] == 0


def test_undo_and_discard_leave_the_label_map_alone(url, browse, scan_file, tmp_path):
    browser = browse(url)
    job = result_of(browser, scan_file)
    edit(browser)
    press(browser, "2")
    press(browser, "PageUp")
    press(browser, " ")
    press(browser, "z", control=True)
    review(browser, "edit")
    before = label_map(url, job, tmp_path)
    after = label_map(url, job, tmp_path, reviewed=True)
    np.testing.assert_array_equal(after.array, before.array)
    edit(browser)
    press(browser, " ")
    browser.click("#edit")
    assert browser.value("document.getElementById('edit-panel').hidden")
    assert browser.value("document.getElementById('save-edit').hidden")


RECORD = {
    "warnings": [],
    "volumes": {"liver": {"volume_ml": 1.5, "ci95_ml": [1.2, 1.9]}},
    "class": {
        "answer": "malignant",
        "probabilities": {"benign": 0.25, "malignant": 0.75},
        "flags": [],
    },
    "abstain": True,
    "reason": "the model doubts",
}


def test_classes_are_calibrated_and_large_images_thinned(
    browse, niivue, tmp_path, monkeypatch
):
    classed = {"classes": ["benign", "malignant"], "class_temperature": 1.7}
    model = review_desk.MODELS[0].model_copy(update=classed)
    monkeypatch.setattr(review_desk, "MODELS", [model])
    thin = partial(scans.thinned_out, most=60)
    monkeypatch.setattr(scans, "thinned_out", thin)
    monkeypatch.setattr(reader, "_asked", said_of)
    page = PageFiles(viewer_archives(None))
    desk = review_desk.Reviewed(tmp_path / "state", page)
    labels = Volume(review_desk.drawn_labels(), review_desk.AFFINE)
    records = json.dumps({"cases": {"case": RECORD}}).encode()
    results = {"case.nii.gz": labels, "predictions.json": records}
    job = desk.done(review_desk.scan(), results=results)
    with answering(desk.app) as address:
        browser = browse(f"{address}/")
        browser.wait_for(LOADED)
        show(browser, job)
        assert browser.text("#class-answer") == "malignant, probability 0.75"
        assert "temperature of 1.70" in browser.text("#class-calibration")
        assert "the model doubts" in browser.text("#abstention")
        assert "1.20 to 1.90" in browser.text("#volumes")
        assert "one of 2 x 2 x 1 voxels" in browser.text("#reduced")
        assert browser.value("document.getElementById('edit').disabled")
        put = tmp_path / "corrected.nii.gz"
        write_volume(put, labels.with_array(review_desk.drawn_labels(3)))
        browser.value("document.getElementById('who').value = 'Dr. Example'")
        browser.choose("#edit-file", put)
        browser.wait_for("document.querySelectorAll('#history li').length == 1")
        stored = label_map(f"{address}/", job, tmp_path, reviewed=True)
        np.testing.assert_array_equal(stored.array, review_desk.drawn_labels(3))
        require_accessible(browser, page_axe.script())


def test_x_rays_stand_beside_the_synthetic_ct(url, browse, tmp_path):
    settings = ThoraxSettings(cases=1, size=32, angles=(0.0, 90.0))
    write_thoraxes(tmp_path / "exams", settings)
    (exam,) = (tmp_path / "exams/patients").iterdir()
    zipped = tmp_path / "exam.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        for name in ("geometry.json", "views.npz"):
            archive.write(exam / name, name)
    browser = browse(url)
    result_of(browser, zipped, model="xray-phantom")
    assert browser.text("#synthetic") == "SYNTHETIC CT - NOT ACQUIRED"
    assert not browser.value("document.getElementById('synthetic').hidden")
    assert browser.value("document.querySelectorAll('#xrays canvas').length") == 2
    assert browser.value("document.getElementById('edit').hidden")
    picture(browser, tmp_path, "synthetic")


def test_dicom_that_is_unlike_the_training_is_said_loudly(url, browse, tmp_path):
    files = []
    for number in range(12):
        files.append(tmp_path / f"{number}.dcm")
        slice_of(number, PatientName="Doe^Jane").save_as(
            files[-1], enforce_file_format=True
        )
    browser = browse(url)
    result_of(browser, *files)
    loud = browser.text("#abstention")
    assert loud.startswith("The model abstains")
    assert "Do not rely on this result" in loud
    assert browser.text("#job-title").startswith("12 files")
    browser.screenshot(tmp_path / "abstention.png")


def test_a_phone_shows_all_without_scrolling_sideways(url, browse, scan_file, tmp_path):
    browser = browse(url)
    job = result_of(browser, scan_file)
    for place in ("#/", f"#/job/{job}", "#/reviews", "#/models"):
        resize(browser, PHONE)
        browser.open("about:blank")
        browser.open(f"{url}{place}")
        browser.wait_for(
            "[...document.querySelectorAll('.view')].some((v) => !v.hidden)"
        )
        if place.endswith(job):
            browser.wait_for(SHOWN)
            picture(browser, tmp_path, "phone")
        width = browser.value("document.documentElement.scrollWidth")
        assert width <= PHONE[0], place


def test_nothing_keeps_people_from_using_it(url, browse, scan_file):
    axe = page_axe.script()
    browser = browse(url)
    browser.wait_for(LOADED)
    require_accessible(browser, axe)
    job = result_of(browser, scan_file, doubt=True)
    edit(browser)
    require_accessible(browser, axe)
    for place in ("#/reviews", "#/models", f"#/compare/{job}/{job}"):
        browser.value(f"location.hash = '{place}'")
        browser.wait_for(
            "[...document.querySelectorAll('.view')].some((v) => !v.hidden)"
        )
        if "compare" in place:
            browser.wait_for("!!document.getElementById('second-stage').dataset.shows")
        require_accessible(browser, axe)


def test_the_keyboard_reaches_everything(url, browse, scan_file):
    browser = browse(url)
    result_of(browser, scan_file)
    browser.value("document.activeElement.blur()")
    reached = set()
    for _ in range(40):
        press(browser, "Tab")
        reached.add(
            browser.value(
                "(document.activeElement.id || document.activeElement.innerText || "
                "document.activeElement.tagName).trim()"
            )
        )
    assert {"CANVAS", "theme", "who", "note", "edit", "Accept", "Reject"} <= reached
    assert {"edit-file", "case.nii.gz", "Scans", "Reviews"} <= reached


def test_a_token_is_asked_for_once(models, browse, scan_file, tmp_path):
    token = "a-token-that-is-long-enough"
    (tmp_path / "tokens").write_text(token, encoding="utf-8")
    (tmp_path / "tokens").chmod(0o600)
    (tmp_path / "nothing").mkdir()
    options = ("--token-file", tmp_path / "tokens", "--assets", tmp_path / "nothing")
    with serving(tmp_path, models[0], *options) as address:
        browser = browse(address)
        browser.wait_for("document.getElementById('token-form')?.hidden === false")
        browser.value("document.getElementById('token').value = 'another'")
        browser.click("#token-form button")
        browser.wait_for("!document.getElementById('unserved').hidden")
        assert "does not know this token" in browser.text("#unserved")
        browser.value(f"document.getElementById('token').value = '{token}'")
        browser.click("#token-form button")
        browser.wait_for(f"{LOADED} && document.getElementById('token-form').hidden")
        # the server lacks NiiVue: all else works
        browser.choose("#sources input", scan_file)
        browser.click("#send")
        browser.wait_for("!!document.querySelector('#queue a')")
        browser.click("#queue a")
        browser.wait_for(READY)
        assert "lacks NiiVue" in browser.text("#job-problem")
        assert "Anterior" in browser.text("#volumes")
        review(browser, "reject")
        browser.value("window.isOld = true")
        browser.call("Page.reload")
        shown = "document.getElementById('view-job')?.hidden === false"
        browser.wait_for(f"!window.isOld && {shown}")
        assert browser.value("document.getElementById('token-form').hidden")
        # browsers themselves note what was refused
        refused = ("401", "404")
        browser.console[:] = [
            line
            for line in browser.console
            if not any(code in line for code in refused)
        ]
