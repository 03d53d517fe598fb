import copy
import json
import shutil

import numpy as np
import pytest
import torch

from blank_figures import blank_figures
from trivox.config.recipe import make_recipe
from trivox.datasets.exams import read_exam
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.thoraxes import ThoraxSettings, write_thoraxes
from trivox.errors import (
    BundleError,
    DataError,
    InterruptedTrainingError,
    PlanError,
    RecipeError,
)
from trivox.inference.predictor import Predictor
from trivox.inference.reconstructor import Reconstructor
from trivox.learning.losses.volumes import VolumeCriterion
from trivox.learning.tracking import read_records
from trivox.learning.trainer import Trainer
from trivox.preparation.exam_batches import VolumeTargets, to_window
from trivox.preparation.exam_store import ExamStore
from trivox.projection.attenuation import attenuation_of
from trivox.projection.geometry import Geometry
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays
from trivox.tasks.reconstruction.exams import PreparedExams, reference_volume
from trivox.tasks.reconstruction.objective import ReconstructionObjective
from trivox.tasks.reconstruction.planning import plan_reconstruction
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest
from trivox.verbs.predict import predict
from trivox.volumes.formats import read_volume

TINY = {
    "patch_size": (8, 8, 8),
    "epochs": 2,
    "iterations_per_epoch": 2,
    "validation_iterations": 2,
    "workers": 0,
    "batch_size": 2,
    "precision": "fp32",
    "reconstruction": {"view_counts": (1, 2)},
}


def changed(**options):
    return {**TINY, "reconstruction": {**TINY["reconstruction"], **options}}


# -- a run -----------------------------------------------------------------------------
def test_a_run_leaves_what_the_contract_names(xray_run):
    names = {
        "plan.json",
        "recipe.json",
        "dataset.json",
        "splits.json",
        "check.json",
        "metrics.jsonl",
        "log.txt",
        "report.html",
    }
    assert names <= {path.name for path in xray_run.iterdir()}
    assert (xray_run / "bundle" / "bundle.json").exists()
    assert (xray_run / "checkpoints" / "best").is_dir()


def test_validation_measures_held_out_exams_beside_the_ladder(xray_run):
    metrics = json.loads((xray_run / "validation" / "metrics.json").read_text())
    held_out = json.loads((xray_run / "splits.json").read_text())[0]["validation"]
    assert sorted(metrics["cases"]) == sorted(held_out)
    assert metrics["notice"] == "synthetic CT, not acquired"
    names = [row["name"] for row in metrics["ladder"]["rows"]]
    assert names == [
        "constant",
        "mean training volume",
        "nearest training case by X-ray",
        "back-projection (affine fit)",
        "FDK",
        "SIRT",
        "SIRT from the mean volume",
        "TV",
        "network",
        "network + data consistency",
    ]
    assert [section["views"] for section in metrics["by_views"]] == [1, 2, 4, 8]
    assert metrics["ladder"]["views"] == 8


def test_the_mean_volume_is_of_training_cases_alone(xray_run, xray_data, xray_plan):
    dataset = load_dataset(xray_data)
    store = ExamStore(xray_run / "prepared")
    split = json.loads((xray_run / "splits.json").read_text())[0]
    prepared = PreparedExams(dataset, xray_plan, (), store)
    wanted = torch.stack(
        [
            to_window(reference_volume(prepared, name), xray_plan.window)
            for name in split["train"]
        ]
    ).mean(0)
    network = Reconstructor.load(xray_run, device="cpu").networks[0]
    torch.testing.assert_close(network.mean_volume, wanted, atol=1e-5, rtol=0)


def test_epochs_are_recorded_with_psnr_for_each_number_of_views(xray_run):
    records = read_records(xray_run / "metrics.jsonl")
    assert len(records) == 2
    for record in records:
        each = [record[f"validation_psnr/{views} views"] for views in (1, 2)]
        assert (
            record["validation_psnr"]
            == pytest.approx(sum(each) / 2)
            == pytest.approx(record["validation_score"])
        )
    assert "PSNR" in (xray_run / "log.txt").read_text()


@pytest.fixture
def unfinished(monkeypatch):
    """Training alone: neither validated on files nor reported."""
    monkeypatch.setattr(
        "trivox.tasks.reconstruction.task.finish_volumes", lambda *args: {}
    )
    monkeypatch.setattr(
        "trivox.tasks.reconstruction.task.report_run", lambda *args, **options: None
    )


def test_a_resumed_run_takes_the_steps_that_a_whole_one_takes(
    xray_data, tmp_path, unfinished, monkeypatch
):
    settings = {**TINY, "validation_iterations": 1, "checkpoint_minutes": 1e-6}
    run_request(
        RunRequest(
            xray_data, tmp_path / "whole", "quick_test", settings, task="reconstruction"
        )
    )
    epoch = Trainer._epoch

    def once(self):
        epoch(self)
        self.stopping = True

    request = RunRequest(
        xray_data, tmp_path / "parts", "quick_test", settings, task="reconstruction"
    )
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_epoch", once)
        with pytest.raises(InterruptedTrainingError):
            run_request(request)
    run_request(
        RunRequest(
            xray_data,
            tmp_path / "parts",
            "quick_test",
            {},
            task="reconstruction",
            resume=True,
        )
    )
    whole, parts = (
        read_records(tmp_path / part / "metrics.jsonl") for part in ("whole", "parts")
    )
    assert [record["train_loss"] for record in parts] == [
        record["train_loss"] for record in whole
    ]


def test_training_learns(xray_data, tmp_path, unfinished):
    run = tmp_path / "run"
    settings = {
        **changed(loss={"perceptual": 0, "reprojection": 0}),
        "epochs": 4,
        "iterations_per_epoch": 5,
        "validation_iterations": 1,
        "learning_rate": 5e-3,
    }
    run_request(
        RunRequest(xray_data, run, "quick_test", settings, task="reconstruction")
    )
    losses = [record["train_loss"] for record in read_records(run / "metrics.jsonl")]
    assert np.mean(losses[-2:]) < 0.9 * losses[0]


def test_growing_adversarial_and_averaged_training_ends_with_a_model(
    xray_data, tmp_path
):
    settings = {
        **changed(
            growth=(4,),
            growth_share=0.5,
            adversarial=0.05,
            adversarial_share=0.5,
            psnr_budget=50.0,
        ),
        "final_weights": "latest",
        "weights_ema": 0.5,
    }
    request = RunRequest(
        xray_data, tmp_path / "run", "quick_test", settings, task="reconstruction"
    )
    with blank_figures():
        run_request(request)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "grid: 4" in log
    assert "grid: full size" in log
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert records[0]["adversarial_weight"] == 0 < records[-1]["adversarial_weight"]
    found = Reconstructor.load(tmp_path / "run", device="cpu")
    assert found.reconstruct(
        read_exam(load_dataset(xray_data).cases[0]).xrays
    ).shape == (1, 8, 8, 8)


# -- the objective ---------------------------------------------------------------------
@pytest.fixture
def objective(xray_plan):
    def made(**options):
        recipe = make_recipe(
            "quick_test",
            {**changed(**options), "final_weights": "latest"},
            named="xray2ct",
        )
        criterion = VolumeCriterion(
            recipe.reconstruction.loss,
            window=xray_plan.window,
            water_per_mm=xray_plan.water_per_mm,
            grid=xray_plan.grid,
        )
        return ReconstructionObjective(criterion, recipe.reconstruction)

    return made


def targets(views=2, *, seed=0, count=2):
    generator = torch.Generator().manual_seed(seed)
    geometry = Geometry.orbit(
        [45.0 * i for i in range(views)], detector=(16, 16), pixel_mm=26.0
    )
    images = torch.rand(count, views, 16, 16, generator=generator)
    return VolumeTargets(
        torch.rand(count, 1, 8, 8, 8, generator=generator), Xrays.of(images, geometry)
    )


def test_scores_add_up_over_batches_of_any_number_of_views(objective):
    made, batches = (
        objective(),
        [targets(2, seed=1), targets(4, seed=2), targets(4, seed=3)],
    )
    outputs = [batch.volume + 0.1 for batch in batches]
    counts = [
        made.count(output, batch)
        for output, batch in zip(outputs, batches, strict=True)
    ]
    figures = made.score(sum(counts))
    from trivox.learning.losses.similarity import psnr

    four = torch.cat([psnr(outputs[i], batches[i].volume) for i in (1, 2)]).mean()
    assert figures["validation_psnr/4 views"] == pytest.approx(float(four), abs=1e-4)
    assert set(figures) >= {
        "validation_psnr/2 views",
        "validation_ssim/4 views",
        "validation_score",
    }


def test_a_coarse_output_is_judged_on_the_full_grid(objective):
    made, batch = objective(), targets()
    coarse = torch.nn.functional.avg_pool3d(batch.volume, 2)
    fine = torch.nn.functional.interpolate(coarse, size=(8, 8, 8), mode="trilinear")
    assert torch.equal(made.count(coarse, batch), made.count(fine, batch))


def test_the_critic_learns_in_training_only_and_survives_a_checkpoint(objective):
    made, batch = objective(adversarial=1.0, adversarial_share=0.5), targets()
    output = (batch.volume * 0.5).requires_grad_()
    plain = made.loss(output, batch)
    made.begin(0.9, 0)
    with torch.no_grad():
        assert made.loss(output, batch) == plain
    assert made.critic is None
    assert made.loss(output, batch) != plain
    other = objective(adversarial=1.0)
    other.restore(copy.deepcopy(made.state()))
    other.begin(1.0, 0)
    other.loss(output, batch)
    ours, theirs = (
        made.critic.state_dict()["optimizer"]["state"],
        other.critic.state_dict()["optimizer"]["state"],
    )
    assert ours[0]["step"] + 1 == theirs[0]["step"]


def test_a_budget_that_is_spent_ends_the_adversarial_part(objective):
    made = objective(adversarial=1.0, adversarial_share=0.5, psnr_budget=0.5)
    assert made.remarks({"validation_psnr": 25.0}) == []
    made.begin(0.9, 0)
    assert made.adversarial_weight > 0
    assert "adversarial loss switched off" in made.remarks({"validation_psnr": 24.0})[0]
    made.begin(0.95, 0)
    assert made.adversarial_weight == 0


def test_a_best_checkpoint_and_an_adversarial_part_contradict_each_other():
    with pytest.raises(RecipeError, match="set final_weights=latest"):
        make_recipe("quick_test", changed(adversarial=0.1), named="xray2ct")


# -- the plan --------------------------------------------------------------------------
def test_the_grid_holds_the_largest_ct_and_stored_x_rays_set_the_distances(xray_data):
    recipe = make_recipe("quick_test", {}, named="xray2ct")
    plan = plan_reconstruction(load_dataset(xray_data), recipe)
    assert plan.shape == (32, 32, 32)
    assert plan.spacing == pytest.approx((10, 10, 10))
    assert (plan.sod_mm, plan.sdd_mm) == (850, 1020)
    wide = plan.detector[1] * plan.pixel_mm
    assert wide >= 2 * plan.sdd_mm * 160 / (plan.sod_mm**2 - 160**2) ** 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"network": "unet-small"},
            "makes no volume of X-rays; choose one of xray2ct-tiny",
        ),
        ({"patch_size": (8, 8)}, "a grid of three sizes"),
        ({"reconstruction": {"spacing_mm": 100}}, "reaches the source"),
        ({"patch_size": (30, 30, 30)}, "the network halves every axis"),
        (
            {"patch_size": (16, 16, 16), "network_options": {"levels": 6}},
            "it has room for 4 to 5",
        ),
        (
            {"patch_size": (16, 16, 16), "reconstruction": {"growth": (12,)}},
            "does not run at 12 voxels",
        ),
        (
            {"reconstruction": {"detector": 60}},
            "60 x 60 pixels: the network needs multiples of 8; pad or resample stored",
        ),
    ],
)
def test_plans_that_cannot_be_are_refused(xray_data, settings, message):
    recipe = make_recipe("quick_test", settings, named="xray2ct")
    with pytest.raises((PlanError, RecipeError), match=message):
        plan_reconstruction(load_dataset(xray_data), recipe)


def test_stored_x_rays_that_the_network_cannot_take_are_refused_when_it_is_planned(
    tmp_path,
):
    """Rendered ones of 24 x 24 would train, and validation would then fail on the
    stored 20 x 20.
    """
    data = write_thoraxes(
        tmp_path / "chests", ThoraxSettings(cases=1, size=16, detector=20)
    )
    recipe = make_recipe(
        "quick_test",
        {"patch_size": (8, 8, 8), "reconstruction": {"detector": 24}},
        named="xray2ct",
    )
    with pytest.raises(PlanError, match="X-rays of 20 x 20 pixels"):
        plan_reconstruction(load_dataset(data), recipe)


def test_labelled_data_and_exams_without_ct_are_refused(tiny_data, xray_data, tmp_path):
    with pytest.raises(DataError, match="holds no X-rays with volumes; 'trivox drr"):
        run_request(
            RunRequest(
                tiny_data, tmp_path / "a", "quick_test", TINY, task="reconstruction"
            )
        )
    shutil.copytree(xray_data, tmp_path / "data")
    for file in (tmp_path / "data").rglob("ct.nii.gz"):
        file.unlink()
    with pytest.raises(DataError, match="no exam to train on has a ct"):
        run_request(
            RunRequest(
                tmp_path / "data",
                tmp_path / "b",
                "quick_test",
                TINY,
                task="reconstruction",
            )
        )


def test_x_rays_are_not_segmented(xray_data, tmp_path):
    with pytest.raises(DataError, match="--task reconstruction"):
        run_request(RunRequest(xray_data, tmp_path / "run", "quick_test", {}))


# -- prediction ------------------------------------------------------------------------
def test_volumes_lie_where_the_ct_lies(xray_run, xray_data, tmp_path):
    records = predict(
        xray_run, xray_data, tmp_path, device="cpu", precision="fp32"
    ).records
    assert not any("error" in record for record in records.values())
    for case in load_dataset(xray_data).cases:
        found, wanted = (
            read_volume(tmp_path / f"{case.name}.nii.gz"),
            read_volume(case.volume),
        )
        middles = [
            v.affine @ np.append((np.array(v.shape[::-1]) - 1) / 2, 1)
            for v in (found, wanted)
        ]
        np.testing.assert_allclose(*middles, atol=1e-3)
        assert found.array.dtype == np.int16
        assert -1024 <= found.array.min() <= found.array.max() <= 3071
        assert (
            json.loads((tmp_path / f"{case.name}.json").read_text())["volume"][
                "psnr_db"
            ]
            > 0
        )
        assert (tmp_path / f"{case.name}.png").stat().st_size > 1000


def test_finished_volumes_are_kept_and_a_bad_exam_is_set_aside(
    xray_run, xray_data, tmp_path
):
    shutil.copytree(xray_data, tmp_path / "data")
    bad = load_dataset(tmp_path / "data").cases[0]
    bad.images[0].write_bytes(b"no views")
    out = tmp_path / "out"
    with blank_figures():
        first = predict(xray_run, tmp_path / "data", out, device="cpu").records
    assert "cannot be read" in first[bad.name]["error"]
    assert not (tmp_path / "out" / f"{bad.name}.nii.gz").exists()
    times = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.nii.gz")
    }
    predict(xray_run, tmp_path / "data", tmp_path / "out", device="cpu")
    assert times == {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.nii.gz")
    }


def test_models_are_averaged_and_steps_at_the_end_change_the_answer(
    xray_run, xray_data
):
    xrays = read_exam(load_dataset(xray_data).cases[0]).xrays.select([0, 1])
    one, two = (
        Reconstructor.load(models, device="cpu", precision="fp32")
        for models in (xray_run, [xray_run, xray_run])
    )
    torch.testing.assert_close(one.reconstruct(xrays), two.reconstruct(xrays))
    assert not torch.equal(
        one.reconstruct(xrays), one.reconstruct(xrays, consistent=False)
    )


def test_last_steps_bring_the_volume_nearer_to_the_x_rays(
    xray_run, xray_data, xray_plan
):
    from dataclasses import replace

    xrays = read_exam(load_dataset(xray_data).cases[0]).xrays.select([0, 1])
    model = Reconstructor.load(xray_run, device="cpu", precision="fp32")

    def misfit(steps):
        plan = model.plan.model_copy(update={"final_steps": steps})
        attenuation = attenuation_of(replace(model, plan=plan).reconstruct(xrays))
        return float(
            (Projector(xrays.geometry, plan.grid).project(attenuation) - xrays.images)
            .square()
            .mean()
        )

    assert misfit(8) < misfit(2) < misfit(0)
    assert model.plan.final_steps == xray_plan.final_steps == 4


def test_models_of_labels_and_of_volumes_are_not_mixed_up(xray_run, tiny_run):
    with pytest.raises(BundleError, match="gives no label maps"):
        Predictor.load(xray_run, device="cpu")
    with pytest.raises(
        BundleError, match="a model of task segmentation makes no volumes"
    ):
        Reconstructor.load(tiny_run, device="cpu")


def test_an_exam_without_views_is_no_reason_to_invent_a_volume(
    xray_run, xray_data, tmp_path
):
    from trivox.datasets.exams import write_exam

    empty = Geometry.orbit([], detector=(16, 16), pixel_mm=26.0)
    write_exam(
        tmp_path / "patients" / "nobody",
        np.zeros((0, 16, 16), np.float32),
        empty,
        isocentre=(0, 0, 0),
    )
    case = load_dataset(tmp_path).cases[0]
    with pytest.raises(DataError, match="has no views"):
        Reconstructor.load(xray_run, device="cpu").predict_case(case)
