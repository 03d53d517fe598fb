"""How an export compares with its model, and by how much it may differ."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trivox.errors import BundleError

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
MOST_CHANCE_APART = {"fp32": 0.02, "fp16": 0.05, "bf16": 0.2, "int8": 0.4}
"""Difference of the probability of a class: rounding of logits moves a few voxels of the
lesion that it is read from.
"""
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
class ClassScore:
    """Of the class of a case: the share of cases with one answer, and the largest
    difference of a probability.
    """

    alike: float
    apart: float


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
    classes: ClassScore | None = None
    """None where there are none."""

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
            "classes": None if self.classes is None else vars(self.classes),
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
        if self.classes is not None:
            lines.append(
                f"class: {self.classes.alike:.3f} of the cases answered alike, "
                f"probabilities at most {self.classes.apart:.4f} apart"
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


def require_agreement(verdict: Verdict, *, precision: str, accept_loss: bool) -> None:
    """Raise `BundleError` for an export that differs from its model by more than its
    precision explains, unless the loss is accepted.
    """
    complaint = next(_complaints(verdict, precision), None)
    if complaint is not None and not accept_loss:
        raise BundleError(complaint)


def _complaints(verdict: Verdict, precision: str) -> Iterator[str]:
    """What differs by more than a precision explains, what says most first."""
    apart = verdict.apart or 0.0
    if apart > MOST_APART[precision]:
        yield (
            f"the export gives other logits than the model: they lie {apart:.2g} of "
            f"their size apart on {verdict.whose}, at most {MOST_APART[precision]:g} is "
            f"expected of {precision}; nothing was written"
        )
    if precision == "int8" and verdict.lost > MOST_LOST:
        yield (
            f"the export in int8 loses {100 * verdict.lost:.2f} Dice points on "
            f"{verdict.cases} {verdict.whose}, more than {100 * MOST_LOST:g}; take "
            "bf16, give more cases to --calibrate, or keep it with --accept-loss"
        )
    classes = verdict.classes
    if classes is not None and classes.apart > MOST_CHANCE_APART[precision]:
        yield (
            f"the export gives other classes than the model: a probability differs by "
            f"{classes.apart:.2g} on {verdict.whose}, at most "
            f"{MOST_CHANCE_APART[precision]:g} is expected of {precision}; nothing was "
            "written"
        )
    if verdict.equal < LEAST_EQUAL[precision]:
        yield (
            f"the export gives other labels than the model: {verdict.equal:.4f} of the "
            f"labelled voxels of {verdict.cases} {verdict.whose} are equal, at least "
            f"{LEAST_EQUAL[precision]:g} are expected of {precision}; nothing was written"
        )
