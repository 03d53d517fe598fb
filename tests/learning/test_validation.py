"""What is validated in training, and which checkpoints its figures choose."""

import math

import pytest

from training_toys import (
    Fixed,
    Scripted,
    Toy,
    assert_same,
    epochs_of,
    make,
    weights_of,
)
from trivox.learning.checkpoints import load_checkpoint
from trivox.preparation.batches import RawBatch


# -- validation ------------------------------------------------------------------------
@pytest.mark.parametrize(("sign", "dice"), [(1, 1.0), (0, 0.0), (-1, 0.0)])
def test_validation_dice_is_computed_from_predictions(tmp_path, sign, dice):
    class Clean(Toy):
        def read(self, step):
            raw = super().read(step)
            return RawBatch(
                (raw.plain[1][:, None].float(), raw.plain[1]), None, [], [], []
            )

    trainer = make(tmp_path, network=Fixed(sign), epochs=1)
    trainer.validation = Clean(seed=3)
    trainer.fit()
    assert epochs_of(tmp_path)[0]["validation_dice"] == dice


def test_validation_uses_the_same_patches_every_epoch(tmp_path):
    trainer = make(tmp_path, epochs=3)
    trainer.fit()
    assert trainer.validation.reads == [0, 1] * 3


def test_best_checkpoint_follows_the_smoothed_dice(tmp_path):
    dices = [0.2, 0.9, 0.2, 0.62, 0.1]  # smoothed by half: .2 .55 .375 .4975 .30
    trainer = make(
        tmp_path, objective=Scripted(dices), epochs=5, validation_smoothing=0.5
    )
    weights = {}
    note = trainer._note
    trainer._note = lambda *args: (
        note(*args),
        weights.update({trainer.progress.epoch: weights_of(trainer.network)}),
    )
    progress = trainer.fit()
    assert progress.best_epoch == 2
    assert progress.best == pytest.approx(0.55)
    assert_same(weights[2], load_checkpoint(tmp_path / "checkpoints" / "best").weights)
    shown = [r["validation_dice_ema"] for r in epochs_of(tmp_path)]
    assert shown == pytest.approx([0.2, 0.55, 0.375, 0.4975, 0.29875])


def test_unmeasurable_dice_is_no_best_and_stays_json(tmp_path):
    progress = make(
        tmp_path, objective=Scripted([math.nan, 0.3]), validation_smoothing=0.5
    ).fit()
    assert (progress.best_epoch, progress.smoothed) == (2, 0.3)
    assert epochs_of(tmp_path)[0]["validation_dice"] is None


def test_training_without_validation_cases_works(tmp_path):
    assert make(tmp_path, validation=False).fit().finished
    assert "validation_dice" not in epochs_of(tmp_path)[0]


# -- what a task decides ---------------------------------------------------------------
class Grading(Scripted):
    """Checkpoints follow a grade; where there is none, the Dice."""

    headlines = ("grade", "validation_dice")

    def __init__(self, scores):
        self.scores = iter(scores)

    def score(self, counts):
        return next(self.scores)

    def summary(self, figures):
        return f"grade {figures.get('grade', math.nan):.1f}"


def test_checkpoints_follow_the_first_headline_that_an_epoch_has(tmp_path):
    scores = [
        {"validation_dice": 0.9, "grade": 1.0},
        {"validation_dice": 0.1, "grade": 5.0},
        {"validation_dice": 0.8},
    ]
    lines = []
    trainer = make(
        tmp_path,
        objective=Grading(scores),
        epochs=3,
        validation_smoothing=0.0,
        lines=lines,
    )
    progress = trainer.fit()
    assert (progress.best, progress.best_epoch) == (5.0, 2)
    first, second, third = epochs_of(tmp_path)
    assert (first["grade_ema"], second["grade_ema"]) == (1.0, 5.0)
    assert "grade_ema" not in third
    assert third["validation_dice_ema"] == 0.8
    of_epochs = [line for line in lines if line.startswith("epoch")]
    assert "validation grade 1.0 loss" in of_epochs[0]
    assert "validation grade nan loss" in of_epochs[2]


def test_without_a_headline_no_checkpoint_is_better_than_another(tmp_path):
    class Aimless(Scripted):
        headlines = ()

    progress = make(tmp_path, objective=Aimless([0.1, 0.9])).fit()
    assert progress.smoothed is None
    assert not (tmp_path / "checkpoints" / "best").exists()
    assert not any(name.endswith("_ema") for name in epochs_of(tmp_path)[0])
