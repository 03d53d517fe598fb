"""Trust, learnt from the held-out cases: a temperature, a rule when to flag a case, and
how well both do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from trivox.datasets.labels import LabelScheme
from trivox.evaluation.folders.labels import CaseMetrics
from trivox.evaluation.metrics.calibration import (
    BINS,
    area_under_roc,
    measure_calibration,
    rank_correlation,
    reliability_curve,
    risk_coverage,
    top_label,
)
from trivox.evaluation.metrics.content import (
    AbstentionRule,
    CalibrationErrors,
    CalibrationMeasures,
    CalibrationSection,
    DoubtSection,
    MetricRow,
    ReliabilityCurve,
    VolumeIntervalRow,
    VolumeIntervalSection,
)
from trivox.evaluation.metrics.intervals import wilson_interval
from trivox.inference.doubt.calibration import (
    Abstention,
    choose_abstention,
    fit_temperature,
    foreground_entropy,
    known_pairs,
)
from trivox.inference.doubt.conformal import (
    LEVEL,
    RULE,
    Pairs,
    VolumeIntervals,
    band_of,
    held_by_others,
    learn_intervals,
    log_ratios,
)
from trivox.inference.doubt.sampling import BAND_VOXELS, VoxelSample
from trivox.inference.doubt.uncertainty import entropy, probabilities_of
from trivox.volumes.volume import Array

VOXELS_A_CASE = 10_000
FLOATS_IN_ALL = 50_000_000
"""Logits held over all cases: 200 MB."""
FIT_VOXELS = 200_000
"""Enough for a single number; more would only take time."""
CONVENTION = {
    "voxels": f"drawn evenly from a band: up to {VOXELS_A_CASE} a case within "
    f"{BAND_VOXELS} voxels of the reference's foreground, or as near within their slice "
    "to the predicted foreground, at source resolution; ignored voxels left out",
    "regions": "every region at every voxel is a yes-or-no prediction of its own",
    "temperature": "minimises the negative log-likelihood over all held-out cases; "
    "logits are divided by it; 1 if temperatures fitted on other cases (cross_fitted) "
    "did not lower it",
    "after": "with temperatures fitted on other cases: those of the other folds, or with "
    "one fold those of the other half of the cases (seeded halves)",
    "ece": f"top-label, {BINS} bins of equal width; adaptive_ece: of equal count; "
    "classwise_ece: mean over classes; mce: largest gap",
    "brier": "summed over classes, 0..2",
    "nll": "nats",
    "error_ranking_auroc": "chance that a wrong voxel of the band has a higher entropy "
    "than a right one",
    "doubt": "mean entropy of the predicted foreground of a case against its mean Dice "
    "before postprocessing: Spearman, and area under the risk-coverage curve with risk 1 "
    "- Dice (best and random order beside it)",
}
VOLUME_CONVENTION = {
    "intervals": RULE,
    "factor": "true volume over predicted volume; the interval of a prediction is its "
    "volume times low_factor to high_factor, both volumes with the offset",
    "coverage": "share of held-out cases whose true volume lay in an interval learnt on "
    "the other folds, or with one fold on the other half of the cases (seeded halves); "
    "ci95: Wilson",
}


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A validation case: its fold, a sample of its voxels, its mean Dice, and whether
    its reference is empty.
    """

    fold: str
    sample: VoxelSample
    dice: float
    empty: bool


@dataclass(frozen=True, eq=False)
class Trust:
    """temperature and abstention go into the bundle, the section into metrics.json as
    `calibration`.
    """

    temperature: float
    abstention: Abstention | None
    section: CalibrationSection


def held_out(
    fold: str, sample: VoxelSample, dice: Array, reference: Array, *, cases: int
) -> HeldOut:
    """Keep what calibration needs of a case.

    dice: of each label; reference: indices; cases: how many share the memory.
    """
    known = dice[~np.isnan(dice)]
    share = max(1000, FLOATS_IN_ALL // (cases * sample.logits.shape[1]))
    first = slice(min(VOXELS_A_CASE, share))  # the order of a sample is random
    assert sample.reference is not None
    thinned = VoxelSample(sample.logits[first].clone(), sample.reference[first].clone())
    mean = float(known.mean()) if known.size else float("nan")
    return HeldOut(fold, thinned, mean, empty=not bool((reference > 0).any()))


def calibrate(cases: Mapping[str, HeldOut], scheme: LabelScheme, *, seed: int) -> Trust:
    """Fit the temperature on all cases; measure it on cases that it was not fitted on;
    choose the rule for flagging.

    The temperature is kept if those fitted on other cases lower the negative
    log-likelihood; otherwise it is 1.
    """
    every = list(cases.values())
    groups = _groups({name: case.fold for name, case in cases.items()}, seed)
    cross_fitted = _cross_fitted(cases, groups, scheme)
    pairs = [(case, cross_fitted.get(groups[name])) for name, case in cases.items()]
    measured = _measured(pairs, scheme)
    temperature = _fitted(every, scheme) if _helps(measured) else 1.0
    scores = [_score(case, scheme, temperature) for case in every]
    dice = [case.dice for case in every]
    seen_empty = any(case.empty for case in every)
    abstention = choose_abstention(scores, dice, seen_empty=seen_empty)
    rule = None if abstention is None else _rule(abstention)
    section: CalibrationSection = {
        "temperature": temperature,
        "cross_fitted": sorted(cross_fitted.values()),
        "cases": len(every),
        "voxels": sum(len(case.sample.logits) for case in every),
        **measured,
        "doubt": _doubt(scores, dice),
        "abstention": rule,
        "convention": CONVENTION,
    }
    return Trust(temperature, abstention, section)


@dataclass(frozen=True, eq=False)
class VolumeLesson:
    """intervals go into the bundle, the section into metrics.json as
    `volume_intervals`.
    """

    intervals: VolumeIntervals | None
    section: VolumeIntervalSection


def learn_volumes(
    cases: CaseMetrics,
    folds: Mapping[str, str],
    targets: Sequence[str],
    *,
    offset_ml: float,
    seed: int,
) -> VolumeLesson:
    """How far the true volumes of targets lie from the predicted ones in held-out
    cases, after postprocessing, and how often such an interval holds them.

    folds: that of each case; offset_ml: a voxel of the plan.
    """
    groups = _groups({name: folds[name] for name in cases}, seed)
    volumes: dict[str, Pairs] = {}
    rows: dict[str, VolumeIntervalRow] = {}
    for target in targets:
        pairs = {name: _volumes(case[target]) for name, case in cases.items()}
        volumes[target] = list(pairs.values())
        ratios = log_ratios(volumes[target], offset_ml).tolist()
        by_case = dict(zip(pairs, ratios, strict=True))
        rows[target] = _tested(by_case, groups)
    return VolumeLesson(
        learn_intervals(volumes, offset_ml=offset_ml),
        {
            "level": LEVEL,
            "offset_ml": offset_ml,
            "convention": VOLUME_CONVENTION,
            "targets": rows,
        },
    )


def _volumes(row: MetricRow) -> tuple[float, float]:
    return row["volume_ml"], row["reference_volume_ml"]


def _tested(
    ratios: Mapping[str, float], groups: Mapping[str, str]
) -> VolumeIntervalRow:
    """The band of a target, and how often those of other groups hold its cases."""
    band = band_of(np.array(list(ratios.values())))
    held = [holds for _, holds in held_by_others(ratios, groups)]
    share = float(np.mean(held)) if held else None
    interval = None if share is None else wilson_interval(sum(held), len(held))
    return {
        "low_factor": None if band is None else float(np.exp(band.low)),
        "high_factor": None if band is None else float(np.exp(band.high)),
        "cases": len(ratios),
        "covered": sum(held),
        "tested": len(held),
        "coverage": share,
        "ci95": None if interval is None else [interval.low, interval.high],
        "method": None if interval is None else interval.method,
    }


def _helps(measured: CalibrationMeasures) -> bool:
    """Whether temperatures fitted on other cases lower the negative log-likelihood."""
    before = measured["before"]
    after = measured["after"]
    return before is not None and after is not None and after["nll"] <= before["nll"]


def _groups(folds: Mapping[str, str], seed: int) -> dict[str, str]:
    """The fold of each case, or with a single fold two random halves."""
    if len(set(folds.values())) > 1:
        return dict(folds)
    order = np.random.default_rng(seed).permutation(len(folds))
    return {
        name: str(position % 2) for name, position in zip(folds, order, strict=True)
    }


def _rule(abstention: Abstention) -> AbstentionRule:
    """The rule as metrics.json holds it."""
    return cast(AbstentionRule, abstention.model_dump(mode="json"))


def _cross_fitted(
    cases: Mapping[str, HeldOut], groups: Mapping[str, str], scheme: LabelScheme
) -> dict[str, float]:
    """For each group the temperature of all others; nothing for a single group."""
    distinct = dict.fromkeys(groups.values())
    if len(distinct) < 2:
        return {}
    temperatures = {}
    for group in distinct:
        others = [case for name, case in cases.items() if groups[name] != group]
        temperatures[group] = _fitted(others, scheme)
    return temperatures


def _fitted(cases: Sequence[HeldOut], scheme: LabelScheme) -> float:
    views = [_answers(case, scheme, limit=FIT_VOXELS // len(cases)) for case in cases]
    logits, labels = (torch.cat(parts) for parts in zip(*views, strict=True))
    return fit_temperature(logits, labels) if len(labels) else 1.0


def _answers(
    case: HeldOut, scheme: LabelScheme, *, limit: int | None = None
) -> tuple[Tensor, Tensor]:
    """Logits `(n, c)` and labels `(n,)`; a region is a choice between logit 0 and its
    own, whose softmax is the sigmoid.
    """
    logits = case.sample.logits[:limit]
    reference = case.sample.reference
    assert reference is not None
    if scheme.exclusive:
        return logits, reference[:limit]
    regions = torch.from_numpy(scheme.region_table())
    member = regions[:, reference[:limit]]  # (region, n)
    flat = logits.T.reshape(-1)
    return torch.stack([torch.zeros_like(flat), flat], dim=1), member.reshape(-1).long()


def _score(case: HeldOut, scheme: LabelScheme, temperature: float) -> float | None:
    return foreground_entropy(
        case.sample.logits, exclusive=scheme.exclusive, temperature=temperature
    )


def _measured(
    cases: Sequence[tuple[HeldOut, float | None]], scheme: LabelScheme
) -> CalibrationMeasures:
    """Calibration before and after, and how well entropy ranks errors; temperatures are
    None where none was fitted.
    """
    views = [(*_answers(case, scheme), temperature) for case, temperature in cases]
    labels = torch.cat([part for _, part, _ in views]).numpy()
    before = torch.cat([_chance(logits) for logits, _, _ in views])
    after = torch.cat([_chance(logits, t or 1.0) for logits, _, t in views])
    known = all(temperature is not None for _, _, temperature in views)
    if not len(labels):
        return {
            "before": None,
            "after": None,
            "error_ranking_auroc": None,
            "reliability": {},
        }
    doubt = entropy(after.T, exclusive=True).numpy()
    wrong = after.numpy().argmax(1) != labels
    stages = {"before": before.numpy()}
    if known:
        stages["after"] = after.numpy()
    measures: dict[str, CalibrationErrors] = {}
    curves: dict[str, ReliabilityCurve] = {}
    for stage, chance in stages.items():
        measures[stage] = measure_calibration(chance, labels)
        curves[stage] = reliability_curve(*top_label(chance, labels))
    return {
        "before": measures.get("before"),
        "after": measures.get("after"),
        "error_ranking_auroc": area_under_roc(doubt, wrong),
        "reliability": curves,
    }


def _chance(logits: Tensor, temperature: float = 1.0) -> Tensor:
    return probabilities_of(logits.T, exclusive=True, temperature=temperature).T


def _doubt(scores: Sequence[float | None], dice: Sequence[float]) -> DoubtSection:
    doubt, dice_of_known = known_pairs(scores, dice)
    if not len(doubt):
        return {"cases": 0}
    return {
        "cases": len(doubt),
        "spearman_with_dice": rank_correlation(doubt, dice_of_known),
        **risk_coverage(doubt, 1 - dice_of_known),
    }
