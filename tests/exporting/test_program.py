"""The program that exports carry makes of drawn images what trivox makes of them."""

import itertools
import json
import sys
from functools import partial

import nibabel
import numpy as np
import pytest
import torch

from page_cases import drawn
from trivox.exporting.programs import STANDALONE

CASES = 64


@pytest.fixture(scope="module")
def program():
    """The modules `run` and `runtimes` as they lie in an export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STANDALONE))
        import run
        import runtimes

        yield run, runtimes
    for name in ("run", "grids", "runtimes"):
        sys.modules.pop(name, None)


def computed(engine, window):
    return engine.logits(torch.from_numpy(window)).float().numpy()


def model_of(case, program, folder):
    """The program's model with the toy networks of a drawn case."""
    run, runtimes = program
    content = {"runtime": "onnx", "precision": "fp32", "pipeline": case.pipeline}
    (folder / "export.json").write_text(json.dumps(content))

    networks = []
    for engine in case.engines:
        stream = partial(map, partial(computed, engine))
        networks.append(runtimes.Network("toy", stream))
    return run.Model(folder, networks=networks)


@pytest.mark.parametrize("seed", range(CASES))
def test_images_are_prepared_and_segmented_as_by_trivox(seed, program, tmp_path):
    case = drawn(seed)
    model = model_of(case, program, tmp_path)
    image = case.volume.array.astype(np.float32)
    prepared, _ = model.prepare(image, case.volume.affine)
    wanted = case.prepared().image.numpy()
    assert prepared.shape == wanted.shape
    spread = np.maximum(1.0, np.abs(wanted).max((1, 2, 3), keepdims=True))
    assert (np.abs(prepared - wanted) / spread).max() < 3e-6
    if case.plan.grid.sums == "half":
        return  # what exports leave out, and say so
    labels = model.predict_array(image, case.volume.affine)
    # voxels where two classes are equal but for rounding may fall either way
    assert (labels != case.labels()).sum() <= 1


def test_windows_are_asked_for_once_for_each_copy(program):
    run, _ = program
    image = np.random.default_rng(0).normal(size=(1, 2, 3, 4))
    places = [tuple(slice(0, size) for size in image.shape[1:])]
    flips = [(), (1,), (2, 3)]
    copies = list(run.copies(image, places, flips))
    assert len(copies) == len(flips)
    streams = [iter(copies), iter(copies)]
    np.testing.assert_allclose(run.mean_of(streams, flips), image)
    assert list(itertools.chain(*streams)) == []


def scan_of(case, file, array=None):
    image = case.volume.array[0] if array is None else array
    affine = case.volume.affine
    nibabel.save(nibabel.Nifti1Image(np.float32(image).T, affine), file)
    return file


@pytest.fixture
def asked(program, tmp_path, monkeypatch, capsys):
    """Runs the program on a drawn case: its exit and what it says on standard error."""
    run, _ = program
    case = next(each for each in map(drawn, range(CASES)) if one_channel(each))
    model = model_of(case, program, tmp_path)
    monkeypatch.setattr(run, "Model", lambda: model)
    scan = scan_of(case, tmp_path / "scan.nii.gz")

    def ask(*arguments):
        monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
        try:
            run.main()
        except SystemExit as stop:
            return stop.code
        return 0

    return ask, scan, case


def one_channel(case):
    return len(case.volume.array) == 1 and case.plan.grid.sums != "half"


@pytest.mark.parametrize("damage", ["cut", "text", "absent", "nan", "two", "four"])
def test_what_cannot_be_read_is_one_line(asked, tmp_path, damage):
    ask, scan, case = asked
    content = scan.read_bytes()
    scans = [scan]
    if damage == "cut":
        scan.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        scan.write_bytes(b"not a scan")
    elif damage == "absent":
        scan.unlink()
    elif damage == "nan":
        scan_of(case, scan, np.full_like(case.volume.array[0], np.nan))
    elif damage == "two":
        scans.append(scan)
    else:
        scan_of(case, scan, np.stack([case.volume.array[0]] * 2))
    out = tmp_path / "labels.nii.gz"
    said = ask(*scans, "--out", out)
    assert said.startswith("error: ")
    assert "\n" not in said
    assert not out.exists()


@pytest.mark.parametrize(
    "places",
    [
        ["--out", "scan.nii.gz"],
        ["--out", "none/labels.nii.gz"],
        ["--out", "labels.txt"],
        ["--out", "labels.nii.gz", "--logits", "scan.nii.gz"],
        ["--out", "labels.nii.gz", "--logits", "labels.nii.gz"],
        ["--out", "labels.nii.gz", "--classes", "none/class.json"],
        ["--out", "labels.nii.gz", "--classes", "class.json"],
    ],
)
def test_places_are_looked_at_before_anything_is_computed(
    asked, tmp_path, monkeypatch, places
):
    ask, scan, _ = asked
    monkeypatch.chdir(tmp_path)
    content = scan.read_bytes()
    before = set(tmp_path.iterdir())
    assert ask("scan.nii.gz", *places).startswith("error: ")
    assert scan.read_bytes() == content
    assert set(tmp_path.iterdir()) == before


def test_a_scan_of_one_slice_is_a_scan(program, tmp_path):
    run, _ = program
    for seed, shape in enumerate([(1, 5, 4), (5, 1, 4), (5, 4, 1)]):
        array = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        file = tmp_path / f"{seed}.nii"
        nibabel.save(nibabel.Nifti1Image(array.T, np.eye(4)), file)
        image, _ = run.read_channels([file])
        np.testing.assert_array_equal(image, array[None])
