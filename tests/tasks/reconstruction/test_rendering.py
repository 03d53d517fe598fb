import json

import numpy as np
import pytest

from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.exams import read_exam
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.thoraxes import (
    ThoraxSettings,
    thorax_phantom,
    write_thoraxes,
)
from trivox.errors import DataError, FormatError, GeometryError, RecipeError
from trivox.evaluation.report.exam_preview import exam_preview
from trivox.projection.geometry import Geometry
from trivox.projection.grids import placed
from trivox.tasks.console import Quiet
from trivox.tasks.reconstruction.rendering import DrrRequest, find_scans, render_exams
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume

SETTINGS = ThoraxSettings(size=24)
HERE = (12.0, -30.0, 250.0)


class Listening(Quiet):
    """A console that keeps what was said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def patient(index=0, dtype=np.int16):
    return placed(
        thorax_phantom(SETTINGS, index).hounsfield.astype(dtype),
        SETTINGS.grid,
        isocentre=HERE,
    )


@pytest.fixture
def undrawn(monkeypatch):
    """Previews cost more than all else."""
    monkeypatch.setattr(
        "trivox.tasks.reconstruction.rendering.exam_preview",
        lambda images, geometry, *, title: b"png",
    )


@pytest.fixture
def scan(tmp_path):
    write_volume(tmp_path / "scan.nii.gz", patient())
    return tmp_path / "scan.nii.gz"


def rendered(tmp_path, *inputs, console=None, **changes):
    request = DrrRequest(inputs, tmp_path / "out", **({"detector": 20} | changes))
    render_exams(request, console or Listening())
    return {case.name: case for case in load_dataset(tmp_path / "out").cases}


def test_a_rendered_ct_is_an_exam_that_passes_the_check(tmp_path, scan):
    cases = rendered(
        tmp_path, scan, angles=(0.0, 90.0, -30.0), secondary=(0.0, 0.0, 15.0)
    )
    exam = read_exam(cases["scan"])
    assert exam.xrays.geometry.primary.tolist() == [0, 90, -30]
    assert exam.xrays.geometry.secondary.tolist() == [0, 0, 15]
    assert exam.isocentre == pytest.approx(HERE, abs=1e-3)
    assert 3 < exam.xrays.images.max() < 9
    report = check_dataset(load_dataset(tmp_path / "out"))
    assert {finding.code for finding in report.findings} == {"too-few-cases"}
    assert "rendered from CT" in load_dataset(tmp_path / "out").note
    folder = tmp_path / "out/patients/scan"
    assert sorted(path.name for path in folder.iterdir()) == [
        "ct.nii.gz",
        "geometry.json",
        "preview.png",
        "views.npz",
    ]


@pytest.mark.usefixtures("undrawn")
def test_views_are_never_scaled_by_their_own_range(tmp_path, scan):
    views = read_exam(rendered(tmp_path, scan, pixel_mm=24.0)["scan"]).xrays.images
    halved = patient().array
    write_volume(
        tmp_path / "thin.nii.gz",
        patient().with_array(((halved + 1000) // 2 - 1000).astype(np.int16)),
    )
    thin = read_exam(
        rendered(tmp_path, tmp_path / "thin.nii.gz", pixel_mm=24.0)["thin"]
    ).xrays.images
    assert thin.sum().item() == pytest.approx(0.5 * views.sum().item(), rel=0.01)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.usefixtures("undrawn")
def test_the_ct_is_kept_as_it_was_given(tmp_path, dtype):
    given = patient(dtype=dtype)
    flipped = Volume(
        given.array[:, :, ::-1].copy() + dtype(0.5),
        given.affine @ np.diag([1, -1, 1, 1]),
    )
    write_volume(tmp_path / "scan.mha", flipped)
    found = read_volume(rendered(tmp_path, tmp_path / "scan.mha")["scan"].volume)
    assert np.array_equal(found.array, flipped.array)
    np.testing.assert_allclose(found.affine, flipped.affine, atol=1e-4)


@pytest.mark.usefixtures("undrawn")
def test_whole_numbers_in_float_are_stored_as_integers(tmp_path):
    write_volume(
        tmp_path / "scan.nii.gz",
        patient(dtype=np.float32).with_array(np.round(patient().array * np.float32(1))),
    )
    found = read_volume(rendered(tmp_path, tmp_path / "scan.nii.gz")["scan"].volume)
    assert found.array.dtype == np.int16
    assert np.array_equal(found.array, patient().array)


@pytest.mark.usefixtures("undrawn")
def test_each_patient_fits_the_detector_unless_a_pixel_is_given(tmp_path, scan):
    console = Listening()
    rendered(tmp_path, scan, console=console)
    assert console.lines == []
    cases = rendered(tmp_path, scan, console=console, pixel_mm=10.0)
    (line,) = console.lines
    assert "outside the detector" in line
    assert read_exam(cases["scan"]).xrays.geometry.pixel_mm.tolist() == [[10, 10]] * 2
    console.lines.clear()
    rendered(
        tmp_path,
        scan,
        console=console,
        pixel_mm=float(line.split("--pixel ")[1].split()[0]),
    )
    assert console.lines == []


@pytest.mark.usefixtures("undrawn")
def test_noise_is_poisson_of_that_many_photons_and_the_same_each_time(tmp_path, scan):
    clean = read_exam(rendered(tmp_path, scan)["scan"]).xrays.images
    noisy = read_exam(rendered(tmp_path, scan, photons=1e4)["scan"]).xrays.images
    expected = np.exp(clean.numpy() / 2) / 1e2  # 1 / sqrt(photons that arrive)
    assert (noisy - clean).numpy().std() == pytest.approx(
        np.sqrt((expected**2).mean()), rel=0.25
    )
    again = read_exam(rendered(tmp_path, scan, photons=1e4)["scan"]).xrays.images
    assert np.array_equal(noisy, again)


@pytest.mark.usefixtures("undrawn")
def test_the_isocentre_can_be_given(tmp_path, scan):
    exam = read_exam(rendered(tmp_path, scan, isocentre=(0.0, 0.0, 240.0))["scan"])
    assert exam.isocentre == (0, 0, 240)


@pytest.mark.usefixtures("undrawn")
def test_folders_several_files_and_datasets_are_rendered(tmp_path):
    for name in ("one.nii.gz", "two.nrrd", "more/three.mha"):
        write_volume(tmp_path / "in" / name, patient())
    write_thoraxes(tmp_path / "data", ThoraxSettings(cases=2, size=16))
    cases = rendered(
        tmp_path,
        tmp_path / "in",
        tmp_path / "in/more/three.mha",
        tmp_path / "data",
        view_format="nifti",
    )
    assert sorted(cases) == ["one", "thorax_0000", "thorax_0001", "three", "two"]
    assert cases["one"].images[0].name == "views.nii.gz"
    assert "generated phantoms" in load_dataset(tmp_path / "out").note


def test_two_cts_of_one_name_are_refused(tmp_path, scan):
    write_volume(tmp_path / "other/scan.mha", patient())
    with pytest.raises(DataError, match="both case 'scan'"):
        find_scans([scan, tmp_path / "other"])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"angles": ()}, RecipeError),
        ({"angles": (0.0, float("nan"))}, RecipeError),
        ({"sod": 1020.0}, GeometryError),
        ({"sdd": float("inf")}, RecipeError),
        ({"secondary": (0.0, 1.0, 2.0)}, GeometryError),
        ({"secondary": (90.0,)}, RecipeError),
        ({"photons": -3.0}, RecipeError),
        ({"photons": 0.0}, RecipeError),
        ({"photons": 1e308}, RecipeError),
        ({"pixel_mm": -1.0}, GeometryError),
        ({"pixel_mm": 0.0}, GeometryError),
        ({"pixel_mm": 1e-320}, GeometryError),
        ({"pixel_mm": 1e308}, GeometryError),
        ({"sdd": 1e308}, GeometryError),
        ({"sdd": 1e9}, GeometryError),
        ({"angles": (1e308,)}, GeometryError),
        ({"isocentre": (1e308, 0.0, 0.0)}, GeometryError),
        ({"detector": 0}, GeometryError),
        ({"isocentre": (0.0, float("nan"), 0.0)}, RecipeError),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(
    tmp_path, scan, changes, error
):
    with pytest.raises(error):
        rendered(tmp_path, scan, **changes)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda file: write_volume(
                file,
                patient().with_array(
                    np.random.default_rng(0).standard_normal((9, 9, 9))
                ),
            ),
            "no Hounsfield units",
        ),
        (
            lambda file: write_volume(
                file, patient().with_array(np.full((9, 9, 9), np.nan))
            ),
            "NaN",
        ),
        (lambda file: file.write_bytes(file.read_bytes()[:900]), "bad.nii.gz"),
        (
            lambda file: write_volume(
                file, patient().with_array(np.zeros((2, 9, 9, 9)))
            ),
            "one channel",
        ),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_a_ct_that_cannot_be_used_is_named_and_the_others_are_rendered(
    tmp_path, scan, spoil, message
):
    write_volume(tmp_path / "bad.nii.gz", patient(1))
    spoil(tmp_path / "bad.nii.gz")
    with pytest.raises(DataError, match=message) as failure:
        rendered(tmp_path, tmp_path / "bad.nii.gz", scan)
    assert "bad.nii.gz" in str(failure.value)
    assert "1 of 2" in str(failure.value)
    assert [path.name for path in (tmp_path / "out/patients").iterdir()] == ["scan"]
    with pytest.raises(DataError):
        render_exams(
            DrrRequest((tmp_path / "bad.nii.gz",), tmp_path / "none", detector=20),
            Listening(),
        )
    assert not (tmp_path / "none").exists()


def test_what_is_no_ct_at_all_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no CT")
    for path in (tmp_path / "absent.nii.gz", tmp_path / "notes.txt", tmp_path):
        with pytest.raises(FormatError):
            find_scans([path])


def test_an_interruption_keeps_what_was_done_and_leaves_nothing_half(
    tmp_path, scan, monkeypatch
):
    write_volume(tmp_path / "second.nii.gz", patient(1))

    def interrupted(images, geometry, *, title):
        if "second" in title:
            raise KeyboardInterrupt
        return b"png"

    monkeypatch.setattr(
        "trivox.tasks.reconstruction.rendering.exam_preview", interrupted
    )
    with pytest.raises(KeyboardInterrupt):
        rendered(tmp_path, scan, tmp_path / "second.nii.gz")
    assert [path.name for path in (tmp_path / "out/patients").iterdir()] == ["scan"]
    read_exam(load_dataset(tmp_path / "out").cases[0])


# -- preview ---------------------------------------------------------------------------
@pytest.mark.parametrize("views", [1, 5])
def test_a_preview_is_drawn_for_any_number_of_views(views):
    geometry = Geometry.orbit(
        [30.0 * v for v in range(views)], detector=(6, 9), pixel_mm=(2.0, 1.0)
    )
    png = exam_preview(
        np.random.default_rng(0).uniform(0, 4, (views, 6, 9)), geometry, title="a_$b$"
    )
    assert png.startswith(b"\x89PNG")


# -- real scans ------------------------------------------------------------------------
@pytest.mark.slow
def test_line_integrals_of_a_real_chest(tmp_path, data_root):
    cases = rendered(
        tmp_path, data_root / "chest-ct/lidc.nii.gz", detector=256, pixel_mm=1.8
    )
    front = read_exam(cases["lidc"]).xrays.images[0, 0].numpy()
    assert front.max() == pytest.approx(5.8, abs=0.3)
    assert front.mean() == pytest.approx(2.3, abs=0.15)
    left, right = front[60:140, :128].mean(), front[60:140, 128:].mean()
    assert 0.7 < left / right < 1.4


@pytest.mark.slow
def test_a_real_dicom_folder_is_rendered_and_passes_the_check(tmp_path, data_root):
    cases = rendered(tmp_path, data_root / "chest-ct/Lung_Dx-A0002", detector=64)
    assert json.loads(cases["Lung_Dx-A0002"].geometry.read_text())["detector"] == [
        64,
        64,
    ]
    report = check_dataset(load_dataset(tmp_path / "out"))
    assert {finding.code for finding in report.findings} == {"too-few-cases"}
