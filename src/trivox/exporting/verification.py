"""Whether an export gives what the model gives: its own program runs in a process of
its own, on files, and its label maps are compared with the model's.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.datasets.reading import read_reference
from trivox.errors import BundleError, DataError, of_case
from trivox.evaluation.metrics.components import label_components, sizes
from trivox.evaluation.metrics.overlap import confusion, dice
from trivox.exporting.card import CARD
from trivox.exporting.phantom_scans import phantom_scans
from trivox.exporting.verdict import (
    SMALL_ML,
    ClassScore,
    LabelScore,
    Verdict,
    require_agreement,
)
from trivox.files import read_object
from trivox.inference.describe import Prediction
from trivox.inference.predictor import Predictor
from trivox.inference.read import read_image
from trivox.scratch import scratch_folder
from trivox.volumes.formats import read_labels, write_volume
from trivox.volumes.volume import Array, Volume

SAID = "computed by "
"""What the exported program says before what computed its networks."""


@dataclass
class _Tally:
    """Of one label, case by case."""

    original: list[float] = field(default_factory=list)
    export: list[float] = field(default_factory=list)
    agreement: list[float] = field(default_factory=list)
    touched_original: list[bool] = field(default_factory=list)
    touched_export: list[bool] = field(default_factory=list)

    def score(self) -> LabelScore:
        return LabelScore(
            original=_mean(self.original),
            export=_mean(self.export),
            agreement=_mean(self.agreement),
            small=len(self.touched_original),
            small_original=_mean(self.touched_original),
            small_export=_mean(self.touched_export),
        )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def verified(
    export: Path,
    predictor: Predictor,
    cases: Sequence[Case],
    *,
    whose: str,
    precision: str,
    accept_loss: bool = False,
) -> Verdict:
    """How an export in a folder compares with its model, on cases or else phantoms.

    Raises `BundleError` if it does not agree, `DataError` if no case can be read.
    """
    with scratch_folder() as folder:
        given = tuple(cases) or phantom_scans(predictor.members[0].plan, folder)
        comparison = _Comparison(
            export, _in_single(predictor), folder, logits=not cases
        )
        for case in given:
            comparison.add(case)
    verdict = comparison.verdict(whose)
    require_agreement(verdict, precision=precision, accept_loss=accept_loss)
    return verdict


def _in_single(predictor: Predictor) -> Predictor:
    """The model without nnU-Net's sums in half precision, which the exported program
    leaves out (`trivox.exporting.card.left_out`) and is not blamed for.
    """
    members = []
    for member in predictor.members:
        grid = member.plan.grid
        logits = grid.logits.model_copy(update={"half": False})
        grid = grid.model_copy(update={"sums": "single", "logits": logits})
        plan = member.plan.model_copy(update={"grid": grid})
        windows = replace(member.windows, half=False)
        members.append(replace(member, plan=plan, windows=windows))
    return replace(predictor, members=tuple(members))


class _Comparison:
    """Label maps of the model and of its export, case by case."""

    def __init__(
        self, export: Path, predictor: Predictor, folder: Path, *, logits: bool
    ) -> None:
        self.export = export
        self.logits = folder / "logits.npy" if logits else None
        pipeline = read_object(export / CARD)["pipeline"]
        self.classes = folder / "classes.json" if pipeline["classes"] else None
        self.probabilities: list[tuple[Array, Array]] = []
        self.apart: list[float] = []
        self.predictor = predictor
        self.folder = folder
        self.tallies = {name: _Tally() for name in predictor.labels.targets}
        self.equal = 0
        self.labelled = 0
        self.seconds: list[tuple[float, float]] = []
        self.left_aside: list[str] = []
        self.runtime = ""

    def add(self, case: Case) -> None:
        """Predict a case by both; one that cannot be read is left aside."""
        scheme = self.predictor.labels
        try:
            started = time.perf_counter()
            prediction = self.predictor.predict_case(case)
            by_torch = time.perf_counter() - started
            reference = _reference(case, scheme, prediction.labels)
        except DataError as error:
            self.left_aside.append(of_case(case.name, str(error)))
            return
        original = prediction.labels
        started = time.perf_counter()
        exported = self._exported(case)
        if self.classes is not None:
            self._compare_classes(prediction, self.classes)
        self.seconds.append((by_torch, time.perf_counter() - started))
        if self.logits is not None:
            self.apart.append(self._logits_apart(case, self.logits))
        labels = scheme.encode(original.array[0])
        self._compare(labels, scheme.encode(exported), reference, original)

    def _compare_classes(self, prediction: Prediction, file: Path) -> None:
        """Probabilities of one case by both; file: what the export answered."""
        assert prediction.classification is not None
        original = prediction.classification.probabilities
        exported = read_object(file)["probabilities"]
        self.probabilities.append(
            (
                np.array([original[name] for name in original]),
                np.array([exported[name] for name in original]),
            )
        )

    def _class_score(self) -> ClassScore | None:
        if not self.probabilities:
            return None
        alike = [bool(a.argmax() == b.argmax()) for a, b in self.probabilities]
        apart = [float(np.abs(a - b).max()) for a, b in self.probabilities]
        return ClassScore(float(np.mean(alike)), max(apart))

    def _exported(self, case: Case) -> Array:
        """Label values `(z, y, x)` by the export's own program."""
        files = self._as_nifti(case)
        out = self.folder / "exported.nii.gz"
        out.unlink(missing_ok=True)
        command = [sys.executable, str(self.export / "run.py"), *map(str, files)]
        command += ["--out", str(out)]
        if self.logits is not None:
            command += ["--logits", str(self.logits)]
        if self.classes is not None:
            command += ["--classes", str(self.classes)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["no reason"]
            raise BundleError(
                f"{case.name}: the exported program failed ({said[-1][:200]}); nothing "
                "was written"
            )
        self.runtime = done.stdout.strip().rpartition(SAID)[2]
        return np.asarray(read_labels(out).array[0])

    def _logits_apart(self, case: Case, file: Path) -> float:
        """How far the logits of both lie apart, as a share of their size; 1 where they
        are on another grid.
        """
        exported = np.load(file)
        members = self.predictor.members
        begun = self.predictor.begin(case)
        ready = begun.made_ready(members, self.predictor.descriptions)
        total = np.zeros(exported.shape, np.float32)
        for member, prepared in zip(members, ready.cases, strict=True):
            slabs = member.windows.slabs(prepared.image)
            logits = np.concatenate([slab.logits.numpy().copy() for slab in slabs], 1)
            if logits.shape != exported.shape:
                return 1.0
            total += logits / len(members)
        difference = np.sqrt(np.square(exported - total).mean())
        return float(difference / max(np.sqrt(np.square(total).mean()), 1e-12))

    def _as_nifti(self, case: Case) -> list[Path]:
        """The channels of a case, in the order of the model, a file each."""
        predictor = self.predictor
        volume = read_image(case, predictor.channels, missing=predictor.missing)
        files = []
        for number, channel in enumerate(volume.array):
            file = self.folder / f"channel{number}.nii.gz"
            write_volume(file, Volume(channel[None], volume.affine))
            files.append(file)
        return files

    def _compare(
        self, original: Array, exported: Array, reference: Array | None, grid: Volume
    ) -> None:
        """Label indices `(z, y, x)` of one case."""
        either = (original > 0) | (exported > 0)
        self.labelled += int(either.sum())
        self.equal += int((either & (original == exported)).sum())
        for name, indices in self.predictor.labels.targets.items():
            tally = self.tallies[name]
            masks = [np.isin(labels, indices) for labels in (original, exported)]
            _append(tally.agreement, _dice(*masks))
            if reference is None:
                continue
            truth = np.isin(reference, indices)
            _append(tally.original, _dice(masks[0], truth))
            _append(tally.export, _dice(masks[1], truth))
            for lesion in _small_lesions(truth, grid.voxel_ml):
                tally.touched_original.append(bool(masks[0][lesion].any()))
                tally.touched_export.append(bool(masks[1][lesion].any()))

    def verdict(self, whose: str) -> Verdict:
        """What came out."""
        if not self.seconds:
            raise DataError(
                f"no case can be verified ({self.left_aside[0]}); give others to "
                "--verify"
            )
        equal = self.equal / self.labelled if self.labelled else 1.0
        model, export = np.mean(self.seconds, axis=0).tolist()
        scores = {name: tally.score() for name, tally in self.tallies.items()}
        return Verdict(
            whose=whose,
            cases=len(self.seconds),
            labels=scores,
            equal=equal,
            seconds=(model, export),
            left_aside=tuple(self.left_aside),
            runtime=self.runtime,
            apart=max(self.apart, default=None),
            classes=self._class_score(),
        )


def _append(values: list[float], value: float | None) -> None:
    if value is not None:
        values.append(value)


def _dice(prediction: Array, reference: Array) -> float | None:
    return dice(confusion(prediction, reference))


def _reference(case: Case, scheme: LabelScheme, grid: Volume) -> Array | None:
    """Label indices `(z, y, x)` of a case that has a label map; raises `DataError` for
    one that is damaged or lies elsewhere.
    """
    if case.label is None:
        return None
    label = read_reference(case, scheme, grid)
    return scheme.encode(label.array[0], where=case.name)


def _small_lesions(truth: Array, voxel_ml: float) -> list[Array]:
    """Masks of the components of at most `SMALL_ML`."""
    parts = label_components(truth)
    volumes = sizes(parts) * voxel_ml
    small = [part for part in range(1, len(volumes)) if volumes[part] <= SMALL_ML]
    return [parts == part for part in small]
