"""Several raters of the same cases: how well they agree with one another, and a model
with each of them and with what they agree on.

A model cannot be better than its references are: what two people who look at one scan
agree on is the ceiling.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trivox.datasets.labels import IGNORED
from trivox.errors import DataError, FormatError, GeometryError
from trivox.evaluation.conventions.choice import Convention
from trivox.evaluation.folders.consensus import (
    Masks,
    Staple,
    majority,
    staple,
)
from trivox.evaluation.folders.grids import shared_grid
from trivox.evaluation.folders.labels import mean_row
from trivox.evaluation.folders.pairs import (
    LabelPair,
    labels_of,
    not_measured,
)
from trivox.evaluation.folders.rater_folders import Raters, rater_names, read_raters
from trivox.evaluation.metrics.claims import claim_of, paired_differences
from trivox.evaluation.metrics.content import (
    PairedDifference,
    RaterRow,
    RatersSection,
    RatersTarget,
    Statistics,
)
from trivox.evaluation.metrics.statistics import LOWER_IS_BETTER, summarise
from trivox.volumes.formats import read_labels
from trivox.volumes.geometry import Lattice
from trivox.volumes.segmentations.segments import Grid
from trivox.volumes.volume import Array

K = TypeVar("K")
Values = dict[str, float | None]
"""By metric."""
CONVENTION = {
    "others": "mean over the other raters of a case, then over cases",
    "among": "mean over all pairs of raters of a case, then over cases",
    "model": "mean over all raters of a case, then over cases",
    "majority": "voxels that more than half of the raters have; of two raters those that "
    "both have",
    "staple": "expectation maximisation of Warfield et al. 2004 for each label by itself, "
    "the prior being the share of voxels that raters mark on the whole grid; voxels with "
    "a probability above 0.5",
    "difference": "model minus among of the same cases, above zero where the model agrees "
    "better with the raters than they do with one another",
    "cases": "those that all raters and the model have",
}


@dataclass(frozen=True, eq=False)
class Compared:
    """A target in a case: metrics of each pair of raters, of the model with each rater
    and with the majority and STAPLE; sensitivity and specificity of raters.
    """

    pairs: Mapping[tuple[str, str], Values]
    model: Mapping[str, Values]
    majority: Values
    staple: Values
    levels: Mapping[str, Values]


def compare_raters(
    predictions: Path, references: Sequence[Path], convention: Convention
) -> tuple[RatersSection, list[str]]:
    """What metrics.json says of several raters, and warnings.

    predictions: label maps, a folder or a file; references: of each rater, likewise or
    a dataset. Compared are the metrics that models are ranked by in a convention.
    Raises `DataError` for fewer than two raters, one that is given twice and where no
    case is of all, `LabelError` where values mean other labels to another rater or no
    label is of all, `GeometryError` for different grids.
    """
    names = rater_names(references)
    raters = read_raters(predictions, dict(zip(names, references, strict=True)))
    cases, unread = _compared_cases(raters, convention)
    targets = raters.targets
    section: RatersSection = {
        "files": {
            name: str(path.absolute())
            for name, path in zip(names, references, strict=True)
        },
        "cases": list(cases),
        "convention": CONVENTION,
        "targets": {},
    }
    for target in targets:
        rows = [case[target] for case in cases.values()]
        section["targets"][target] = _summary(rows, names, convention)
    if len(targets) > 1:
        means = [_mean(list(case.values())) for case in cases.values()]
        section["targets"][mean_row(targets)] = _summary(means, names, convention)
    return section, [*raters.warnings, *unread, *_copies(cases, names)]


def _compared_cases(
    raters: Raters, convention: Convention
) -> tuple[dict[str, dict[str, Compared]], list[str]]:
    """Each target of each case, and warnings about cases that cannot be read; raises
    `DataError` where none can.
    """
    cases: dict[str, dict[str, Compared]] = {}
    warnings = []
    for case, pairs in raters.pairs.items():
        try:
            cases[case] = dict(_compared(case, pairs, raters, convention))
        except FormatError as error:
            warnings.append(f"raters: {not_measured(case, str(error))}")
    if not cases:
        raise DataError(f"no case of all raters can be read: {warnings[0]}")
    return cases, warnings


def _copies(
    cases: Mapping[str, Mapping[str, Compared]], names: Sequence[str]
) -> Iterator[str]:
    """A warning about each pair of raters who never differ: no two people draw alike."""
    for pair in combinations(names, 2):
        dice = set()
        for targets in cases.values():
            dice |= {target.pairs[pair]["dice"] for target in targets.values()}
        if dice <= {None, 1.0}:
            yield (
                f"{' and '.join(pair)} mark the same voxels in all {len(cases)} cases; is "
                "one a copy of the other?"
            )


def _compared(
    case: str,
    pairs: Mapping[str, LabelPair],
    raters: Raters,
    convention: Convention,
) -> Iterator[tuple[str, Compared]]:
    """Each target of a case, compared."""
    scheme = raters.scheme
    grid = _grid(pairs)
    first, *_ = pairs.values()
    model = read_labels(first.prediction, onto=grid, meaning=scheme)
    indices = {"": scheme.encode(model.array[0], where=f"{case}: prediction")}
    means = {"": scheme}
    for name, pair in pairs.items():
        means[name] = labels_of(pair, raters.declared.get(name, scheme))
        rated = read_labels(pair.reference, onto=grid, meaning=means[name])
        indices[name] = means[name].encode(rated.array[0], where=f"{case}: {name}")
    ignored = np.any([each == IGNORED for each in indices.values()], axis=0)
    for target in raters.targets:
        masks = {}
        for name, each in indices.items():
            inside = means[name].targets.get(target, ())
            masks[name] = np.isin(each, inside) & ~ignored
        yield target, _compared_target(masks, convention, model.steps)


def _grid(pairs: Mapping[str, LabelPair]) -> Grid:
    """The voxels on which a case is compared."""
    grids = []
    for name, pair in pairs.items():
        try:
            grids.append(shared_grid(pair))
        except GeometryError as error:
            raise GeometryError(
                f"rater {name}, {error}; all raters draw on the grid of one scan"
            ) from error
    return grids[0]


def _compared_target(
    masks: Mapping[str, Masks], convention: Convention, steps: Lattice
) -> Compared:
    """One target; masks: of the model under a blank name, and of each rater."""

    def measured(prediction: Masks, reference: Masks) -> Values:
        rows = convention.evaluate(
            _as_indices(prediction),
            _as_indices(reference),
            spacing=steps,
            targets={"": (1,)},
        )
        return {metric: rows[""].get(metric) for metric in convention.ranked}  # type: ignore[misc]

    raters = [name for name in masks if name]
    together = np.stack([masks[name] for name in raters])
    agreed = staple(together)
    return Compared(
        pairs={
            (one, other): measured(masks[one], masks[other])
            for one, other in combinations(raters, 2)
        },
        model={name: measured(masks[""], masks[name]) for name in raters},
        majority=measured(masks[""], majority(together)),
        staple=measured(masks[""], agreed.mask),
        levels=dict(_levels(raters, agreed)),
    )


def _levels(raters: Sequence[str], agreed: Staple) -> Iterator[tuple[str, Values]]:
    for place, name in enumerate(raters):
        yield (
            name,
            {
                "sensitivity": float(agreed.sensitivity[place]),
                "specificity": float(agreed.specificity[place]),
            },
        )


def _as_indices(mask: Masks) -> Array:
    return mask.astype(np.int16)


def _mean(targets: Sequence[Compared]) -> Compared:
    """The mean over the targets of a case."""
    return Compared(
        pairs=_mean_by([each.pairs for each in targets]),
        model=_mean_by([each.model for each in targets]),
        majority=_mean_of([each.majority for each in targets]),
        staple=_mean_of([each.staple for each in targets]),
        levels={},
    )


def _mean_by(rows: Sequence[Mapping[K, Values]]) -> dict[K, Values]:
    """The mean over rows that have the same keys, by key."""
    means = {}
    for key in rows[0]:
        means[key] = _mean_of([row[key] for row in rows])
    return means


def _mean_of(rows: Sequence[Values]) -> Values:
    """The mean of each metric over rows that have it."""
    means: Values = {}
    for metric in rows[0]:
        values = _finite([row[metric] for row in rows])
        means[metric] = float(values.mean()) if values.size else None
    return means


def _finite(values: Sequence[float | None]) -> NDArray[np.float64]:
    known = np.array([value for value in values if value is not None], dtype=float)
    return np.asarray(known[np.isfinite(known)])


def _summary(
    cases: Sequence[Compared], names: Sequence[str], convention: Convention
) -> RatersTarget:
    """Statistics over cases of a target."""
    among = [_mean_of(list(case.pairs.values())) for case in cases]
    model = [_mean_of(list(case.model.values())) for case in cases]
    return {
        "raters": {name: _rater(cases, name) for name in names},
        "among": _statistics(among),
        "model": _statistics(model),
        "majority": _statistics([case.majority for case in cases]),
        "staple": _statistics([case.staple for case in cases]),
        "difference": dict(_differences(model, among, convention.ranked)),
    }


def _rater(cases: Sequence[Compared], name: str) -> RaterRow:
    others = []
    for case in cases:
        with_him = [values for pair, values in case.pairs.items() if name in pair]
        others.append(_mean_of(with_him))
    row: RaterRow = {
        "others": _statistics(others),
        "model": _statistics([case.model[name] for case in cases]),
    }
    levels = [case.levels[name] for case in cases if name in case.levels]
    if levels:
        statistics = _statistics(levels)
        row["sensitivity"] = statistics["sensitivity"]
        row["specificity"] = statistics["specificity"]
    return row


def _statistics(rows: Sequence[Values]) -> Statistics:
    statistics = {}
    for metric in rows[0]:
        values = [row[metric] for row in rows]
        statistics[metric] = summarise(values, metric)
    return statistics


def _differences(
    model: Sequence[Values], among: Sequence[Values], metrics: Sequence[str]
) -> Iterator[tuple[str, PairedDifference]]:
    for metric in metrics:
        first = [row[metric] for row in model]
        second = [row[metric] for row in among]
        differences = paired_differences(first, second)
        if metric in LOWER_IS_BETTER:
            differences = -differences
        if differences.size:
            yield metric, claim_of(differences)
