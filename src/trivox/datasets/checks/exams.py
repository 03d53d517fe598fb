"""What may be wrong with an X-ray exam: geometry, grey values, and whether the views
are views of the CT beside them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from trivox.datasets.checks.examine import (
    Examination,
    digest_of,
    note_remarks,
    read_noting,
)
from trivox.datasets.checks.findings import Finding, error, warning
from trivox.datasets.dataset import Case
from trivox.datasets.exams import read_views, views_volume
from trivox.errors import DataError, TrivoxError, few
from trivox.projection.geometry import Geometry
from trivox.projection.geometry_files import GeometryRecord, read_record
from trivox.projection.grids import middle_of
from trivox.projection.rendering import body_points, doubt_about, render, share_outside
from trivox.volumes.formats import read_volume
from trivox.volumes.volume import Array, Volume

SUSPICIOUS = 0.05
WRONG = 0.30
"""Relative RMSE of a view against the CT's: rendering and noise stay below the first, a
wrong angle or flip is far above the second.
"""
FITS = 0.10
"""Relative RMSE below which another reading of a view explains it; it must also be half
of the error as it stands.
"""
VALUES = "values look"
"""How readings begin that are about grey values and not about places; those alone may
be as intended.
"""
FAR_MM = 150.0
"""Distance of the isocentre from the middle of the CT that needs an explanation."""

TRUNCATED = 0.01
"""Share of the body outside the detector that is worth a word."""

FULL_SCALES = {1.0, 255.0, 4095.0, 65535.0}
"""Highest values of images that were scaled by their own range."""


def examine_exam(case: Case) -> Examination:
    """Read all files of an exam and note what is wrong; never raises, so that one bad
    case does not stop a check.
    """
    examination = Examination(case)
    record = volume = None
    if case.geometry is not None:
        record = read_noting(case.geometry, read_record, examination)
    views = read_noting(case.images[0], read_views, examination)
    reader = partial(read_volume, choice=case.choice)
    if case.volume is not None:
        volume = read_noting(case.volume, reader, examination)
        note_remarks(examination, case.volume, volume)
    if volume is not None:
        examination.spacing = volume.spacing
        examination.findings += _volume_findings(case, volume)
    if record is None or views is None:
        return examination
    examination.digest = digest_of([views_volume(views, record)])
    examination.findings += _shape_findings(case, views, record)
    if not _has_errors(examination):
        examination.findings += _grey_findings(case, views, record)
    for look in (_placing_findings, _consistency_findings):
        if volume is not None and not _has_errors(examination):
            examination.findings += _noting(look, case, views, record, volume)
    return examination


def _has_errors(examination: Examination) -> bool:
    return any(finding.severity == "error" for finding in examination.findings)


def _noting(
    look: Callable[[Case, Array, GeometryRecord, Volume], Iterator[Finding]],
    case: Case,
    views: Array,
    record: GeometryRecord,
    volume: Volume,
) -> list[Finding]:
    """The findings of a look at views and CT, or the one that it could not be taken."""
    try:
        return list(look(case, views, record, volume))
    except TrivoxError as problem:
        return [
            error(
                "geometry-impossible",
                case.name,
                str(problem),
                "correct geometry.json or the CT",
            )
        ]


def _shape_findings(
    case: Case, views: Array, record: GeometryRecord
) -> Iterator[Finding]:
    expected = (len(record.views), *record.detector)
    if views.shape != expected:
        yield error(
            "geometry-mismatch",
            case.name,
            f"views of shape {views.shape}, geometry.json describes {expected} "
            "(views, rows, columns)",
            "correct one of them",
        )
    elif not len(views):
        yield warning(
            "no-views", case.name, "has no view", "fine if only the CT is wanted"
        )
    bad = int(views.size - np.isfinite(views).sum())
    if bad:
        yield error(
            "nan-or-inf",
            case.name,
            f"{case.images[0].name} has {bad} pixels that are NaN or infinite",
            "render or export the views again",
        )


# -- grey values -----------------------------------------------------------------------
def _grey_findings(
    case: Case, views: Array, record: GeometryRecord
) -> Iterator[Finding]:
    """Line integrals are 0 in air and not negative; other images give themselves away."""
    blank = [v for v, view in enumerate(views) if view.min() == view.max()]
    if blank:
        what = f"{_named(record, blank)} blank"
        fix = "render or export them again"
        yield warning("constant-image", case.name, what, fix)
    if record.kind != "line integrals" or len(blank) == len(views):
        return
    highest = {float(view.max()) for view in views}
    negative = float((views < -0.1).mean())
    if _looks_like_transmission(views):
        yield error(
            "transmission",
            case.name,
            "the views are brightest outside the body and at most 1: they look like "
            "transmission, exp(-line integral)",
            "store -log of them",
        )
    elif len(highest) == 1 and highest <= FULL_SCALES and views.min() >= 0:
        yield error(
            "scaled-by-image",
            case.name,
            f"every view runs to exactly {highest.pop():g}: they look scaled by their "
            "own range, so that absolute line integrals are lost",
            "export unscaled line integrals, or set kind to 'uncalibrated' in "
            "geometry.json",
        )
    elif negative > 0.001:
        yield warning(
            "negative-line-integrals",
            case.name,
            f"{100 * negative:.1f} % of the pixels are below -0.1 "
            f"(lowest {views.min():.3g})",
            "calibrate: air is 0",
        )


def _looks_like_transmission(views: Array) -> bool:
    edges = (views[:, 0], views[:, -1], views[:, :, 0], views[:, :, -1])
    border = np.concatenate([edge.ravel() for edge in edges])
    within = views.min() >= 0 and 0.8 < np.percentile(views, 99.5) < 1.1
    return bool(within and np.median(border) > views.mean())


# -- views and CT ----------------------------------------------------------------------
def _volume_findings(case: Case, volume: Volume) -> Iterator[Finding]:
    try:
        doubt = doubt_about(volume)
    except DataError as problem:
        yield error(
            "not-hounsfield",
            case.name,
            f"ct.nii.gz: {problem}",
            "write the CT in HU, or take it away",
        )
    else:
        if doubt:
            yield warning(
                "not-hounsfield",
                case.name,
                f"ct.nii.gz: {doubt}",
                "make sure that it is a CT in HU",
            )


def _placing_findings(
    case: Case, views: Array, record: GeometryRecord, volume: Volume
) -> Iterator[Finding]:
    """Where the isocentre lies, and whether the detector shows the patient whole."""
    away = float(np.linalg.norm(np.array(record.isocentre_mm) - middle_of(volume)))
    body = body_points(volume, isocentre=record.isocentre_mm)
    outside = share_outside(record.geometry, body).tolist()
    if away > FAR_MM:
        unseen = bool(outside) and min(outside) > 1 - TRUNCATED
        severity = error if unseen else warning
        yield severity(
            "isocentre-far",
            case.name,
            f"the isocentre lies {away:.0f} mm from the middle of the CT",
            "correct isocentre_mm in geometry.json: RAS mm in the world of the CT",
        )
    cut = [v for v, share in enumerate(outside) if share > TRUNCATED]
    if cut and away <= FAR_MM:
        yield warning(
            "truncated",
            case.name,
            f"up to {100 * max(outside):.0f} % of the body lies outside the detector "
            f"({_named(record, cut)})",
            "use larger pixels or a larger detector",
        )


def _consistency_findings(
    case: Case, views: Array, record: GeometryRecord, volume: Volume
) -> Iterator[Finding]:
    """Views must be what the CT looks like from there."""
    if record.kind != "line integrals" or not len(views):
        return
    expected = _rendered(record, record.geometry, volume)
    off = {v: relative_rmse(view, expected[v]) for v, view in enumerate(views)}
    wrong = sorted((v for v in off if off[v] > SUSPICIOUS), key=lambda v: -off[v])
    if not wrong:
        return
    most = off[wrong[0]]
    reading = explanation(views, expected, wrong[:3], record, volume)
    misplaced = bool(reading) and not reading.startswith(VALUES)
    severity = error if misplaced or most > WRONG else warning
    remark = f"; {reading}" if reading else ""
    yield severity(
        "views-differ-from-ct",
        case.name,
        f"{_named(record, sorted(wrong))}: up to {100 * most:.0f} % off the CT "
        f"(relative RMSE){remark}",
        "correct the views, geometry.json or the CT's header",
    )


def _rendered(record: GeometryRecord, geometry: Geometry, volume: Volume) -> Array:
    """Views `(v, rows, columns)` of the CT from `geometry`, with the record's values."""
    return render(
        volume,
        geometry,
        isocentre=record.isocentre_mm,
        water_per_mm=record.water_per_mm,
    )


def relative_rmse(image: Array, expected: Array) -> float:
    """`||image - expected|| / ||expected||`; infinite for images of different shapes."""
    if image.shape != expected.shape:
        return float("inf")
    size = max(float(np.linalg.norm(expected)), 1e-6)
    return float(np.linalg.norm(image - expected) / size)


def explanation(
    views: Array,
    expected: Array,
    wrong: Sequence[int],
    record: GeometryRecord,
    volume: Volume,
) -> str:
    """The other reading of the `wrong` views that fits the CT best, in words; empty if
    none fits them all.
    """
    as_they_are = max(relative_rmse(views[v], expected[v]) for v in wrong)
    readings = [_readings(views, expected, v, record, volume) for v in wrong]

    def worst(words: str) -> float:
        return max(reading[words] for reading in readings)

    best = min(readings[0], key=worst)
    if worst(best) >= min(FITS, as_they_are / 2):
        return ""
    return f"{best} ({100 * worst(best):.0f} % then)"


def _readings(
    views: Array, expected: Array, view: int, record: GeometryRecord, volume: Volume
) -> dict[str, float]:
    """How far off one view is if it means something else, by what that is."""
    image = views[view]
    wanted = expected[view]
    off = {
        words: relative_rmse(change(image), wanted)
        for words, change in READINGS.items()
    }
    scale = float((image * wanted).sum() / max(float((image * image).sum()), 1e-12))
    shift = (wanted - image).mean()
    off[f"{VALUES} scaled"] = relative_rmse(scale * image, wanted)
    off[f"{VALUES} shifted, air should be 0"] = relative_rmse(image + shift, wanted)
    others = [
        relative_rmse(image, expected[other])
        for other in range(len(views))
        if other != view
    ]
    off["the views look out of order"] = min(others, default=float("inf"))
    return off | _turned(image, view, record, volume)


READINGS: dict[str, Callable[[Array], Array]] = {
    "columns look mirrored": lambda image: image[:, ::-1],
    "rows look mirrored": lambda image: image[::-1],
    "the image looks turned by 180 degrees": lambda image: image[::-1, ::-1],
    "the image looks turned by 90 degrees": lambda image: np.rot90(image),
    "the image looks turned by 270 degrees": lambda image: np.rot90(image, -1),
    "rows and columns look swapped": lambda image: image.T,
    "grey looks inverted": lambda image: image.max() - image,
}


def _turned(
    image: Array, view: int, record: GeometryRecord, volume: Volume
) -> dict[str, float]:
    """How well the view fits if its angles mean something else."""
    angles = record.views[view]
    alone = record.model_copy(update={"views": (angles,)})
    primary = angles.primary_degrees
    secondary = angles.secondary_degrees
    others = {
        "the primary angle looks turned by 180 degrees": (primary + 180, secondary),
        "the primary angle looks to have the other sign": (-primary, secondary),
        "the secondary angle looks to have the other sign": (primary, -secondary),
    }
    readings = {}
    for words, (turn, tilt) in others.items():
        geometry = replace(
            alone.geometry,
            primary=torch.tensor([float(turn)]),
            secondary=torch.tensor([float(tilt)]),
        )
        wanted = _rendered(record, geometry, volume)[0]
        mirrored = f"{words}, and columns (or the CT left to right) mirrored"
        readings[words] = relative_rmse(image, wanted)
        readings[mirrored] = relative_rmse(image[:, ::-1], wanted)
    return readings


def _named(record: GeometryRecord, views: Sequence[int]) -> str:
    """Views by their angles."""
    if len(views) == len(record.views) > 1:
        return f"all {len(views)} views"
    return f"views at {few((_angle(record, view) for view in views), shown=6)}"


def _angle(record: GeometryRecord, view: int) -> str:
    angles = record.views[view]
    tilt = f" / {angles.secondary_degrees:g}°" if angles.secondary_degrees else ""
    return f"{angles.primary_degrees:g}°{tilt}"
