import numpy as np
import pytest
import torch

from trivox.errors import DataError
from trivox.projection.attenuation import attenuation_of
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.grids import placed
from trivox.projection.projector import Projector
from trivox.projection.rendering import (
    body_points,
    doubt_about,
    pixel_to_show,
    render,
    share_outside,
)
from trivox.volumes.geometry import Orientation, reorient
from trivox.volumes.volume import Volume, affine_from_spacing

HERE = (20.0, -30.0, 100.0)
GRID = Grid((20, 24, 28), (5.0, 4.0, 3.0))
VIEWS = Geometry.orbit([0, 30, 90], detector=(28, 30), pixel_mm=7.0)


def lopsided(dtype=np.int16):
    """A water block off the middle in air, with a denser one on the patient's left
    front.
    """
    array = np.full(GRID.shape, -1000, dtype)
    array[3:15, 5:20, 4:22] = 0
    array[8:12, 14:18, 6:10] = 700
    return array


def scan(array=None):
    return placed(lopsided() if array is None else array, GRID, isocentre=HERE)


def test_views_are_the_projections_of_attenuation():
    attenuation = attenuation_of(torch.from_numpy(lopsided(np.float32)))
    wanted = Projector(VIEWS, GRID, method="joseph").project(attenuation[None])[0]
    np.testing.assert_allclose(render(scan(), VIEWS, isocentre=HERE), wanted, atol=1e-4)


def test_a_water_cube_absorbs_as_much_as_it_is_thick():
    water = placed(
        np.zeros((20, 20, 20), np.int16),
        Grid((20, 20, 20), (5.0, 5.0, 5.0)),
        isocentre=HERE,
    )
    image = render(
        water, Geometry.orbit([0, 90], detector=(11, 11), pixel_mm=2.0), isocentre=HERE
    )
    assert image[:, 5, 5] == pytest.approx([2.0, 2.0], rel=1e-5), "100 mm at 0.02 / mm"


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_orientation_of_the_file_does_not_matter(axes):
    other = reorient(scan(), Orientation(axes, (True, False, True)))
    np.testing.assert_allclose(
        render(other, VIEWS, isocentre=HERE),
        render(scan(), VIEWS, isocentre=HERE),
        atol=1e-4,
    )


def test_the_middle_is_the_isocentre_unless_another_is_given():
    np.testing.assert_allclose(
        render(scan(), VIEWS), render(scan(), VIEWS, isocentre=HERE), atol=1e-4
    )
    higher = render(scan(), VIEWS, isocentre=(HERE[0], HERE[1], HERE[2] - 40))
    rows = (
        (np.arange(28)[:, None] * render(scan(), VIEWS)).sum((1, 2)),
        (np.arange(28)[:, None] * higher).sum((1, 2)),
    )
    assert (rows[1] < rows[0]).all(), "a patient above the isocentre appears higher up"


def test_padding_absorbs_nothing():
    padded = lopsided()
    padded[padded == -1000] = -3024
    np.testing.assert_allclose(
        render(scan(padded), VIEWS), render(scan(), VIEWS), atol=1e-5
    )


def test_voxels_finer_than_half_a_pixel_are_averaged_and_not_picked():
    stripes = np.where(np.arange(28) % 2, 0, -1000).astype(np.int16)
    striped = scan(np.broadcast_to(stripes, GRID.shape).copy())
    onto_stripes = (HERE[0] + 1.5, *HERE[1:])
    image = render(
        striped,
        Geometry.orbit([0], detector=(4, 6), pixel_mm=14.4),
        isocentre=onto_stripes,
    )
    inside = image[0, 1:3, 1:5]
    assert inside == pytest.approx(np.full((2, 4), 0.5 * 24 * 4 * 0.02), rel=0.02), (
        "half of the depth is water"
    )


def test_no_views_give_no_images():
    assert render(scan(), Geometry.orbit([], detector=(4, 5), pixel_mm=1.0)).shape == (
        0,
        4,
        5,
    )


# -- the detector ----------------------------------------------------------------------
def test_the_pixel_that_shows_all_points_does_so_from_every_side_and_little_smaller_ones_do_not():
    points = body_points(scan(), isocentre=HERE)
    pixel = pixel_to_show(points, detector=(32, 40), sod=850, sdd=1020)
    angles = list(range(0, 360, 15))
    whole = Geometry.orbit(angles, detector=(32, 40), pixel_mm=pixel)
    assert share_outside(whole, points).max() == 0
    cut = Geometry.orbit(angles, detector=(32, 40), pixel_mm=0.8 * pixel)
    assert share_outside(cut, points).max() > 0.001


def test_body_points_are_the_body():
    points = body_points(scan(), isocentre=HERE).numpy()
    inside = np.argwhere(lopsided() > -300)[:, ::-1] * (3.0, 4.0, 5.0) - (
        40.5,
        46.0,
        47.5,
    )
    np.testing.assert_allclose(points.mean(axis=0), inside.mean(axis=0), atol=2.6)
    np.testing.assert_allclose(points.max(axis=0), inside.max(axis=0), atol=5.0)


def test_a_patient_behind_the_source_is_refused():
    with pytest.raises(DataError, match="behind the source"):
        pixel_to_show(torch.tensor([[600.0, 0, 0]]), detector=(8, 8), sod=500, sdd=900)


# -- values ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "array",
    [
        np.random.default_rng(0).standard_normal((9, 9, 9)),
        np.linspace(0, 1, 27).reshape(3, 3, 3),
        np.full((3, 3, 3), np.nan),
        np.zeros((3, 3, 3)),
    ],
)
def test_what_cannot_be_hounsfield_units_is_refused(array):
    with pytest.raises(DataError):
        doubt_about(Volume(array[None], affine_from_spacing((1, 1, 1))))


@pytest.mark.parametrize(
    ("shift", "doubted"), [(0, None), (1024, "no air"), (9000, "no air")]
)
def test_values_that_hardly_are_hounsfield_units_are_doubted(shift, doubted):
    doubt = doubt_about(scan(lopsided() + np.int16(shift)))
    assert (doubted is None and doubt is None) or doubted in doubt
