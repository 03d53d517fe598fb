"""Validation of the finished networks: held-out cases predicted from their source
files, as a user would predict them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import cast

from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.datasets.reading import read_reference
from trivox.evaluation.conventions.cases import evaluate_case
from trivox.evaluation.folders.labels import collect_metrics, with_whole
from trivox.evaluation.folders.measured import measured_files
from trivox.evaluation.metrics.content import (
    MetricsFile,
    PostprocessingSection,
    TargetMetrics,
)
from trivox.files import write_json
from trivox.inference.classes.reader import Reading
from trivox.inference.classify import Classification
from trivox.inference.describe import Prediction
from trivox.inference.descriptions import ClassDescription, LabelDescription
from trivox.inference.doubt.kinds import Extras
from trivox.inference.doubt.label_voxels import VoxelSample
from trivox.inference.doubt.lesion_voxels import LesionSample
from trivox.inference.doubt.missed import MissedControl
from trivox.inference.predictor import Predictor
from trivox.inference.rules.postprocess import Postprocessing
from trivox.inference.rules.region_trials import RegionEvidence, RegionParts
from trivox.inference.rules.rule_trials import (
    Choice,
    Evidence,
    LabelEvidence,
    choose_rules,
    evidence_of,
)
from trivox.learning.ranks.sharing import from_first, shared
from trivox.learning.runtime import make_runtime, rank
from trivox.tasks.console import Console, working
from trivox.tasks.labels.calibration import Trust, calibrate
from trivox.tasks.labels.classes import FoldAnswers
from trivox.tasks.labels.held_out_classes import ClassLesson, HeldOutAnswers
from trivox.tasks.labels.prepared import PreparedImages
from trivox.tasks.labels.promises.held_out import HeldOut, held_out
from trivox.tasks.labels.promises.missed import learn_missed_shares
from trivox.tasks.labels.promises.volumes import VolumeLesson, learn_volumes
from trivox.volumes.formats import read_header, read_labels, write_volume
from trivox.volumes.volume import Volume


@dataclass(frozen=True, eq=False)
class TrainedFolds:
    """Networks that were trained on folds of a dataset.

    weights: file of each fold; classes: what is known about the class of a case, None:
    there is none; answers: how each fold answers with a class.
    """

    prepared: PreparedImages
    recipe: Recipe
    weights: Mapping[str, Path]
    classes: ClassDescription | None
    device: str
    answers: dict[str, FoldAnswers] = field(default_factory=dict)

    @property
    def scheme(self) -> LabelScheme:
        """What the labels mean."""
        return self.prepared.plan.labels

    @property
    def classifiers(self) -> dict[str, Path]:
        """File of each fold's classifier; none where its head answers."""
        files = {fold: answer.file for fold, answer in self.answers.items()}
        return {fold: file for fold, file in files.items() if file is not None}

    @property
    def cases(self) -> dict[str, Case]:
        """The training cases by name."""
        return {case.name: case for case in self.prepared.dataset.training_cases}

    def held_out(self, fold: str) -> Sequence[str]:
        """Names of the cases that a fold's network has not seen."""
        return self.prepared.splits[int(fold)].validation

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Each fold with each case that it has not seen."""
        pairs: list[tuple[str, str]] = []
        for fold in self.weights:
            pairs += [(fold, name) for name in self.held_out(fold)]
        return pairs

    @property
    def all_held_out(self) -> list[str]:
        """Names of the cases that some fold has not seen, each once."""
        return list(dict.fromkeys(name for _, name in self.pairs))


@dataclass(frozen=True, eq=False)
class Validation:
    """Content of metrics.json, and what was learnt on the held-out cases for the
    bundle.
    """

    metrics: MetricsFile
    postprocessing: Postprocessing
    trust: Trust
    volumes: VolumeLesson
    missed: MissedControl | None
    missed_lesions: MissedControl | None
    head_temperature: float = 1.0


@dataclass(frozen=True, eq=False)
class Lesson:
    """What the prediction of a held-out case teaches.

    classes: what is known about its class; evidence: from which postprocessing is
    chosen; sample: voxels, from which trust is learnt; None: nothing.
    """

    fold: str
    name: str
    classes: ClassLesson | None
    evidence: Evidence | None
    sample: HeldOut | None


KINDS = (
    *(Lesson, ClassLesson, Classification, Reading),
    *(LabelEvidence, RegionEvidence, RegionParts),
    *(HeldOut, VoxelSample, LesionSample),
)
"""Parts of a lesson."""


@dataclass(eq=False)
class Evidences:
    """What the predictions of the held-out cases teach, by case.

    classes: answers, from which their scores follow; labels: from which postprocessing
    is chosen; samples: voxels, from which trust is learnt.
    """

    classes: HeldOutAnswers
    labels: dict[str, Evidence] = field(default_factory=dict)
    samples: dict[str, HeldOut] = field(default_factory=dict)

    def add(self, lesson: Lesson) -> None:
        """Take note of a case."""
        if lesson.classes is not None:
            self.classes.add(lesson.fold, lesson.name, lesson.classes)
        if lesson.evidence is not None and lesson.sample is not None:
            self.labels[lesson.name] = lesson.evidence
            self.samples[lesson.name] = lesson.sample


def validate_folds(
    folds: TrainedFolds,
    out: Path,
    *,
    task: str,
    whole: str | None,
    warnings: Sequence[str] = (),
    console: Console,
) -> Validation | None:
    """Predict each fold's held-out cases with that fold's network, measure them and
    learn what the bundle needs.

    whole: name under which all labels together are measured as well; warnings: what a
    reader of the figures has to know. Cases without a
    label map do not count in the scores of labels, those without a class not in the
    classifier's. Writes `out/predictions/CASE.nii.gz` and `out/metrics.json`, both
    after postprocessing. One case at a time is in memory. Ranks share the cases; only
    the first returns what they give.
    """
    seed = folds.recipe.seed
    predict = partial(_predict_held_out, folds, out, console)
    lessons = shared(folds.all_held_out, predict, KINDS)
    evidences = Evidences(HeldOutAnswers(folds.prepared, folds.answers))
    for lesson in _fold_by_fold(folds, lessons):
        evidences.add(lesson)

    def choose() -> Choice:
        with working(console, "choosing postprocessing"):
            cases = list(evidences.labels.values())
            return choose_rules(cases, folds.scheme, seed=seed)

    choice = from_first(choose, (Choice, Postprocessing))
    known = [name for name in folds.all_held_out if folds.cases[name].label is not None]
    measure = partial(_measure, folds, choice.rules, out, whole, console)
    rows = shared(known, measure, ())
    if rank() != 0:
        return None
    cases = dict(zip(known, rows, strict=True))
    metrics = collect_metrics(cases, task=task, whole=whole, warnings=warnings)
    with working(console, "calibrating"):
        trust = calibrate(evidences.samples, folds.scheme, seed=seed)
    metrics["postprocessing"] = cast(PostprocessingSection, choice.section)
    metrics["calibration"] = trust.section
    volumes = learn_volumes(
        cases,
        {name: fold for fold, name in folds.pairs},
        list(folds.scheme.targets),
        offset_ml=math.prod(folds.prepared.plan.spacing) / 1000,
        seed=seed,
    )
    metrics["volume_intervals"] = volumes.section
    missed = learn_missed_shares(
        evidences.samples, folds.scheme, temperature=trust.temperature, seed=seed
    )
    metrics["missed_voxels"] = missed["voxels"].section
    metrics["missed_lesions"] = missed["lesions"].section
    metrics["sources"] = {
        name: measured_files(_file(out, name), folds.cases[name].label)
        for name in known
    }
    answers = evidences.classes
    section = answers.section(seed=seed) if answers.cases else None
    temperature = 1.0
    if section is not None:
        metrics["classification"] = section
        temperature = answers.head_temperature()
    write_json(out / "metrics.json", metrics)
    return Validation(
        metrics,
        choice.rules,
        trust,
        volumes,
        missed["voxels"].control,
        missed["lesions"].control,
        temperature,
    )


def _fold_by_fold(
    folds: TrainedFolds, lessons: Sequence[Sequence[Lesson]]
) -> list[Lesson]:
    """The lessons of the cases in the order of the folds and their cases."""
    known = {(each.fold, each.name): each for each in chain(*lessons)}
    return [known[pair] for pair in folds.pairs if pair in known]


def _predict_held_out(
    folds: TrainedFolds, out: Path, console: Console, names: Sequence[str]
) -> list[list[Lesson]]:
    """Write the label maps of held-out cases; returns what each teaches in the folds
    that have not seen it.
    """
    lessons: dict[str, list[Lesson]] = {name: [] for name in names}
    for fold in folds.weights:
        part = [name for name in folds.held_out(fold) if name in lessons]
        if not part:
            continue
        predictor = fold_predictor(folds, fold, compared=True)
        for name in console.track(part, len(part), f"validating fold {fold}"):
            lessons[name].append(_lesson(folds, fold, name, predictor, out))
    return list(lessons.values())


def _lesson(
    folds: TrainedFolds, fold: str, name: str, predictor: Predictor, out: Path
) -> Lesson:
    """Predict a case, and note what that teaches."""
    scheme = folds.scheme
    case = folds.cases[name]
    reference = None
    if case.label is not None:
        image = read_header(case.images[0], choice=case.choice)
        reference = _indices(case, scheme, image.grid).array[0]
    prediction = predictor.predict_case(case, reference=reference)
    write_volume(_file(out, name), prediction.labels)
    classes = _class_lesson(prediction)
    if reference is None:
        return Lesson(fold, name, classes, None, None)
    evidence = evidence_of(
        scheme.encode(prediction.labels.array[0]),
        reference,
        scheme,
        voxel_mm3=prediction.labels.voxel_ml * 1000,
    )
    assert prediction.sample is not None
    sample = held_out(
        fold,
        prediction.sample,
        evidence.dice,
        reference,
        cases=len(folds.pairs),
        trust=prediction.trust,
    )
    return Lesson(fold, name, classes, evidence, sample)


def _class_lesson(prediction: Prediction) -> ClassLesson | None:
    if prediction.classification is None:
        return None
    return ClassLesson(prediction.classification, prediction.readings[0])


def _measure(
    folds: TrainedFolds,
    rules: Postprocessing,
    out: Path,
    whole: str | None,
    console: Console,
    names: Sequence[str],
) -> Iterator[dict[str, TargetMetrics]]:
    """Clean the label maps by the rules that were chosen, and measure them."""
    scheme = folds.scheme
    cases = folds.cases
    targets = scheme.targets if whole is None else with_whole(scheme, whole)
    for name in console.track(names, len(names), "measuring"):
        predicted = read_labels(_file(out, name))
        indices = scheme.encode(predicted.array[0])
        voxel_mm3 = predicted.voxel_ml * 1000
        cleaned = rules.apply(indices, scheme, voxel_mm3=voxel_mm3)
        if cleaned is not indices:
            write_volume(_file(out, name), predicted.with_array(scheme.decode(cleaned)))
        reference = _indices(cases[name], scheme, predicted)
        yield evaluate_case(
            cleaned, reference.array[0], spacing=reference.steps, targets=targets
        )


def _file(out: Path, name: str) -> Path:
    return out / "predictions" / f"{name}.nii.gz"


def fold_predictor(
    folds: TrainedFolds, fold: str, *, compared: bool = False
) -> Predictor:
    """A predictor of one fold's weights alone, without postprocessing; for classes with
    that fold's classifier, if it was fitted already.

    compared: whether its votes, mirrored copies, are, where there are several.
    """
    recipe = folds.recipe
    description = LabelDescription(
        task=folds.prepared.plan.task,
        plan=folds.prepared.plan,
        overlap=recipe.overlap,
        mirror_axes=recipe.inference_axes,
        classification=folds.classes,
    )
    classifier = folds.classifiers.get(fold)
    predictor = Predictor.of(
        description,
        [folds.weights[fold]],
        make_runtime(folds.device, recipe.precision),
        classifiers=[] if classifier is None else [classifier],
        read_everything=True,
    )
    return replace(predictor, extras=Extras(compared=compared))


def _indices(case: Case, scheme: LabelScheme, grid: Volume) -> Volume:
    """The reference label map as indices, with the axes of a volume on its grid."""
    volume = read_reference(case, scheme, grid)
    return volume.with_array(scheme.encode(volume.array, where=case.name))
