"""Judge: what a prediction says about itself besides the labels, as volumes with
intervals, agreement, whether to look at the case.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired

import numpy as np
import torch
from scipy.special import stdtrit
from typing_extensions import TypedDict

from trivox.config.choices import MissedKind
from trivox.datasets.labels import LabelScheme
from trivox.inference.decide import Decision, Poll, target_voxels
from trivox.inference.descriptions import LabelDescription
from trivox.inference.doubt.calibration import Abstention, foreground_entropy
from trivox.inference.doubt.conformal import VolumeIntervals, joint_interval
from trivox.inference.doubt.flags import Flag, ScoreName
from trivox.inference.doubt.kinds import Sensitive
from trivox.inference.doubt.likeness import Look, look_at
from trivox.inference.doubt.shift import CaseVolumes
from trivox.inference.doubt.uncertainty import entropy
from trivox.inference.members import Member
from trivox.planning.plan import Plan
from trivox.preparation.grid import PreparedCase
from trivox.volumes.volume import Array, Volume

UNLIKE = (
    "the image is not like the training images: the 90 % interval is of cases like those "
    "and may not hold here"
)
UNLIKE_MISSED = (
    "the image is not like the training images: more may be missed here than in cases "
    "like those"
)
LEVELS = (0.025, 0.975)
"""Probabilities that bound the volume of a single vote."""


class TargetVolume(TypedDict, total=False):
    """Volume of a target, and what probabilities say about it where they were at hand;
    method: `t_of_votes` or `probability_levels`.

    volume_ml_low, volume_ml_high: what holds the true volume in 90 % of cases like
    those of validation, where the model knows that; None: from too few cases; interval:
    whether validation cases were weighed for it, where that was asked for, and as how
    many equal ones they then count (effective_cases); caution: why it may not hold here.
    """

    volume_ml: float
    volume_ml_low: float | None
    volume_ml_high: float | None
    interval: Literal["weighted", "unweighted"]
    effective_cases: float
    caution: str
    ci95_ml: list[float]
    expected_ml: float
    method: str


class SensitiveTarget(TypedDict):
    """A target in the map in which few voxels or lesions are missed: with the threshold,
    learnt on so many validation cases, at most a share of max_missed of its voxels, or
    lesions, as `missed` says, is missed in the mean of cases like those. threshold: None:
    they were too few, the map has what the label map has; caution: why it may not hold
    here.
    """

    max_missed: float
    missed: NotRequired[MissedKind]
    threshold: float | None
    cases: int
    volume_ml: float
    caution: NotRequired[str]


class Judgement(TypedDict):
    """What stands in the record of a case, ready for JSON.

    votes, agreement: where there were several; score: with a rule, flag: what it is of,
    entropy or 1 - agreement; unlike: where it is known what training images look like;
    abstain, reason: with either; sensitive: where
    few voxels shall be missed, by target, in the order of the map.
    """

    volumes: dict[str, TargetVolume]
    sensitive: NotRequired[dict[str, SensitiveTarget]]
    votes: NotRequired[int]
    agreement: NotRequired[float | None]
    abstain: NotRequired[bool]
    score: NotRequired[float | None]
    flag: NotRequired[ScoreName]
    unlike: NotRequired[list[str]]
    reason: NotRequired[str | None]


def judge(
    decision: Decision,
    scheme: LabelScheme,
    rule: Abstention | None,
    *,
    flag: Flag | None = None,
    unlike: Sequence[str] | None,
    temperature: float,
    voxel_ml: float,
    intervals: Sequence[VolumeIntervals] = (),
    weighted: CaseVolumes | None = None,
) -> Judgement:
    """What the record of a case says about its prediction.

    rule: by entropy; flag: by agreement of the votes, in its place; unlike: of
    `unlike_training`; temperature: of the member that decides, where there
    is a single one; intervals: what each model knows of volumes; none: nothing; weighted:
    what is known by weighing validation cases.
    """
    volumes = volumes_of(decision, scheme, voxel_ml=voxel_ml)
    if intervals:
        _add_intervals(volumes, intervals, weighted, unlike=bool(unlike))
    judgement: Judgement = {"volumes": volumes}
    if decision.votes > 1:
        judgement |= {"votes": decision.votes, "agreement": decision.agreement}
    reasons: list[str] = []
    if unlike is not None:
        judgement["unlike"] = list(unlike)
        if unlike:
            reasons.append(f"not like the training images: {', '.join(unlike)}")
    score: float | None
    if flag is not None and decision.votes != flag.votes:
        flag = None  # they would have taken too much memory
    if flag is not None:
        rule = flag.rule
        agreement = decision.agreement if decision.raw.any() else None
        score = None if agreement is None else 1 - agreement
    elif rule is not None:
        score = doubt_in_foreground(
            decision, exclusive=scheme.exclusive, temperature=temperature
        )
    if rule is not None:
        reason = rule.reason(score)
        judgement["score"] = score
        judgement["flag"] = "entropy" if flag is None else "agreement"
        reasons += [] if reason is None else [reason]
    if rule is not None or unlike is not None:
        judgement |= {"abstain": bool(reasons), "reason": "; ".join(reasons) or None}
    return judgement


def sensitive_targets(
    asked: Sensitive, marked: Volume, *, unlike: bool
) -> dict[str, SensitiveTarget]:
    """What the record says of a map `(target, z, y, x)` in which few are missed."""
    targets: dict[str, SensitiveTarget] = {}
    for row, (name, threshold) in enumerate(asked.thresholds.items()):
        targets[name] = {
            "max_missed": asked.max_missed,
            "missed": asked.missed,
            "threshold": threshold,
            "cases": asked.cases[name],
            "volume_ml": int(np.count_nonzero(marked.array[row])) * marked.voxel_ml,
        }
        if unlike:
            targets[name]["caution"] = UNLIKE_MISSED
    return targets


def unlike_training(
    descriptions: Sequence[LabelDescription],
    members: Sequence[Member],
    cases: Sequence[PreparedCase],
) -> list[str] | None:
    """How the image is unlike those that each model was trained on, as each sees it;
    None where no model knows what they looked like.

    cases: the image as prepared for each member.
    """
    sentences: dict[str, None] = {}
    known = False
    for description in descriptions:
        plan = description.plan
        for member, case in zip(members, cases, strict=True):
            if description.likeness is None or member.plan != plan:
                continue
            known = True
            look = look_of(case, plan)
            sentences |= dict.fromkeys(description.likeness.complaints(look))
    return list(sentences) if known else None


def look_of(case: PreparedCase, plan: Plan) -> Look:
    """Look at an image that was prepared as a plan says."""
    return look_at(
        case.image,
        channels=len(plan.channels),
        source_spacing=case.record.cropped_spacing,
        spacing=plan.spacing,
    )


def volumes_of(
    decision: Decision, scheme: LabelScheme, *, voxel_ml: float
) -> dict[str, TargetVolume]:
    """Volume of each target in ml, with a 95 % interval where probabilities were at
    hand.
    """
    counts = target_voxels(decision.labels, scheme)
    volumes: dict[str, TargetVolume] = {}
    for row, name in enumerate(scheme.targets):
        volumes[name] = {"volume_ml": float(counts[row]) * voxel_ml}
        if decision.poll is not None:
            volumes[name] |= _interval(
                decision, decision.poll, scheme, row, voxel_ml=voxel_ml
            )
    return volumes


def _add_intervals(
    volumes: Mapping[str, TargetVolume],
    intervals: Sequence[VolumeIntervals],
    weighted: CaseVolumes | None,
    *,
    unlike: bool,
) -> None:
    """Say of each target between what volumes the true one lies."""
    for name, volume in volumes.items():
        bounds = joint_interval(intervals, name, volume["volume_ml"])
        if weighted is not None and bounds is not None:
            bounds = _weighted(volume, name, weighted) or bounds
        low, high = bounds or (None, None)
        volume["volume_ml_low"] = low
        volume["volume_ml_high"] = high
        if unlike and bounds is not None:
            said = [volume["caution"]] if "caution" in volume else []
            volume["caution"] = "; ".join([UNLIKE, *said])


def _weighted(
    volume: TargetVolume, name: str, weighted: CaseVolumes
) -> tuple[float, float] | None:
    """The bounds by weights, and how they were made; None where weights are useless."""
    bounds = weighted.interval(name, volume["volume_ml"])
    if bounds is None:
        volume["interval"] = "unweighted"
        volume["caution"] = weighted.why_not
        return None
    volume["interval"] = "weighted"
    volume["effective_cases"] = weighted.effective
    return bounds


def _interval(
    decision: Decision, poll: Poll, scheme: LabelScheme, row: int, *, voxel_ml: float
) -> TargetVolume:
    """What probabilities say about the volume of the target of number `row`."""
    first = 1 if scheme.exclusive else 0  # the channel of the first target
    chance = poll.probabilities[first + row].numpy()
    low: float
    high: float
    if len(poll.volumes) > 1:
        method = "t_of_votes"
        low, high = interval_of_votes(poll.volumes[:, row] * voxel_ml)
    else:
        method = "probability_levels"
        inside = list(scheme.targets.values())[row]
        removed = np.isin(decision.raw, inside) & (decision.raw != decision.labels)
        certain, possible = interval_of_levels(
            chance, np.isin(decision.labels, inside), removed
        )
        low = certain * voxel_ml
        high = possible * voxel_ml
    expected = float(chance.sum(dtype=np.float64)) * voxel_ml
    return {"ci95_ml": [low, high], "expected_ml": expected, "method": method}


def doubt_in_foreground(
    decision: Decision, *, exclusive: bool, temperature: float
) -> float | None:
    """Mean entropy of the decision in the predicted foreground, before cleaning; None
    where nothing was found.

    From a sample of voxels where a single member decided, as in validation, otherwise
    from the members' probabilities.
    """
    if decision.sample is not None:
        return foreground_entropy(
            decision.sample.logits, exclusive=exclusive, temperature=temperature
        )
    foreground = torch.from_numpy(decision.raw > 0)
    if decision.poll is None or not foreground.any():
        return None
    chance = decision.poll.probabilities[:, foreground]
    return float(entropy(chance, exclusive=exclusive).mean())


def interval_of_votes(volumes: Array) -> tuple[float, float]:
    """95 % prediction interval of one more vote: mean +- t(0.975, n - 1) s sqrt(1 +
    1/n), not below 0; `(n,)`, n above 1.
    """
    count = len(volumes)
    centre = float(np.mean(volumes))
    spread = float(np.std(volumes, ddof=1))
    half = float(stdtrit(count - 1, 0.975)) * spread * (1 + 1 / count) ** 0.5
    return max(0.0, centre - half), centre + half


def interval_of_levels(
    chance: Array, predicted: Array, removed: Array
) -> tuple[int, int]:
    """Voxels of the target that are nearly certain (p above 0.975), and those that are
    not excluded (p above 0.025).

    chance: probabilities `(z, y, x)`; predicted: where the label map has it; removed:
    where postprocessing took it away. Neighbouring voxels err together, so their variances
    cannot be added up as if they were independent; this band takes them to err all at
    once, and is wide rather than narrow.
    """
    low, high = LEVELS
    certain = int(np.count_nonzero((chance > high) & predicted))
    return certain, int(np.count_nonzero(((chance > low) & ~removed) | predicted))
