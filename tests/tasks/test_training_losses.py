"""From `--set loss=...` to the record of an epoch."""

import pytest

from trivox.errors import RecipeError
from trivox.files import read_json
from trivox.learning.tracking import read_records
from trivox.preparation.store import Store
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture(scope="module")
def adaptive_run(tmp_path_factory, tiny_data, tiny_settings):
    """A run with learnt weights of terms and class weights from the store, and the
    cases that were counted.
    """
    run = tmp_path_factory.mktemp("losses") / "run"
    options = {"adaptive": "uncertainty", "class_weights": "inverse_frequency"}
    settings = {**tiny_settings, "loss": "dice+0.5*focal", "loss_options": options}
    counted = []

    def spy(self, names, indices):
        counted.extend(names)
        return mean_voxels(self, names, indices)

    with pytest.MonkeyPatch.context() as patched:
        mean_voxels = Store.mean_voxels
        patched.setattr(Store, "mean_voxels", spy)
        run_request(RunRequest(tiny_data, run, "quick_test", settings))
    return run, settings, counted


def test_learnt_weights_move_and_are_recorded_every_epoch(adaptive_run):
    run, _, _ = adaptive_run
    records = [
        record
        for record in read_records(run / "metrics.jsonl")
        if record["kind"] == "epoch"
    ]
    assert len(records) == 2
    weights = [
        (record["loss_weight/dice"], record["loss_weight/focal"]) for record in records
    ]
    assert weights[1] != weights[0] != (1.0, 0.5)


def test_classes_are_counted_on_the_training_cases_alone(adaptive_run):
    run, _, counted = adaptive_run
    assert sorted(counted) == sorted(read_json(run / "splits.json")[0]["train"])


def test_a_run_is_resumed_with_the_very_same_settings_and_no_other(
    adaptive_run, tiny_data
):
    run, settings, _ = adaptive_run
    before = (run / "metrics.jsonl").read_text()
    run_request(RunRequest(tiny_data, run, "quick_test", settings, resume=True))
    assert (run / "metrics.jsonl").read_text() == before
    with pytest.raises(RecipeError, match="was started with loss="):
        run_request(
            RunRequest(
                tiny_data,
                run,
                "quick_test",
                {**settings, "loss": "dice+focal"},
                resume=True,
            )
        )
