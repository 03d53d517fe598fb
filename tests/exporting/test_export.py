"""An export gives what the model gives, and one that does not is never kept."""

import json
import runpy
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from trivox import export as export_verb
from trivox.errors import BundleError, DataError, UsageError
from trivox.exporting import export as exporting
from trivox.exporting import networks
from trivox.exporting.card import ExportCard, Pipeline
from trivox.exporting.export import ExportOptions, export_model
from trivox.exporting.programs import STANDALONE
from trivox.exporting.verdict import (
    LEAST_EQUAL,
    MOST_APART,
    LabelScore,
    Verdict,
    require_agreement,
)
from trivox.inference.descriptions import LabelDescription
from trivox.inference.engines.graph import graph_of
from trivox.inference.predictor import Predictor
from trivox.inference.rules.postprocess import Postprocessing
from trivox.volumes.formats import read_labels, read_volume, write_volume
from untrained_models import plan_of, write_scans, write_untrained

pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
pytest.importorskip("openvino", reason="needs the extra 'export'")
pytest.importorskip("nncf", reason="needs the extra 'export'")


@pytest.fixture(autouse=True, scope="module")
def made_once():
    """Graphs of the same network: making one takes seconds."""
    graphs = {}

    def graph(network, **size):
        weights = [value.sum().item() for value in network.state_dict().values()]
        key = str(weights)
        if key not in graphs:
            graphs[key] = graph_of(network, **size)
        return graphs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "graph_of", graph)
        yield


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "labels": write_untrained(folder / "labels", balanced=True),
        "regions": write_untrained(folder / "regions", balanced=True, regions=True),
    }


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_the_exported_program_gives_the_labels_of_predict(bundles, tmp_path, kind):
    out = tmp_path / "export"
    (case,) = write_scans(tmp_path, (20, 25, 18))
    options = ExportOptions("onnx", verification=[case], whose="scans")
    exported = export_model([bundles[kind]], out, options)
    assert exported.verdict.equal >= 0.999
    labels = tmp_path / "labels.nii.gz"
    command = [sys.executable, out / "run.py", case.images[0], "--out", labels]
    subprocess.run(command, check=True)
    predictor = Predictor.load(bundles[kind], device="cpu", precision="fp32")
    expected = predictor.predict_case(case).labels.array
    assert (read_labels(labels).array == expected).mean() >= 0.9999
    card = ExportCard.model_validate_json((out / "export.json").read_text())
    assert card.verified["cases"] == 1
    assert card.verified["runtime"] == "onnxruntime CPU"
    assert {file.file for file in card.files} == {"network0.onnx"}


def test_openvino_is_verified_on_phantoms_where_there_are_no_cases(bundles, tmp_path):
    out = tmp_path / "export"
    exported = export_verb(bundles["labels"], out, to="openvino")
    assert exported.card.verified["on"] == "phantoms"
    assert {file.name for file in out.iterdir()} == {
        *("export.json", "README.md", "run.py", "grids.py", "runtimes.py"),
        *("network0.xml", "network0.bin"),
    }


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_networks_are_smaller(bundles, tmp_path, precision):
    cases = write_scans(tmp_path, (20, 25, 18), (18, 18, 22))
    options = ExportOptions(
        "onnx", precision, calibration=cases, accept_loss=True, verification=cases[:1]
    )
    sizes = []
    for each in (ExportOptions("onnx", verification=cases[:1]), options):
        out = tmp_path / each.precision
        export_model([bundles["labels"]], out, each)
        sizes.append((out / "network0.onnx").stat().st_size)
    assert sizes[1] < sizes[0]


def wrong_axes(pipeline):
    return {**pipeline, "axis_order": [2, 1, 0]}


def wrong_normalisation(pipeline):
    (how,) = pipeline["normalisations"]
    return {**pipeline, "normalisations": [{**how, "scheme": "none"}]}


def wrong_orientation(pipeline):
    return {**pipeline, "grid": {**pipeline["grid"], "axes": "stored"}}


def wrong_spacing(pipeline):
    return {**pipeline, "spacing": [2 * edge for edge in pipeline["spacing"]]}


def swapped_labels(pipeline):
    return {**pipeline, "values": [3, 2, 1, 0]}


@pytest.mark.parametrize(
    "broken",
    [
        wrong_axes,
        wrong_normalisation,
        pytest.param(wrong_orientation, marks=pytest.mark.slow),
        pytest.param(wrong_spacing, marks=pytest.mark.slow),
        pytest.param(swapped_labels, marks=pytest.mark.slow),
    ],
)
def test_a_broken_export_is_never_kept(bundles, tmp_path, monkeypatch, broken):
    def write(folder, card):
        content = json.loads(card.model_dump_json())
        content["pipeline"] = broken(content["pipeline"])
        (folder / "export.json").write_text(json.dumps(content))

    monkeypatch.setattr(exporting, "write_card", write)
    with pytest.raises(BundleError, match=r"gives other (labels|logits) than"):
        export_verb(bundles["labels"], tmp_path / "export", to="onnx")
    assert not (tmp_path / "export").exists()


def test_what_the_target_does_not_have_is_refused(bundles, tmp_path):
    model = bundles["labels"]
    with pytest.raises(UsageError, match="none of --to onnx"):
        export_verb(model, tmp_path / "export", to="onnx", precision="bf16")
    with pytest.raises(UsageError, match="--calibrate"):
        export_verb(model, tmp_path / "export", to="onnx", precision="int8")
    assert not (tmp_path / "export").exists()


def test_nothing_of_the_users_is_written_over(bundles, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        export_verb(bundles["labels"], tmp_path, to="onnx")


def test_models_of_different_plans_are_refused(bundles, tmp_path):
    other = write_untrained(tmp_path / "other", patch=(24, 24, 24))
    with pytest.raises(BundleError, match="export each alone"):
        export_verb([bundles["labels"], other], tmp_path / "export", to="onnx")


def test_an_ensemble_averages_its_networks(bundles, tmp_path):
    models = [bundles["labels"], bundles["labels"]]
    (case,) = write_scans(tmp_path, (18, 20, 18))
    options = ExportOptions("onnx", verification=[case])
    exported = export_model(models, tmp_path / "export", options)
    assert len(exported.card.pipeline.networks) == 2
    assert np.isclose(exported.verdict.equal, 1, atol=1e-3)


@pytest.mark.parametrize(
    "rules",
    [
        Postprocessing(
            largest_of_regions=("middle",),
            remove_small={"core": 30.0},
            replace_small={"whole": 400.0},
        ),
        # what the outer region loses decides what the inner one keeps
        Postprocessing(largest_of_regions=("whole", "middle")),
    ],
)
def test_the_program_cleans_regions_as_predict_does(rules):
    scheme = plan_of(regions=True).labels
    description = LabelDescription(
        task="t", plan=plan_of(regions=True), postprocessing=rules
    )
    pipeline = Pipeline.of(description, ["network0.onnx"], ("a", "b"))
    grids = runpy.run_path(str(STANDALONE / "grids.py"))
    for seed in range(8):
        noise = np.random.default_rng(seed).normal(size=(14, 16, 12))
        labels = np.digitize(gaussian_filter(noise, 1.2), (0.1, 0.15, 0.2))
        labels = labels.astype(np.int16)
        expected = rules.apply(labels, scheme, voxel_mm3=2.0)
        cleaned = grids["cleaned"](labels, pipeline.model_dump(), 2.0)
        np.testing.assert_array_equal(cleaned, expected)
        assert (expected != labels).any()


def test_a_case_that_cannot_be_compared_is_left_aside(bundles, tmp_path):
    cases = write_scans(tmp_path, (18, 20, 18), (20, 18, 18))
    (tmp_path / "label.nii.gz").write_bytes(b"no label map")
    damaged = cases[0].model_copy(update={"label": tmp_path / "label.nii.gz"})
    other = read_volume(cases[1].images[0])
    write_volume(
        tmp_path / "other.nii.gz",
        other.with_array(np.zeros_like(other.array, np.uint8)),
    )
    elsewhere = cases[0].model_copy(
        update={"name": "elsewhere", "label": tmp_path / "other.nii.gz"}
    )
    options = ExportOptions("onnx", verification=[damaged, elsewhere, cases[1]])
    exported = export_model([bundles["labels"]], tmp_path / "export", options)
    assert exported.verdict.cases == 1
    assert len(exported.verdict.left_aside) == 2
    assert "elsewhere: image and label" in exported.verdict.left_aside[1]


def test_images_without_labels_are_verified_on_as_well(bundles, tmp_path):
    (case,) = write_scans(tmp_path, (18, 20, 18))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"case,image\none,{case.images[0].name}\n")
    out = tmp_path / "export"
    exported = export_verb(bundles["labels"], out, to="onnx", verify=manifest)
    assert exported.verdict.whose == "cases of manifest.csv"
    assert exported.verdict.labels["a"].original is None


def test_calibration_of_what_is_not_int8_is_refused(bundles, tmp_path):
    with pytest.raises(UsageError, match="--calibrate is for --precision int8"):
        export_verb(
            bundles["labels"], tmp_path / "export", to="onnx", calibrate=tmp_path
        )


AGREES = Verdict("cases", 3, {}, equal=1.0, seconds=(1.0, 1.0), apart=0.0)


@pytest.mark.parametrize("precision", LEAST_EQUAL)
def test_labels_and_logits_are_each_enough_to_refuse_an_export(precision):
    require_agreement(AGREES, precision=precision, accept_loss=False)
    labels = replace(AGREES, equal=LEAST_EQUAL[precision] - 1e-6)
    logits = replace(AGREES, apart=MOST_APART[precision] + 1e-6)
    for verdict, reason in ((labels, "other labels"), (logits, "other logits")):
        with pytest.raises(BundleError, match=reason):
            require_agreement(verdict, precision=precision, accept_loss=False)
        require_agreement(verdict, precision=precision, accept_loss=True)


def test_int8_may_lose_half_a_dice_point():
    for export, refused in ((0.8951, False), (0.8949, True)):
        score = LabelScore(original=0.9, export=export, agreement=0.95)
        verdict = replace(AGREES, labels={"organ": score})
        for precision in ("bf16", "int8"):
            reason = pytest.raises(BundleError, match=r"loses 0\.51 Dice points")
            expected = reason if refused and precision == "int8" else nullcontext()
            with expected:
                require_agreement(verdict, precision=precision, accept_loss=False)
