"""A cascade of nnU-Net is one bundle: its coarse model's labels are further inputs of
the fine one.
"""

from copy import deepcopy

import numpy as np
import pytest
import torch

from nnunet_folder import DATASET, plans_of, state_of, write_folder
from trivox.errors import BundleError
from trivox.importing.nnunet import import_nnunet
from trivox.inference.bundle import read_bundle
from trivox.inference.predictor import Predictor
from trivox.inference.prepare import prepare_image
from trivox.volumes.volume import Volume, affine_from_spacing

FINE = "nnUNetTrainer__nnUNetPlans__fine"
COARSE = "nnUNetTrainer__nnUNetPlans__coarse"
SPACING = (1.5, 3.0, 1.0)
"""Of the fine grid, so that its labels are those of the image."""


def cascade_plans():
    plans = plans_of("plain")
    plans["configurations"] |= {
        "coarse": {"inherits_from": "base", "spacing": [6.0, 3.0, 2.0]},
        "fine": {"inherits_from": "base", "previous_stage": "coarse"},
    }
    return plans


def fine_state():
    """Random weights for two more inputs."""
    state = state_of("plain", seed=1)
    for name, value in state.items():
        if list(value.shape[:2]) == [4, 2]:
            more = 0.5 * torch.randn(value.shape, generator=torch.manual_seed(2))
            state[name] = torch.cat([value, more], dim=1)
    return state


@pytest.fixture
def stages(tmp_path):
    """The folders of a fine model and of the coarse one beside it."""
    plans = cascade_plans()
    coarse = write_folder(
        tmp_path / COARSE, {"0": state_of("plain")}, plans=plans, configuration="coarse"
    )
    fine = write_folder(
        tmp_path / FINE, {"0": fine_state()}, plans=plans, configuration="fine"
    )
    return fine, coarse


def scan():
    rng = np.random.default_rng(0)
    array = rng.normal(50, 30, (2, 12, 14, 20)).astype(np.float32)
    array[:, :, :2] = 0  # outside the object
    return Volume(array, affine_from_spacing(SPACING))


def load(folder):
    return Predictor.load(folder, device="cpu", precision="fp32")


def test_the_fine_model_sees_what_the_coarse_one_finds(stages, tmp_path):
    fine, coarse = stages
    bundle = import_nnunet(fine, tmp_path / "both", trust=True)
    alone = import_nnunet(coarse, tmp_path / "alone", trust=True)
    assert bundle.description.plan.inputs == (
        "CT",
        "T1",
        "organ, coarse",
        "lesion, coarse",
    )
    volume = scan()
    predictor = load(bundle.folder)
    (case,) = prepare_image(volume, predictor.members, where="scan")
    labels = load(alone.folder).predict_volume(volume).labels.array[0]
    on_grid = case.record.from_source(labels)
    assert len(np.unique(on_grid)) == 3
    for value, seen in zip((1, 2), case.image[2:], strict=True):
        np.testing.assert_array_equal(seen.numpy(), on_grid == value)
    assert predictor.predict_volume(volume).labels.shape == volume.shape


def test_another_coarse_model_gives_other_labels_and_another_identity(stages, tmp_path):
    fine, _ = stages
    first = import_nnunet(fine, tmp_path / "first", trust=True)
    other = write_folder(
        tmp_path / "other",
        {"0": state_of("plain", seed=5)},
        plans=cascade_plans(),
        configuration="coarse",
    )
    second = import_nnunet(fine, tmp_path / "second", trust=True, previous=other)
    assert first.identity != second.identity
    volume = scan()
    labels = [
        load(each.folder).predict_volume(volume).labels.array
        for each in (first, second)
    ]
    assert (labels[0] != labels[1]).any()


def test_a_damaged_coarse_model_is_noticed(stages, tmp_path):
    bundle = import_nnunet(stages[0], tmp_path / "both", trust=True)
    assert read_bundle(bundle.folder).description == bundle.description
    file = bundle.folder / "previous-fold0.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match="checksum differs"):
        load(bundle.folder)


def test_stages_that_do_not_fit_are_named(stages, tmp_path):
    fine, coarse = stages
    out = tmp_path / "bundle"
    with pytest.raises(BundleError, match="refines no other model"):
        import_nnunet(coarse, out, trust=True, previous=fine)
    with pytest.raises(BundleError, match="is a fine model, and"):
        import_nnunet(fine, out, trust=True, previous=fine)
    dataset = deepcopy(DATASET)
    dataset["labels"]["lesion"] = 3
    stranger = write_folder(
        tmp_path / "stranger",
        {"0": state_of("plain")},
        plans=cascade_plans(),
        dataset=dataset,
        configuration="coarse",
    )
    with pytest.raises(BundleError, match="labels, channels or axes differ"):
        import_nnunet(fine, out, trust=True, previous=stranger)
    coarse.rename(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"not at .*__coarse; name.*--previous"):
        import_nnunet(fine, out, trust=True)
    assert not out.exists()
    assert import_nnunet(fine, out, trust=True, previous=tmp_path / "elsewhere")
