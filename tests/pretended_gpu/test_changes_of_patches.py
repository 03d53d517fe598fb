"""Every random change of a patch, one by one, on the second device as on a CPU."""

import pytest
import torch

from conftest import TINY
from trivox.config.options import Augmentation
from trivox.config.recipe import make_recipe
from trivox.learning.runtime import make_runtime
from trivox.preparation.masking import Masked, Masking
from trivox.tasks.choice import task_named
from trivox.tasks.console import Quiet
from trivox.tasks.stages import prepare
from trivox.tasks.task import RunRequest

CPU = torch.device("cpu")
NONE = {
    name: 0.0
    for name, field in Augmentation.model_fields.items()
    if isinstance(field.default, float) and field.default <= 1 and name != "per_channel"
}
RANDOM = ("noise",)
"""Whose numbers each device draws by itself."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, tiny_data):
    task = task_named("segmentation")
    return prepare(
        task,
        task.load(tiny_data),
        RunRequest(tiny_data, tmp_path_factory.mktemp("prepared")),
        make_recipe("quick_test", TINY),
        runtime=make_runtime("cpu", "fp32"),
        console=Quiet(),
    )


def batch_source(prepared, changes):
    recipe = make_recipe("quick_test", {**TINY, "augmentation": {**NONE, **changes}})
    names = prepared.splits[0].train
    task = task_named("segmentation")
    return task.patches(prepared, recipe, names, training=True)


@pytest.mark.parametrize("name", [*NONE, "all of them"])
def test_a_change_is_the_same_on_both_devices(gpu, prepared, name):
    changes = dict.fromkeys(NONE if name not in NONE else (name,), 1.0)
    source = batch_source(prepared, {**changes, "per_channel": 1.0})
    for step in range(2):
        expected, expected_labels = source.read(step).finish(CPU)
        images, labels = source.read(step).finish(gpu)
        assert images.device == labels.device == gpu
        assert images.dtype == torch.float32
        assert (labels.cpu() == expected_labels).float().mean() > 0.99
        if name in RANDOM or name not in NONE:
            assert images.isfinite().all()
            assert images.shape == expected.shape
        else:
            torch.testing.assert_close(images.cpu(), expected, rtol=0.02, atol=0.02)


def test_what_is_hidden_in_pretraining_is_the_same(gpu, prepared):
    source = Masked(batch_source(prepared, {}), Masking())
    expected, expected_targets = source.read(0).finish(CPU)
    images, targets = source.read(0).finish(gpu)
    assert images.device == targets.device == gpu
    torch.testing.assert_close(images.cpu(), expected, rtol=0.02, atol=0.02)
    assert torch.equal(targets.isnan().cpu(), expected_targets.isnan())
