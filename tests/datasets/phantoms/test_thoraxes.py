import numpy as np
import pytest
import torch
from pydantic import ValidationError

from trivox.datasets.exams import read_exam
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.thorax_body import (
    AIR,
    BONE,
    FAT,
    HEART,
    LUNG,
    NODULE,
    SOFT,
    TISSUES,
    VESSEL,
)
from trivox.datasets.phantoms.thorax_canvas import EVERYWHERE, Canvas, Pose
from trivox.datasets.phantoms.thoraxes import (
    ANGLES,
    ThoraxSettings,
    thorax_phantom,
    write_thoraxes,
)
from trivox.projection.geometry import Grid
from trivox.projection.grids import on_grid, placed
from trivox.projection.rendering import body_points, render, share_outside
from trivox.volumes.formats import read_volume

SMALL = ThoraxSettings(cases=6, size=16, validation_cases=1, test_cases=2)
FINE = ThoraxSettings(size=64)
UPRIGHT = Pose(np.eye(3), np.zeros(3))
TURNED = Pose(
    np.array([[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, 1]]), np.array([5.0, -3, 8])
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_thoraxes(tmp_path_factory.mktemp("thorax") / "data", SMALL)


@pytest.fixture(scope="module")
def patients():
    return [thorax_phantom(FINE, index) for index in range(8)]


def decibels(first, second):
    """PSNR over the window [-1024, 1476]."""
    return 10 * np.log10(2500**2 / np.mean((first - second) ** 2))


# -- shapes ----------------------------------------------------------------------------
@pytest.mark.parametrize("pose", [UPRIGHT, TURNED])
def test_an_ellipsoid_has_its_volume_where_it_belongs(pose):
    canvas = Canvas(Grid((40, 40, 40), (4.0, 4.0, 4.0)), pose, hounsfield=-1000)
    box, share = canvas.ellipsoid((10, -8, 4), (30, 24, 20))
    assert share.sum() * 4**3 == pytest.approx(4 / 3 * np.pi * 30 * 24 * 20, rel=0.03)
    middle = [(share * along).sum() / share.sum() for along in canvas.places(box)]
    assert middle == pytest.approx([10, -8, 4], abs=0.1)
    canvas.around = lambda centre, reach: EVERYWHERE
    _, anywhere = canvas.ellipsoid((10, -8, 4), (30, 24, 20))
    assert anywhere.sum() == pytest.approx(share.sum(), rel=1e-3), "its box holds it"


@pytest.mark.parametrize("radius", [1.0, 2.0, 8.0])
def test_a_tube_has_its_mass_even_where_it_is_thinner_than_a_voxel(radius):
    canvas = Canvas(Grid((40, 40, 40), (4.0, 4.0, 4.0)), UPRIGHT, hounsfield=-1000)
    _, share = canvas.tube(np.array([-50.0, -20, 3]), np.array([50.0, 30, 10]), radius)
    volume = np.pi * radius**2 * np.linalg.norm([100, 50, 7])
    assert share.sum() * 4**3 == pytest.approx(volume, rel=0.1 + 0.1 * radius / 8)


def test_a_shape_beyond_the_grid_leaves_no_trace():
    canvas = Canvas(Grid((8, 8, 8), (4.0, 4.0, 4.0)), UPRIGHT, hounsfield=-1000)
    canvas.paint(*canvas.ellipsoid((100, 0, 0), (10, 10, 10)), 50, SOFT)
    assert (canvas.hounsfield == -1000).all()
    assert not canvas.tissues.any()


# -- patients --------------------------------------------------------------------------
def test_a_patient_depends_on_seed_and_index_alone():
    first = thorax_phantom(SMALL, 3)
    again = thorax_phantom(ThoraxSettings(cases=50, size=16), 3)
    assert np.array_equal(first.hounsfield, again.hounsfield)
    assert np.array_equal(first.tissues, again.tissues)
    others = [
        thorax_phantom(SMALL, 4),
        thorax_phantom(ThoraxSettings(size=16, seed=1), 3),
    ]
    assert all(decibels(first.hounsfield, other.hounsfield) < 25 for other in others)


def test_a_patient_is_the_same_on_every_grid(patients):
    for index, fine in enumerate(patients):
        coarse = thorax_phantom(FINE, index, grid=FINE.grid.resized((32, 32, 32)))
        averaged = fine.hounsfield.reshape(32, 2, 32, 2, 32, 2).mean((1, 3, 5))
        assert decibels(coarse.hounsfield, averaged) > 29


def test_tissues_have_the_hounsfield_units_of_textbooks(patients):
    ranges = {
        AIR: (-1001, -900),
        SOFT: (-20, 130),
        FAT: (-130, -60),
        LUNG: (-900, -600),
        BONE: (100, 700),
        HEART: (20, 160),
        VESSEL: (20, 160),
    }
    for patient in patients:
        for tissue, (low, high) in ranges.items():
            level = np.median(patient.hounsfield[patient.tissues == tissue])
            assert low < level < high, TISSUES[tissue]
        assert patient.hounsfield.dtype == np.float32
        assert patient.hounsfield.min() >= -1000.5
        assert 300 < patient.hounsfield.max() < 1500


def test_every_tissue_occurs():
    counts = sum(
        np.bincount(thorax_phantom(FINE, index).tissues.ravel(), minlength=8)
        for index in range(8)
    )
    assert (counts > 50).all(), dict(zip(TISSUES, counts.tolist(), strict=True))
    assert counts[NODULE] < 0.01 * counts[LUNG]


def test_organs_are_where_they_are_in_people(patients):
    points = FINE.grid.points().numpy()
    for patient in patients:
        x, y, z = (points[..., axis] for axis in range(3))
        at = {tissue: patient.tissues == tissue for tissue in (HEART, LUNG, BONE)}
        body = patient.hounsfield > -500
        assert x[at[HEART]].mean() < x[body].mean() - 4, "the heart is on the left"
        dense = at[BONE] & (np.abs(x - x[body].mean()) < 20)
        assert y[dense].mean() < y[body].mean() - 15, "the spine is at the back"
        right = z[at[LUNG] & (x > x[body].mean())].min()
        left = z[at[LUNG] & (x < x[body].mean())].min()
        assert right >= left - 12, "the right diaphragm is not lower than the left"
        lung, heart = (z[at[tissue]].mean() for tissue in (LUNG, HEART))
        assert lung > heart, "most of the lungs is above the heart"


def test_the_mean_patient_is_a_fair_guess_and_not_a_good_one():
    settings = ThoraxSettings(size=32)
    cubes = np.stack(
        [thorax_phantom(settings, index).hounsfield for index in range(60)]
    )
    scores = [decibels(cube, cubes[:40].mean(axis=0)) for cube in cubes[40:]]
    assert 18 < np.mean(scores) < 21.5


def test_no_two_patients_are_alike():
    cubes = np.stack(
        [thorax_phantom(SMALL, index).hounsfield.ravel() for index in range(40)]
    )
    distance = np.linalg.norm(cubes[:, None] - cubes, axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert distance.min() / np.sqrt(cubes.shape[1]) > 40, "HU, root mean square"


# -- written ---------------------------------------------------------------------------
def test_the_first_2_4_and_8_views_are_evenly_spaced():
    for count in (2, 4, 8):
        assert sorted(ANGLES[:count]) == [180 / count * i for i in range(count)]


def test_written_phantoms_are_a_reconstruction_dataset(written):
    dataset = load_dataset(written)
    assert dataset.holds_exams
    assert dataset.layout == "xrays"
    assert dataset.channels == ("xray",)
    splits = [case.split for case in dataset.cases]
    assert splits == ["train"] * 3 + ["validation"] + ["test"] * 2
    assert "generated phantoms" in dataset.note
    exam = read_exam(dataset.cases[0])
    assert exam.xrays.images.shape == (1, 8, 16, 16)
    assert exam.xrays.geometry.primary.tolist() == list(ANGLES)


def test_views_are_those_of_the_stored_ct_and_show_all_of_it(written):
    for case in load_dataset(written).cases:
        exam = read_exam(case)
        volume = read_volume(case.volume)
        geometry = exam.xrays.geometry
        views = render(volume, geometry, isocentre=exam.isocentre)
        assert np.abs(views - exam.xrays.images[0].numpy()).max() < 1e-3
        body = body_points(volume, isocentre=exam.isocentre)
        assert share_outside(geometry, body).max() == 0


def test_the_stored_ct_is_the_phantom_about_the_isocentre(written):
    case = load_dataset(written).cases[2]
    isocentre = read_exam(case).isocentre
    stored = on_grid(read_volume(case.volume), SMALL.grid, isocentre=isocentre)
    assert np.abs(stored - thorax_phantom(SMALL, 2).hounsfield).max() < 0.51
    assert np.linalg.norm(isocentre) > 1, "somewhere in the world"


def test_photons_make_the_views_noisy_in_the_same_way_each_time(tmp_path):
    def views(name, **changes):
        chosen = ThoraxSettings(cases=1, size=16, angles=(0, 90), **changes)
        root = write_thoraxes(tmp_path / name, chosen)
        return read_exam(load_dataset(root).cases[0]).xrays.images

    clean = views("clean")
    noisy = views("noisy", photons=1e4)
    assert 0.005 < (noisy - clean).std() < 0.1
    assert torch.equal(noisy, views("again", photons=1e4))


@pytest.mark.parametrize(
    "bad",
    [{"cases": 2, "test_cases": 3}, {"sod_mm": 100}, {"sod_mm": 1100}, {"size": 4}],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValidationError):
        ThoraxSettings(**bad)


def test_shape_and_place_survive_any_grid():
    grid = Grid((12, 20, 24), (20.0, 14.0, 12.0), centre_mm=(0.0, 0.0, 30.0))
    drawn = thorax_phantom(SMALL, 0, grid=grid).hounsfield
    there = placed(thorax_phantom(FINE, 0).hounsfield, FINE.grid, isocentre=(0, 0, 0))
    assert decibels(drawn, on_grid(there, grid, isocentre=(0, 0, 0))) > 22
