import copy
import json

import pytest
import torch
import torch.nn.functional as F

from trivox.errors import FormatError
from trivox.learning.losses.adversarial import Critic, PatchCritic, PsnrBudget, ramp


def pairs(count: int = 4, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Sharp volumes, and the same ones blurred."""
    real = torch.rand(
        count, 1, 16, 16, 16, generator=torch.Generator().manual_seed(seed)
    )
    return real, F.avg_pool3d(real, 3, 1, 1)


@pytest.fixture(scope="module")
def taught():
    critic = Critic()
    losses = [float(critic.learn(*pairs(seed=seed))) for seed in range(25)]
    return critic, losses


def test_the_critic_learns_to_tell_real_from_blurred(taught):
    critic, losses = taught
    assert losses[0] == pytest.approx(2, abs=0.1)
    assert losses[-1] < 1.4
    real, fake = pairs(seed=99)
    with torch.no_grad():
        assert critic.network(real)[0].mean() > critic.network(fake)[0].mean() + 0.5


def test_its_judgement_leads_the_reconstruction_towards_sharpness(taught):
    critic, _ = taught
    real, fake = pairs(seed=98)
    fake.requires_grad_(True)
    cost = critic.judge(fake, real)
    assert cost > critic.judge(real, real)
    (gradient,) = torch.autograd.grad(cost, fake)
    assert (
        critic.judge(
            fake - 0.2 * cost.detach() / gradient.square().sum() * gradient, real
        )
        < cost
    )


def test_judging_leaves_the_critic_as_it_is(taught):
    critic, _ = taught
    real, fake = pairs(seed=97)
    before = {
        name: value.clone() for name, value in critic.network.state_dict().items()
    }
    critic.judge(fake.requires_grad_(True), real).backward()
    assert all(
        torch.equal(value, before[name])
        for name, value in critic.network.state_dict().items()
    )
    assert all(
        parameter.grad is None or not parameter.requires_grad
        for parameter in critic.network.parameters()
    )
    assert fake.grad.abs().sum() > 0


def test_learning_sends_no_gradient_into_the_reconstruction():
    real, fake = pairs()
    fake.requires_grad_(True)
    Critic().learn(real, fake * 1.0)
    assert fake.grad is None


def test_features_are_matched_even_where_the_verdicts_are_equal(monkeypatch):
    critic = Critic()
    real, fake = pairs()
    monkeypatch.setattr(
        critic.network.verdict, "forward", lambda channels: channels.new_zeros(1)
    )
    assert critic.judge(real, real) == 0
    assert critic.judge(fake, real) > 0.01


def test_no_layer_of_the_critic_stretches_its_input():
    network = PatchCritic()
    for seed in range(20):  # each call in training is a step of the power iteration
        network(pairs(seed=seed)[0])
    for layer in (*network.stages, network.verdict):
        weights = layer.weight.flatten(1)
        assert torch.linalg.matrix_norm(weights, 2).item() == pytest.approx(1, abs=0.05)


def test_a_verdict_is_about_a_patch():
    network = PatchCritic().eval()
    volume = torch.zeros(1, 1, 64, 64, 64, requires_grad=True)
    network(volume)[0][0, 0, 4, 4, 4].backward()
    seen = volume.grad[0, 0].nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [22, 22, 22]


def test_a_restored_critic_takes_the_same_next_step(taught):
    state = taught[0].state_dict()
    twin = Critic()
    other = Critic()
    for critic in (twin, other):
        critic.load_state_dict(copy.deepcopy(state))
    assert twin.learn(*pairs(seed=5)) == other.learn(*pairs(seed=5))
    for one, two in zip(
        twin.network.parameters(), other.network.parameters(), strict=True
    ):
        assert torch.equal(one, two)


def test_the_critic_computes_in_fp32_under_autocast():
    real, fake = pairs()
    plain = Critic()
    other = Critic()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = other.learn(real, fake)
        cost = other.judge(fake, real)
    assert loss == plain.learn(real, fake)
    assert cost == plain.judge(fake, real)
    assert cost.dtype == torch.float32


def test_the_weight_rises_over_the_first_half_of_the_last_share():
    weights = [
        ramp(spent, share=0.2, weight=0.1) for spent in (0.0, 0.79, 0.8, 0.85, 0.9, 1.0)
    ]
    assert weights == pytest.approx([0, 0, 0, 0.05, 0.1, 0.1])
    assert ramp(1.0, share=0.0, weight=0.1) == 0


def test_a_budget_that_is_exceeded_ends_the_stage_once_and_for_all():
    budget = PsnrBudget(0.5)
    assert budget.check(24.0, running=False) is None
    assert budget.check(25.0, running=False) is None
    assert budget.check(24.6, running=True) is None
    assert budget.allowed(0.1) == 0.1
    assert "0.60 dB to 24.40 dB" in budget.check(24.4, running=True)
    assert budget.check(20.0, running=True) is None
    assert budget.check(26.0, running=True) is None
    assert budget.allowed(0.1) == 0


def test_a_budget_survives_json():
    budget = PsnrBudget(0.5)
    budget.check(25.0, running=False)
    budget.check(24.0, running=True)
    twin = PsnrBudget(0.5)
    twin.restore(json.loads(json.dumps(budget.state())))
    assert (twin.before_db, twin.exceeded) == (25.0, True)
    with pytest.raises(FormatError, match="PSNR budget"):
        twin.restore({"before_db": "much", "exceeded": False})


def test_critics_of_all_ranks_begin_alike_and_leave_the_random_numbers_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = Critic()
    second = Critic()
    assert torch.equal(torch.rand(1), expected)
    for one, two in zip(
        first.network.parameters(), second.network.parameters(), strict=True
    ):
        assert torch.equal(one, two)
