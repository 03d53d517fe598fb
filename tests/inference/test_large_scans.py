"""A large scan takes other ways through memory, some rows at a time, and gives the same
labels to the last voxel.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from trivox.datasets import labels, reading
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.inference import restore
from trivox.inference.bundle import read_bundle
from trivox.inference.decide import target_voxels
from trivox.inference.predictor import Predictor
from trivox.learning.runtime import Runtime
from trivox.planning.grid_rules import GridRules, Interpolation
from trivox.planning.plan import Normalisation
from trivox.preparation import normalise
from trivox.volumes import rows
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume, affine_from_spacing
from untrained_models import write_untrained

CPU = Runtime(torch.device("cpu"), "fp32")
AXES = {
    "RAS": np.eye(4),
    "LPS": np.diag([-1.0, -1.0, 1.0, 1.0]),
    "sagittal": np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]]),
}
NNUNET = GridRules(
    axes="stored",
    image=Interpolation(clip="slice", looks_at="old", ties="nearest"),
    logits=Interpolation(order=1, looks_at="old", ties="smallest", half=True),
    sums="half",
)
PLANS = {
    "ct": {"normalisations": (Normalisation(scheme="ct", low=-80, high=90, std=40),)},
    "z-score": {},
    "masked": {"normalisations": (Normalisation(scheme="z-score", masked=True),)},
    "turned": {"axis_order": (1, 2, 0)},
    "nnunet": {"grid": NNUNET},
}


def scan(folder, axes, spacing, kind=np.int16):
    """With nothing round it, so that it is cropped."""
    noise = gaussian_filter(np.random.default_rng(3).normal(size=(41, 47, 52)), 2)
    image = np.zeros((1, 41, 47, 52), np.float32)
    image[0, 2:40, 5:45, 3:50] = np.rint(400 * noise + 20)[2:40, 5:45, 3:50]
    affine = AXES[axes] @ affine_from_spacing(spacing)
    file = folder / "scan.nii.gz"
    write_volume(file, Volume(image.astype(kind), affine))
    return Case(name="scan", images=(file,))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return read_bundle(write_untrained(tmp_path_factory.mktemp("model")))


def predictor_of(bundle, **changes):
    plan = bundle.description.plan.model_copy(update=changes)
    update = {"plan": plan, "mirror_axes": ()}
    description = bundle.description.model_copy(update=update)
    weights = bundle.checked(description.weights)
    return Predictor.of(description, weights, CPU)


def in_small_portions(monkeypatch):
    monkeypatch.setattr(rows, "AT_ONCE", 0)
    monkeypatch.setattr(rows, "A_PORTION", 20_000)
    monkeypatch.setattr(reading, "A_PORTION", 10_000)
    monkeypatch.setattr(labels, "A_PORTION", 1000)
    monkeypatch.setattr(normalise, "AT_ONCE", 128)


@pytest.mark.parametrize(
    ("axes", "spacing"), [("LPS", (1.2, 1.2, 1.2)), ("sagittal", (1.0, 1.1, 4.5))]
)
@pytest.mark.parametrize("plan", PLANS)
def test_the_labels_are_the_same_to_the_last_voxel(
    bundle, tmp_path, monkeypatch, plan, axes, spacing
):
    predictor = predictor_of(bundle, **PLANS[plan])
    case = scan(tmp_path, axes, spacing)
    plain = predictor.predict_case(case)
    in_small_portions(monkeypatch)
    large = predictor.predict_case(case)
    np.testing.assert_array_equal(large.labels.array, plain.labels.array)
    np.testing.assert_array_equal(large.labels.affine, plain.labels.affine)
    assert large.trust == plain.trust
    assert len(np.unique(plain.labels.array)) > 1


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_stored_values_give_the_labels_of_single_precision(bundle, tmp_path, kind):
    predictor = predictor_of(bundle)
    case = scan(tmp_path, "LPS", (1.2, 1.3, 1.4), np.float32)
    volume = read_volume(case.images[0])
    values = volume.array.clip(0, 200)
    stored = predictor.predict_volume(volume.with_array(values.astype(kind)))
    single = predictor.predict_volume(volume.with_array(values))
    np.testing.assert_array_equal(stored.labels.array, single.labels.array)


def test_regions_are_painted_as_they_are_restored(tmp_path, monkeypatch):
    predictor = predictor_of(read_bundle(write_untrained(tmp_path / "m", regions=True)))
    case = scan(tmp_path, "LPS", (1.2, 1.2, 1.2))
    plain = predictor.predict_case(case, probabilities=True).labels.array
    depths = []
    paint = LabelScheme.paint_regions

    def painted(scheme, present):
        depths.append(present.shape[1])
        return paint(scheme, present)

    monkeypatch.setattr(LabelScheme, "paint_regions", painted)
    monkeypatch.setattr(restore, "IN_CACHE", replace(restore.IN_CACHE, chunk=20_000))
    result = predictor.predict_case(case).labels.array
    np.testing.assert_array_equal(result, plain)
    assert sum(depths) > max(depths)


def test_voxels_of_targets_are_counted_whatever_the_order_of_memory():
    scheme = LabelScheme(labels={"a": 3, "b": 7})
    indices = np.random.default_rng(0).integers(0, 3, (4, 5, 6), dtype=np.int16)
    wanted = [(indices == 1).sum(), (indices == 2).sum()]
    assert target_voxels(indices.transpose(2, 0, 1), scheme).tolist() == wanted
