"""The class of a case by an export is that by its model."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

from trivox.errors import BundleError
from trivox.exporting import verification
from trivox.exporting.card import ExportCard
from trivox.exporting.classes import write_classes
from trivox.exporting.export import ExportOptions, export_model
from trivox.exporting.programs import MEASURES, write_program
from trivox.exporting.verdict import (
    MOST_CHANCE_APART,
    ClassScore,
    Verdict,
    require_agreement,
)
from trivox.inference.bundle import write_bundle
from trivox.inference.classify import joined
from trivox.inference.descriptions import ClassDescription, LabelDescription
from trivox.inference.predictor import Predictor
from trivox.learning.case_classifier.classifier import CaseClassifier
from trivox.networks.class_head import LesionMasks, add_class_head
from untrained_models import plan_of, untrained, write_scans

pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
pytest.importorskip("openvino", reason="needs the extra 'export'")

CLASSES = ("benign", "borderline", "malignant")
LESION = (2,)


def network_of(plan, seed):
    network = untrained(plan, seed=seed, balanced=True)
    return add_class_head(
        network,
        plan.topology,
        name=plan.network,
        channels=1,
        classes=len(CLASSES),
        masks=LesionMasks.of(plan.labels, LESION, plan.spacing),
        width=8,
    ).eval()


def classifier_of(names, seed):
    """Any, of two networks of one and two layers."""
    rng = np.random.default_rng(seed)
    size = len(names)
    sizes = [(size, 3), (size, 4, 3)]

    def layer(before, after):
        return rng.normal(size=(after, before)), rng.normal(size=after)

    networks = [tuple(itertools.starmap(layer, pairwise(each))) for each in sizes]
    return CaseClassifier(
        names=tuple(names),
        fill=rng.normal(size=size),
        mean=rng.normal(size=size),
        scale=rng.uniform(0.5, 2, size=size),
        networks=tuple(networks),
        temperature=1.7,
        classes=CLASSES,
    )


def write_model(folder, *, answers, regions=False):
    """A bundle of one network for each of `answers`: names that its classifier uses, or
    None where its head answers.
    """
    plan = plan_of(regions=regions)
    folder.mkdir()
    weights = {}
    classifiers = {}
    for number, names in enumerate(answers):
        file = folder / f"{number}.safetensors"
        save_file(network_of(plan, number).state_dict(), file)
        weights[str(number)] = file
        if names is not None:
            classifiers[str(number)] = folder / f"classifier{number}.safetensors"
            classifier_of(names, number).save(classifiers[str(number)])
    description = LabelDescription(
        task="multitask",
        plan=plan,
        mirror_axes=("z", "x"),
        classification=ClassDescription(
            classes=CLASSES, lesion=LESION, width=8, temperature=1.3
        ),
    )
    write_bundle(folder / "bundle", description, weights, classifiers=classifiers)
    return folder / "bundle"


MEASURED = ("volume of lesion", "MRI mean in rim", "sphericity of lesion")
POOLED = ("stage 0 lesion mean 1", "stage 1 rim deviation 3", "MRI std in lesion")
KINDS = {
    "head": {"answers": [None]},
    "measured": {"answers": [MEASURED, MEASURED]},
    "pooled": {"answers": [POOLED]},
    "regions": {"answers": [None], "regions": True},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: write_model(root / kind, **what) for kind, what in KINDS.items()}


def lesions(shape, seed):
    """Label indices `(z, y, x)` with a lesion of any size and place, or none."""
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.normal(size=shape), rng.uniform(0.5, 4))
    order = noise.argsort(axis=None)
    indices = np.zeros(noise.size, np.int16)
    indices[order[: rng.integers(0, noise.size // 3)]] = 1
    indices[order[: rng.choice([0, 1, 5, 300])]] = LESION[0]
    return indices.reshape(shape)


@pytest.fixture
def program(tmp_path):
    """Makes a program's reader of classes from what an export wrote."""
    folder = tmp_path / "program"
    folder.mkdir()
    write_program(folder, classes=True)
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))

        def make(predictor, runtime):
            from classes import CaseClasses

            steps = write_classes(predictor, folder, runtime, "fp32")
            plan = predictor.members[0].plan
            pipeline = {
                "classes": json.loads(steps.model_dump_json()),
                "patch_size": plan.patch_size,
                "spacing": plan.spacing,
                "channels": plan.channels,
                "values": plan.labels.values,
            }
            export = {"runtime": runtime, "pipeline": pipeline}

            def lesion_chance(number, image):
                reader = list(predictor.members[0].readers)[number]
                indices = reader._likeliest(torch.from_numpy(image))
                return (indices > 0).astype(np.float32)

            return CaseClasses(folder, export, lesion_chance, 1)

        yield make
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("kind", "runtime"),
    [
        ("head", "onnx"),
        ("measured", "onnx"),
        pytest.param("pooled", "openvino", marks=pytest.mark.slow),
    ],
)
def test_lesions_of_any_size_and_place_are_read_as_by_trivox(
    models, program, kind, runtime
):
    predictor = Predictor.load(models[kind], device="cpu", precision="fp32")
    classes = program(predictor, runtime)
    seen = set()
    for seed, shape in enumerate([(20, 18, 24), (9, 40, 16), (16, 16, 16)] * 4):
        noise = np.random.default_rng(100 + seed).normal(size=(1, *shape))
        image = gaussian_filter(noise, (0, 1, 1, 1)).astype(np.float32)
        indices = lesions(shape, seed)
        readings = [
            reader.read(torch.from_numpy(image), indices, everything=False)
            for reader in predictor.members[0].readers
        ]
        pairs = zip(predictor.members[0].readers, readings, strict=True)
        votes = [reader.log_probabilities(reading) for reader, reading in pairs]
        expected = joined(CLASSES, votes, readings)
        answer = classes.answer(image, indices)
        assert answer["class"] == expected.answer
        assert answer["warnings"] == list(expected.flags)
        for name, chance in expected.probabilities.items():
            assert answer["probabilities"][name] == pytest.approx(chance, abs=1e-4)
        seen.add((round(chance, 3), bool(expected.flags)))
    assert {flagged for _, flagged in seen} == {True, False}
    assert len(seen) > 4


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("measured", "onnx"),
        pytest.param("pooled", "openvino", marks=pytest.mark.slow),
        pytest.param("regions", "onnx", marks=pytest.mark.slow),
        pytest.param("head", "tensorrt", marks=pytest.mark.slow),
    ],
)
def test_an_export_answers_with_the_class(models, tmp_path, kind, target):
    cases = write_scans(tmp_path, (20, 25, 18), (26, 18, 30))
    options = ExportOptions(target, verification=cases)
    exported = export_model([models[kind]], tmp_path / "export", options)
    score = exported.verdict.classes
    assert score.alike == 1
    assert score.apart < 0.01
    assert exported.card.left_out == ()
    assert exported.lines[-2].startswith("class: 1.000 of the cases")
    card = ExportCard.model_validate_json(
        (tmp_path / "export" / "export.json").read_text()
    )
    assert card.verified["classes"]["alike"] == 1
    expected = Predictor.load(models[kind], device="cpu", precision="fp32")
    classification = expected.predict_case(cases[0]).classification
    command = [sys.executable, tmp_path / "export" / "run.py", cases[0].images[0]]
    command += ["--out", tmp_path / "a.nii.gz", "--classes", tmp_path / "a.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads((tmp_path / "a.json").read_text())
    assert answer["class"] == classification.answer
    assert answer["probabilities"] == pytest.approx(
        dict(classification.probabilities), abs=0.01
    )
    assert f"class: {classification.answer} (probability" in done.stdout
    assert CLASSES[0] in (tmp_path / "export" / "README.md").read_text()


@pytest.mark.slow
def test_targets_without_classes_say_so(models, tmp_path):
    (case,) = write_scans(tmp_path, (20, 25, 18))
    options = ExportOptions("triton", verification=[case])
    exported = export_model([models["measured"]], tmp_path / "export", options)
    assert exported.card.pipeline.classes is None
    assert exported.verdict.classes is None
    assert any("class of the case" in line for line in exported.card.left_out)


@pytest.mark.slow
def test_an_export_that_answers_otherwise_is_never_kept(models, tmp_path, monkeypatch):
    (case,) = write_scans(tmp_path, (20, 25, 18))
    apart = MOST_CHANCE_APART["fp32"] + 1e-6

    def of_worse(verdict, **asked):
        worse = replace(verdict.classes, apart=apart)
        require_agreement(replace(verdict, classes=worse), **asked)

    monkeypatch.setattr(verification, "require_agreement", of_worse)
    options = ExportOptions("onnx", verification=[case])
    with pytest.raises(BundleError, match="gives other classes than the model"):
        export_model([models["measured"]], tmp_path / "export", options)
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("precision", MOST_CHANCE_APART)
def test_classes_are_enough_to_refuse_an_export(precision):
    most = MOST_CHANCE_APART[precision]
    agrees = Verdict("cases", 3, {}, equal=1.0, seconds=(1.0, 1.0), apart=0.0)
    fine = replace(agrees, classes=ClassScore(1.0, most))
    require_agreement(fine, precision=precision, accept_loss=False)
    other = replace(agrees, classes=ClassScore(1.0, most + 1e-6))
    with pytest.raises(BundleError, match="other classes"):
        require_agreement(other, precision=precision, accept_loss=False)
    require_agreement(other, precision=precision, accept_loss=True)


def test_what_measures_lesions_needs_nothing_of_trivox(tmp_path):
    write_program(tmp_path, classes=True)
    for module in MEASURES:
        name = module.rpartition("/")[2]
        code = (tmp_path / name).read_text()
        lines = [line for line in code.splitlines() if line.startswith("from trivox")]
        assert lines == []
    command = [sys.executable, "-I", "-c"]
    forbidden = "sys.modules.update(trivox=None, torch=None, cc3d=None)"
    code = f"import sys; {forbidden}; sys.path.insert(0, '.'); import classes"
    subprocess.run([*command, code], cwd=tmp_path, check=True)
