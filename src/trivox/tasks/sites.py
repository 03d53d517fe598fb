"""Folds that hold out images which look alike, as another scanner or site may give:
external-like, where no data of another site are at hand.

Images are looked at as they are stored: quantiles of intensities and of edges of each
channel, and spacings. Patients fall into clusters by them (k-means on principal
components), and each fold holds out one cluster.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trivox.datasets.dataset import Case, Dataset, Fold
from trivox.datasets.layouts.choice import read_saved_dataset
from trivox.datasets.reading import read_case
from trivox.errors import DataError
from trivox.inference.doubt.likeness import look_at
from trivox.tasks.console import Console

Floats = NDArray[np.float64]

SITES = "external-like, by clusters of intensities"
"""Where such folds are from."""
CLUSTERS = (2, 3, 4, 5)
SMALLEST = 0.1
"""Share of the patients that each cluster has at least."""
FEWEST = 2
"""Patients of each cluster at least."""
COMPONENTS = 5
USUAL = (5, 95)
"""Percentiles between which features are taken as they are."""
ALIKE = 1e-9
"""Spread over size of a feature below which all images are alike in it."""
SEED = 12345


def with_site_folds(dataset: Dataset, saved: Path, console: Console) -> Dataset:
    """`dataset` with folds that each hold out one cluster of look-alike patients, or
    with those that `saved`, the dataset.json of the run, has of the same cases.

    Raises `DataError` for exams, data that declare their own folds, and patients that
    fall into no clusters.
    """
    if dataset.holds_exams:
        raise DataError(
            f"{dataset.root}: X-rays are not told apart by intensity; leave --split-by out"
        )
    cases = [case for case in dataset.training_cases if not case.taught]
    if dataset.folds_from == SITES:
        return dataset
    if dataset.folds or any(case.split == "validation" for case in cases):
        raise DataError(
            f"{dataset.root}: says itself what is validated on; leave --split-by out"
        )
    earlier = _saved_folds(saved, cases)
    folds = earlier or _dealt(dataset, cases, console)
    sizes = " + ".join(str(len(fold.validation)) for fold in folds)
    console.say(f"folds are {SITES}: {sizes} cases are held out")
    for number, fold in enumerate(folds):
        for line in _lacking(cases, fold):
            console.say(f"warning: fold {number} {line}")
    return dataset.model_copy(update={"folds": folds, "folds_from": SITES})


def _saved_folds(saved: Path, cases: Sequence[Case]) -> tuple[Fold, ...]:
    """The folds of a run that was begun, if they are such and of the same cases."""
    if not saved.is_file():
        return ()
    before = read_saved_dataset(saved)
    names = {case.name for case in cases}
    if before.folds_from != SITES or not before.folds:
        return ()
    first = before.folds[0]
    return before.folds if {*first.train, *first.validation} == names else ()


def _dealt(
    dataset: Dataset, cases: Sequence[Case], console: Console
) -> tuple[Fold, ...]:
    looks = site_features(dataset, cases, console)
    clusters = site_clusters(looks, {case.name: case.patient for case in cases})
    everything = {case.name for case in cases}
    return tuple(
        Fold(
            train=tuple(sorted(everything - cluster)), validation=tuple(sorted(cluster))
        )
        for cluster in clusters
    )


def site_features(
    dataset: Dataset, cases: Iterable[Case], console: Console
) -> dict[str, Floats]:
    """What the image of each case looks like, `(feature,)`: of each channel quantiles
    of intensities and edges, and the logarithms of the spacings.
    """
    channels = len(dataset.channels)
    listed = list(cases)
    looks: dict[str, Floats] = {}
    for case in console.track(listed, len(listed), "looking for sites"):
        read = read_case(case, channels=channels, labels=None)
        look = look_at(
            torch.from_numpy(np.ascontiguousarray(read.image)),
            channels=channels,
            source_spacing=read.spacing,
            spacing=read.spacing,
        )
        seen = np.nan_to_num(look.features).reshape(-1)
        looks[case.name] = np.concatenate([seen, np.log(read.spacing)])
    return looks


def site_clusters(
    looks: Mapping[str, Floats], patients: Mapping[str, str], *, seed: int = SEED
) -> list[set[str]]:
    """Clusters of cases, all of a patient together, the largest first; the same for
    any order of cases.

    As many as have the largest silhouette (Rousseeuw 1987), each with a tenth of the
    patients or more. Raises `DataError` where there are no such clusters.
    """
    from sklearn.cluster import KMeans  # takes a second to import
    from sklearn.metrics import silhouette_score

    names: dict[str, list[str]] = {}
    for name in sorted(looks):
        names.setdefault(patients[name], []).append(name)
    table = np.stack(
        [np.mean([looks[name] for name in group], axis=0) for group in names.values()]
    )
    places = _components(table)
    least = max(FEWEST, SMALLEST * len(table))
    best: NDArray[np.int64] | None = None
    highest = -1.0
    for count in CLUSTERS:
        if count * FEWEST > len(table) or np.ptp(places) == 0:
            break
        labels = KMeans(count, n_init=10, random_state=seed).fit_predict(places)
        if np.bincount(labels, minlength=count).min() < least:
            continue
        score = float(silhouette_score(places, labels))
        if score > highest:
            best = labels
            highest = score
    if best is None:
        raise DataError(
            f"the images of {len(table)} patients fall into no clusters of {least:.0f} "
            "or more; leave --split-by out"
        )
    clusters: list[set[str]] = [set() for _ in range(int(best.max()) + 1)]
    for label, group in zip(best, names.values(), strict=True):
        clusters[label].update(group)
    return sorted(clusters, key=lambda cluster: (-len(cluster), min(cluster)))


def _components(table: Floats) -> Floats:
    """First principal components of standardised features `(patient, feature)`, cut at
    the usual, and at the second lowest and highest at least: one odd image is no
    cluster, and hides none.
    """
    if len(table) < FEWEST * min(CLUSTERS):
        return np.zeros((len(table), 1))
    low, high = np.percentile(table, USUAL, axis=0)
    ordered = np.sort(table, axis=0)
    clipped = np.clip(table, np.maximum(low, ordered[1]), np.minimum(high, ordered[-2]))
    centred = clipped - clipped.mean(axis=0)
    spread = centred.std(axis=0)
    varies = spread > ALIKE * np.abs(clipped).max(axis=0)
    standardised = centred[:, varies] / spread[varies]
    if not varies.any():
        return np.zeros((len(table), 1))
    left, sizes, _ = np.linalg.svd(standardised, full_matrices=False)
    return np.asarray((left * sizes)[:, :COMPONENTS])


def _lacking(cases: Sequence[Case], fold: Fold) -> list[str]:
    """What a fold trains without: classes that all its held-out cases have."""
    trained = set(fold.train)
    everywhere = {case.class_name for case in cases}
    seen = {case.class_name for case in cases if case.name in trained}
    lacking = sorted(name for name in everywhere - seen if name is not None)
    return [f"trains without a case of {', '.join(lacking)}"] if lacking else []
