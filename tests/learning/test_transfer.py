"""Pretrained weights: matched by name and shape, resized so that the response stays,
everything accounted for.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from trivox.errors import BundleError
from trivox.learning.checkpoints import save_weights
from trivox.learning.transfer import (
    load_pretrained,
    resize_channels,
    resize_kernel,
    resize_upsampling,
)
from trivox.networks.layers import UpSample, convolution
from trivox.networks.registry import build_network
from trivox.planning.topology import Topology

few = settings(max_examples=12, deadline=None, derandomize=True)


def topology(*, flat_first=False, features=(4, 8, 16), residual=False):
    first, step = ((1, 3, 3), (1, 2, 2)) if flat_first else ((3, 3, 3), (2, 2, 2))
    return Topology(
        kernels=(first, (3, 3, 3), (3, 3, 3)),
        strides=((1, 1, 1), step, (2, 2, 2)),
        features=features,
        encoder_blocks=(1, 2, 1),
        decoder_blocks=(1, 1),
        residual=residual,
    )


def network(seed=0, *, channels=1, outputs=2, name="nnunet-plain", **shape):
    torch.manual_seed(seed)
    return build_network(
        name, topology(**shape), channels=channels, outputs=outputs
    ).eval()


@pytest.fixture
def saved(tmp_path):
    def save(module):
        save_weights(module, tmp_path / "weights.safetensors")
        return tmp_path / "weights.safetensors"

    return save


def names_of(module):
    return set(module.state_dict())


def test_the_same_network_is_loaded_whole_and_computes_the_same(saved):
    source = network(1)
    target = network(2)
    report = load_pretrained(target, saved(source), channels=1)
    assert report.share == 1
    assert set(report.loaded.names) == names_of(source)
    assert report.loaded.parameters == sum(p.numel() for p in source.parameters())
    image = torch.randn(1, 1, 8, 8, 8)
    assert torch.equal(source(image), target(image))


def test_heads_of_other_classes_are_skipped_and_keep_their_values(saved):
    target = network(2, outputs=3)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    report = load_pretrained(target, saved(network(1)), channels=1)
    heads = {name for name in before if name.startswith("heads")}
    assert set(report.missing.names) == set(report.skipped.names) == heads
    assert all(
        torch.equal(before[name], value)
        for name, value in target.state_dict().items()
        if name in heads
    )
    assert not report.resized.names
    assert report.missing.parameters == sum(before[name].numel() for name in heads)


@few
@given(
    old=st.integers(1, 5),
    new=st.integers(1, 5),
    outputs=st.sampled_from([2, 3]),
    flat=st.booleans(),
)
def test_every_tensor_of_both_sides_is_in_exactly_one_part(
    tmp_path_factory, old, new, outputs, flat
):
    source = network(1, channels=old)
    target = network(2, channels=new, outputs=outputs, flat_first=flat)
    file = tmp_path_factory.mktemp("w") / "w.safetensors"
    save_weights(source, file)
    report = load_pretrained(target, file, channels=new)
    taken = [*report.loaded.names, *report.resized.names]
    assert sorted([*taken, *report.skipped.names]) == sorted(names_of(source))
    assert sorted([*taken, *report.missing.names]) == sorted(names_of(target))
    assert (
        sum(f"{len(p.names)} {n}" in report.lines()[0] for n, p in vars(report).items())
        == 4
    )
    assert report.to_file("w").missing.parameters == report.missing.parameters


# -- input channels --------------------------------------------------------------------
@few
@given(old=st.integers(1, 6), new=st.integers(1, 6))
def test_an_image_with_equal_channels_is_answered_alike_whatever_their_number(old, new):
    torch.manual_seed(old + 10 * new)
    weight = torch.randn(3, old, 3, 3, 3)
    image = torch.randn(1, 1, 6, 6, 6)
    expected = nn.functional.conv3d(image.expand(-1, old, -1, -1, -1), weight)
    result = nn.functional.conv3d(
        image.expand(-1, new, -1, -1, -1), resize_channels(weight, new)
    )
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["nnunet-plain", "resenc-m"])
def test_only_the_layer_that_reads_the_image_is_resized_for_other_channels(saved, name):
    source = network(1, channels=1, name=name)
    target = network(2, channels=4, name=name)
    report = load_pretrained(target, saved(source), channels=4)
    assert len(report.resized.names) == 1
    assert not report.missing.names
    image = torch.randn(1, 1, 8, 8, 8)
    torch.testing.assert_close(
        target(image.expand(-1, 4, -1, -1, -1)), source(image), rtol=1e-4, atol=1e-4
    )


def test_other_widths_inside_the_network_are_never_resized(saved):
    report = load_pretrained(
        network(2, features=(4, 8, 12)), saved(network(1)), channels=1
    )
    assert not report.resized.names
    assert "encoder.2.0.0.weight" in report.missing.names
    assert "encoder.1.0.0.weight" in report.loaded.names


def test_depthwise_layers_are_not_taken_for_readers_of_the_image(saved):
    """Their weights are `(c, 1, ...)`: one input a channel, whatever the image has."""
    source, target = (
        nn.Sequential(nn.Conv3d(8, 8, 3, groups=groups, bias=False))
        for groups in (4, 8)
    )
    with pytest.raises(BundleError, match="none of its 1 tensors"):
        load_pretrained(target, saved(source), channels=1)


# -- kernels ---------------------------------------------------------------------------
@few
@given(
    old=st.sampled_from([1, 3, 5]),
    new=st.sampled_from([1, 3, 5]),
    axis=st.integers(2, 4),
)
def test_an_input_constant_along_the_axis_is_answered_alike_by_a_resized_kernel(
    old, new, axis
):
    torch.manual_seed(old + 10 * new)
    shape = [3, 2, 3, 3, 3]
    shape[axis] = old
    weight = torch.randn(shape)
    size = [1, 2, 9, 9, 9]
    size[axis] = 1
    image = torch.randn(size).expand(1, 2, 9, 9, 9)
    one, other = (
        nn.functional.conv3d(image, w).narrow(axis, 0, 1)
        for w in (weight, resize_kernel(weight, axis, new))
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2)])
def test_a_grown_kernel_is_the_same_function_on_any_input_to_the_border(stride):
    flat = convolution(2, 3, (1, 3, 3), stride)
    solid = convolution(2, 3, (3, 3, 3), stride)
    solid.weight.data = resize_kernel(flat.weight.data, 2, 3)
    solid.bias.data = flat.bias.data
    image = torch.randn(1, 2, 6, 8, 8)
    torch.testing.assert_close(solid(image), flat(image), rtol=1e-5, atol=1e-5)


def test_growing_a_kernel_and_shrinking_it_again_gives_it_back():
    weight = torch.randn(3, 2, 1, 3, 3)
    assert torch.equal(resize_kernel(resize_kernel(weight, 2, 5), 2, 1), weight)


def test_an_upsampling_that_also_doubles_z_repeats_what_the_flat_one_gave():
    flat = UpSample(3, 2, (1, 2, 2))
    solid = UpSample(3, 2, (2, 2, 2))
    solid.weight.data = resize_upsampling(flat.weight.data, 2, 2)
    solid.bias.data = flat.bias.data
    image = torch.randn(1, 3, 4, 4, 4)
    torch.testing.assert_close(solid(image), flat(image).repeat_interleave(2, dim=2))
    assert torch.equal(resize_upsampling(solid.weight.data, 2, 1), flat.weight.data)


def test_kernels_without_a_centre_are_left_alone():
    assert resize_kernel(torch.randn(1, 1, 2, 3, 3), 2, 3) is None
    assert resize_upsampling(torch.randn(1, 1, 2, 2, 2), 2, 3) is None


@pytest.mark.parametrize("to_flat", [True, False])
def test_a_network_of_other_kernels_and_strides_is_resized(saved, to_flat):
    """From isotropic to anisotropic data and back: the first stage's kernels and the
    finest upsampling change.
    """
    source = network(1, flat_first=not to_flat)
    target = network(2, flat_first=to_flat)
    report = load_pretrained(target, saved(source), channels=1)
    assert not report.missing.names
    assert set(report.resized.names) == {
        "encoder.0.0.0.weight",
        "decoder.0.0.0.weight",
        "up.0.weight",
    }


def test_half_precision_files_are_loaded_as_the_network_counts(tmp_path):
    source = network(1)
    target = network(2, channels=2)
    save_file(
        {k: v.half() for k, v in source.state_dict().items()},
        tmp_path / "half.safetensors",
    )
    load_pretrained(target, tmp_path / "half.safetensors", channels=2)
    assert all(value.dtype == torch.float32 for value in target.state_dict().values())
    torch.testing.assert_close(
        target.up[0].weight, source.up[0].weight, rtol=1e-3, atol=1e-3
    )


# -- what cannot be used ---------------------------------------------------------------
def test_a_file_in_which_nothing_fits_says_what_to_do(tmp_path):
    save_file({"blocks.0.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(
        BundleError, match=r"none of its 1 tensors fits.*blocks\.0\.weight.*--network"
    ):
        load_pretrained(network(), tmp_path / "other.safetensors", channels=1)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(BundleError, match="weights not found"):
        load_pretrained(network(), tmp_path / "none.safetensors", channels=1)
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(BundleError, match=r"bad\.safetensors: not readable"):
        load_pretrained(network(), tmp_path / "bad.safetensors", channels=1)
