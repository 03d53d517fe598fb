"""The result of one case, as everything takes it that makes a file of it."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from trivox.datasets.dataset import Case
from trivox.datasets.reading import read_channels
from trivox.inference.classify import Classification
from trivox.inference.describe import Prediction, written_labels
from trivox.inference.predictor import Predictor
from trivox.inference.reconstructor import Reconstruction, Reconstructor
from trivox.results.identity import (
    ModelIdentity,
    identity_of_labels,
    identity_of_volumes,
)
from trivox.results.measuring.rows import StructureRow
from trivox.results.measuring.structures import measure_structures
from trivox.results.options import AS_USUAL, ResultOptions
from trivox.results.source_series import SourceSeries, series_of_case
from trivox.volumes.volume import Volume

TASK_NUMBER = re.compile(r"^Task\d+_")
"""What the names of MSD data sets begin with."""


@dataclass(frozen=True, eq=False)
class CaseResult:
    """What a model found in a case, on the grid of its image.

    labels: values as they are written, `(1, z, y, x)`; None of a model that makes
    volumes; volume: what such a model made, in HU; names: label name -> value in
    `labels`, background left out; segments: what was learnt and is measured: name ->
    the values that belong to it; those of regions may overlap; probabilities: `(c, z, y,
    x)`, background first, or one a region, where they were asked for; trust, warnings,
    classification: as `Prediction` has them; channels: names of the image's; options:
    how it is written.
    """

    case: Case
    model: ModelIdentity
    channels: tuple[str, ...]
    labels: Volume | None = None
    volume: Volume | None = None
    names: Mapping[str, int] = field(default_factory=dict)
    segments: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    probabilities: Volume | None = None
    trust: Mapping[str, Any] = field(default_factory=dict)
    classification: Classification | None = None
    warnings: tuple[str, ...] = ()
    options: ResultOptions = AS_USUAL

    @cached_property
    def image(self) -> Volume:
        """All channels of the case `(c, z, y, x)`, read again, zeros for absent ones;
        raises as `read_channels`.
        """
        return read_channels(self.case, channels=len(self.channels), stored=True)

    @cached_property
    def structures(self) -> dict[str, StructureRow]:
        """What is measured of each segment; raises as `image`."""
        if self.labels is None:
            return {}
        return measure_structures(
            self.labels,
            self.segments,
            self.image,
            channels=self.channels,
            absent=self.case.absent,
            volumes=self.trust.get("volumes"),
        )

    @cached_property
    def hounsfield(self) -> tuple[bool, ...]:
        """Whether the values of each channel are known to be in HU: it is called CT, or
        is the first one and read from DICOM images of a CT.
        """
        named = [name.casefold() == "ct" for name in self.channels]
        if named and not named[0] and self.source is not None:
            first = self.source.first
            in_units = str(first.get("RescaleType", "HU") or "HU")
            named[0] = first.get("Modality") == "CT" and in_units.startswith("HU")
        return tuple(named)

    @cached_property
    def labels_digest(self) -> str:
        """A hash over what decides an object that holds the labels and nothing else, so
        that it has the same UIDs if, and only if, it says the same.
        """
        said = [
            self.model,
            sorted(self.names.items()),
            sorted(self.segments.items()),
            self.options.record(),
        ]
        volumes = [self.labels]
        if self.options.seg_type == "fractional":
            volumes.append(self.probabilities)
        return _digest_of(said, volumes)

    @cached_property
    def digest(self) -> str:
        """A hash over that, what was measured, and what makes the case doubtful,
        likewise.
        """
        classes = self.classification
        said = [
            self.labels_digest,
            json.dumps(self.trust, sort_keys=True, default=str),
            json.dumps(self.structures),
            self.warnings,
            classes and (sorted(classes.probabilities.items()), classes.flags),
        ]
        return _digest_of(said, [self.volume])

    @cached_property
    def source(self) -> SourceSeries | None:
        """The DICOM series that the first channel was read from; None for a case of
        files of other formats.
        """
        return series_of_case(self.case)


def _digest_of(said: Sequence[object], volumes: Iterable[Volume | None]) -> str:
    whole = hashlib.sha256(repr(said).encode("utf-8", "backslashreplace"))
    for volume in volumes:
        if volume is not None:
            whole.update(str(volume.array.shape).encode())
            whole.update(np.ascontiguousarray(volume.array).data)
    return whole.hexdigest()


def label_result(
    predictor: Predictor, case: Case, made: Prediction, options: ResultOptions
) -> CaseResult:
    """What a model of label maps found."""
    names = written_labels(case, predictor.labels)
    segments = _written_segments(predictor, names)
    dataset = predictor.members[0].plan.dataset
    codes = replace(options.codes, context=TASK_NUMBER.sub("", dataset))
    return CaseResult(
        case=case,
        model=identity_of_labels(predictor.descriptions),
        channels=predictor.channels,
        labels=made.labels,
        names=names,
        segments=segments,
        probabilities=made.probabilities,
        trust=made.trust,
        classification=made.classification,
        warnings=made.warnings,
        options=replace(options, codes=codes),
    )


def volume_result(
    reconstructor: Reconstructor,
    case: Case,
    made: Reconstruction,
    options: ResultOptions,
) -> CaseResult:
    """What a model of volumes made of X-rays."""
    return CaseResult(
        case=case,
        model=identity_of_volumes(reconstructor),
        channels=(),
        volume=made.volume,
        warnings=made.warnings,
        options=options,
    )


def _written_segments(
    predictor: Predictor, names: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """The values of each target in the written map; a label that the case's own scheme
    lacks was written as background.
    """
    scheme = predictor.labels
    by_value = {value: name for name, value in scheme.labels.items()}
    segments: dict[str, tuple[int, ...]] = {}
    for target, indices in scheme.targets.items():
        parts = [by_value[scheme.values[index]] for index in indices]
        segments[target] = tuple(names[part] for part in parts if part in names)
    return segments
