"""Topologies: what is pooled when, and nnU-Net's cost proxy."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.networks.registry import PATCH_NETWORKS
from trivox.planning.blueprint import MIN_FEATURE_MAP
from trivox.planning.topology import (
    feature_map_elements,
    pooling,
    stage_sizes,
    staged_topology,
)

SIX = ((3, 3, 3),) * 6, ((1, 1, 1),) + ((2, 2, 2),) * 5


def blueprint_of(network):
    return PATCH_NETWORKS[network].blueprint


def halving(stages, *, axes=3):
    """Kernels of 3 and strides of 2 along all axes, the first stage without stride."""
    strides = ((1,) * axes, *((2,) * axes,) * (stages - 1))
    return ((3,) * axes,) * stages, strides


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("network", "elements"), [("nnunet-plain", 452_796_416), ("resenc-l", 557_420_544)]
)
def test_the_proxy_of_128_cubed_equals_nnunets(network, elements):
    kernels, strides, patch = pooling((128, 128, 128), (1, 1, 1))
    assert (kernels, strides, patch) == (*SIX, (128, 128, 128))
    topology = staged_topology(blueprint_of(network), kernels, strides)
    assert feature_map_elements(topology, patch, 3) == elements


sizes = st.tuples(*(st.integers(1, 300),) * 3)
spacings = st.tuples(*(st.sampled_from([0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0]),) * 3)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(patch=sizes, spacing=spacings)
def test_the_padded_patch_is_the_smallest_multiple_and_keeps_four_voxels_where_pooled(
    patch, spacing
):
    kernels, strides, padded = pooling(patch, spacing)
    assert len(kernels) == len(strides)
    assert strides[0] == (1, 1, 1)
    divisor = [math.prod(along) for along in zip(*strides, strict=True)]
    bottleneck = stage_sizes(padded, strides)[-1]
    for axis in range(3):
        assert padded[axis] % divisor[axis] == 0
        assert patch[axis] <= padded[axis] < patch[axis] + divisor[axis]
        if divisor[axis] > 1:
            assert bottleneck[axis] >= MIN_FEATURE_MAP


@settings(max_examples=60, deadline=None, derandomize=True)
@given(patch=sizes, spacing=spacings)
def test_kernels_never_shrink_and_end_at_three(patch, spacing):
    kernels, _, _ = pooling(patch, spacing)
    for axis in range(3):
        along = [kernel[axis] for kernel in kernels]
        assert along == sorted(along)
        assert along[-1] == 3


@settings(max_examples=60, deadline=None, derandomize=True)
@given(patch=sizes, spacing=spacings)
def test_only_axes_within_a_factor_of_two_of_the_finest_are_halved(patch, spacing):
    _, strides, _ = pooling(patch, spacing)
    edge = list(spacing)
    for stride in strides[1:]:
        halved = [axis for axis in range(3) if stride[axis] == 2]
        assert halved
        finest = min(edge[axis] for axis in halved)
        assert all(edge[axis] / finest < 2 for axis in halved)
        edge = [e * s for e, s in zip(edge, stride, strict=True)]


@pytest.mark.parametrize(
    ("patch", "poolings"),
    [
        ((8, 8, 8), 1),
        ((7, 7, 7), 0),
        ((11, 4, 4), 0),
        ((12, 4, 4), 1),
        ((16, 16, 16), 2),
    ],
)
def test_an_axis_is_halved_from_eight_voxels_on_and_alone_from_twelve(patch, poolings):
    assert len(pooling(patch, (1, 1, 1))[1]) == poolings + 1


DOUBLING = [name for name in PATCH_NETWORKS if not blueprint_of(name).widths]


@pytest.mark.parametrize("network", DOUBLING)
@pytest.mark.parametrize("stages", [1, 2, 5, 9])
def test_a_family_fills_any_number_of_stages(network, stages):
    blueprint = blueprint_of(network)
    topology = staged_topology(blueprint, *halving(stages))
    most = blueprint.max_features_3d
    base = blueprint.base_features
    assert topology.stages == len(topology.encoder_blocks) == stages
    assert len(topology.decoder_blocks) == stages - 1
    assert max(topology.features) <= most
    assert topology.features == tuple(min(base * 2**s, most) for s in range(stages))


def test_slices_may_be_wider_than_volumes():
    blueprint = blueprint_of("nnunet-plain")
    flat = staged_topology(blueprint, *halving(7, axes=2))
    deep = staged_topology(blueprint, *halving(7))
    assert flat.features[-1] == 512
    assert deep.features[-1] == 320


@pytest.mark.parametrize("network", ["hybrid-lite", "hybrid-base", "hybrid-large"])
@pytest.mark.parametrize(
    "patch", [(128, 128, 128), (40, 56, 40), (5, 48, 33), (64, 64)]
)
def test_a_hybrid_has_five_stages_of_its_own_widths_and_takes_any_patch(network, patch):
    topology, padded = PATCH_NETWORKS[network].shape(patch, (1.0,) * len(patch))
    assert topology.stages == 5
    assert topology.features == blueprint_of(network).widths
    assert padded == patch
    assert topology.divisor == (1,) * len(patch)


def test_the_nvidia_unet_has_seven_levels_at_its_patch_and_fewer_where_axes_are_short():
    family = PATCH_NETWORKS["nvidia-unet"]
    whole, _ = family.shape((128, 128, 128), (1.0,) * 3)
    short, _ = family.shape((32, 32, 32), (1.0,) * 3)
    assert whole.features == (64, 96, 128, 192, 256, 384, 512)
    assert short.stages == 5


@pytest.mark.parametrize(
    ("network", "divisor"), [("swin-unetr-v2", 32), ("mednext-s", 16)]
)
def test_foreign_networks_get_patches_padded_to_their_halvings(network, divisor):
    topology, padded = PATCH_NETWORKS[network].shape((9, 40, 250), (5.0, 1.0, 1.0))
    assert topology.divisor == (divisor,) * 3
    assert all(size % divisor == 0 for size in padded)
