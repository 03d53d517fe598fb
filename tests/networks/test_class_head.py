"""A class head that is part of the module, reads inside masks, and shares one encoder
pass.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trivox.config.recipe import make_recipe
from trivox.datasets.labels import LabelScheme
from trivox.errors import RecipeError
from trivox.learning.checkpoints import load_weights, save_checkpoint
from trivox.learning.steps.schedules import make_optimizer, set_rate
from trivox.networks.class_head import LesionMasks, add_class_head, jitter, shrink
from trivox.networks.class_head import _grow as grow
from trivox.networks.pooling import masked_attention, masked_moments
from trivox.networks.registry import PATCH_NETWORKS, build_network, patch_family

REGIONS = LesionMasks((0,), False, (1, 2, 2), ((1,), (2,)))
LARGE = ("nvidia-unet", "resenc-l", "hybrid-base", "hybrid-large")
OWN = [
    name
    for name, family in PATCH_NETWORKS.items()
    if name not in LARGE and not family.blueprint.uniform
]


def network(
    name="unet-tiny",
    *,
    masks=REGIONS,
    outputs=3,
    channels=2,
    size=(16, 16, 16),
    **options,
):
    topology, patch = patch_family(name).shape(size, (1.0, 1.0, 1.0))
    torch.manual_seed(0)
    segmenter = build_network(name, topology, channels=channels, outputs=outputs)
    made = add_class_head(
        segmenter,
        topology,
        name=name,
        channels=channels,
        classes=3,
        masks=masks,
        **options,
    )
    return made, torch.randn(2, channels, *patch)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.tuples(*[st.integers(2, 6)] * 3), st.integers(0, 10**6))
def test_moments_inside_a_mask_are_those_of_its_voxels(channels, size, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(50, 3, (2, channels, *size)).astype(np.float32)
    masks = rng.random((2, 3, *size)) < 0.4
    masks[:, 2] = False
    mean, std = masked_moments(torch.from_numpy(features), torch.from_numpy(masks))
    for b in range(2):
        for m in range(2):
            inside = features[b][:, masks[b, m]].astype(np.float64)
            if inside.shape[1]:
                assert np.allclose(mean[b, m], inside.mean(1), atol=1e-3)
                assert np.allclose(std[b, m], inside.std(1), atol=2e-3)
    assert not mean[:, 2].any()
    assert not std[:, 2].any()


def test_voxels_outside_a_mask_change_neither_moments_nor_attention():
    torch.manual_seed(0)
    features = torch.randn(1, 4, 6, 6, 6)
    mask = torch.zeros(1, 1, 6, 6, 6)
    mask[..., 2:4, 2:4, 2:4] = 1
    changed = features + 3 * torch.randn_like(features) * (1 - mask)
    for a, b in zip(
        masked_moments(features, mask), masked_moments(changed, mask), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-5)
    query = torch.randn(1, 4)
    assert torch.allclose(
        masked_attention(features, mask, query),
        masked_attention(changed, mask, query),
        atol=1e-3,
    )


def test_masks_of_a_finer_grid_are_averaged_down():
    features = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    mask = torch.zeros(1, 1, 4, 4, 4)
    mask[..., :2, :2, :2] = 1
    assert masked_moments(features, mask)[0].item() == 0
    mask[..., :2, :2, 2:] = 1
    assert masked_moments(features, mask)[0].item() == pytest.approx(0.5)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.tuples(*[st.integers(1, 7)] * 3),
    st.tuples(*[st.integers(0, 3)] * 3),
    st.integers(0, 10**6),
)
def test_growing_is_the_maximum_over_a_box(size, radii, seed):
    mask = torch.rand(2, 2, *size, generator=torch.Generator().manual_seed(seed))
    z, y, x = radii
    padded = F.pad(mask, [x, x, y, y, z, z], value=-1)
    expected = F.max_pool3d(padded, [2 * r + 1 for r in radii], stride=1)
    assert torch.equal(grow(mask, radii), expected)


def test_what_would_vanish_is_not_shrunk():
    mask = torch.zeros(2, 1, 5, 5, 5)
    mask[0, 0, 2, 2, 2] = 1
    mask[1, 0, 1:4, 1:4, 1:4] = 1
    assert torch.equal(shrink(mask)[0], mask[0])
    assert shrink(mask)[1].sum() == 1


def test_jitter_grows_some_samples_and_shrinks_others():
    mask = torch.zeros(40, 1, 7, 7, 7)
    mask[:, 0, 2:5, 2:5, 2:5] = 1
    torch.manual_seed(0)
    sizes = {int(part.sum()) for part in jitter(mask)}
    assert sizes == {1, 27, 125}


def test_masks_of_logits_follow_the_labels():
    labels = LabelScheme(labels={"pancreas": 1, "lesion": 2})
    masks = LesionMasks.of(labels, (2,), (2.0, 1.0, 1.0))
    assert (masks.lesion, masks.rim, masks.others) == ((2,), (2, 3, 3), ((1,),))
    logits = torch.full((1, 3, 5, 5, 5), -20.0)
    logits[:, 0] = 0
    logits[0, 1, 1:4, 1:4, 1:4] = 20
    logits[0, 2, 2, 2, 2] = 40
    lesion, core, rim, organ, pancreas = masks.around(masks.predicted(logits))[0]
    assert lesion.round().sum() == 1
    assert core.round().sum() == 1
    assert organ.round().sum() == 27
    assert pancreas.round().sum() == 26
    assert rim[2, 2, 2] < 0.5 < rim[2, 2, 3]


@pytest.mark.parametrize("name", OWN)
def test_every_own_network_takes_a_head_and_runs_its_encoder_once(name):
    made, x = network(name, size=(32, 32, 32))
    calls = []
    encode = made.segmenter.encode
    made.segmenter.encode = lambda image: calls.append(1) or encode(image)
    out = made.eval()(x[:1])
    assert len(calls) == 1
    assert out.classes.shape == (1, 3)
    assert out.classes.dtype == torch.float32
    del made.segmenter.encode
    with torch.no_grad():
        assert torch.equal(out.segmentation, made.segmenter(x[:1]))


def test_a_network_without_a_readable_encoder_is_refused():
    topology, _ = patch_family("unet-tiny").shape((16, 16, 16), (1.0, 1.0, 1.0))
    with pytest.raises(RecipeError, match="does not show its encoder's maps"):
        add_class_head(
            nn.Conv3d(1, 2, 1), topology, name="x", channels=1, classes=2, masks=REGIONS
        )


def test_the_head_is_part_of_the_module(tmp_path):
    """Defects 2, 3 of research/models.md 1.3: validated in train mode, not saved, made
    anew on resume.
    """
    made, x = network()
    assert not [
        m for m in made.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    made.eval()
    assert not made.head.training
    assert not any(module.training for module in made.head.modules())
    with torch.no_grad():
        before = made(x).classes
        assert torch.equal(before, made(x).classes)
        single = torch.cat([made(part[None]).classes for part in x])
    assert torch.allclose(before, single, atol=1e-5)  # no statistics of the batch
    save_checkpoint(tmp_path / "latest", made, {})
    other, _ = network()
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(
        load_weights(next((tmp_path / "latest").glob("*.safetensors")))
    )
    with torch.no_grad():
        assert torch.equal(other.eval()(x).classes, before)


def test_the_heads_rate_survives_the_schedule():
    """Defect 1: nnU-Net's scheduler writes one rate into all groups."""
    made, _ = network()
    recipe = make_recipe(
        "quick_test", {"classification": {"learning_rate_factor": 4.0}}
    )
    optimizer = make_optimizer(made, recipe)
    of_the_head = {id(parameter) for parameter in made.head.parameters()}
    for factor in (1.0, 0.3, 0.01):
        set_rate(optimizer, factor)
        for group in optimizer.param_groups:
            in_head = any(id(p) in of_the_head for p in group["params"])
            wanted = recipe.learning_rate * factor * (4 if in_head else 1)
            assert group["lr"] == pytest.approx(wanted)
    listed = []
    for group in optimizer.param_groups:
        listed += [id(p) for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in made.parameters())  # each once


@pytest.mark.parametrize("factor", [0.0, 0.25, 1.0])
def test_the_encoder_receives_its_share_of_the_gradient(factor):
    gradients = []
    for share in (factor, 1.0):
        made, x = network(encoder_gradient=share, dropout=0.0)
        F.cross_entropy(made(x).classes, torch.tensor([0, 2])).backward()
        encoder = list(made.segmenter.encoder.parameters())
        reached = [p.grad.flatten() for p in encoder if p.grad is not None]
        gradients.append(torch.cat(reached) if reached else torch.zeros(1))
        assert all(p.grad is not None for p in made.head.parameters())
    assert torch.allclose(gradients[0], factor * gradients[1], atol=1e-6)


def test_given_masks_are_used_where_asked_for():
    made, x = network(dropout=0.0)
    made.eval()
    masks = torch.zeros(2, 4, *x.shape[2:])
    masks[..., 4:9, 4:9, 4:9] = 1
    with torch.no_grad():
        predicted = made(x).classes
        all_given = made(x, masks).classes
        mixed = made(x, masks, torch.tensor([True, False])).classes
    assert torch.allclose(mixed[0], all_given[0])
    assert torch.allclose(mixed[1], predicted[1])
    assert not torch.allclose(all_given, predicted)
