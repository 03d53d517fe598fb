"""The k best checkpoints and the weights that become the model."""

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from training_toys import Scripted, make
from trivox.config.recipe import make_recipe
from trivox.errors import BundleError, RecipeError
from trivox.learning.checkpoints import (
    WEIGHTS,
    average_checkpoints,
    best_checkpoints,
    final_weights,
    keep_best,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)

pytestmark = pytest.mark.usefixtures("without_figures")


def offer(folder, epoch, score, count):
    """A checkpoint whose only weight is its epoch."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, epoch)
    state = {"progress": {"epoch": epoch, "smoothed": score}}
    return keep_best(
        folder,
        lambda to: save_checkpoint(to, network, state),
        score=score,
        epoch=epoch,
        count=count,
    )


def kept(folder):
    """Names in the order of their rank, with the epoch that the weights are of."""
    return [
        (path.name, int(load_checkpoint(path).weights["weight"]))
        for path in best_checkpoints(folder)
    ]


def test_somebody_s_copy_of_the_best_stays_and_is_no_candidate(tmp_path):
    offer(tmp_path, 1, 0.9, count=1)
    for name in ("best-backup", "best.old", "best epoch 1", "best-2 (copy)"):
        shutil.copytree(tmp_path / "best", tmp_path / name)
    offer(tmp_path, 2, 0.95, count=1)
    offer(tmp_path, 3, 0.2, count=1)
    assert kept(tmp_path) == [("best", 2)]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"best", "best-backup", "best.old", "best epoch 1", "best-2 (copy)"}


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    scores=st.lists(st.integers(0, 5), min_size=1, max_size=8), count=st.integers(1, 4)
)
def test_the_best_k_are_kept_in_order_and_of_equals_the_earlier(
    tmp_path_factory, scores, count
):
    folder = tmp_path_factory.mktemp("kept")
    for epoch, score in enumerate(scores, start=1):
        offer(folder, epoch, score / 5, count)
    ordered = sorted(
        range(1, len(scores) + 1), key=lambda epoch: (-scores[epoch - 1], epoch)
    )[:count]
    names = ["best", *(f"best-{rank}" for rank in range(2, count + 1))]
    assert kept(folder) == list(zip(names, ordered, strict=False))
    assert {path.name for path in folder.iterdir()} == set(names[: len(ordered)])


def test_one_that_is_not_good_enough_is_not_even_written(tmp_path):
    assert offer(tmp_path, 1, 0.5, 1)
    assert not keep_best(
        tmp_path, lambda to: pytest.fail("written"), score=0.4, epoch=2, count=1
    )


@pytest.mark.parametrize("dies_at", range(6))
def test_a_crash_at_any_rename_loses_no_checkpoint_and_the_next_offer_heals(
    tmp_path, monkeypatch, dies_at
):
    for epoch, score in ((1, 0.3), (2, 0.2), (3, 0.1)):
        offer(tmp_path, epoch, score, 3)
    count = [0]
    real = Path.rename

    def rename(self, target):
        if self.parent == tmp_path and not self.name.startswith(".tmp"):
            if count[0] == dies_at:
                raise KeyboardInterrupt  # as sudden as SIGKILL
            count[0] += 1
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        try:
            offer(tmp_path, 4, 0.4, 3)
        except KeyboardInterrupt:
            assert [epoch for _, epoch in kept(tmp_path)][:3] == [4, 1, 2]
        else:
            assert count[0] <= dies_at
    offer(tmp_path, 5, 0.25, 3)
    assert kept(tmp_path) == [("best", 4), ("best-2", 1), ("best-3", 5)]
    offer(tmp_path, 4, 0.4, 3)  # a resumed run repeats the epoch
    assert kept(tmp_path) == [("best", 4), ("best-2", 1), ("best-3", 5)]
    assert {path.name for path in tmp_path.iterdir()} == {"best", "best-2", "best-3"}


def test_a_repeated_epoch_replaces_its_older_self(tmp_path):
    for epoch, score in ((1, 0.1), (2, 0.9), (3, 0.5)):
        offer(tmp_path, epoch, score, 3)
    offer(
        tmp_path, 2, 0.3, 3
    )  # killed after epoch 3, resumed after epoch 1, on a machine that rounds otherwise
    assert kept(tmp_path) == [("best", 3), ("best-2", 2), ("best-3", 1)]


def test_half_a_checkpoint_is_none(tmp_path):
    offer(tmp_path, 1, 0.5, 2)
    offer(tmp_path, 2, 0.4, 2)
    (tmp_path / "best" / WEIGHTS).unlink()
    assert kept(tmp_path) == [("best-2", 2)]
    offer(tmp_path, 3, 0.1, 2)
    assert kept(tmp_path) == [("best", 2), ("best-2", 3)]


def test_training_keeps_as_many_as_the_recipe_says(tmp_path):
    dices = [0.2, 0.9, 0.5, 0.7]
    make(
        tmp_path,
        objective=Scripted(dices),
        epochs=4,
        validation_smoothing=0.0,
        keep_best=3,
    ).fit()
    folder = tmp_path / "checkpoints"
    epochs = [
        load_checkpoint(path).state["progress"]["epoch"]
        for path in best_checkpoints(folder)
    ]
    assert epochs == [2, 4, 3]
    assert {path.name for path in folder.iterdir()} == {
        "latest",
        "best",
        "best-2",
        "best-3",
    }


# -- what becomes the model ------------------------------------------------------------
def test_the_average_is_the_mean_of_the_kept_weights(tmp_path):
    for epoch, score in ((1, 0.1), (2, 0.9), (6, 0.5)):
        offer(tmp_path, epoch, score, 3)
    file = final_weights(tmp_path, "average")
    assert load_weights(file)["weight"].item() == pytest.approx(3.0)
    assert load_weights(file)["weight"].dtype == torch.float32


def test_averaging_sums_in_double_precision_and_leaves_whole_numbers(tmp_path):
    values = [
        torch.tensor([1e8, 1.0]),
        torch.tensor([1.0, 1.0]),
        torch.tensor([-1e8, 1.0]),
    ]
    for number, value in enumerate(values):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file({"a": value, "count": torch.tensor(7 + number)}, folder / WEIGHTS)
    average_checkpoints(
        [tmp_path / str(n) for n in range(3)], tmp_path / "mean.safetensors"
    )
    mean = load_weights(tmp_path / "mean.safetensors")
    assert mean["a"].tolist() == pytest.approx([1 / 3, 1.0])
    assert int(mean["count"]) == 7


@pytest.mark.parametrize(("which", "epoch"), [("latest", 9), ("best", 2)])
def test_latest_and_best_are_what_they_are_called(tmp_path, which, epoch):
    offer(tmp_path, 1, 0.1, 2)
    offer(tmp_path, 2, 0.9, 2)
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 9)
    save_checkpoint(tmp_path / "latest", network, {})
    assert load_weights(final_weights(tmp_path, which))["weight"].item() == epoch
    shutil.rmtree(tmp_path / "best")
    shutil.rmtree(tmp_path / "best-2")
    assert load_weights(final_weights(tmp_path, which))["weight"].item() == 9


def test_without_any_checkpoint_there_is_no_model(tmp_path):
    with pytest.raises(BundleError, match="no checkpoint"):
        final_weights(tmp_path / "checkpoints", "average")


def test_an_average_of_one_is_refused():
    with pytest.raises(RecipeError, match="keep_best"):
        make_recipe("production", {"final_weights": "average"})


def test_the_average_becomes_the_bundle(tmp_path, tiny_data, tiny_settings):
    from trivox.inference.bundle import read_bundle
    from trivox.tasks.run import run_request
    from trivox.tasks.task import RunRequest

    settings = {
        **tiny_settings,
        "epochs": 3,
        "keep_best": 3,
        "final_weights": "average",
        "validation_smoothing": 0.0,
    }
    run_request(RunRequest(tiny_data, tmp_path / "run", "quick_test", settings))
    folder = tmp_path / "run" / "checkpoints"
    parts = [load_weights(path / WEIGHTS) for path in best_checkpoints(folder)]
    assert len(parts) > 1
    model = load_weights(read_bundle(tmp_path / "run").weight_files()[0])
    for name, value in model.items():
        expected = torch.stack([part[name].double() for part in parts]).mean(0)
        assert torch.allclose(value.double(), expected, rtol=0, atol=1e-6), name
