"""`trivox drr` as it is typed; what it does is tested in tests/tasks/test_rendering.py."""

import numpy as np
import pytest

from trivox.datasets.exams import read_exam
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.thoraxes import ThoraxSettings, write_thoraxes
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return write_thoraxes(
        tmp_path_factory.mktemp("drr") / "data", ThoraxSettings(cases=2, size=16)
    )


def test_cts_become_a_dataset_that_the_check_takes(trivox, phantoms, tmp_path):
    code, text = trivox(
        "drr",
        phantoms / "patients/thorax_0000/ct.nii.gz",
        "--views=-30,60,90",
        "--secondary",
        "0,5,-5",
        "--detector",
        12,
        "--sod",
        700,
        "--sdd",
        1100,
        "--pixel",
        60,
        "--noise",
        1e5,
        "--isocentre",
        1,
        2,
        3,
        "--format",
        "nifti",
        "--out",
        "x",
    )
    assert code == 0, text
    assert "1 exams of 3 views in x" in text
    case = load_dataset(tmp_path / "x").cases[0]
    geometry = read_exam(case).xrays.geometry
    assert (geometry.primary.tolist(), geometry.secondary.tolist()) == (
        [-30, 60, 90],
        [0, 5, -5],
    )
    assert (geometry.sod[0], geometry.sdd[0], geometry.pixel_mm[0].tolist()) == (
        700,
        1100,
        [60, 60],
    )
    assert read_exam(case).isocentre == (1, 2, 3)
    assert case.images[0].name == "views.nii.gz"
    assert trivox("check", phantoms)[0] == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--views", "front"], 2, "--views front"),
        (["--secondary", "0;1"], 2, "--secondary"),
        (["--detector", "0"], 2, "--detector"),
        (["--sdd", "800"], 1, "between source and detector"),
        (["--views", "nan"], 1, "finite"),
        (["--noise", "0.1"], 1, "photons"),
    ],
)
def test_wrong_options_are_told_in_one_line_and_write_nothing(
    trivox, phantoms, tmp_path, options, code, message
):
    found, text = trivox("drr", phantoms, "--out", "x", *options)
    assert (found, message in " ".join(text.split())) == (code, True), text
    assert code == 2 or text.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_what_is_no_ct_is_told_in_one_line(trivox, tmp_path):
    array = np.random.default_rng(0).standard_normal((1, 8, 8, 8))
    write_volume(tmp_path / "z.nii.gz", Volume(array, affine_from_spacing((1, 1, 1))))
    for path, message in (
        ("z.nii.gz", "z.nii.gz: values from"),
        ("absent", "absent: not found"),
        (".", ""),
    ):
        code, text = trivox("drr", path, "--out", "x")
        assert (
            code,
            text.startswith("error: "),
            message in text,
            text.count("\n"),
        ) == (1, True, True, 1), text
    assert not (tmp_path / "x").exists()
