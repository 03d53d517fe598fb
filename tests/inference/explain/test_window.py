import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trivox.datasets.reading import crop_volume
from trivox.errors import DataError
from trivox.inference.engines.torch import torch_engines
from trivox.inference.explain.window import (
    central_voxel,
    feature_maps,
    foreground,
    grid_voxel,
    label_masks,
    mean_distance,
    measure_features,
    saliency,
    smoothed,
    source_voxel,
    window_around,
    window_logits,
)
from trivox.inference.windows import SlidingWindows
from trivox.learning.runtime import Runtime
from trivox.planning.plan import read_plan
from trivox.preparation.grid import prepare
from trivox.volumes.volume import Volume

few = settings(max_examples=25, deadline=None, derandomize=True)
SHAPE = (7, 9, 6)
AXES = st.tuples(
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from((1, -1))] * 3),
    st.permutations(range(3)),
)


@pytest.fixture(scope="module")
def plan(tiny_run):
    return read_plan(tiny_run / "plan.json")


def oriented(axes, signs, spacing=1.0):
    """A volume of `SHAPE` with its axes laid along the world's in any order; empty
    outside of a box.
    """
    affine = np.eye(4)
    affine[:3, :3] = 0
    affine[list(axes), range(3)] = np.array(signs) * spacing
    array = np.zeros((1, *SHAPE), np.float32)
    array[:, 1:6, 2:8, 1:] = 1 + np.random.default_rng(0).random((1, 5, 6, 5))
    return Volume(array, affine)


# -- positions -------------------------------------------------------------------------
@few
@given(
    axes=AXES, point=st.tuples(st.integers(1, 5), st.integers(2, 7), st.integers(1, 5))
)
def test_a_source_voxel_is_found_in_the_grid_and_back(plan, axes, point):
    """In any orientation and axis order, without resampling: the one voxel of the grid
    that a mark there leads to.
    """
    fitted = plan.model_copy(
        update={"spacing": (1.0, 1.0, 1.0), "axis_order": tuple(axes[2])}
    )
    record = prepare(crop_volume(oriented(*axes[:2]), None, where="x"), fitted).record
    mark = np.zeros(SHAPE)
    mark[point] = 1
    found = grid_voxel(record, point, where="x")
    assert record.from_source(mark)[found] == 1
    assert source_voxel(record, found) == point


@few
@given(
    axes=AXES,
    finer=st.sampled_from([1.0, 2.0, 3.3]),
    point=st.tuples(st.integers(1, 5), st.integers(2, 7), st.integers(1, 5)),
)
def test_a_finer_grid_loses_no_source_voxel(plan, axes, finer, point):
    fitted = plan.model_copy(
        update={"spacing": (1 / finer,) * 3, "axis_order": tuple(axes[2])}
    )
    record = prepare(crop_volume(oriented(*axes[:2]), None, where="x"), fitted).record
    assert source_voxel(record, grid_voxel(record, point, where="x")) == point


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ((7, 0, 0), r"not in the image of \(7, 9, 6\)"),
        ((-1, 3, 3), "indices run from 0"),
        ((0, 3, 3), "all zero"),
    ],
)
def test_a_point_outside_is_named(plan, point, message):
    record = prepare(
        crop_volume(oriented((0, 1, 2), (1, 1, 1)), None, where="x"), plan
    ).record
    with pytest.raises(DataError, match=rf"case_7: point .*{message}"):
        grid_voxel(record, point, where="case_7")


@few
@given(
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    patch=st.tuples(*[st.integers(1, 9)] * 3),
    share=st.tuples(*[st.floats(0, 0.999)] * 3),
)
def test_the_window_holds_its_point_and_stays_in_the_image(shape, patch, share):
    image = torch.arange(1, 1 + np.prod(shape), dtype=torch.float32).reshape(1, *shape)
    centre = tuple(int(n * s) for n, s in zip(shape, share, strict=True))
    window = window_around(image, patch, centre)
    assert window.image.shape[1:] == patch
    assert window.image[(0, *window.point)] == image[(0, *centre)]
    assert window.voxel == centre
    for start, p, n in zip(window.start, patch, shape, strict=True):
        assert 0 <= start <= n - p if n >= p else -p < start <= 0


def test_the_central_voxel_belongs_to_a_bent_structure():
    mask = torch.zeros(5, 5, 9, dtype=torch.bool)
    mask[2, 2, :3] = mask[2, 2, 5:] = True  # the centre of mass lies in the gap
    found = central_voxel(mask)
    assert found == (2, 2, 5)
    assert mask[found]
    assert central_voxel(torch.zeros(2, 2, 2, dtype=torch.bool)) is None


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_foreground_is_where_a_label_wins(exclusive):
    network = nn.Conv3d(1, 3, 1, bias=False)
    nn.init.constant_(network.weight, 0).data[:, 0, 0, 0, 0] = torch.tensor(
        [1.0, 2.0, 3.0]
    )
    image = torch.randn(1, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    engines = torch_engines([network], Runtime(torch.device("cpu"), "fp32"))
    windows = SlidingWindows(engines, (4, 5, 4), 3)
    with torch.no_grad():
        masks = label_masks(network(image[None])[0], exclusive=exclusive)
    expected = (masks[1:] if exclusive else masks).any(0)
    assert 0 < expected.sum() < expected.numel()
    assert torch.equal(foreground(windows, image, exclusive=exclusive), expected)
    assert not exclusive or torch.equal(
        masks.sum(0), torch.ones_like(masks[0], dtype=torch.long)
    )


# -- saliency --------------------------------------------------------------------------
def chosen(channel, voxel, shape):
    target = torch.zeros(2, *shape, dtype=torch.bool)
    target[(channel, *voxel)] = True
    return target


def test_saliency_is_zero_where_the_output_cannot_see():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv3d(4, 2, 3, padding=1)
    )
    found = saliency(
        network, torch.randn(1, 12, 11, 10), chosen(1, (5, 6, 4), (12, 11, 10))
    )[0]
    seen = torch.zeros(12, 11, 10, dtype=torch.bool)
    seen[3:8, 4:9, 2:7] = True  # two convolutions of 3: two voxels each way
    assert torch.equal(found > 0, seen)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_saliency_equals_the_finite_difference():
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv3d(4, 2, 1)
    ).double()
    image = torch.randn(2, 4, 4, 4).double()
    target = torch.rand(2, 4, 4, 4) > 0.5
    found = saliency(network, image, target)
    step = torch.zeros_like(image)
    for place in ((0, 1, 2, 3), (1, 0, 0, 2)):
        step.zero_()[place] = 1e-5
        up, down = (
            network((image + sign * step)[None])[0][target].sum() for sign in (1, -1)
        )
        assert found[place].item() == pytest.approx(
            abs(up - down).item() / 2e-5, rel=1e-5
        )


def test_smoothing_keeps_the_sum_away_from_borders_and_uniform_maps_everywhere():
    spike = np.zeros((11, 11, 1), np.float32)
    spike[5, 5, 0] = 1
    assert smoothed(spike).sum() == pytest.approx(1, abs=1e-5)
    assert smoothed(spike).max() < 0.5
    assert np.allclose(smoothed(np.full((4, 1, 6), 3.0)), 3)


def test_mean_distance_in_mm():
    weights = np.zeros((5, 5, 5))
    weights[0, 2, 2] = 1
    weights[2, 2, 4] = 3
    assert mean_distance(weights, (2, 2, 2), (5.0, 1.0, 2.0)) == pytest.approx(
        (1 * 10 + 3 * 4) / 4
    )
    assert mean_distance(np.zeros((2, 2, 2)), (0, 0, 0), (1.0, 1.0, 1.0)) is None


# -- feature maps ----------------------------------------------------------------------
def test_features_are_ranked_and_dead_channels_counted():
    noise = torch.randn(4, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    maps = noise * torch.tensor([1.0, 0.0, 3.0, 1e-4])[:, None, None, None] + 5
    measured = measure_features(maps)
    assert measured.strongest(3) == [2, 0, 3]
    assert measured.dead == 0.5
    assert np.allclose(measured.mean, 5, atol=0.4)
    assert measure_features(torch.ones(3, 1, 1, 1)).dead is None


def test_stages_are_those_that_the_network_computes(plan):
    from trivox.networks.registry import build_network

    network = build_network("unet-tiny", plan.topology, channels=1, outputs=3).eval()
    window = window_around(torch.randn(1, 16, 16, 16), plan.patch_size, (8, 8, 8))
    maps = feature_maps(network, window)
    assert [m.shape[0] for m in maps] == list(plan.topology.features)
    assert maps[0].shape[1:] == plan.patch_size
    assert feature_maps(nn.Conv3d(1, 3, 1), window) == []
    assert window_logits(network, window).shape == (3, *plan.patch_size)
