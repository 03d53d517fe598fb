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
from trivox.evaluation.metrics.calibration import (
    BINS,
    area_under_roc,
    measure_calibration,
    rank_correlation,
    reliability_curve,
    risk_coverage,
    top_label,
)
from trivox.evaluation.metrics.trust_content import (
    AbstentionRule,
    CalibrationErrors,
    CalibrationMeasures,
    CalibrationSection,
    DoubtSection,
    FlagSection,
    ReliabilityCurve,
    RiskCoverage,
)
from trivox.inference.doubt.calibration import (
    MINIMUM_CASES,
    Abstention,
    choose_abstention,
    fit_temperature,
    foreground_entropy,
    known_pairs,
)
from trivox.inference.doubt.flags import RULE, Flag, ScoreName
from trivox.inference.doubt.sampling import BAND_VOXELS
from trivox.inference.doubt.uncertainty import entropy, probabilities_of
from trivox.tasks.labels.promises.held_out import VOXELS_A_CASE, HeldOut, groups_of

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
    "flag": "by the smaller area under the risk-coverage curve of entropy and of 1 - "
    "pairwise Dice of the votes (mirrored copies of the network that has not seen the "
    "case), over cases that have both; entropy where they are equal, and where "
    "validation had a single vote",
}


@dataclass(frozen=True, eq=False)
class Trust:
    """temperature, abstention and flag go into the bundle, the section into metrics.json
    as `calibration`.
    """

    temperature: float
    abstention: Abstention | None
    flag: Flag | None
    section: CalibrationSection


def calibrate(cases: Mapping[str, HeldOut], scheme: LabelScheme, *, seed: int) -> Trust:
    """Fit the temperature on all cases; measure it on cases that it was not fitted on;
    choose the rule for flagging.

    The temperature is kept if those fitted on other cases lower the negative
    log-likelihood; otherwise it is 1.
    """
    every = list(cases.values())
    groups = groups_of({name: case.fold for name, case in cases.items()}, seed)
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
        "before": measured["before"],
        "after": measured["after"],
        "error_ranking_auroc": measured["error_ranking_auroc"],
        "reliability": measured["reliability"],
        "doubt": _doubt(scores, dice),
        "abstention": rule,
        "convention": CONVENTION,
    }
    ranked = ranked_scores(scores, every)
    flag = None if ranked is None else choose_flag(ranked, every, seen_empty=seen_empty)
    if ranked is not None and flag is not None:
        section["flag"] = _flag_section(ranked, flag)
    return Trust(temperature, abstention, flag, section)


@dataclass(frozen=True, eq=False)
class Ranked:
    """How well entropy and agreement of so many votes rank the validation cases of which
    both are known.
    """

    curves: dict[ScoreName, RiskCoverage]
    cases: int
    votes: int


def ranked_scores(
    scores: Sequence[float | None], cases: Sequence[HeldOut]
) -> Ranked | None:
    """Compare entropy with 1 - pairwise Dice of the votes; None where validation had
    single votes, or too few cases.
    """
    votes = {case.votes for case in cases}
    rows = [
        (score, 1 - case.agreement, 1 - case.dice)
        for score, case in zip(scores, cases, strict=True)
        if score is not None and case.agreement is not None and case.dice == case.dice
    ]
    if len(votes) != 1 or len(rows) < MINIMUM_CASES:
        return None
    entropies, disagreements, risks = np.array(rows).T
    curves: dict[ScoreName, RiskCoverage] = {
        "entropy": risk_coverage(entropies, risks),
        "agreement": risk_coverage(disagreements, risks),
    }
    return Ranked(curves, len(rows), votes.pop())


def choose_flag(
    ranked: Ranked, cases: Sequence[HeldOut], *, seen_empty: bool
) -> Flag | None:
    """By which score cases are flagged."""
    doubts = [None if case.agreement is None else 1 - case.agreement for case in cases]
    rule = choose_abstention(
        doubts,
        [case.dice for case in cases],
        seen_empty=seen_empty,
        kind="disagreement_of_votes",
        rule=RULE,
    )
    if rule is None:
        return None
    areas = {name: curve["aurc"] for name, curve in ranked.curves.items()}
    better = areas["agreement"] < areas["entropy"]
    return Flag(
        chosen="agreement" if better else "entropy",
        aurc=areas,
        cases=ranked.cases,
        votes=ranked.votes,
        rule=rule,
    )


def _flag_section(ranked: Ranked, flag: Flag) -> FlagSection:
    curve = ranked.curves["entropy"]
    return {
        "chosen": flag.chosen,
        "aurc": {str(name): area for name, area in flag.aurc.items()},
        "best": curve["best"],
        "random": curve["random"],
        "cases": flag.cases,
        "votes": flag.votes,
        "rule": _rule(flag.rule),
    }


def _helps(measured: CalibrationMeasures) -> bool:
    """Whether temperatures fitted on other cases lower the negative log-likelihood."""
    before = measured["before"]
    after = measured["after"]
    return before is not None and after is not None and after["nll"] <= before["nll"]


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
