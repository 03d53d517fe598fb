import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trivox.errors import BundleError, RecipeError, UsageError
from trivox.inference.doubt.kinds import KINDS
from trivox.inference.doubt.uncertainty import (
    Agreement,
    Sums,
    entropy,
    probabilities_of,
    require_kinds,
    wake_dropout,
)
from trivox.networks.efficient import DropPath
from trivox.networks.registry import build_network
from trivox.planning.topology import Topology

few = settings(max_examples=25, deadline=None, derandomize=True)
SHAPE = (3, 4, 5)
TOPOLOGY = Topology(
    kernels=((3, 3, 3),) * 3,
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    features=(4, 8, 16),
    encoder_blocks=(1, 1, 1),
    decoder_blocks=(1, 1),
    residual=False,
)


def drawn(votes, channels=3, seed=0, scale=3.0):
    return (
        torch.randn(
            votes, channels, *SHAPE, generator=torch.Generator().manual_seed(seed)
        )
        * scale
    )


def tallied(logits, *, exclusive=True):
    sums = Sums(logits.shape[1], SHAPE, exclusive=exclusive, kinds=KINDS)
    for vote in logits:
        chance = probabilities_of(vote, exclusive=exclusive)
        sums.add(0, chance[:, :2])
        sums.add(2, chance[:, 2:])
        sums.votes += 1
    return sums


# -- entropy ---------------------------------------------------------------------------
@few
@given(classes=st.integers(2, 20), seed=st.integers(0, 99))
def test_entropy_is_largest_when_all_classes_are_equal_and_zero_when_one_is_certain(
    classes, seed
):
    chance = drawn(1, classes, seed)[0].softmax(0)
    found = entropy(chance, exclusive=True)
    assert found.shape == SHAPE
    assert (found >= 0).all()
    assert (found <= math.log(classes) + 1e-5).all()
    uniform = torch.full((classes, *SHAPE), 1 / classes)
    assert torch.allclose(
        entropy(uniform, exclusive=True), torch.tensor(math.log(classes)), atol=1e-5
    )
    certain = nn.functional.one_hot(chance.argmax(0), classes).movedim(-1, 0).float()
    assert (entropy(certain, exclusive=True) == 0).all()


def test_entropy_of_regions_is_the_mean_of_their_binary_entropies():
    chance = torch.tensor([[0.5, 0.0, 1.0], [0.5, 0.5, 1.0]])
    found = entropy(chance, exclusive=False)
    assert torch.allclose(found, torch.tensor([math.log(2), math.log(2) / 2, 0.0]))


@few
@given(temperature=st.floats(0.1, 10), exclusive=st.booleans(), seed=st.integers(0, 99))
def test_a_temperature_never_changes_the_decision(temperature, exclusive, seed):
    logits = drawn(1, seed=seed)[0]
    plain, scaled = (
        probabilities_of(logits, exclusive=exclusive, temperature=t)
        for t in (1.0, temperature)
    )
    assert (
        torch.equal(plain.argmax(0), scaled.argmax(0))
        if exclusive
        else torch.equal(plain > 0.5, scaled > 0.5)
    )


def test_a_higher_temperature_is_less_certain():
    logits = drawn(1)[0]
    doubts = [
        entropy(probabilities_of(logits, exclusive=True, temperature=t), exclusive=True)
        for t in (0.5, 1, 2)
    ]
    assert (doubts[0] <= doubts[1] + 1e-6).all()
    assert (doubts[1] <= doubts[2] + 1e-6).all()


# -- votes -----------------------------------------------------------------------------
@few
@given(votes=st.integers(2, 6), exclusive=st.booleans(), seed=st.integers(0, 99))
def test_maps_are_those_of_all_votes_held_at_once(votes, exclusive, seed):
    logits = drawn(votes, seed=seed)
    found = tallied(logits, exclusive=exclusive).maps()
    chance = torch.stack(
        [probabilities_of(vote, exclusive=exclusive) for vote in logits]
    ).double()
    total = entropy(chance.mean(0), exclusive=exclusive)
    expected = {
        "entropy": total,
        "mutual_information": total
        - torch.stack([entropy(c, exclusive=exclusive) for c in chance]).mean(0),
        "variance": chance.var(0, unbiased=False).mean(0),
    }
    assert set(found) == set(expected)
    for kind, values in expected.items():
        assert found[kind].dtype == np.float32
        assert np.allclose(found[kind], values, atol=1e-5), kind


@few
@given(exclusive=st.booleans(), seed=st.integers(0, 99))
def test_mutual_information_is_what_votes_contradict_each_other_on(exclusive, seed):
    logits = drawn(4, seed=seed)
    same = tallied(logits[:1].expand(4, -1, -1, -1, -1), exclusive=exclusive).maps()
    assert np.allclose(same["mutual_information"], 0, atol=1e-5)
    assert np.allclose(same["variance"], 0, atol=1e-6)
    other = tallied(logits, exclusive=exclusive).maps()
    assert (other["mutual_information"] > 1e-4).mean() > 0.9
    assert (other["mutual_information"] <= other["entropy"] + 1e-6).all()
    assert (other["variance"] <= 0.25).all()


def test_two_certain_votes_against_each_other_are_all_mutual_information():
    logits = torch.zeros(2, 2, *SHAPE)
    logits[0, 0] = logits[1, 1] = 100
    maps = tallied(logits).maps()
    assert np.allclose(maps["entropy"], math.log(2))
    assert np.allclose(maps["mutual_information"], math.log(2))
    assert np.allclose(maps["variance"], 0.25)


def test_votes_on_another_order_of_axes_are_put_right():
    chance = drawn(1)[0].softmax(0)
    sums = Sums(3, SHAPE, exclusive=True, kinds=KINDS)
    sums.add(0, chance.permute(0, 3, 1, 2), axes=(2, 0, 1))
    sums.votes += 1
    assert torch.allclose(sums.mean(), chance)
    assert np.allclose(
        sums.maps()["entropy"], entropy(chance, exclusive=True), atol=1e-6
    )


def numbers_held(sums):
    held = (value for value in vars(sums).values() if isinstance(value, torch.Tensor))
    return sum(tensor.numel() for tensor in held)


def test_memory_does_not_grow_with_the_votes():
    assert numbers_held(tallied(drawn(1))) == numbers_held(tallied(drawn(20)))
    plain = Sums(3, SHAPE, exclusive=True, kinds=("entropy",))
    assert numbers_held(plain) == 3 * math.prod(SHAPE)


@few
@given(votes=st.integers(2, 5), seed=st.integers(0, 99))
def test_agreement_is_the_pooled_dice_of_all_pairs(votes, seed):
    maps = np.random.default_rng(seed).integers(0, 3, (votes, *SHAPE)).astype(np.int16)
    agreement = Agreement(2, SHAPE)
    for labels in maps:
        agreement.add(labels)
    expected = []
    for label in (1, 2):
        masks = maps == label
        pairs = list(itertools.combinations(masks, 2))
        expected.append(
            sum(2 * (a & b).sum() for a, b in pairs)
            / sum(a.sum() + b.sum() for a, b in pairs)
        )
    assert agreement.dice() == pytest.approx(np.mean(expected))


def test_agreement_of_equal_votes_is_one_and_of_a_single_one_unknown():
    labels = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.int16)
    agreement = Agreement(2, SHAPE)
    agreement.add(labels)
    assert agreement.dice() is None
    agreement.add(labels)
    assert agreement.dice() == 1
    nothing = Agreement(2, SHAPE)
    nothing.add(labels * 0)
    nothing.add(labels * 0)
    assert nothing.dice() is None


def test_kinds_that_cannot_be_given_are_refused():
    require_kinds(["entropy"], votes=1)
    require_kinds(KINDS, votes=2)
    with pytest.raises(UsageError, match=r"'variance' compares votes.*--tta"):
        require_kinds(["variance"], votes=1)
    with pytest.raises(
        RecipeError, match="'spread' does not exist; choose from entropy"
    ):
        require_kinds(["spread"], votes=9)


# -- Monte Carlo dropout ---------------------------------------------------------------
@pytest.mark.parametrize(
    "kind", [nn.Dropout(0.3), nn.Dropout3d(0.3), nn.AlphaDropout(0.3), DropPath(0.3)]
)
def test_only_what_drops_wakes_up(kind):
    network = nn.Sequential(
        nn.BatchNorm3d(2), kind, nn.InstanceNorm3d(2), nn.Dropout(0.0)
    ).eval()
    wake_dropout(network)
    assert [module.training for module in network] == [False, True, False, False]
    assert not network.training


@pytest.mark.parametrize(
    "layers", [[nn.Conv3d(1, 1, 1)], [nn.Dropout(0.0), DropPath(0.0)]]
)
def test_a_network_without_dropout_is_told_how_to_get_it(layers):
    with pytest.raises(BundleError, match=r"--set network_options\.dropout=0\.1"):
        wake_dropout(nn.Sequential(*layers))


@pytest.mark.parametrize("name", ["unet-tiny", "resenc-m"])
def test_dropout_of_a_unet_is_silent_in_prediction_and_leaves_the_weights_alone(name):
    torch.manual_seed(0)
    plain = build_network(name, TOPOLOGY, channels=1, outputs=2, deep_supervision=False)
    network = build_network(
        name,
        TOPOLOGY,
        channels=1,
        outputs=2,
        deep_supervision=False,
        options={"dropout": 0.5},
    )
    network.load_state_dict(plain.state_dict())
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(network.eval()(image), plain.eval()(image))
        wake_dropout(network)
        passes = [network(image) for _ in range(2)]
    assert not torch.allclose(*passes)
    with pytest.raises(BundleError):
        wake_dropout(plain)


def test_dropout_of_a_unet_takes_deep_features_and_whole_channels():
    """The finest features, right before the head, stay: they would only blur the
    outline.
    """
    network = build_network(
        "unet-tiny", TOPOLOGY, channels=1, outputs=2, options={"dropout": 0.5}
    ).eval()
    wake_dropout(network)
    seen = []
    network.dropout.register_forward_hook(
        lambda module, inputs, output: seen.append((inputs[0], output))
    )
    network(torch.randn(1, 1, 8, 8, 8))
    assert [inputs.shape[1:] for inputs, _ in seen] == [(16, 2, 2, 2), (8, 4, 4, 4)]
    for inputs, output in seen:
        zero = (output == 0).flatten(2)
        assert (
            (zero.all(2)) | (output.flatten(2) == 2 * inputs.flatten(2)).all(2)
        ).all()
