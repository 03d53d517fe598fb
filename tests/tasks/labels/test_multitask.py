"""Multitask training on small phantoms whose class is how bright the lesion is."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import trivox
from blank_figures import blank_figures
from classed_phantoms import CASES, UNKNOWN, UNMARKED, write_classed_phantoms
from impossible_bundles import VALUES, altered, places, predicts_or_refuses
from trivox.config.recipe import make_recipe
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import BundleError, DataError
from trivox.files import read_json, write_json
from trivox.inference.bundle import read_bundle
from trivox.inference.classes.files import read_classes
from trivox.inference.classes.reader import NO_LESION
from trivox.inference.doubt.kinds import Extras
from trivox.inference.folder import predict_cases
from trivox.inference.predictor import Predictor
from trivox.learning.tracking import read_records
from trivox.networks.class_head import Outputs
from trivox.preparation.classes import ClassedLabels
from trivox.tasks.labels.class_objective import MultitaskObjective
from trivox.tasks.labels.multitask import MultitaskTask
from trivox.tasks.run import run_request
from trivox.tasks.stages import prepare
from trivox.tasks.task import RunRequest


@pytest.fixture(scope="session")
def classed_data(tmp_path_factory):
    """Phantoms whose lesions are bright (class b, the odd ones) or dark (class a)."""
    return write_classed_phantoms(tmp_path_factory.mktemp("classed") / "data")


SETTINGS = {
    "network": "unet-tiny",
    "patch_size": [16, 16, 16],
    "batch_size": 4,
    "epochs": 3,
    "iterations_per_epoch": 30,
    "validation_iterations": 2,
    "precision": "fp32",
    "workers": 0,
    "deterministic": True,
    "learning_rate": 5e-3,
}


@pytest.fixture(scope="session")
def classed_run(tmp_path_factory, classed_data):
    """A finished multitask run; read it only."""
    run = tmp_path_factory.mktemp("classed") / "run"
    run_request(RunRequest(classed_data, run, "quick_test", SETTINGS, task="multitask"))
    return run


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, classed_data):
    """The dataset prepared for multitask training, and its recipe."""
    from trivox.learning.runtime import make_runtime
    from trivox.tasks.console import Quiet

    recipe = make_recipe("quick_test", SETTINGS)
    out = tmp_path_factory.mktemp("classed") / "prepared"
    task = MultitaskTask()
    made = prepare(
        task,
        task.load(classed_data),
        RunRequest(classed_data, out),
        recipe,
        runtime=make_runtime("cpu"),
        console=Quiet(),
    )
    return made, recipe


def objective(prepared, **options):
    made, recipe = prepared
    recipe = recipe.model_copy(
        update={"classification": recipe.classification.model_copy(update=options)}
    )
    return MultitaskTask().objective(made, recipe, made.splits[0].train)


def outputs(labels, classes, *, seed=0, size=8):
    """Random logits for a batch, with gradients, and its targets."""
    generator = torch.Generator().manual_seed(seed)
    count = len(classes)
    segmentation = torch.randn(
        count, 3, size, size, size, generator=generator
    ).requires_grad_()
    logits = torch.randn(count, 2, generator=generator).requires_grad_()
    lesion = (labels == 2).flatten(1).sum(1)
    return Outputs(segmentation, logits), ClassedLabels(
        labels, torch.tensor(classes), lesion
    )


def with_lesion(count, size=8):
    labels = torch.zeros(count, size, size, size, dtype=torch.int16)
    labels[:, 2:5, 2:5, 2:5] = 2
    labels[:, 5:7] = 1
    return labels


def test_a_run_gives_masks_and_classes_measured_on_held_out_cases(
    classed_run, classed_data
):
    metrics = read_json(classed_run / "validation" / "metrics.json")
    section = metrics["classification"]
    held_out = set(read_json(classed_run / "splits.json")[0]["validation"])
    assert set(section["cases"]) == held_out
    assert {row["name"].split(" (")[0] for row in section["rows"]} == {
        "this model",
        "majority answer",
        "best single hand-made feature",
        "head of the network",
    }
    assert section["summary"]["macro_f1"]["value"] > 0.9  # brightness is easily told
    assert section["resubstitution"]["macro_f1"] > 0.9
    assert section["gap"]["macro_f1"] is not None
    record = next(
        r
        for r in reversed(read_records(classed_run / "metrics.jsonl"))
        if r.get("kind") == "epoch"
    )
    assert {
        "validation_macro_f1",
        "validation_score",
        "class_share/a",
        "class_recall/b",
        "class_logit/a",
        "class_weight",
        "class_loss",
    } <= set(record)
    assert "Class of the case" in (classed_run / "report.html").read_text()


def test_nothing_of_the_held_out_cases_is_fitted_on(classed_run):
    held_out = set(read_json(classed_run / "splits.json")[0]["validation"])
    with np.load(classed_run / "case-features.npz") as stored:
        used = set(stored["cases"].tolist())
    assert used
    assert not used & held_out
    assert f"case_{UNKNOWN:02d}" not in used


def test_one_command_predicts_mask_and_class_as_validated(
    classed_run, classed_data, tmp_path
):
    predictor = Predictor.load(classed_run, device="cpu", precision="fp32")
    section = read_json(classed_run / "validation" / "metrics.json")["classification"][
        "cases"
    ]
    cases = [case for case in load_dataset(classed_data).cases if case.name in section]
    predictor = replace(predictor, extras=Extras(numbered_classes=True))
    predict_cases(predictor, cases, tmp_path)
    rows = read_classes(tmp_path / "classes.csv")
    assert {row.case for row in rows} == set(section)
    for row in rows:
        assert row.answer == section[row.case]["answer"]
        for name, value in section[row.case]["probabilities"].items():
            assert row.probabilities[name] == pytest.approx(value, abs=2e-6)
    with (tmp_path / "subtype_results.csv").open() as file:
        table = list(csv.reader(file))
    assert table[0] == ["Names", "Subtype"]
    assert {cell[1] for cell in table[1:]} <= {"0", "1"}
    assert (
        json.loads((tmp_path / "predictions.json").read_text())["cases"][cases[0].name][
            "class"
        ]["answer"]
        in "ab"
    )


def test_classes_of_cases_that_are_predicted_one_after_another_stand_in_one_table(
    classed_run, classed_data, tmp_path
):
    predictor = Predictor.load(classed_run, device="cpu", precision="fp32")
    cases = load_dataset(classed_data).cases[:3]
    for case in cases:
        predict_cases(predictor, [case], tmp_path / "apart")
    predict_cases(predictor, cases, tmp_path / "together")
    apart, together = (
        (tmp_path / folder / "classes.csv").read_bytes()
        for folder in ("apart", "together")
    )
    assert apart == together


def test_an_ensemble_averages_the_logarithms_of_probabilities(
    classed_run, classed_data
):
    case = load_dataset(classed_data).cases[0]
    one = (
        Predictor.load(classed_run, device="cpu", precision="fp32")
        .predict_case(case)
        .classification
    )
    two = (
        Predictor.load([classed_run, classed_run], device="cpu", precision="fp32")
        .predict_case(case)
        .classification
    )
    assert two.probabilities == pytest.approx(one.probabilities, abs=1e-6)


def test_a_case_without_a_predicted_lesion_is_answered_and_flagged(
    classed_run, prepared
):
    made, _ = prepared
    reader = (
        Predictor.load(classed_run, device="cpu", precision="fp32")
        .members[0]
        .readers[0]
    )
    image, label = made.store.read("case_00")
    found = reader.read(torch.from_numpy(image), np.zeros_like(label))
    assert found.flags == (NO_LESION,)
    chance = np.exp(reader.log_probabilities(found))
    assert chance.sum() == pytest.approx(1)
    assert np.isfinite(list(found.logits)).all()
    assert reader.read(torch.from_numpy(image), label).flags == ()


def test_a_large_lesion_is_read_in_windows_weighted_by_what_they_hold(
    classed_run, prepared
):
    """Uniform voting of tiles let the seven without lesion outvote the one with it."""
    made, _ = prepared
    reader = (
        Predictor.load(classed_run, device="cpu", precision="fp32")
        .members[0]
        .readers[0]
    )
    image = torch.from_numpy(made.store.read("case_01")[0]).repeat(1, 3, 3, 3)
    indices = np.zeros(image.shape[1:], np.int16)
    indices[5:9, 6:10, 6:10] = 2
    indices[-2, -2, -2] = (
        2  # one voxel far away: the lesion's box needs many windows, two of them hold any lesion
    )
    starts = reader._starts(indices)
    near, far = (reader._view(image, indices, start) for start in starts)
    assert len(starts) == 2
    assert (near.mass, far.mass) == (64, 1)
    assert not torch.allclose(near.logits, far.logits)
    expected = (64 * near.logits + far.logits) / 65
    assert np.allclose(reader.read(image, indices).logits, expected, atol=1e-5)


def test_a_damaged_classifier_is_refused(classed_run, tmp_path):
    import shutil

    copy = shutil.copytree(classed_run / "bundle", tmp_path / "bundle")
    file = copy / "classifier-fold0.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="checksum"):
        Predictor.load(copy, device="cpu")


def test_training_batches_hold_the_class_only_where_the_lesion_is_in_view(prepared):
    made, recipe = prepared
    source = MultitaskTask().source(made, recipe, made.splits[0].train, training=True)
    seen = []
    for step in range(25):
        _, targets = source.read(step).finish(torch.device("cpu"))
        assert isinstance(targets, ClassedLabels)
        for labels, index, lesion in zip(
            targets.labels, targets.classes, targets.lesion, strict=True
        ):
            seen.append(int(index))
            if index >= 0 and lesion > 0:
                assert (labels == 2).any() or (labels < 0).all()
    assert seen.count(-1) == 50  # half of each batch is for the segmentation alone
    assert min(seen.count(0), seen.count(1)) > 15  # and the other half is balanced


def test_a_case_without_class_or_mask_takes_part_in_the_other_task_only(prepared):
    made, _ = prepared
    names = made.splits[0].train + made.splits[0].validation
    from trivox.tasks.labels.class_batches import case_classes

    known = case_classes(made.dataset, made.store, names, (2,))
    assert f"case_{UNKNOWN:02d}" not in known.index
    assert known.lesion_voxels[f"case_{UNMARKED:02d}"] == -1
    assert len(known.index) == CASES - 1
    image, label = made.store.read(f"case_{UNMARKED:02d}")
    assert (label == -1).all()
    assert image.any()
    target = objective(prepared)
    found, targets = outputs(torch.full((2, 8, 8, 8), -1, dtype=torch.int16), [-1, -1])
    loss = target.loss(found, replace(targets, lesion=torch.tensor([-1, -1])))
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6) or torch.isfinite(loss)
    loss.backward()
    assert not found.classes.grad.any()


def test_patches_without_lesion_teach_no_class(prepared):
    labels = with_lesion(2)
    labels[1] = 0
    found, targets = outputs(labels, [1, 1])
    targets = replace(targets, lesion=torch.tensor([27, 27]))
    objective(prepared).loss(found, targets).backward()
    assert found.classes.grad[0].any()
    assert not found.classes.grad[1].any()


def test_a_quarter_of_the_lesion_in_view_counts_fully(prepared):
    found, targets = outputs(with_lesion(3), [0, 1, 0])
    view = objective(prepared).in_view(
        found, replace(targets, lesion=torch.tensor([27, 108, 1080]))
    )
    assert view.tolist() == pytest.approx([1.0, 1.0, 0.1])


def test_logit_adjustment_asks_more_of_frequent_classes(prepared):
    found, targets = outputs(with_lesion(2), [0, 0])
    plain, adjusted = (
        objective(prepared, imbalance=kind) for kind in ("none", "logit_adjustment")
    )
    adjusted.prior = torch.tensor([0.9, 0.1])
    with torch.no_grad():
        assert adjusted.loss(found, targets) < plain.loss(found, targets)
        rare = replace(targets, classes=torch.tensor([1, 1]))
        assert adjusted.loss(found, rare) > plain.loss(found, rare)


def test_the_class_waits_for_a_staged_start_and_grows_to_its_boost(prepared):
    staged = objective(prepared, mode="staged", start=0.5, weight=2.0)
    staged.begin(0.4, 3)
    assert staged.weight == 0
    staged.begin(0.5, 3)
    assert staged.weight == 2
    boosted = objective(prepared, weight=1.0, boost=3.0, boost_epochs=15)
    weights = []
    for epoch in (0, 5, 15, 40):
        boosted.begin(0.0, epoch)
        weights.append(boosted.weight)
    assert weights == pytest.approx([1.0, 1 + 2 / 3, 3.0, 3.0])


def test_uncertainty_learns_the_weights_of_both_losses(prepared):
    learning = objective(prepared, weighting="uncertainty")
    found, targets = outputs(with_lesion(2), [0, 1])
    learning.loss(found, targets).backward()
    assert all(parameter.grad is not None for parameter in learning.module.parameters())
    assert {"loss_weight/segmentation", "loss_weight/class"} <= set(learning.figures())


def test_counts_of_batches_add_up(prepared):
    target = objective(prepared)
    found, targets = outputs(with_lesion(4), [0, 1, 1, 0])
    found = Outputs(found.segmentation.detach(), found.classes.detach())
    whole = target.count(found, targets)
    parts = [
        target.count(
            Outputs(found.segmentation[part], found.classes[part]), targets[part]
        )
        for part in (slice(0, 1), slice(1, 4))
    ]
    assert torch.allclose(whole, parts[0] + parts[1])
    figures = target.score(whole)
    f1 = []
    answers, truth = found.classes.argmax(1), targets.classes
    for index in range(2):
        hit = int(((answers == index) & (truth == index)).sum())
        f1.append(
            2 * hit / max(1, int((answers == index).sum() + (truth == index).sum()))
        )
    assert figures["validation_macro_f1"] == pytest.approx(np.mean(f1))
    assert figures["validation_score"] == pytest.approx(
        (figures["validation_dice"] + np.mean(f1)) / 2
    )


def test_patches_of_unknown_class_or_without_lesion_are_not_judged(prepared):
    target, labels = objective(prepared), with_lesion(3)
    labels[2] = 0
    found, targets = outputs(labels, [0, -1, 1])
    found = Outputs(found.segmentation.detach(), found.classes.detach())
    whole = target.count(found, replace(targets, lesion=torch.tensor([27, 27, 27])))
    first = target.count(
        Outputs(found.segmentation[:1], found.classes[:1]), targets[:1]
    )
    shared = (
        len(target.segmentation.labels.targets) * 3
    )  # counts of the segmentation, of all three
    assert torch.allclose(whole[shared:], first[shared:])
    assert whole[-1] == 1


def test_class_weights_are_counted_on_the_training_cases_alone(prepared):
    """Defect 7 of research/models.md 1.3: weights were made of training and validation
    cases.
    """
    made, _ = prepared
    names = [case.name for case in made.dataset.cases if case.class_name == "a"][:4]
    names += [case.name for case in made.dataset.cases if case.class_name == "b"][:1]
    recipe = make_recipe(
        "quick_test",
        {**SETTINGS, "classification": {"class_weights": "inverse_frequency"}},
    )
    target = MultitaskTask().objective(made, recipe, names)
    assert float(target.class_weights[1] / target.class_weights[0]) == pytest.approx(4)
    assert target.prior.tolist() == pytest.approx([0.8, 0.2])


def test_a_fold_without_a_class_is_refused(prepared):
    made, recipe = prepared
    names = [case.name for case in made.dataset.cases if case.class_name == "a"]
    with pytest.raises(DataError, match="no case of class b"):
        MultitaskObjective.of(
            made.plan, recipe, dataset=made.dataset, names=names, voxels=np.ones(3)
        )


def test_a_dataset_without_classes_is_refused(tiny_data, tmp_path):
    with pytest.raises(
        DataError,
        match="0 classes found, a multitask model needs two; name them with --classes",
    ):
        run_request(
            RunRequest(
                tiny_data, tmp_path / "run", "quick_test", SETTINGS, task="multitask"
            )
        )


def test_weights_pass_between_segmentation_and_multitask_networks(
    classed_run, prepared, tmp_path
):
    from trivox.learning.transfer import load_pretrained
    from trivox.tasks.labels.segmentation import SegmentationTask

    made, recipe = prepared
    weights = classed_run / "bundle" / "weights-fold0.safetensors"
    names = made.splits[0].train
    plain, classed = (
        task.network(made, recipe, names)
        for task in (SegmentationTask(), MultitaskTask())
    )
    report = load_pretrained(plain, weights, channels=1)
    assert report.share == 1
    assert all(name.startswith("head") for name in report.skipped.names)
    from safetensors.torch import save_file

    save_file(plain.state_dict(), tmp_path / "plain.safetensors")
    report = load_pretrained(classed, tmp_path / "plain.safetensors", channels=1)
    assert all(name.startswith("head") for name in report.missing.names)
    assert report.missing.names
    for name, value in plain.state_dict().items():
        assert torch.equal(classed.segmenter.state_dict()[name], value)


def test_a_gradient_that_reaches_the_encoder_leaves_only_hand_made_features():
    from trivox.tasks.labels.classes import subsets_of

    deep = {"stage 0": ("a", "b"), "stage 1": ("c",), "stage 2": ("d",)}
    frozen = subsets_of(make_recipe("quick_test"), ("x",), deep)
    assert list(frozen) == [
        "hand-made",
        "stage 0",
        "hand-made + stage 0",
        "stage 1",
        "hand-made + stage 1",
        "stage 2",
    ]
    joint = make_recipe("quick_test", {"classification": {"mode": "joint"}})
    assert list(subsets_of(joint, ("x",), deep)) == ["hand-made"]


@pytest.mark.parametrize(
    "classifier", ["head", pytest.param("lda", marks=pytest.mark.slow)]
)
def test_what_answers_can_be_chosen(classed_data, tmp_path, classifier):
    longer = {
        **SETTINGS,
        "epochs": 1,
        "iterations_per_epoch": 4,
        "classification": {"classifier": classifier},
    }
    request = RunRequest(
        classed_data, tmp_path / "run", "quick_test", longer, task="multitask"
    )
    with blank_figures():
        metrics = run_request(request)
    assert metrics["classification"]["classifier"]["0"]["kind"] == classifier
    listed = read_json(tmp_path / "run" / "bundle" / "bundle.json")["classification"][
        "classifiers"
    ]
    assert bool(listed) == (classifier != "head")
    names = [row["name"] for row in metrics["classification"]["rows"]]
    assert ("head of the network" in names) == (classifier != "head")
    assert Predictor.load(tmp_path / "run", device="cpu").classes == ("a", "b")


def test_a_dead_run_goes_on_and_ends_alike(classed_data, classed_run, tmp_path):
    import shutil

    copy = shutil.copytree(classed_run, tmp_path / "run")
    for name in ("bundle", "validation"):
        shutil.rmtree(copy / name)
    (copy / "classifier.safetensors").unlink()
    request = RunRequest(
        classed_data, copy, "quick_test", SETTINGS, task="multitask", resume=True
    )
    with blank_figures():
        metrics = run_request(request)
    before = read_json(classed_run / "validation" / "metrics.json")["classification"]
    assert metrics["classification"]["cases"] == before["cases"]


def test_a_report_on_phantoms_says_so(tmp_path, classed_run):
    from trivox.datasets.phantoms.abdomens import (
        PancreasPhantomSettings,
        write_pancreas_phantoms,
    )
    from trivox.tasks.report import _warnings

    folder = write_pancreas_phantoms(
        tmp_path / "drawn", PancreasPhantomSettings(cases=3, shape=(16, 24, 24))
    )
    dataset = load_dataset(folder)
    assert "generated phantoms" in dataset.note
    assert load_dataset(folder.parent / "drawn" / "manifest.json").note == dataset.note
    write_json(tmp_path / "dataset.json", dataset.model_dump(mode="json"))
    assert _warnings(tmp_path, {}, ()) == [dataset.note]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_bundle_with_any_field_altered_predicts_or_is_refused(
    tmp_path_factory, classed_run, classed_data, data
):
    bundle = tmp_path_factory.mktemp("impossible") / "bundle"
    shutil.copytree(classed_run / "bundle", bundle)
    content = read_json(bundle / "bundle.json")
    case = load_dataset(classed_data).cases[0]
    fields = [p for p in places(content) if p[0] in ("classification", "plan")]
    place = data.draw(st.sampled_from(fields))
    value = data.draw(st.sampled_from(VALUES))
    said = predicts_or_refuses(bundle, altered(content, place, value), case)
    assert said is None or "\n" not in said


@pytest.mark.slow
def test_a_model_with_classes_teaches_one_with_classes(classed_run, tmp_path):
    brief = {**SETTINGS, "epochs": 1, "iterations_per_epoch": 2}
    run = trivox.distill(
        classed_run, tmp_path / "run", preset="quick_test", set=brief, device="cpu"
    )
    assert run.metrics["task"] == "multitask"
    model = read_bundle(run.folder).description
    assert model.classification.classes == ("a", "b")
    assert model.training["recipe"]["distillation"]["weight"] == 0.5
