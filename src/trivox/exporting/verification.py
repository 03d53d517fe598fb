"""Whether an export gives what the model gives: its own program runs in a process of
its own, on files, and its label maps are compared with the model's.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.datasets.reading import read_reference
from trivox.errors import BundleError, DataError, of_case
from trivox.evaluation.metrics.components import label_components, sizes
from trivox.evaluation.metrics.overlap import confusion, dice
from trivox.exporting.phantom_scans import phantom_scans
from trivox.inference.predictor import Predictor
from trivox.inference.read import read_image
from trivox.volumes.formats import read_labels, write_volume
from trivox.volumes.volume import Array, Volume

SMALL_ML = 1.0
"""Volume of a small lesion."""
LEAST_EQUAL = {"fp32": 0.999, "fp16": 0.99, "bf16": 0.98, "int8": 0.9}
"""Share of the voxels, of those that are not background in either label map, that have
one label; fp32 differs where classes are equal, by rounding alone.
"""
MOST_APART = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 0.1, "int8": 0.5}
"""Root mean square of the difference of the logits, as a share of theirs, on phantoms:
a model may find nothing there, and all label maps be alike.
"""
SAID = "computed by "
"""What the exported program says before what computed its networks."""
MOST_LOST = 0.005
"""Dice that int8 may cost."""


@dataclass(frozen=True)
class LabelScore:
    """Of one label, means over the cases that have it; None where none has.

    original, export: Dice against the references; agreement: Dice between the two;
    small: lesions below 1 ml in the references, and the shares that each touches.
    """

    original: float | None
    export: float | None
    agreement: float | None
    small: int = 0
    small_original: float | None = None
    small_export: float | None = None


@dataclass(frozen=True)
class Verdict:
    """How an export compares with its model.

    equal: share of the voxels with one label, where either has one; seconds: of a case,
    the model's in fp32 by torch and the export's with its start; runtime: what computed
    the export, as its program says.
    """

    whose: str
    cases: int
    labels: Mapping[str, LabelScore]
    equal: float
    seconds: tuple[float, float]
    left_aside: tuple[str, ...] = ()
    runtime: str = ""
    apart: float | None = None
    """Of the logits, see `MOST_APART`; None where they were not compared."""

    @property
    def summary(self) -> dict[str, Any]:
        """For `export.json`."""
        return {
            "on": self.whose,
            "runtime": self.runtime,
            "cases": self.cases,
            "equal_voxels": self.equal,
            "logits_apart": self.apart,
            "seconds_a_case": {"model": self.seconds[0], "export": self.seconds[1]},
            "labels": {name: vars(score) for name, score in self.labels.items()},
            "small_lesion_ml": SMALL_ML,
            "left_aside": list(self.left_aside),
        }

    @property
    def lines(self) -> list[str]:
        """For a terminal."""
        lines = [
            f"verified on {self.cases} {self.whose}: {self.equal:.5f} of the labelled "
            f"voxels equal; {self.seconds[0]:.1f} s a case by torch in fp32, "
            f"{self.seconds[1]:.1f} s exported ({self.runtime})",
            f"{'label':20} {'Dice':>7} {'export':>7} {'agree':>7}  small lesions",
        ]
        for name, score in self.labels.items():
            small = "none"
            if score.small:
                small = (
                    f"{_shown(score.small_original)} -> {_shown(score.small_export)} "
                    f"of {score.small}"
                )
            lines.append(
                f"{name[:20]:20} {_shown(score.original):>7} {_shown(score.export):>7} "
                f"{_shown(score.agreement):>7}  {small}"
            )
        return [*lines, *(f"not verified on {line}" for line in self.left_aside)]

    @property
    def lost(self) -> float:
        """Mean Dice that the export loses against the references."""
        losses = [
            score.original - score.export
            for score in self.labels.values()
            if score.original is not None and score.export is not None
        ]
        return float(np.mean(losses)) if losses else 0.0


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


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
            _mean(self.original),
            _mean(self.export),
            _mean(self.agreement),
            len(self.touched_original),
            _mean(self.touched_original),
            _mean(self.touched_export),
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
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
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


def require_agreement(verdict: Verdict, *, precision: str, accept_loss: bool) -> None:
    """Raise `BundleError` for an export that differs from its model by more than its
    precision explains, unless the loss is accepted.
    """
    least = LEAST_EQUAL[precision]
    apart = verdict.apart or 0.0
    if apart > MOST_APART[precision] and not accept_loss:
        raise BundleError(
            f"the export gives other logits than the model: they lie {apart:.2g} of "
            f"their size apart on {verdict.whose}, at most {MOST_APART[precision]:g} is "
            f"expected of {precision}; nothing was written"
        )
    if precision == "int8" and verdict.lost > MOST_LOST and not accept_loss:
        raise BundleError(
            f"the export in int8 loses {100 * verdict.lost:.2f} Dice points on "
            f"{verdict.cases} {verdict.whose}, more than {100 * MOST_LOST:g}; take "
            "bf16, give more cases to --calibrate, or keep it with --accept-loss"
        )
    if verdict.equal < least and not accept_loss:
        raise BundleError(
            f"the export gives other labels than the model: {verdict.equal:.4f} of the "
            f"labelled voxels of {verdict.cases} {verdict.whose} are equal, at least "
            f"{least:g} are expected of {precision}; nothing was written"
        )


class _Comparison:
    """Label maps of the model and of its export, case by case."""

    def __init__(
        self, export: Path, predictor: Predictor, folder: Path, *, logits: bool
    ) -> None:
        self.export = export
        self.logits = folder / "logits.npy" if logits else None
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
        self.seconds.append((by_torch, time.perf_counter() - started))
        if self.logits is not None:
            self.apart.append(self._logits_apart(case, self.logits))
        labels = scheme.encode(original.array[0])
        self._compare(labels, scheme.encode(exported), reference, original)

    def _exported(self, case: Case) -> Array:
        """Label values `(z, y, x)` by the export's own program."""
        files = self._as_nifti(case)
        out = self.folder / "exported.nii.gz"
        out.unlink(missing_ok=True)
        command = [sys.executable, str(self.export / "run.py"), *map(str, files)]
        command += ["--out", str(out)]
        if self.logits is not None:
            command += ["--logits", str(self.logits)]
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
            whose,
            len(self.seconds),
            scores,
            equal,
            (model, export),
            tuple(self.left_aside),
            self.runtime,
            max(self.apart, default=None),
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
