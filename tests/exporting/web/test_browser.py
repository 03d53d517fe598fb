"""The page in a headless Chromium, on real scans: its labels are those of `trivox predict
--precision fp32`, and whatever goes wrong is one line.

Pictures of the page are left in the folder of --basetemp for people to look at.
"""

import gzip
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from nnunet_folder import model_folder
from page_browser import isolated, needs_chromium, opened, served
from page_models import page_of
from trivox import Predictor
from trivox.datasets.dataset import Case
from trivox.datasets.phantoms.abdomens import (
    PancreasPhantomSettings,
    write_pancreas_phantoms,
)
from trivox.errors import ResourceError
from trivox.exporting.export import ExportOptions, export_model
from trivox.exporting.web.assets import Archives, write_assets
from trivox.importing.nnunet import import_nnunet
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume

pytestmark = [pytest.mark.browser, needs_chromium]
AGREEMENT = 0.99999
TIE = 1e-2
"""Probabilities that close are equal but for rounding: in windows of hardly anything but
air the logits of ONNX Runtime are off by 1e-3, those of torch by 1e-4.
"""
FEW = 2
"""Voxels that may differ in images of less than a hundred thousand."""
QUICK = {
    "network": "unet-tiny",
    "epochs": 2,
    "iterations_per_epoch": 30,
    "validation_iterations": 1,
    "precision": "fp32",
    "workers": 0,
    "deterministic": True,
}
"""A training of seconds."""
SHOWN = "!document.getElementById('result').hidden"
FAILED = "!document.getElementById('problem').hidden"
READY = "document.getElementById('main')?.hidden === false"


@pytest.fixture(scope="session")
def archives(tmp_path_factory):
    """The archives of others; skips where they can neither be read nor fetched."""
    try:
        write_assets(tmp_path_factory.mktemp("vendor"), Archives())
    except ResourceError as error:
        pytest.skip(f"no assets of the page: {error}")
    return Archives()


def trained(data, run, **settings):
    from trivox.tasks.run import run_request
    from trivox.tasks.task import RunRequest

    run_request(RunRequest(data, run, "quick_test", {**QUICK, **settings}))
    return run / "bundle"


def some_of_a_decathlon(data, folder, count):
    """A dataset of the first cases of a larger one."""
    content = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    content["training"] = content["training"][:count]
    content["test"] = []
    for case in content["training"]:
        for file in case.values():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(data / file, folder / file)
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def some_folders(data, folder, pattern):
    """A dataset of some cases of a larger one."""
    for path in sorted(data.glob(pattern)):
        shutil.copytree(path, folder / path.name)
    return folder


@pytest.fixture(scope="session")
def hippocampus(data_root, tmp_path_factory, archives):
    folder = tmp_path_factory.mktemp("hippocampus")
    data = some_of_a_decathlon(data_root / "hippocampus", folder / "data", 12)
    bundle = trained(data, folder / "run")
    return bundle, page_of([bundle], folder / "page", archives)


@pytest.fixture(scope="session")
def brats(data_root, tmp_path_factory, archives):
    folder = tmp_path_factory.mktemp("brats")
    pattern = "BraTS20_Training_00?"
    data = some_folders(data_root / "brats-cubes", folder / "data", pattern)
    bundle = trained(data, folder / "run")
    return bundle, page_of([bundle], folder / "page", archives)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory, archives):
    """A model of CT phantoms with coarse voxels."""
    folder = tmp_path_factory.mktemp("phantom")
    settings = PancreasPhantomSettings(cases=8, shape=(24, 48, 48), spacing=(4, 4, 4))
    data = write_pancreas_phantoms(folder / "data", settings)
    bundle = trained(
        data, folder / "run", patch_size=[16, 32, 32], iterations_per_epoch=120
    )
    return bundle, page_of([bundle], folder / "page", archives)


@pytest.fixture
def browse(tmp_path):
    """Opens a page in a browser of its own."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def browser_of(folder, *, server=served, flags=()):
            address = stack.enter_context(server(folder))
            browser = stack.enter_context(opened(tmp_path / "profile", *flags))
            browser.open(address)
            browser.wait_for(READY)
            browser.address = address
            return browser

        yield browser_of


def choose(browser, *files):
    for number, file in enumerate(files, start=1):
        browser.choose(f".source:nth-of-type({number}) input", file)


def started(browser, *files):
    choose(browser, *files)
    browser.click("#start")


def segmented(browser, folder, *files):
    """The label map of a run to its end."""
    started(browser, *files)
    browser.wait_for(f"{SHOWN} || {FAILED}")
    assert browser.value(SHOWN), browser.text("#problem")
    path = folder / "page.nii.gz"
    path.write_bytes(browser.downloaded())
    return read_volume(path)


def refusal(browser, *files):
    """The line that a run ends with."""
    started(browser, *files)
    browser.wait_for(FAILED)
    assert not browser.value(SHOWN)
    assert not browser.value("document.getElementById('start').disabled")
    line = browser.text("#problem")
    assert line
    assert "\n" not in line
    return line


def predicted(bundle, files):
    """What `predict` makes of files: label map and probabilities."""
    predictor = Predictor.load([bundle], device="cpu", precision="fp32")
    case = Case(name="case", images=tuple(files))
    return predictor.predict_case(case, probabilities=True)


def require_equal(page, prediction):
    """One label in every voxel, but for those where two classes are equal."""
    python = prediction.labels
    assert len(np.unique(python.array)) > 1
    assert page.array.dtype == python.array.dtype
    np.testing.assert_allclose(page.affine, python.affine, atol=1e-4)
    other = (page.array != python.array)[0]
    assert other.sum() <= max(FEW, (1 - AGREEMENT) * other.size)
    assert (margins(prediction.probabilities.array[:, other]) < TIE).all()


def margins(chances):
    """How clear the answer is in voxels `(n,)`, by the chances `(class, n)`."""
    if not np.allclose(chances.sum(0), 1, atol=1e-4):  # regions, there from 0.5 on
        return np.abs(chances - 0.5).min(0)
    two = np.sort(chances, axis=0)[-2:]
    return two[1] - two[0]


def require_private(browser):
    """Nothing was asked of anybody but the server of the page."""
    allowed = (browser.address, "blob:", "data:")
    strangers = [url for url in browser.requests if not url.startswith(allowed)]
    assert not strangers
    assert not [line for line in browser.console if "Content Security Policy" in line]


@pytest.mark.parametrize("server", [served, isolated])
def test_a_hippocampus_is_segmented_as_by_predict(
    hippocampus, data_root, browse, tmp_path, server
):
    bundle, folder = hippocampus
    scan = data_root / "hippocampus/imagesTr/hippocampus_001.nii.gz"
    browser = browse(folder, server=server)
    page = segmented(browser, tmp_path, scan)
    require_equal(page, predicted(bundle, [scan]))
    is_isolated = browser.value("crossOriginIsolated")
    assert is_isolated == (server is isolated)
    assert ("1 thread)" in browser.text("#how")) != is_isolated
    assert "Research use only" in browser.text(".notice")
    rows = browser.text("#volumes")
    assert "Anterior" in rows
    assert "Posterior" in rows
    browser.screenshot(tmp_path / "hippocampus.png")
    require_private(browser)


def test_a_page_is_small_and_says_what_was_verified(hippocampus):
    _, folder = hippocampus
    files = [file for file in folder.rglob("*") if file.is_file()]
    others = [file for file in files if file.suffix != ".onnx"]
    assert sum(file.stat().st_size for file in others) < 25e6
    assert not (folder / "run.py").exists()
    card = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert card["engine"] == "web"
    assert card["verified"]["equal_voxels"] > 0.999


def test_no_script_of_the_page_reaches_another_server(hippocampus, browse, tmp_path):
    _, folder = hippocampus
    browser = browse(folder)
    with served(tmp_path) as other:
        asked = f"fetch('{other}', {{mode: 'no-cors'}})"
        answered = f"{asked}.then(() => 'reached', () => 'refused')"
        in_worker = f"""
            new Promise((done) => {{
              const text = `{answered}.then((answer) => postMessage(answer))`;
              const worker = new Worker(URL.createObjectURL(new Blob([text])));
              worker.onmessage = (event) => done(event.data);
            }})
        """
        assert browser.value(answered) == "refused"
        assert browser.value(in_worker) == "refused"
        browser.open(f"{browser.address}serve.py")  # a file without a policy
        browser.wait_for("document.body && !document.getElementById('main')")
        assert browser.value(answered) == "reached"
        assert browser.value(in_worker) == "reached"


def test_tumour_regions_take_a_file_for_each_channel(
    brats, data_root, browse, tmp_path
):
    bundle, folder = brats
    case = data_root / "brats-cubes/BraTS20_Training_003"
    names = [
        case / f"{case.name}_{kind}.nii.gz" for kind in ("t1", "t1ce", "t2", "flair")
    ]
    browser = browse(folder)
    asked = browser.value(
        "[...document.querySelectorAll('.name')].map((n) => n.innerText)"
    )
    assert asked == ["T1", "T1ce", "T2", "FLAIR"]
    choose(browser, *names[:2])
    browser.click("#start")
    assert browser.wait_for(FAILED)
    assert browser.text("#problem") == "Choose the image of T2, FLAIR as well."
    page = segmented(browser, tmp_path, *names)
    require_equal(page, predicted(bundle, names))
    browser.screenshot(tmp_path / "brats.png")
    require_private(browser)


def test_a_chest_ct_is_segmented_as_by_predict(phantom, data_root, browse, tmp_path):
    bundle, folder = phantom
    scan = data_root / "chest-ct/lidc.nii.gz"
    browser = browse(folder, server=isolated)
    page = segmented(browser, tmp_path, scan)
    require_equal(page, predicted(bundle, [scan]))
    browser.screenshot(tmp_path / "chest.png")
    require_private(browser)


def test_a_dicom_folder_is_segmented_as_by_predict(
    phantom, data_root, browse, tmp_path
):
    bundle, folder = phantom
    series = data_root / "chest-ct/Lung_Dx-A0002"
    browser = browse(folder, server=isolated)
    browser.choose(".file:nth-of-type(2) input", series)
    browser.wait_for("document.querySelector('.chosen').innerText.includes('images')")
    browser.click("#start")
    browser.wait_for(f"{SHOWN} || {FAILED}")
    assert browser.value(SHOWN), browser.text("#problem")
    (tmp_path / "page.nii.gz").write_bytes(browser.downloaded())
    page = read_volume(tmp_path / "page.nii.gz")
    require_equal(page, predicted(bundle, [series]))
    browser.screenshot(tmp_path / "dicom.png")


def scans_in_odd_axes(folder, channels):
    """A file for each channel, whose axes lie in the world as no canonical ones do."""
    draw = np.random.default_rng(9)
    affine = np.array([[0, -0.8, 0, 3], [0, 0, 1.1, 5], [-1.3, 0, 0, 7], [0, 0, 0, 1]])
    for number in range(channels):
        noise = gaussian_filter(draw.normal(size=(40, 50, 44)), 2)
        image = (300 * noise + 20).astype(np.float32)
        path = folder / f"scan_{number:04d}.nii.gz"
        write_volume(path, Volume(image[None], affine))
        yield path


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_model_of_nnunet_keeps_its_axes_and_half_sums(
    archives, browse, tmp_path, precision
):
    model = model_folder(tmp_path / "model")
    imported = import_nnunet(model, tmp_path / "bundle", trust=True)
    plan = imported.description.plan
    assert (plan.grid.sums, plan.grid.axes) == ("half", "stored")
    options = ExportOptions("web", precision, assets=archives.folder)
    export_model([tmp_path / "bundle"], tmp_path / "page", options)
    files = list(scans_in_odd_axes(tmp_path, len(plan.channels)))
    page = segmented(browse(tmp_path / "page"), tmp_path, *files)
    prediction = predicted(tmp_path / "bundle", files)
    if precision == "fp32":
        require_equal(page, prediction)
    else:
        assert (page.array == prediction.labels.array).mean() > 0.999


def test_a_study_asks_which_series_is_meant(phantom, data_root, browse, tmp_path):
    _, folder = phantom
    browser = browse(folder)
    browser.choose(".file:nth-of-type(2) input", data_root / "dicom/mr-study")
    browser.wait_for("!document.querySelector('select').hidden")
    titles = browser.text("select")
    assert "T1post" in titles or "MR" in titles
    assert browser.value("document.querySelectorAll('option').length") == 5
    browser.screenshot(tmp_path / "study.png")


def test_folders_of_several_channels_may_be_chosen_at_once(brats, data_root, browse):
    _, folder = brats
    browser = browse(folder)
    study = data_root / "dicom/mr-study"
    for number in (1, 2, 3):
        folder_input = ".file:nth-of-type(2) input"
        browser.choose(f".source:nth-of-type({number}) {folder_input}", study)
    chosen = "[...document.querySelectorAll('.chosen')].map((each) => each.innerText)"
    browser.wait_for(
        f"{chosen}.filter((text) => text.includes('5 series')).length === 3"
    )


def spoiled(folder, scan):
    """Files that end in a line, and words of it."""
    content = scan.read_bytes()

    def file(name, data):
        path = folder / name
        path.write_bytes(data)
        return path

    def image(name, array):
        path = folder / name
        write_volume(path, Volume(array, np.diag([1.0, 1, 1, 1])))
        return path

    ones = np.ones((1, 9, 9, 9), np.float32)
    holed = ones.copy()
    holed[0, 4, 4, 4] = np.nan
    yield file("cut.nii.gz", content[: len(content) // 2]), "cut.nii.gz"
    yield file("text.nii.gz", b"no image"), "text.nii.gz"
    yield file("wrong.nii.gz", gzip.compress(b"x" * 4000)), "no NIfTI"
    yield image("nan.nii.gz", holed), "NaN"
    yield image("two.nii.gz", np.ones((2, 9, 9, 9), np.float32)), "channels"
    header = nib.Nifti1Header()
    header.set_data_shape((3000, 3000, 3000))
    header["vox_offset"] = 352
    huge = gzip.compress(header.binaryblock + bytes(4))
    yield file("huge.nii.gz", huge), "huge.nii.gz"


def test_whatever_goes_wrong_is_one_line(hippocampus, data_root, browse, tmp_path):
    bundle, folder = hippocampus
    scan = data_root / "hippocampus/imagesTr/hippocampus_003.nii.gz"
    browser = browse(folder)
    browser.click("#start")
    assert "Choose an image" in browser.text("#problem")
    for path, words in spoiled(tmp_path, scan):
        assert words in refusal(browser, path), path.name
    browser.screenshot(tmp_path / "problem.png")
    # after all that, another scan is segmented as if nothing had been
    page = segmented(browser, tmp_path, scan)
    require_equal(page, predicted(bundle, [scan]))


def test_memory_that_does_not_suffice_is_said_before_the_work(
    hippocampus, browse, tmp_path
):
    _, folder = hippocampus
    far = tmp_path / "far.nii.gz"
    affine = np.diag([60.0, 60, 60, 1])
    write_volume(far, Volume(np.ones((1, 40, 40, 40), np.float32), affine))
    line = refusal(browse(folder), far)
    assert "GB" in line
    assert "crop it" in line


def test_an_empty_image_has_no_labels_and_two_runs_follow(
    hippocampus, data_root, browse, tmp_path
):
    bundle, folder = hippocampus
    empty = tmp_path / "empty.nii.gz"
    write_volume(empty, Volume(np.zeros((1, 9, 9, 9), np.float32), np.eye(4)))
    browser = browse(folder)
    page = segmented(browser, tmp_path, empty)
    python = predicted(bundle, [empty]).labels
    np.testing.assert_array_equal(page.array, python.array)
    for number in (3, 4):
        scan = data_root / f"hippocampus/imagesTr/hippocampus_00{number}.nii.gz"
        page = segmented(browser, tmp_path, scan)
        require_equal(page, predicted(bundle, [scan]))


def test_work_can_be_cancelled_and_begun_again(phantom, data_root, browse, tmp_path):
    bundle, folder = phantom
    scan = data_root / "chest-ct/Lung_Dx-A0001.nii.gz"
    browser = browse(folder, server=isolated)
    started(browser, scan)
    browser.wait_for("document.getElementById('stage').innerText.includes('computing')")
    browser.screenshot(tmp_path / "progress.png")
    browser.click("#cancel")
    browser.wait_for(FAILED)
    assert browser.text("#problem") == "Cancelled."
    page = segmented(browser, tmp_path, scan)
    python = predicted(bundle, [scan]).labels
    assert (page.array == python.array).mean() > 0.9999


def test_a_network_that_was_altered_is_refused(
    hippocampus, data_root, browse, tmp_path
):
    _, folder = hippocampus
    altered = tmp_path / "altered"
    shutil.copytree(folder, altered)
    network = next(altered.glob("*.onnx"))
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.write_bytes(content)
    scan = data_root / "hippocampus/imagesTr/hippocampus_001.nii.gz"
    line = refusal(browse(altered), scan)
    assert network.name in line
    assert "altered" in line


def test_webgpu_is_taken_only_where_it_is_equal_and_faster(phantom, browse, tmp_path):
    bundle, folder = phantom
    scan = tmp_path / "scan.nii.gz"
    noise = np.random.default_rng(8).normal(0, 300, (1, 30, 30, 30)).astype(np.float32)
    write_volume(scan, Volume(noise, np.diag([4.0, 4, 4, 1])))
    flags = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
    browser = browse(folder, flags=flags)
    browser.click("#gpu")
    page = segmented(browser, tmp_path, scan)
    require_equal(page, predicted(bundle, [scan]))
    # an adapter in software computes the same, and cannot be faster
    remark = "WebGPU is slower here; WebAssembly is used."
    assert "(WebGPU)" in browser.text("#how") or browser.text("#remarks") == remark
