"""What a plan and a preparation are for: the task that the user names, or the dataset's."""

import pytest

import trivox
from trivox.errors import DataError, RecipeError


@pytest.fixture
def table(tiny_data, tmp_path):
    file = tmp_path / "classes.csv"
    rows = [f"phantom_{number:03d},{'ab'[number % 2]}" for number in range(5)]
    file.write_text("\n".join(["case,class", *rows, ""]), encoding="utf-8")
    return file


def test_the_task_is_the_one_that_is_named(tiny_data, tmp_path, table):
    file = tmp_path / "plan.json"
    plain = trivox.plan(tiny_data, file, network="unet-tiny")
    assert plain.plan.task == "segmentation"
    named = trivox.plan(
        tiny_data, file, task="multitask", classes=table, network="unet-tiny"
    )
    assert named.plan.task == "multitask"
    prepared = trivox.preprocess(
        tiny_data,
        tmp_path / "ready",
        task="multitask",
        classes=table,
        plan=file,
        network="unet-tiny",
    )
    assert prepared.task == "multitask"
    assert len(prepared.cases) == 5


@pytest.mark.parametrize("verb", ["plan", "preprocess"])
@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("multitask", "0 classes found, a multitask model needs two"),
        ("reconstruction", "holds no X-rays with volumes"),
    ],
)
def test_a_task_that_the_data_do_not_suit_is_refused(
    tiny_data, tmp_path, verb, task, reason
):
    out = tmp_path / "made"
    with pytest.raises(DataError, match=reason):
        getattr(trivox, verb)(tiny_data, out, task=task, network="unet-tiny")
    assert not out.exists()


def test_an_unknown_task_is_refused(tiny_data, tmp_path):
    with pytest.raises(RecipeError, match="task 'guess' does not exist"):
        trivox.plan(tiny_data, tmp_path / "plan.json", task="guess")
