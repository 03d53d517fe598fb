"""What a finished run says of its trainings."""

import json

import pytest

from trivox.verbs.train import TrainedRun


def write_state(folder, **changes):
    state = {"epoch": 4, "step": 8, "seconds": 1.5, "best": 0.5, "best_epoch": 3}
    folder.mkdir(parents=True)
    content = {"progress": {**state, **changes}}
    (folder / "state.json").write_text(json.dumps(content))


def write_run(folder, fold):
    folder.mkdir()
    content = {"task": "segmentation", "format_version": 1, "fold": fold}
    (folder / "run.json").write_text(json.dumps(content))
    return TrainedRun(folder, {}, "")


def test_each_fold_says_how_its_training_went(tmp_path):
    run = write_run(tmp_path / "run", "all")
    for fold in (0, 2, 10):
        checkpoints = run.folder / f"fold{fold}" / "checkpoints"
        write_state(checkpoints / "latest", best_epoch=fold)
    write_state(run.folder / "fold2-backup" / "checkpoints" / "latest")
    (run.folder / "fold3").mkdir()
    assert [each.fold for each in run.folds] == [0, 2, 10]
    assert [each.best_epoch for each in run.folds] == [0, 2, 10]
    assert run.folds[2].folder == run.folder / "fold10"


@pytest.mark.parametrize(("best", "said"), [(0.5, 0.5), (None, None)])
def test_a_single_fold_is_the_run_itself(tmp_path, best, said):
    run = write_run(tmp_path / "run", "3")
    assert run.folds == ()
    write_state(run.folder / "checkpoints" / ".latest.old", best=best)
    (fold,) = run.folds
    assert (fold.fold, fold.folder, fold.best) == (3, run.folder, said)
    assert (fold.epochs, fold.seconds) == (4, 1.5)


def test_cases_that_were_set_aside_are_named(tmp_path):
    run = write_run(tmp_path / "run", "0")
    assert run.set_aside == {}
    content = {"errors": 1, "set_aside": {"anna": "is no image"}}
    (run.folder / "check.json").write_text(json.dumps(content))
    assert run.set_aside == {"anna": "is no image"}


def test_the_epochs_are_those_that_were_trained(tiny_run):
    (fold,) = TrainedRun(tiny_run, {}, "").folds
    lines = (tiny_run / "metrics.jsonl").read_text().splitlines()
    assert fold.epochs == sum(json.loads(line)["kind"] == "epoch" for line in lines)
    assert 1 <= fold.best_epoch <= fold.epochs
