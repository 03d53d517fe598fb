"""What is learnt beside the network."""

import pytest
import torch
from torch import nn

from training_toys import (
    Scripted,
    Toy,
    assert_same,
    epochs_of,
    interrupt,
    make,
)
from trivox.errors import (
    BundleError,
    InterruptedTrainingError,
)


# -- what is learnt beside the network -------------------------------------------------
class Weighing(nn.Module):
    """Two terms weighed by a learnt number, and a buffer that counts."""

    def __init__(self):
        super().__init__()
        self.log_variance = nn.Parameter(torch.tensor([0.5]))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, outputs):
        if torch.is_grad_enabled():
            self.calls += 1
        return (
            -self.log_variance.exp() * outputs.square().mean() + self.log_variance
        ).sum()


class Learning(Scripted):
    """An objective with a part that learns."""

    def __init__(self, dices):
        super().__init__(dices)
        self.weighing = Weighing()

    @property
    def module(self):
        return self.weighing

    def loss(self, outputs, labels):
        return self.module(outputs)

    def figures(self):
        return {"loss_weight/a": float(self.module.log_variance.detach())}


def test_the_objective_learns_in_a_group_of_its_own_without_decay(tmp_path):
    trainer = make(
        tmp_path, objective=Learning([0.1, 0.2]), optimizer="adamw", weight_decay=0.1
    )
    assert [
        group["weight_decay"] for group in trainer.learner.optimizer.param_groups
    ] == [
        0.1,
        0.0,
        0.0,
    ]
    assert trainer.learner.optimizer.param_groups[-1]["params"] == [
        trainer.objective.module.log_variance
    ]
    trainer.fit()
    assert trainer.objective.module.log_variance.item() != 0.5
    shown = [record["loss_weight/a"] for record in epochs_of(tmp_path)]
    assert shown[-1] == trainer.objective.module.log_variance.item() != shown[0]


@pytest.mark.parametrize("step", [1, 3, 5])
def test_what_the_objective_learnt_survives_an_interruption(tmp_path, step):
    settings = {"optimizer": "adamw", "weights_ema": 0.5}
    whole = make(tmp_path / "a", objective=Learning([0.1, 0.2]), **settings)
    whole.fit()
    first = make(
        tmp_path / "b",
        objective=Learning([0.1, 0.2]),
        source=Toy(on_read={step: interrupt}),
        **settings,
    )
    with pytest.raises(InterruptedTrainingError):
        first.fit()
    second = make(
        tmp_path / "b",
        objective=Learning([0.2] if step >= 3 else [0.1, 0.2]),
        **settings,
    )
    assert second.resume()
    second.fit()
    assert_same(
        whole.objective.module.state_dict(), second.objective.module.state_dict()
    )
    assert int(second.objective.module.calls) == 8
    assert_same(whole.network.state_dict(), second.network.state_dict())


def test_a_checkpoint_of_a_loss_that_does_not_learn_is_refused(tmp_path):
    make(tmp_path, objective=Scripted([0.1, 0.2])).fit()
    with pytest.raises(BundleError, match="objective weights"):
        make(tmp_path, objective=Learning([])).resume()
