"""Cases that lack a channel, and label maps in a case's own values."""

import json

import numpy as np
import pytest

from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.errors import DataError
from trivox.inference.predictor import Predictor
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

pytestmark = pytest.mark.usefixtures("without_figures")

SCHEME = LabelScheme(
    labels={"NCR": 1, "ED": 2, "ET": 4},
    regions={"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)},
    region_order=(2, 1, 4),
    nested=True,
)
LATER = LabelScheme(labels={"NCR": 1, "ED": 2, "ET": 3})


@pytest.fixture(scope="module")
def regional(tmp_path_factory):
    """A run of two channels whose labels are nested regions, with the channel dropped
    at times or never.
    """
    from trivox.tasks.run import run_request
    from trivox.tasks.task import RunRequest

    root = write_regions(tmp_path_factory.mktemp("regions"))
    settings = {
        "network": "unet-tiny",
        "patch_size": [16, 16, 16],
        "batch_size": 2,
        "epochs": 1,
        "iterations_per_epoch": 30,
        "validation_iterations": 1,
        "precision": "fp32",
        "workers": 0,
        "mask_channel": True,
    }
    dropping = {**settings, "augmentation": {"drop_channel": 0.5}}
    dropping["iterations_per_epoch"] = 1  # only what it says of itself is asked
    run_request(RunRequest(root, root / "run", "quick_test", settings))
    run_request(RunRequest(root, root / "dropping", "quick_test", dropping))
    return root


def write_regions(root):
    """Four cubes in cubes, in two channels."""
    rng = np.random.default_rng(0)
    affine = affine_from_spacing((1.0, 1.0, 1.0))
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
    for case in range(4):
        label = np.zeros((1, 16, 16, 16), np.uint8)
        label[0, 3:13, 3:13, 3:13] = 2
        label[0, 5:11, 5:11, 5:11] = 1
        label[0, 6:10, 6:10, 6:10] = 4
        noise = rng.normal(10, 1, (2, 16, 16, 16))
        image = np.stack([label[0] > 0, label[0] == 4]) * 5 + noise
        for channel in range(2):
            array = image[channel : channel + 1].astype(np.float32)
            file = root / "imagesTr" / f"c{case}_{channel:04d}.nii.gz"
            write_volume(file, Volume(array, affine))
        write_volume(root / "labelsTr" / f"c{case}.nii.gz", Volume(label, affine))
    content = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "NCR": 1, "ED": 2, "ET": 4},
        "file_ending": ".nii.gz",
        "numTraining": 4,
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def case(root, **changes):
    files = tuple(
        root / "imagesTr" / f"c0_{channel:04d}.nii.gz" for channel in range(2)
    )
    return Case(name="c0", images=files).model_copy(update=changes)


def test_a_case_without_a_channel_is_refused_by_name(regional):
    predictor = Predictor.load(regional / "run", device="cpu")
    with pytest.raises(DataError, match=r"c0: has no T2.*--missing-channels zeros"):
        predictor.predict_case(
            case(regional, images=case(regional).images[:1], absent=(1,))
        )


@pytest.mark.parametrize(
    ("run", "doubt"),
    [("run", "was not trained for that"), ("dropping", "predicted with zeros")],
)
def test_zeros_are_taken_where_asked_with_a_warning_that_says_whether_the_model_knows_them(
    regional, run, doubt
):
    predictor = Predictor.load(regional / run, device="cpu", missing="zeros")
    found = predictor.predict_case(
        case(regional, images=case(regional).images[:1], absent=(1,))
    )
    (warning,) = found.warnings
    assert "no T2" in warning
    assert doubt in warning
    assert ("not trained" in warning) == (run == "run")
    image = np.concatenate([np.zeros((1, 16, 16, 16), np.float32)] * 2)
    from trivox.volumes.formats import read_volume

    image[0] = read_volume(case(regional).images[0]).array[0]
    zeros = predictor.predict_volume(
        Volume(image, affine_from_spacing((1.0, 1.0, 1.0)))
    )
    assert np.array_equal(found.labels.array, zeros.labels.array)


def test_label_maps_are_written_in_the_values_of_the_case_by_name(regional):
    predictor = Predictor.load(regional / "run", device="cpu")
    plain = predictor.predict_case(case(regional)).labels.array
    later = predictor.predict_case(case(regional, labels=LATER)).labels.array
    assert {1, 2, 4} >= set(np.unique(plain)) - {0}
    assert np.array_equal(later == 3, plain == 4)
    assert np.array_equal(later == 2, plain == 2)
    assert not (later == 4).any()
    assert (plain == 4).any()  # else the test shows nothing


def test_names_that_the_case_lacks_become_background_with_a_warning(regional):
    predictor = Predictor.load(regional / "run", device="cpu")
    found = predictor.predict_case(
        case(regional, labels=LabelScheme(labels={"NCR": 1, "ED": 2}))
    )
    plain = predictor.predict_case(case(regional)).labels.array
    assert not found.labels.array[plain == 4].any()
    assert any("ET was found" in warning for warning in found.warnings)


def test_a_model_of_other_things_keeps_its_own_values(regional):
    predictor = Predictor.load(regional / "run", device="cpu")
    other = predictor.predict_case(
        case(regional, labels=LabelScheme(labels={"liver": 3}))
    )
    assert other.warnings == ()
    assert np.array_equal(
        other.labels.array, predictor.predict_case(case(regional)).labels.array
    )
