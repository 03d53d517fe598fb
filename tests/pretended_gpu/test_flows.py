"""Whole trainings and predictions on the second device, with real branches for CUDA."""

import json

import numpy as np
import pytest
import torch

import trivox
from classed_phantoms import write_classed_phantoms
from conftest import TINY, TINY_XRAYS
from trivox.inference.doubt.kinds import KINDS, Extras
from trivox.inference.predictor import Predictor
from trivox.networks.xray2ct.lifting import look
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays

DEVICE = "cuda:1"
EVERY_CHANGE = dict.fromkeys(
    (
        *("rotation", "scaling", "elastic", "noise", "blur", "brightness"),
        *("contrast", "low_resolution", "gamma", "gamma_inverted", "mirror"),
        "drop_channel",
    ),
    1.0,
)


def train(data, out, **changes):
    settings = {**TINY, "epochs": 1, "deterministic": False, **changes}
    return trivox.train(data, out, preset="quick_test", device=DEVICE, set=settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data, gpu):
    out = tmp_path_factory.mktemp("gpu") / "run"
    train(
        tiny_data,
        out,
        precision="bf16",
        augmentation=EVERY_CHANGE,
        network_options={"dropout": 0.2},
    )
    return out


def finite(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return all(
        np.isfinite(record["train_loss"])
        for record in records
        if "train_loss" in record
    )


def test_segmentation_in_bf16_with_every_augmentation(run):
    assert finite(run)
    assert (run / "bundle" / "bundle.json").exists()


def test_segmentation_in_fp16_with_what_a_recipe_offers(tmp_path, tiny_data, gpu):
    train(
        tiny_data,
        tmp_path / "run",
        precision="fp16",
        weights_ema=0.9,
        micro_batch=1,
        gradient_checkpointing=True,
        keep_best=2,
        final_weights="average",
    )
    assert finite(tmp_path / "run")


def test_memory_that_runs_out_in_training_lowers_the_micro_batch(
    tmp_path, tiny_data, gpu
):
    from pretended_gpu.device import memory_of

    with memory_of(9):
        train(
            tiny_data,
            tmp_path / "run",
            batch_size=4,
            patch_size=[16, 24, 16],
            precision="bf16",
            network="unet-small",
        )
    said = (tmp_path / "run" / "log.txt").read_text()
    assert "out of memory: micro-batch lowered from 4 to 2" in said


@pytest.mark.parametrize("attention", ["deformable", "swin"])
def test_a_hybrid_is_trained_and_explained(tmp_path, tiny_data, gpu, attention):
    out = tmp_path / "run"
    train(
        tiny_data,
        out,
        precision="bf16",
        network="hybrid-lite",
        network_options={"attention": attention},
        patch_size=[32, 32, 32],
        iterations_per_epoch=1,
    )
    trivox.explain(out, tiny_data, tmp_path / "why", case="phantom_000", device=DEVICE)
    assert list((tmp_path / "why").iterdir())


def test_multitask_with_the_classes_of_its_predictions(tmp_path, gpu):
    data = write_classed_phantoms(tmp_path / "data")
    out = tmp_path / "run"
    head = {"classifier": "head", "class_weights": "inverse_frequency"}
    settings = {**TINY, "epochs": 1, "precision": "bf16", "classification": head}
    trivox.train(
        data, out, task="multitask", preset="quick_test", device=DEVICE, set=settings
    )
    assert finite(out)
    image = data / "case_00.nii.gz"
    result = trivox.predict(out, image, tmp_path / "out", device=DEVICE)
    (record,) = result.records.values()
    assert sum(record["class"]["probabilities"].values()) == pytest.approx(1)


def test_pretraining(tmp_path, tiny_data, gpu):
    settings = {**TINY, "epochs": 1, "precision": "fp16"}
    trivox.pretrain(tiny_data, tmp_path / "run", device=DEVICE, set=settings)
    assert finite(tmp_path / "run")


@pytest.mark.parametrize("views", ["random", "stored"])
def test_reconstruction(tmp_path, xray_data, gpu, views):
    options = {
        "view_counts": (1, 2),
        "adversarial": 0.01,
        "adversarial_share": 0.9,
        "views": views,
    }
    settings = {**TINY_XRAYS, "precision": "bf16", "reconstruction": options}
    out = tmp_path / "run"
    trivox.train(
        xray_data,
        out,
        task="reconstruction",
        preset="quick_test",
        device=DEVICE,
        set={**settings, "final_weights": "latest"},
    )
    trivox.predict(out, xray_data, tmp_path / "out", device=DEVICE)


@pytest.mark.parametrize(
    ("options", "extras"),
    [
        ({}, Extras()),
        ({}, Extras(probabilities=True)),
        (
            {"mirror": True, "mc_samples": 2, "scales": (1.0, 1.2)},
            Extras(probabilities=True, uncertainty=KINDS),
        ),
    ],
    ids=["plain", "probabilities", "all votes"],
)
def test_prediction(run, gpu, options, extras):
    predictor = Predictor.load(run, device=DEVICE, **options)
    image = np.random.default_rng(0).normal(size=(20, 40, 30)).astype(np.float32)
    labels = predictor.predict_array(image, (2.0, 1.2, 1.9))
    assert labels.shape == image.shape


def test_two_models_vote(run, gpu):
    predictor = Predictor.load([run, run], device=DEVICE, precision="bf16")
    image = np.random.default_rng(0).normal(size=(20, 24, 20)).astype(np.float32)
    alone = Predictor.load(run, device=DEVICE, precision="bf16")
    spacing = (2.0, 1.5, 1.5)
    labels = predictor.predict_array(image, spacing)
    assert (labels == alone.predict_array(image, spacing)).mean() > 0.99


@pytest.mark.parametrize("method", ["auto", "joseph", "siddon", "matrix"])
def test_the_projector_and_its_gradient(gpu, method):
    geometry = Geometry.orbit([0, 60, 90], detector=(12, 12), pixel_mm=30.0)
    grid = Grid((10, 10, 10), (20.0, 20.0, 20.0))
    volume = torch.rand(2, 10, 10, 10, requires_grad=True)
    projector = Projector(geometry, grid, method=method)
    on_gpu = Projector(geometry.to(gpu), grid, method=method)
    copy = volume.detach().to(gpu).requires_grad_()
    expected = projector.project(volume)
    result = on_gpu.project(copy)
    expected.square().sum().backward()
    result.square().sum().backward()
    torch.testing.assert_close(result.cpu(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(copy.grad.cpu(), volume.grad, rtol=1e-4, atol=1e-4)


def test_building_things_leaves_the_generators_alone(gpu):
    from trivox.learning.losses.adversarial import Critic

    torch.manual_seed(77)
    state = torch.cuda.get_rng_state(gpu)
    Critic(device=gpu)
    assert torch.equal(torch.cuda.get_rng_state(gpu), state)


def test_voxels_are_looked_up_in_full_precision(gpu):
    """bf16 has three digits, and a detector has hundreds of pixels."""
    grid = Grid((8, 8, 8), (20.0, 20.0, 20.0))
    geometry = Geometry.orbit([0, 50], detector=(256, 256), pixel_mm=1.5).to(gpu)
    xrays = Xrays.of(torch.rand(1, 2, 256, 256, device=gpu), geometry)
    (expected,) = look(xrays, (grid,), water_per_mm=0.02)
    with torch.autocast("cuda", torch.bfloat16):
        (sight,) = look(xrays, (grid,), water_per_mm=0.02)
    assert sight.places.dtype == torch.float32
    assert torch.equal(sight.places, expected.places)
    assert torch.equal(sight.facts, expected.facts)
