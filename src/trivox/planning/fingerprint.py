"""The fingerprint: spacings, sizes and intensities measured on the training cases."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from trivox.datasets.content import CaseContent, content_of
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.reading import BoxEdges, read_case
from trivox.errors import DataError, PlanError, TrivoxError, of_case
from trivox.files import read_json, write_json
from trivox.schema import Frozen
from trivox.volumes.formats import read_header
from trivox.volumes.geometry import canonical_orientation
from trivox.volumes.volume import Array, spacing_of

SAMPLES = 10_000_000
"""Foreground intensities drawn over all cases; percentiles to 0.5 % need far fewer,
nnU-Net draws ten times as many.
"""
SEED = 1234


class Intensities(Frozen):
    """Statistics of one channel inside the labelled foreground, pooled over the
    training cases.
    """

    mean: float
    median: float
    std: float
    minimum: float
    maximum: float
    percentile_00_5: float
    percentile_99_5: float


Voxels = Annotated[int, Field(ge=1, le=2**31)]
Millimetres = Annotated[float, Field(ge=1e-6, le=1e6)]


class CaseFingerprint(Frozen):
    """One case in canonical orientation: size after cropping to the non-zero box,
    spacing, and share of the box; box: that it was cropped to, which 0.1.0 did not
    write down.
    """

    name: str
    shape: tuple[Voxels, Voxels, Voxels]
    spacing: tuple[Millimetres, Millimetres, Millimetres]
    relative_size: float
    box: BoxEdges | None = None


class Fingerprint(Frozen):
    """What was measured on a dataset; frozen, JSON.

    content: what each case was made of then; 0.1.0 did not write it down.
    """

    task: str | None = None
    format_version: Literal[1] = 1
    dataset: str
    cases: tuple[CaseFingerprint, ...]
    intensities: dict[str, Intensities]
    content: dict[str, CaseContent] = Field(default_factory=dict)

    @property
    def relative_size(self) -> float:
        """Median share of the voxels that cropping keeps."""
        return float(np.median([case.relative_size for case in self.cases]))


def measure(
    dataset: Dataset,
    *,
    labelled: bool = True,
    progress: Callable[[Iterable[Case]], Iterable[Case]] = lambda cases: cases,
    say: Callable[[str], None] = lambda line: None,
) -> Fingerprint:
    """Read each training case once and measure it; a case that cannot be read is set
    aside with a line.

    labelled: a dataset without labels is an error; otherwise the intensities are those
    of all voxels that are not zero. Raises `DataError` if half of the cases or more
    cannot be read, with the reason of the first.
    """
    if (labelled and dataset.labels is None) or not dataset.training_cases:
        raise DataError(
            f"{dataset.root}: no labelled training cases; run 'trivox check' to see "
            "what was found"
        )
    wanted = max(1, SAMPLES // len(dataset.training_cases))
    cases: list[CaseFingerprint] = []
    samples: list[Array] = []
    content: dict[str, CaseContent] = {}
    failures: list[str] = []
    for case in progress(dataset.training_cases):
        try:
            # before it is read: a later change is noticed
            made_of = content_of(case, dataset.labels)
            read = read_case(
                case, channels=len(dataset.channels), labels=dataset.labels
            )
        except DataError as error:
            failures.append(of_case(case.name, str(error)))
            continue
        content[case.name] = made_of
        measured = CaseFingerprint(
            name=case.name,
            shape=read.shape,
            spacing=read.spacing,
            relative_size=read.relative_size,
            box=read.box,
        )
        cases.append(measured)
        samples.append(_foreground(read.image, read.label, wanted))
    if 2 * len(failures) >= len(dataset.training_cases):
        raise DataError(
            f"{dataset.root}: {len(failures)} of {len(dataset.training_cases)} cases "
            f"cannot be read: {failures[0]}"
        )
    for failure in failures:
        say(f"set aside: {failure}")
    intensities: dict[str, Intensities] = {}
    for index, name in enumerate(dataset.channels):
        pooled = np.concatenate([sample[index] for sample in samples])
        intensities[name] = _statistics(pooled)
    return Fingerprint(
        task=dataset.task,
        dataset=dataset.name,
        cases=tuple(cases),
        intensities=intensities,
        content=content,
    )


def outline(dataset: Dataset) -> Fingerprint:
    """What the headers of the training cases say: sizes before cropping, spacings, no
    intensities; cases that cannot be read are left out.
    """
    cases: list[CaseFingerprint] = []
    for case in dataset.training_cases:
        try:
            header = read_header(case.images[0])
        except (TrivoxError, OSError, IndexError):
            continue
        axes = canonical_orientation(header.affine).axes
        edges = spacing_of(header.affine)
        shape = (header.shape[axes[0]], header.shape[axes[1]], header.shape[axes[2]])
        spacing = (edges[axes[0]], edges[axes[1]], edges[axes[2]])
        cases.append(
            CaseFingerprint(
                name=case.name, shape=shape, spacing=spacing, relative_size=1.0
            )
        )
    return Fingerprint(dataset=dataset.name, cases=tuple(cases), intensities={})


def _foreground(image: Array, label: Array | None, wanted: int) -> Array:
    """`(c, n)` intensities of the foreground voxels, at most `wanted`, drawn with
    replacement if there are more.
    """
    mask = (image != 0).any(axis=0) if label is None else label > 0
    inside = image[:, mask]
    count = inside.shape[1]
    if count > wanted:
        drawn = np.random.default_rng(SEED).integers(0, count, wanted)
        inside = inside[:, drawn]
    return np.asarray(inside)


def _statistics(values: Array) -> Intensities:
    # A dataset without any foreground is refused by 'trivox check'.
    if not values.size:
        values = np.zeros(1, np.float32)
    low, median, high = np.percentile(values, [0.5, 50, 99.5])
    return Intensities(
        mean=float(values.mean(dtype=np.float64)),
        median=float(median),
        std=float(values.std(dtype=np.float64)),
        minimum=float(values.min()),
        maximum=float(values.max()),
        percentile_00_5=float(low),
        percentile_99_5=float(high),
    )


def write_fingerprint(fingerprint: Fingerprint, path: Path) -> None:
    """Write `fingerprint.json` atomically."""
    write_json(path, fingerprint.model_dump(mode="json"))


def read_fingerprint(path: Path) -> Fingerprint:
    """Read what `write_fingerprint` wrote; raises `PlanError` naming the file if it is
    not that.
    """
    try:
        return Fingerprint.model_validate(read_json(path))
    except ValidationError as error:
        raise PlanError(
            f"{path}: is no fingerprint; delete it, and it will be measured again"
        ) from error
