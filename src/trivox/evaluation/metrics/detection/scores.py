"""How well lesions are found: hits and false alarms of each case, average precision,
FROC, and the area under the ROC curve of cases.

As PI-CAI and PANORAMA measure (picai_eval; Saha et al. 2024, Lancet Oncology 25(7)): a
candidate hits a lesion of which it covers an intersection over union of 0.1, one to one,
so that as many as can be are matched, then with the largest overlaps; further candidates
on a lesion count neither way. The likelihood of a case is the largest of its candidates.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from trivox.evaluation.metrics.calibration import area_under_roc
from trivox.evaluation.metrics.class_content import ShareScore
from trivox.evaluation.metrics.class_intervals import (
    BOOTSTRAP,
    area_interval,
    scored,
)
from trivox.evaluation.metrics.classification import RESAMPLES, drawn
from trivox.evaluation.metrics.components import label_components, meetings, sizes
from trivox.evaluation.metrics.detection_content import (
    DetectionCase,
    DetectionSummary,
    FrocCurve,
)
from trivox.evaluation.metrics.intervals import WILSON, logit_interval
from trivox.inference.detection.candidates import candidates_of
from trivox.volumes.volume import Array

Floats = NDArray[np.float64]

OVERLAP = 0.1
RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives a case at which sensitivity is given (LUNA16)."""
CONVENTION = {
    "candidate": "voxels of the detection map above 0 that hang together (26 "
    "neighbours); its likelihood is the largest of them",
    "lesion": "voxels of the reference that hang together (26 neighbours)",
    "hit": f"intersection over union of at least {OVERLAP}, one candidate to one lesion, "
    "as many pairs as possible, then with the largest overlaps; further candidates on a "
    "lesion count neither as found nor as false (picai_eval)",
    "ap": "average precision of all candidates together, sum of precision x gained "
    "recall over descending likelihoods; a lesion without candidate is never found; null "
    "without lesions",
    "auroc": "of cases with a lesion against those without, by the largest likelihood in "
    "the map; null unless there are both",
    "sensitivity": "share of lesions found at the lowest likelihood that gives at most "
    "so many false candidates a case (FROC); no interpolation",
    "ci95": "95 %: auroc by DeLong, the others from the error of 2000 bootstrap "
    "resamples of cases (fixed seed), symmetric for the logit; at their bound as so many "
    "cases that are all alike, by Wilson",
}


def match_case(detections: Array, lesions: Array) -> DetectionCase:
    """Hits and false alarms of a detection map `(z, y, x)` against a mask of lesions."""
    numbers, likelihoods = candidates_of(detections)
    expected = label_components(lesions)
    overlaps = _overlaps(expected, numbers)
    near = overlaps >= OVERLAP
    # one more pair counts more than any overlap
    rows, columns = linear_sum_assignment(
        np.where(near, 1 + overlaps, 0), maximize=True
    )
    matched = set(columns[near[rows, columns]].tolist())
    touching = set(np.flatnonzero(near.any(axis=0)).tolist())
    by_fate: dict[str, list[float]] = {"hits": [], "second": [], "false": []}
    for candidate, likelihood in enumerate(likelihoods):
        fate = "second" if candidate in touching else "false"
        by_fate["hits" if candidate in matched else fate].append(likelihood)
    return {
        "likelihood": max(likelihoods, default=0.0),
        "lesions": len(overlaps),
        "hits": by_fate["hits"],
        "false": by_fate["false"],
        "second": by_fate["second"],
    }


def _overlaps(lesions: Array, candidates: Array) -> Floats:
    """Intersection over union `(lesion, candidate)` of numbered components."""
    of_lesions = sizes(lesions)
    of_candidates = sizes(candidates)
    overlaps = np.zeros((len(of_lesions), len(of_candidates)))
    for lesion, candidate, shared in zip(*meetings(lesions, candidates), strict=True):
        union = of_lesions[lesion] + of_candidates[candidate] - shared
        overlaps[lesion, candidate] = shared / union
    return overlaps[1:, 1:]


@dataclass(frozen=True, eq=False)
class Pooled:
    """Candidates of all cases, the most likely first, those that count neither way left
    out.

    likelihood, hit, case: `(candidate,)`; ends: the last one of each likelihood;
    lesions: of each case.
    """

    likelihood: Floats
    hit: NDArray[np.bool_]
    case: NDArray[np.int64]
    ends: NDArray[np.int64]
    lesions: NDArray[np.int64]

    @classmethod
    def of(cls, cases: Mapping[str, DetectionCase]) -> "Pooled":
        """Those of cases."""
        rows: list[tuple[float, bool, int]] = []
        for number, case in enumerate(cases.values()):
            rows += [(likelihood, True, number) for likelihood in case["hits"]]
            rows += [(likelihood, False, number) for likelihood in case["false"]]
        rows.sort(key=lambda row: -row[0])
        likelihood = np.array([row[0] for row in rows], dtype=np.float64)
        changes = np.diff(likelihood, append=-1.0) != 0
        return cls(
            likelihood,
            np.array([row[1] for row in rows], dtype=bool),
            np.array([row[2] for row in rows], dtype=np.int64),
            np.flatnonzero(changes[: len(rows)]),
            np.array([case["lesions"] for case in cases.values()], dtype=np.int64),
        )

    def counts(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Hits and false candidates from each likelihood on `(r, likelihood)`, and
        lesions `(r, 1)`, when case j counts `weights[i, j]` times.
        """
        weighted = weights[:, self.case]
        hits = (weighted * self.hit).cumsum(axis=1)[:, self.ends]
        false = (weighted * ~self.hit).cumsum(axis=1)[:, self.ends]
        return hits, false, weights @ self.lesions[:, None]


def detection_scores(pooled: Pooled, weights: Floats) -> dict[str, Floats]:
    """Average precision, and sensitivity at each of `RATES`, `(r,)` by name; NaN
    without lesions.
    """
    hits, false, lesions = pooled.counts(weights)
    known = np.where(lesions > 0, lesions, np.nan)
    precision = hits / np.maximum(hits + false, 1)
    gained = np.diff(hits, axis=1, prepend=0.0)
    scores = {"ap": (precision * gained).sum(axis=1) / known[:, 0]}
    cases = weights.sum(axis=1, keepdims=True)
    for rate in RATES:
        allowed = false <= rate * cases
        found_most = np.where(allowed, hits, 0.0).max(axis=1, initial=0.0)
        scores[f"{rate:g}"] = found_most / known[:, 0]
    return scores


def froc_curve(pooled: Pooled) -> FrocCurve:
    """Sensitivity over false positives a case, a point a likelihood; none without
    lesions.
    """
    count = len(pooled.lesions)
    hits, false, lesions = pooled.counts(np.ones((1, count)))
    if not lesions[0, 0]:
        return {"likelihood": [], "false_positives": [], "sensitivity": []}
    return {
        "likelihood": pooled.likelihood[pooled.ends].tolist(),
        "false_positives": (false[0] / count).tolist(),
        "sensitivity": (hits[0] / lesions[0]).tolist(),
    }


def measure_detections(
    cases: Mapping[str, DetectionCase], *, seed: int = 0, resamples: int = RESAMPLES
) -> DetectionSummary:
    """All scores over cases, one or more, with 95 % intervals."""
    pooled = Pooled.of(cases)
    count = len(cases)
    values = detection_scores(pooled, np.ones((1, count)))
    draws: dict[str, list[Floats]] = {name: [] for name in values}
    for weights in _portions(count, resamples, seed, len(pooled.case)):
        for name, scores in detection_scores(pooled, weights).items():
            draws[name].append(scores)
    rows: dict[str, ShareScore] = {}
    for name, parts in draws.items():
        rows[name] = _score(float(values[name][0]), np.concatenate(parts), count)
    ap = rows.pop("ap")
    return {
        "cases": count,
        "with_lesion": int((pooled.lesions > 0).sum()),
        "lesions": int(pooled.lesions.sum()),
        "ap": ap,
        "auroc": _area(cases, pooled.lesions > 0),
        "sensitivity": rows,
    }


def _portions(
    count: int, resamples: int, seed: int, candidates: int
) -> Iterator[Floats]:
    """Resamples of cases, so few at a time that memory is bounded."""
    step = max(1, 2_000_000 // max(candidates, count))
    for weights in drawn(count, resamples, seed):
        for start in range(0, len(weights), step):
            yield weights[start : start + step]


def _score(value: float, draws: Floats, cases: int) -> ShareScore:
    """A score with its interval; none of a single case."""
    defined = draws[np.isfinite(draws)]
    if cases == 1 or not np.isfinite(value) or not defined.size:
        return scored(value, None)
    interval = logit_interval(value, float(defined.std()), cases)
    method = WILSON if interval.method == WILSON else BOOTSTRAP
    return scored(value, interval._replace(method=method))


def _area(
    cases: Mapping[str, DetectionCase], positive: NDArray[np.bool_]
) -> ShareScore:
    """How well likelihoods tell cases with a lesion from those without."""
    likelihoods = np.array([case["likelihood"] for case in cases.values()])
    area = area_under_roc(likelihoods, positive)
    if area is None:
        return scored(float("nan"), None)
    both = np.stack([1 - likelihoods, likelihoods], axis=1)
    return scored(area, area_interval(area, positive.astype(np.int64), both))
