import json
import re
import shutil

import numpy as np
import pytest

from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.exams import write_patients
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.thoraxes import ThoraxSettings, write_thoraxes
from trivox.volumes.formats import read_volume, write_volume


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_thoraxes(
        tmp_path_factory.mktemp("exams") / "data",
        ThoraxSettings(cases=5, size=24, angles=(0, 90, 45)),
    )


@pytest.fixture
def data(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "data")


EXAM = "patients/thorax_0001"


def edit_views(data, change):
    file = data / EXAM / "views.npz"
    with np.load(file) as archive:
        views = archive["views"].copy()
    np.savez(file, views=change(views))


def edit_geometry(data, change):
    file = data / EXAM / "geometry.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def edit_ct(data, change):
    file = data / EXAM / "ct.nii.gz"
    volume = read_volume(file)
    write_volume(file, volume.with_array(change(volume.array.astype(np.float32))))


def every_view(**changes):
    return lambda content: [view.update(changes) for view in content["views"]]


def found(data):
    """(severity, code) of each finding, and all of it as text."""
    report = check_dataset(load_dataset(data))
    assert {finding.case for finding in report.findings} <= {"thorax_0001", ""}
    return {(finding.severity, finding.code) for finding in report.findings}, "\n".join(
        map(str, report.findings)
    )


def test_phantoms_are_beyond_reproach(whole):
    report = check_dataset(load_dataset(whole))
    assert (report.findings, report.checked_cases) == ((), 5)


def test_noise_is_no_reproach(tmp_path):
    settings = ThoraxSettings(cases=5, size=24, angles=(0, 90), photons=1e4)
    assert not check_dataset(load_dataset(write_thoraxes(tmp_path, settings))).findings


@pytest.mark.parametrize(
    ("change", "severity", "words"),
    [
        (lambda v: v[:, :, ::-1], "error", "all 3 views: .*columns look mirrored"),
        (lambda v: v[:, ::-1], "error", "rows look mirrored"),
        (lambda v: v[:, ::-1, ::-1], "error", "turned by 180"),
        (lambda v: np.rot90(v, -1, (1, 2)), "error", "turned by 90"),
        (lambda v: np.rot90(v, 1, (1, 2)), "error", "turned by 270"),
        (lambda v: v.transpose(0, 2, 1), "error", "rows and columns look swapped"),
        (lambda v: v[[1, 0, 2]], "error", "views at 0°, 90°: .*out of order"),
        (lambda v: v.max() - v, "error", "grey looks inverted"),
        (lambda v: 1.15 * v, "warning", "values look scaled"),
        (lambda v: v + 0.15, "warning", "values look shifted"),
        (
            lambda v: np.concatenate([v[:1] * 3, v[1:]]),
            "error",
            "views at 0°: .*values look scaled",
        ),
    ],
)
def test_views_that_are_not_those_of_the_ct_are_found_and_explained(
    data, change, severity, words
):
    edit_views(data, change)
    codes, text = found(data)
    assert codes == {(severity, "views-differ-from-ct")}, text
    assert re.search(words, text), text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda g: [
                view.update(primary_degrees=-view["primary_degrees"])
                for view in g["views"]
            ],
            "other sign",
        ),
        (
            lambda g: [
                view.update(primary_degrees=view["primary_degrees"] + 180)
                for view in g["views"]
            ],
            "turned by 180",
        ),
        (every_view(secondary_degrees=60), ""),
        (every_view(pixel_mm=[30, 30]), ""),
        (
            lambda g: g.update(
                isocentre_mm=[g["isocentre_mm"][0] + 40, *g["isocentre_mm"][1:]]
            ),
            "",
        ),
    ],
)
def test_a_geometry_that_is_not_that_of_the_views_is_found(data, change, words):
    edit_geometry(data, change)
    codes, text = found(data)
    assert "views-differ-from-ct" in {code for _, code in codes}, text
    assert words in text


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda v: np.exp(-v), ("error", "transmission")),
        (
            lambda v: np.exp(-v) * np.random.default_rng(0).normal(1, 0.01, v.shape),
            ("error", "transmission"),
        ),
        (lambda v: v / v.max((1, 2), keepdims=True), ("error", "scaled-by-image")),
        (
            lambda v: np.round(255 * v / v.max((1, 2), keepdims=True)),
            ("error", "scaled-by-image"),
        ),
        (lambda v: v - 0.4, ("warning", "negative-line-integrals")),
        (lambda v: np.where(v > 3, np.nan, v), ("error", "nan-or-inf")),
        (lambda v: v[:2], ("error", "geometry-mismatch")),
        (lambda v: v[:, 1:], ("error", "geometry-mismatch")),
        (
            lambda v: v * (np.arange(3) != 1)[:, None, None],
            ("warning", "constant-image"),
        ),
    ],
)
def test_grey_values_that_are_no_line_integrals_are_found(data, change, finding):
    edit_views(data, change)
    codes, text = found(data)
    assert finding in codes, text


def test_what_is_said_to_be_no_line_integral_is_taken_as_it_is(data):
    edit_views(data, lambda v: np.round(255 * v / v.max((1, 2), keepdims=True)))
    edit_geometry(data, lambda g: g.update(kind="uncalibrated"))
    assert found(data)[0] == set()


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda g: g.pop("views"), ("error", "unreadable")),
        (every_view(source_detector_mm=500), ("error", "unreadable")),
        (lambda g: g.update(isocentre_mm=[0, 0, 5000]), ("error", "isocentre-far")),
        (every_view(source_isocentre_mm=20), ("error", "geometry-impossible")),
        (every_view(pixel_mm=[14, 14]), ("warning", "truncated")),
    ],
)
def test_an_impossible_geometry_is_found(data, change, finding):
    edit_geometry(data, change)
    codes, text = found(data)
    assert finding in codes, text


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda array: array / 500, ("error", "not-hounsfield")),
        (lambda array: array + 1024, ("warning", "not-hounsfield")),
        (
            lambda array: np.where(array > 100, np.nan, array),
            ("error", "not-hounsfield"),
        ),
        (lambda array: array[..., ::-1], ("error", "views-differ-from-ct")),
    ],
)
def test_a_ct_that_is_none_or_another_is_found(data, change, finding):
    edit_ct(data, change)
    codes, text = found(data)
    assert finding in codes, text


@pytest.mark.parametrize(
    ("file", "change", "finding"),
    [
        ("geometry.json", lambda file: file.unlink(), "missing-file"),
        ("views.npz", lambda file: file.unlink(), "missing-file"),
        ("views.npz", lambda file: file.write_bytes(b""), "empty-file"),
        (
            "views.npz",
            lambda file: file.write_bytes(file.read_bytes()[:200]),
            "unreadable",
        ),
        (
            "ct.nii.gz",
            lambda file: file.write_bytes(file.read_bytes()[:200]),
            "unreadable",
        ),
    ],
)
def test_files_that_cannot_be_used_are_found(data, file, change, finding):
    change(data / EXAM / file)
    codes, text = found(data)
    assert ("error", finding) in codes, text


def test_the_same_exam_twice_is_found_and_a_leak_where_the_splits_differ(data):
    shutil.copytree(data / EXAM, data / "patients/zz")
    assert "duplicate-content" in {
        f.code for f in check_dataset(load_dataset(data)).warnings
    }
    write_patients(data, [("zz", "zz", "test")])
    report = check_dataset(load_dataset(data))
    assert any(
        f.code == "duplicate-content" and "leak" in f.message for f in report.errors
    )
    write_patients(data, [("zz", "p", "test"), ("thorax_0001", "p", "train")])
    assert "patient-across-splits" in {
        f.code for f in check_dataset(load_dataset(data)).errors
    }


def test_exams_without_ct_are_fine_to_predict_on_and_few_to_learn_from(data):
    for file in data.glob("patients/*/ct.nii.gz"):
        file.unlink()
    report = check_dataset(load_dataset(data))
    assert [(f.severity, f.code) for f in report.findings] == [
        ("warning", "too-few-cases")
    ]
    assert "0 training cases with a CT" in report.findings[0].message
