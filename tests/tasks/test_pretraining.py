"""Pretraining: only hidden voxels count, the figure is what it says, and training
starts from what was learnt.
"""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms
from trivox.errors import DataError, FormatError, RecipeError
from trivox.inference.predictor import Predictor
from trivox.planning.plan import read_image_plan
from trivox.tasks.pretraining import MaskedObjective, PretrainingTask, head_names
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

pytestmark = pytest.mark.usefixtures("without_figures")


def pretrain(request, **options):
    return run_request(replace(request, task="pretraining"), **options)


def batch(seed=0, channels=2):
    """Outputs, and targets of which about half are hidden."""
    torch.manual_seed(seed)
    outputs, truth = torch.randn(2, 2, channels, 4, 5, 6).unbind()
    visible = torch.rand(2, 1, 4, 5, 6) < 0.5
    return outputs.requires_grad_(), truth.masked_fill(visible, torch.nan)


# -- the objective ---------------------------------------------------------------------
def test_visible_voxels_have_no_say_in_loss_gradient_and_figure():
    outputs, targets = batch()
    objective, visible = MaskedObjective(), targets.isnan()
    loss = objective.loss(outputs, targets)
    loss.backward()
    assert not outputs.grad[visible].any()
    assert (outputs.grad[~visible] != 0).all()
    other = torch.where(visible, 100.0, outputs.detach())
    assert objective.loss(other, targets) == loss
    assert torch.equal(
        objective.count(other, targets), objective.count(outputs.detach(), targets)
    )


def test_loss_and_figure_equal_numpys():
    outputs, targets = batch()
    hidden = ~targets.isnan().numpy()
    error = (outputs.detach().numpy() - targets.numpy())[hidden]
    assert float(MaskedObjective().loss(outputs.detach(), targets)) == pytest.approx(
        (error.astype(np.float64) ** 2).mean(), rel=1e-5
    )
    channels = [
        targets[:, c].numpy()[hidden[:, c]].astype(np.float64) for c in range(2)
    ]
    deviation = sum(((values - values.mean()) ** 2).sum() for values in channels)
    found = MaskedObjective().score(MaskedObjective().count(outputs.detach(), targets))[
        "validation_r2"
    ]
    assert found == pytest.approx(
        1 - (error.astype(np.float64) ** 2).sum() / deviation, rel=1e-5
    )


def test_the_figure_is_one_for_the_truth_and_zero_for_the_mean_of_each_channel():
    _, targets = batch()
    objective = MaskedObjective()
    assert (
        objective.score(objective.count(targets.nan_to_num(), targets))["validation_r2"]
        == 1
    )
    mean = targets.nanmean(dim=(0, 2, 3, 4), keepdim=True).expand_as(targets)
    assert objective.score(objective.count(mean, targets))[
        "validation_r2"
    ] == pytest.approx(0, abs=1e-6)
    assert np.isnan(objective.score(torch.zeros(2, 4))["validation_r2"])


def test_counts_of_parts_add_up_to_the_counts_of_the_whole():
    outputs, targets = batch()
    objective = MaskedObjective()
    parts = sum(
        objective.count(outputs[i : i + 1], targets[i : i + 1]) for i in range(2)
    )
    torch.testing.assert_close(parts, objective.count(outputs, targets))


def test_coarser_heads_take_part_with_gradient_zero():
    outputs, targets = batch()
    coarse = torch.randn(2, 2, 2, 2, 3, requires_grad=True)
    loss = MaskedObjective().loss([outputs, coarse], targets)
    assert loss == MaskedObjective().loss(outputs, targets)
    loss.backward()
    assert not coarse.grad.any()


# -- what it learns from ---------------------------------------------------------------
def test_a_dataset_gives_its_images_without_labels_and_test_cases(tiny_data):
    images = PretrainingTask().load(tiny_data)
    assert (
        len(images.cases) == len(images.training_cases) == 5
    )  # of six, one is a test case
    assert images.labels is None
    assert all(case.label is None for case in images.cases)
    assert images.channels == load_dataset(tiny_data).channels


def volumes(folder, names, channels=1):
    folder.mkdir()
    for name in names:
        array = (
            np.random.default_rng(0)
            .normal(size=(channels, 8, 9, 10))
            .astype(np.float32)
        )
        write_volume(
            folder / f"{name}.nii.gz", Volume(array, affine_from_spacing((1, 1, 1)))
        )
    return folder


def test_folders_of_images_are_read_whatever_their_naming(tmp_path):
    plain = PretrainingTask().load(volumes(tmp_path / "plain", ["a", "b"]))
    assert (plain.channels, len(plain.training_cases)) == (("image",), 2)
    numbered = PretrainingTask().load(
        volumes(tmp_path / "numbered", ["a_0000", "a_0001", "b_0000", "b_0001"])
    )
    assert (len(numbered.channels), [len(case.images) for case in numbered.cases]) == (
        2,
        [2, 2],
    )
    single = PretrainingTask().load(volumes(tmp_path / "single", ["a_0000", "b_0000"]))
    assert (single.channels, [case.name for case in single.cases]) == (
        ("image",),
        ["a", "b"],
    )
    stacked = PretrainingTask().load(
        volumes(tmp_path / "stacked", ["a", "b"], channels=3)
    )
    assert len(stacked.channels) == 3


def test_training_still_refuses_images_without_labels(tmp_path, tiny_settings):
    folder = volumes(tmp_path / "images", ["a", "b", "c"])
    rows = ["case,image"] + [f"{name},{name}.nii.gz" for name in "abc"]
    (folder / "manifest.csv").write_text("\n".join(rows), encoding="utf-8")
    assert load_dataset(folder).labels is None
    with pytest.raises(DataError, match="no labelled training cases"):
        run_request(RunRequest(folder, tmp_path / "run", "quick_test", tiny_settings))


# -- end to end ------------------------------------------------------------------------
@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A pretraining of a few seconds on unlabelled phantoms, and the data it used."""
    root = tmp_path_factory.mktemp("pretrained")
    data = write_phantoms(
        root / "data", PhantomSettings(cases=6, shape=(16, 32, 32), test_cases=1)
    )
    shutil.copytree(data / "images", root / "images")
    settings = {
        "network": "unet-tiny",
        "patch_size": [16, 24, 24],
        "batch_size": 2,
        "epochs": 3,
        "iterations_per_epoch": 25,
        "validation_iterations": 4,
        "precision": "fp32",
        "workers": 0,
    }
    facts = pretrain(RunRequest(root / "images", root / "pre", "quick_test", settings))
    return root, settings, facts


def test_hidden_voxels_are_soon_restored_better_than_by_the_mean(pretrained):
    root, _, facts = pretrained
    assert facts["validation_r2"] > 0.3
    records = [
        json.loads(line)
        for line in (root / "pre" / "metrics.jsonl").read_text().splitlines()
    ]
    assert records[-1]["validation_r2"] == facts["validation_r2"]
    assert records[-1]["validation_loss"] < records[0]["validation_loss"]
    assert len(facts["held_out"]) == 2
    assert "0 no better than always saying the mean" in facts["convention"]


def test_the_weights_are_all_but_the_heads_at_full_resolution_and_below(pretrained):
    root, _, facts = pretrained
    plan = read_image_plan(root / "pre" / "plan.json")
    heads = head_names(plan)
    assert (
        heads
        == set(facts["left_out"])
        == {
            f"heads.{s}.{leaf}"
            for s in range(plan.topology.stages - 1)
            for leaf in ("weight", "bias")
        }
    )
    kept = load_file(root / "pre" / "pretrained.safetensors")
    whole = load_file(root / "pre" / "checkpoints" / "latest" / "weights.safetensors")
    assert set(kept) == set(whole) - heads
    assert all(torch.equal(kept[name], whole[name]) for name in kept)
    assert not list(root.rglob("*.pkl"))
    assert plan.task == "pretraining"


def test_training_starts_from_all_of_the_pretrained_encoder(pretrained, tmp_path):
    root, settings, _ = pretrained
    short = {
        **settings,
        "epochs": 1,
        "iterations_per_epoch": 1,
        "validation_iterations": 1,
    }
    request = RunRequest(
        root / "data",
        tmp_path / "run",
        "quick_test",
        {**short, "pretrained": str(root / "pre")},
    )
    run_request(request)
    report = json.loads(
        (tmp_path / "run" / "transfer.json").read_text(encoding="utf-8")
    )
    given = load_file(root / "pre" / "pretrained.safetensors")
    encoder = {name for name in given if name.startswith("encoder")}
    assert encoder <= set(report["loaded"]["names"])
    assert set(report["loaded"]["names"]) == set(given)
    assert {name.split(".")[0] for name in report["missing"]["names"]} == {"heads"}
    assert "pretrained: " in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert Predictor.load(tmp_path / "run", device="cpu").labels.labels


def test_a_frozen_encoder_keeps_the_pretrained_weights_to_the_bit(pretrained, tmp_path):
    root, settings, _ = pretrained
    short = {
        **settings,
        "epochs": 1,
        "iterations_per_epoch": 2,
        "validation_iterations": 1,
    }
    overrides = {**short, "pretrained": str(root / "pre"), "freeze_encoder": 1.0}
    run_request(RunRequest(root / "data", tmp_path / "run", "quick_test", overrides))
    given = load_file(root / "pre" / "pretrained.safetensors")
    trained = load_file(
        tmp_path / "run" / "checkpoints" / "latest" / "weights.safetensors"
    )
    same = {name: torch.equal(value, trained[name]) for name, value in given.items()}
    assert all(equal for name, equal in same.items() if name.startswith("encoder"))
    assert not any(
        equal
        for name, equal in same.items()
        if name.startswith("decoder") and name.endswith("0.weight")
    )


def test_a_killed_pretraining_continues_to_the_very_same_weights(
    pretrained, tmp_path, monkeypatch
):
    root, settings, _ = pretrained
    short = {
        **settings,
        "epochs": 2,
        "iterations_per_epoch": 2,
        "validation_iterations": 1,
        "checkpoint_minutes": 1e-9,
    }

    def run(folder, *, resume=False):
        pretrain(
            RunRequest(
                root / "images", tmp_path / folder, "quick_test", short, resume=resume
            )
        )

    run("whole")
    losses, loss = [], MaskedObjective.loss

    def killed(self, *arguments):
        losses.append(loss(self, *arguments))
        if (
            len(losses) == 5
        ):  # two steps, a validation, a step, and in the middle of the next
            raise OSError("killed")
        return losses[-1]

    monkeypatch.setattr(MaskedObjective, "loss", killed)
    with pytest.raises(OSError, match="killed"):
        run("parts")
    monkeypatch.undo()
    with pytest.raises(RecipeError, match="--resume"):
        run("parts")
    run("parts", resume=True)
    one, two = (
        load_file(tmp_path / folder / "pretrained.safetensors")
        for folder in ("whole", "parts")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert "continuing at step 2" in (tmp_path / "parts" / "log.txt").read_text(
        encoding="utf-8"
    )


# -- what cannot be done ---------------------------------------------------------------
def test_users_settings_stand_above_those_of_pretraining():
    assert PretrainingTask().overrides({})["augmentation"] == {
        "noise": 0,
        "blur": 0,
        "low_resolution": 0,
    }
    given = PretrainingTask().overrides(
        {"augmentation": {"noise": 0.5}, "foreground_fraction": 0.1}
    )
    assert given["augmentation"] == {"noise": 0.5, "blur": 0, "low_resolution": 0}
    assert given["foreground_fraction"] == 0.1


@pytest.mark.parametrize(
    "setting", [{"early_stopping": 3}, {"pretrained": "x"}, {"freeze_encoder": 0.5}]
)
def test_settings_without_meaning_here_are_refused_before_anything_is_written(
    setting, tmp_path, tiny_data
):
    with pytest.raises(RecipeError, match="pretraining has no Dice"):
        pretrain(RunRequest(tiny_data, tmp_path / "pre", "quick_test", setting))
    assert not (tmp_path / "pre").exists()


def test_missing_damaged_and_too_few_images_are_named(tmp_path, tiny_settings):
    with pytest.raises(FormatError, match="nowhere: not found"):
        pretrain(
            RunRequest(
                tmp_path / "nowhere", tmp_path / "pre", "quick_test", tiny_settings
            )
        )
    assert not (tmp_path / "pre").exists()
    folder = volumes(tmp_path / "images", ["a", "b", "c"])
    for name in ("b.nii.gz", "c.nii.gz"):
        (folder / name).write_bytes((folder / name).read_bytes()[:300])
    with pytest.raises(DataError, match=r"b\.nii\.gz cannot be read"):
        pretrain(RunRequest(folder, tmp_path / "pre", "quick_test", tiny_settings))
    one = volumes(tmp_path / "one", ["a"])
    with pytest.raises(DataError, match="at least 2 patients"):
        pretrain(RunRequest(one, tmp_path / "pre1", "quick_test", tiny_settings))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="no image, DICOM series or dataset"):
        pretrain(
            RunRequest(
                tmp_path / "empty", tmp_path / "pre2", "quick_test", tiny_settings
            )
        )


def test_the_images_are_not_touched(pretrained):
    root, _, _ = pretrained
    names = sorted(path.name for path in (root / "images").iterdir())
    assert names == sorted(path.name for path in (root / "data" / "images").iterdir())
    first = names[0]
    one, two = (
        read_volume(root / kind / first).array for kind in ("images", "data/images")
    )
    assert np.array_equal(one, two)
