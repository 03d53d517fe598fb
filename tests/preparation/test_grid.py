"""Into the network's grid and back to the source."""

import numpy as np
import pytest

from trivox.datasets.reading import crop_volume
from trivox.planning.grid_rules import Interpolation
from trivox.planning.plan import Normalisation
from trivox.planning.spacing import resampled_shape
from trivox.preparation.grid import prepare
from trivox.volumes.volume import Volume, affine_from_spacing


def cropped(shape=(6, 20, 18), spacing=(4.0, 1.0, 1.0)):
    rng = np.random.default_rng(0)
    image = np.zeros((1, *shape), np.float32)
    image[:, 1:5, 3:17, 2:18] = rng.normal(size=(1, 4, 14, 16))
    label = rng.integers(0, 3, size=shape).astype(np.int16)
    volume = Volume(image, affine_from_spacing(spacing))
    return crop_volume(volume, label[None], where="c"), image, label


def plain(plan, **changes):
    """A plan for one channel that is stored as it is."""
    return plan.model_copy(
        update={
            "normalisations": (Normalisation(scheme="none"),),
            "channels": ("mr",),
            **changes,
        }
    )


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_a_case_already_at_its_spacing_is_only_reordered_and_comes_back_exactly(
    plan, order
):
    case, image, label = cropped()
    spacing = tuple(case.spacing[axis] for axis in order)
    prepared = prepare(case, plain(plan, axis_order=order, spacing=spacing))
    np.testing.assert_array_equal(
        prepared.image[0].numpy(), case.image[0].transpose(order)
    )
    np.testing.assert_array_equal(prepared.label.numpy(), case.label.transpose(order))
    back = prepared.record.to_source(prepared.image.numpy())
    np.testing.assert_array_equal(back.array, image)
    restored = prepared.record.to_source(prepared.label.numpy(), fill=-1).array[0]
    np.testing.assert_array_equal(restored[1:5, 3:17, 2:18], label[1:5, 3:17, 2:18])
    assert (restored[0] == -1).all()
    np.testing.assert_allclose(back.affine, case.source.affine)


def test_image_and_label_have_the_plans_spacing(plan):
    case, _, _ = cropped()
    prepared = prepare(case, plain(plan, spacing=(2.0, 2.0, 0.5)))
    assert prepared.image.shape[1:] == (8, 7, 32)
    assert prepared.label.shape == prepared.record.shape == (8, 7, 32)
    assert prepared.record.cropped_shape == (4, 14, 16)


def test_a_coarse_axis_is_resampled_slice_by_slice(plan):
    case, _, _ = cropped()
    prepared = prepare(case, plain(plan, spacing=(2.0, 1.0, 1.0)))
    assert prepared.record.image_axis == 0
    for new, old in enumerate([0, 0, 1, 1, 2, 2, 3, 3]):
        np.testing.assert_allclose(
            prepared.image[0, new].numpy(), case.image[0, old], atol=1e-6
        )


@pytest.mark.parametrize(
    ("spacing", "target", "axis"),
    [
        ((4, 1, 1), (1, 1, 1), 0),
        ((1, 1, 4), (1, 1, 1), 2),
        ((1, 1, 1), (1, 5, 1), 1),
        ((3, 1, 1), (1, 1, 1), None),
        ((4, 4, 1), (1, 1, 1), None),
        ((4, 4, 1), (5, 1, 1), None),
        ((1, 1, 1), (1, 1, 1), None),
    ],
)
def test_the_coarse_axis_is_nnunets(spacing, target, axis):
    assert Interpolation().coarse_axis(spacing, target) == axis


def test_no_axis_disappears():
    assert resampled_shape((1, 10, 3), (1.0, 1.0, 1.0), (9.0, 2.0, 9.0)) == (1, 5, 1)
