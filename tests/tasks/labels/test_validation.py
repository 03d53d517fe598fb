import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trivox.config.recipe import make_recipe
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.inference.bundle import read_bundle
from trivox.inference.describe import Prediction
from trivox.inference.doubt.label_voxels import VoxelSample
from trivox.tasks.console import Quiet
from trivox.tasks.labels import validation as validating
from trivox.volumes.formats import read_labels, write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

SCHEME = LabelScheme(
    labels={"organ": 7, "lesion": 300},
    regions={"whole": (7, 300), "core": (300,)},
    region_order=(7, 300),
)
SPACING = (2.0, 1.5, 1.5)


def reference(seed):
    rng = np.random.default_rng(seed)
    array = np.zeros((1, 10, 14, 16), np.int16)
    low = rng.integers(3, 5, 3)
    z, y, x = (slice(a, a + 6) for a in low)
    array[0, z, y, x] = 7
    array[0, 5:7, 6:9, 6:9] = 300
    return Volume(array, affine_from_spacing(SPACING))


def speckled(volume):
    """A speck of core in a corner, and a voxel of the organ turned into core."""
    array = volume.array.copy()
    array[0, :1, :2, :2] = 300
    array[0][tuple(np.argwhere(array[0] == 7)[0])] = 300
    return volume.with_array(array)


class Speckled:
    """In place of a network."""

    def predict_case(self, case, *, reference):
        generator = torch.Generator().manual_seed(0)
        sample = VoxelSample(
            torch.randn(200, 2, generator=generator),
            torch.randint(3, (200,), generator=generator),
        )
        return Prediction(speckled(read_labels(case.label)), None, 0.0, sample=sample)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("validation")


@pytest.fixture(scope="module")
def validation(folder):
    """Four cases held out by two folds, and a fifth that no fold holds out."""
    for number in range(5):
        write_volume(folder / f"case_{number}.nii.gz", reference(number))
    files = [folder / f"case_{number}.nii.gz" for number in range(5)]
    cases = tuple(
        Case(name=f"case_{number}", images=(file,), label=file)
        for number, file in enumerate(files)
    )
    splits = [
        SimpleNamespace(validation=names)
        for names in (["case_0", "case_3"], ["case_1", "case_2"])
    ]
    prepared = SimpleNamespace(
        plan=SimpleNamespace(labels=SCHEME, task="segmentation", spacing=(1, 1, 1)),
        dataset=SimpleNamespace(training_cases=cases),
        splits=splits,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validating, "fold_predictor", lambda *args, **options: Speckled())
        weights = {"0": folder / "none", "1": folder / "none"}
        folds = validating.TrainedFolds(
            prepared, make_recipe(), weights, None, device="cpu"
        )
        return validating.validate_folds(
            folds, folder, task="segmentation", whole=None, console=Quiet()
        )


def test_files_and_metrics_of_validation_are_those_after_the_rules(validation, folder):
    rules = validation.postprocessing
    assert rules.of_regions().keys() == {"whole", "core"}
    assert list(validation.metrics["cases"]) == ["case_0", "case_3", "case_1", "case_2"]
    for name, values in validation.metrics["cases"].items():
        truth, written = (
            read_labels(folder / f"{name}.nii.gz"),
            read_labels(folder / f"predictions/{name}.nii.gz"),
        )
        cleaned = rules.apply(
            SCHEME.encode(speckled(truth).array[0]), SCHEME, voxel_mm3=4.5
        )
        assert np.array_equal(SCHEME.encode(written.array[0]), cleaned)
        assert np.array_equal(
            written.array, truth.array
        )  # specks of core have become the organ, or nothing
        assert [values[region]["dice"] for region in ("whole", "core")] == [1, 1]


def test_each_trial_and_the_cross_fitted_gain_are_written_down(validation, folder):
    section = json.loads((folder / "metrics.json").read_text())["postprocessing"]
    assert section == validation.metrics["postprocessing"]
    assert validation.postprocessing.model_dump(mode="json").items() <= section.items()
    assert (
        sum("->" in line for line in section["trials"])
        == len(section["trials"])
        == 2 * 21
    )
    assert any(
        line.endswith("1.00000 core Dice on validation, kept")
        for line in section["trials"]
    )
    for region in ("whole", "core"):
        assert section["gain"][region]["on_the_same_cases"] > 0
        assert section["gain"][region]["cross_fitted"] == pytest.approx(
            section["gain"][region]["on_the_same_cases"]
        )


def test_the_rules_go_into_the_bundle(tiny_run):
    section = json.loads((tiny_run / "validation/metrics.json").read_text())[
        "postprocessing"
    ]
    rules = read_bundle(tiny_run).description.postprocessing
    assert rules.model_dump(mode="json").items() <= section.items()
    assert bool(rules.largest_foreground or rules.largest_of) == any(
        ", kept" in line for line in section["trials"]
    )
