"""From what probability on a voxel has to count so that few voxels of a structure, or few
of its lesions, are missed: conformal risk control (Angelopoulos et al. 2024,
arXiv:2208.02814) of the share that is missed, learnt on validation cases; for lesions see
arXiv:2510.17897.

The guarantee is of the mean over cases, and asks for one thing only: that new cases are
like the validation cases.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from trivox.config.choices import MissedKind
from trivox.datasets.labels import LabelScheme
from trivox.errors import UsageError
from trivox.inference.doubt.kinds import Sensitive
from trivox.inference.doubt.label_voxels import VoxelSample
from trivox.inference.doubt.uncertainty import probabilities_of
from trivox.schema import Frozen

STEP = 0.01
LEVELS = 50
"""Steps that thresholds are known for."""
LARGEST = STEP * LEVELS
FEWEST = 9
"""Cases that a threshold is learnt on; of fewer it says next to nothing."""
RULE = (
    "the largest threshold t on the calibrated probability for which (S(t) + 1) / (n + 1)"
    " <= level; S(t): sum over the n validation cases that have the structure of the "
    "share of its voxels with a probability below t, of up to 2000 of them a case; for "
    "levels of 0.01 to 0.50 in turn; null: of too few cases, or fewer than 9"
)
LESION_RULE = (
    "the largest threshold t on the calibrated probability for which (S(t) + 1) / (n + 1)"
    " <= level; S(t): sum over the n validation cases that have the structure of the "
    "share of its lesions (26-connected components, up to 1000 of them a case) in which "
    "no voxel has a probability of t, judged by the most probable one (before "
    "calibration) of up to 2000 of each; for levels of 0.01 to 0.50 in turn; null: of "
    "too few cases, or fewer than 9"
)

Floats = NDArray[np.float64]
Threshold = Annotated[float, Field(ge=0, le=1)]


class MissedThresholds(Frozen):
    """Thresholds of a target, for levels of 0.01, 0.02, ... each; None: too few cases.

    More may be missed from higher ones on, so they never fall.
    """

    cases: int = Field(ge=1)
    thresholds: tuple[Threshold | None, ...] = Field(
        min_length=LEVELS, max_length=LEVELS
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        known = [each for each in self.thresholds if each is not None]
        if not known:
            return self
        none = LEVELS - len(known)
        if list(self.thresholds) != [None] * none + sorted(known):
            raise ValueError("thresholds fall where more may be missed")
        least = cases_for(STEP * (none + 1))
        if self.cases < least:
            raise ValueError(f"such thresholds take {least} cases, not {self.cases}")
        return self

    def threshold(self, level: float) -> float | None:
        """For missing at most a share of `level` in the mean of cases."""
        return self.thresholds[step_of(level) - 1]


class MissedControl(Frozen):
    """What the bundle knows of missed voxels, or missed lesions, by target."""

    targets: dict[str, MissedThresholds]
    rule: str = RULE


def learn_missed(
    chances: Mapping[str, Sequence[Floats]], *, rule: str = RULE
) -> MissedControl | None:
    """From the probabilities of each target in voxels that are of it, or from which on
    each of its lesions is found, an array a case; cases without the target have none.
    None where every level takes more cases.
    """
    targets = {}
    for target, cases in chances.items():
        levels = [STEP * (step + 1) for step in range(LEVELS)]
        thresholds = tuple(threshold_of(cases, level) for level in levels)
        if cases and any(threshold is not None for threshold in thresholds):
            targets[target] = MissedThresholds(cases=len(cases), thresholds=thresholds)
    return MissedControl(targets=targets, rule=rule) if targets else None


def threshold_of(cases: Sequence[Floats], level: float) -> float | None:
    """The threshold that `RULE` says; None of too few cases.

    cases: probabilities in [0, 1] of the voxels or lesions to be found, `(n,)` each, n
    above 0.
    """
    allowed = (len(cases) + 1) * level - 1
    if allowed < -1e-9 or len(cases) < FEWEST:
        return None
    values = np.concatenate(cases)
    shares = np.concatenate([np.full(case.size, 1 / case.size) for case in cases])
    order = np.argsort(values)
    missed = np.cumsum(shares[order])  # if the threshold were just above
    too_many = np.flatnonzero(missed > allowed + 1e-9)
    return float(values[order[too_many[0]]]) if too_many.size else 1.0


def chances_of(
    sample: VoxelSample, scheme: LabelScheme, temperature: float
) -> dict[str, Floats]:
    """Calibrated probabilities of each target in voxels of a case that are of it, `(n,)`;
    targets that the case does not have are left out.

    sample: with voxels of each label.
    """
    drawn = sample.labels
    if drawn is None or drawn.reference is None or not len(drawn.reference):
        return {}
    chance = probabilities_of(
        drawn.logits.T, exclusive=scheme.exclusive, temperature=temperature
    )
    # a target of several labels takes as many as one of them has at most, since more
    # of the rarer ones are among the voxels than of the others
    most = int(drawn.reference.bincount().max())
    first = 1 if scheme.exclusive else 0  # the channel of the first target
    table = torch.from_numpy(scheme.region_table())
    chances = {}
    for row, target in enumerate(scheme.targets):
        inside = table[row][drawn.reference]
        values = chance[first + row][inside][:most]
        if len(values):
            chances[target] = values.double().numpy()
    return chances


def cases_for(level: float) -> int:
    """How many validation cases with the structure a level takes."""
    return max(FEWEST, math.ceil(1 / level - 1 - 1e-9))


def missed_share(chances: Floats, threshold: float) -> float:
    """Share of what is to be found that a threshold misses."""
    return float(np.mean(chances < threshold))


def missed_by_others(
    cases: Mapping[str, Floats], groups: Mapping[str, str], level: float
) -> Iterator[float]:
    """The share that is missed of each case with the threshold learnt on the cases of
    other groups; cases whose others are too few are left out.
    """
    for group in dict.fromkeys(groups[name] for name in cases):
        others = [case for name, case in cases.items() if groups[name] != group]
        threshold = threshold_of(others, level)
        if threshold is None:
            continue
        for name, case in cases.items():
            if groups[name] == group:
                yield missed_share(case, threshold)


def step_of(level: float) -> int:
    """The step at or below a level; raises `UsageError` for one that is none."""
    if not STEP - 1e-9 <= level <= LARGEST + 1e-9:
        raise UsageError(
            f"--max-missed {level:g}: give a share from {STEP:g} to {LARGEST:g}, for "
            "example 0.1"
        )
    return math.floor(level / STEP + 1e-9)


def sensitive(
    models: Sequence[MissedControl | None],
    level: float,
    targets: Sequence[str],
    *,
    missed: MissedKind = "voxels",
    scales: Sequence[float] = (1.0,),
) -> Sensitive:
    """What a model knows of missing at most a share of `level`.

    models: what each that votes knows, of missed voxels or lesions as `missed` says;
    targets: of the model. Raises `UsageError` where several decide, or one at other
    scales, and where no target had enough cases.
    """
    step_of(level)
    if len(models) > 1 or tuple(scales) != (1.0,):
        raise UsageError(
            "--max-missed needs one model at scale 1: thresholds were learnt on its own "
            "probabilities, not on the mean of several"
        )
    (control,) = models
    if control is None:
        raise UsageError(
            f"--max-missed {level:g}: the model knows no thresholds for missed {missed}, "
            "it was imported, or trained by an earlier version or with too few "
            "validation cases; train it again"
        )
    thresholds: dict[str, float | None] = {}
    cases: dict[str, int] = {}
    for target in targets:
        entry = control.targets.get(target)
        thresholds[target] = None if entry is None else entry.threshold(level)
        cases[target] = 0 if entry is None else entry.cases
    if not any(threshold is not None for threshold in thresholds.values()):
        raise UsageError(_impossible(level, max(cases.values())))
    return Sensitive(STEP * step_of(level), thresholds, cases, missed)


def _impossible(level: float, cases: int) -> str:
    """Why so many cases cannot promise a level, and what they can."""
    line = (
        f"--max-missed {level:g} cannot be promised: it takes {cases_for(level)} "
        f"validation cases with a structure, there were {cases}"
    )
    smallest = math.ceil(1 / (cases + 1) / STEP - 1e-9) * STEP
    return line if cases < FEWEST else f"{line}; ask for {smallest:.2g} or more"
