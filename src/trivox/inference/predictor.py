"""A bundle made ready: images in, label maps on the image's own grid out.

In-process, no files in between.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.datasets.reading import crop_volume, read_channels
from trivox.errors import BundleError, DataError, RecipeError
from trivox.inference.adapting import about_absent, in_values_of
from trivox.inference.bundle import Bundle, read_bundle
from trivox.inference.classes.reader import Classification, Reading, joined
from trivox.inference.doubt.calibration import Abstention
from trivox.inference.doubt.sampling import BandSampler, VoxelSample
from trivox.inference.doubt.uncertainty import require_kinds
from trivox.inference.members import load_member, scaled_member
from trivox.inference.trust import doubt_in_foreground, verdict, volumes_of, votes_of
from trivox.inference.voting import Member, Poll, Pollster, label_case
from trivox.learning.runtime import make_runtime
from trivox.planning.plan import Plan
from trivox.preparation.grid import GridRecord, PreparedCase, prepare
from trivox.volumes.formats import case_stem, write_volume
from trivox.volumes.volume import Array, Spacing, Volume, affine_from_spacing

Missing = Literal["refuse", "zeros"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """One case, everything on its source grid.

    labels: file values `(1, z, y, x)`; probabilities: `(c, z, y, x)` float32 if asked
    for; uncertainty: the kinds asked for, `(1, z, y, x)` float32; trust: ready for
    JSON: `volumes` of each target (ml, and an interval where probabilities were at
    hand), `votes` and their `agreement`, and, if the model has a rule for it, `abstain`
    with score and reason; sample: voxels with logits, if a reference was given;
    classification: the class of the case, if the model gives one; readings: what each
    network read for it.
    """

    labels: Volume
    probabilities: Volume | None
    seconds: float
    warnings: tuple[str, ...] = ()
    uncertainty: Mapping[str, Volume] = field(default_factory=dict)
    trust: Mapping[str, Any] = field(default_factory=dict)
    sample: VoxelSample | None = None
    classification: Classification | None = None
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True, eq=False)
class Predictor:
    """Ready to predict; build it with `Predictor.load`."""

    bundles: tuple[Bundle, ...]
    members: tuple[Member, ...] = field(repr=False)
    scales: tuple[float, ...] = (1.0,)
    seed: int = 0
    missing: Missing = "refuse"
    read_everything: bool = False
    """Whether networks are run for the class where the answer does not need it, to
    compare with.
    """

    @classmethod
    def load(
        cls,
        models: Path | str | Sequence[Path | str],
        *,
        device: str = "auto",
        precision: str = "auto",
        mirror: bool | None = None,
        overlap: float | None = None,
        mc_samples: int = 0,
        scales: Sequence[float] = (1.0,),
        seed: int = 0,
        missing: Missing = "refuse",
    ) -> "Predictor":
        """Load a run or bundle, or several for an ensemble.

        mirror: average over mirrored copies (None: as the bundle says); overlap: of
        windows, likewise; mc_samples: passes with random dropout, drawn from `seed`;
        scales: predict with structures that many times as large, and average; missing:
        cases that lack a channel are refused, or predicted with zeros in its place and
        a warning. Raises `BundleError` for a damaged model, models that do not fit
        together, or `mc_samples` without any dropout.
        """
        if not scales or min(scales) <= 0 or mc_samples < 0:
            raise RecipeError(
                f"scales {list(scales)} must be above 0 and mc_samples {mc_samples} not below 0"
            )
        paths = [models] if isinstance(models, str | Path) else list(models)
        if not paths:
            raise BundleError("no model given; name a run or bundle folder")
        bundles = tuple(read_bundle(Path(path)) for path in paths)
        first = bundles[0].description.plan
        for bundle in bundles[1:]:
            plan = bundle.description.plan
            known = [b.description.classification for b in (bundle, bundles[0])]
            classes = [
                None if answers is None else answers.classes for answers in known
            ]
            if (plan.labels, plan.channels) != (
                first.labels,
                first.channels,
            ) or classes[0] != classes[1]:
                raise BundleError(
                    f"{bundle.folder}: labels, channels or classes differ from {bundles[0].folder}: they cannot vote"
                )
        if bundles[0].description.classification is not None and 1.0 not in scales:
            raise RecipeError(
                f"scales {list(scales)}: the class of a case is read at scale 1; add it to the scales"
            )
        runtime = make_runtime(device, precision)
        members = [
            load_member(bundle, runtime, mirror, overlap, mc_samples)
            for bundle in bundles
        ]
        scaled = tuple(
            scaled_member(member, scale) for member in members for scale in scales
        )
        return cls(bundles, scaled, tuple(scales), seed, missing)

    def writing(self, **outputs):  # type: ignore
        object.__setattr__(self, "_outputs", outputs)
        return self

    @property
    def labels(self) -> LabelScheme:
        """What the values in the predicted label maps mean."""
        return self.members[0].plan.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that a case may belong to; none for models that only segment."""
        answers = self.bundles[0].description.classification
        return () if answers is None else answers.classes

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the input channels, in order."""
        return self.members[0].plan.channels

    @property
    def identity(self) -> str:
        """Hash of all weights."""
        return "+".join(bundle.identity for bundle in self.bundles)

    @property
    def settings(self) -> dict[str, object]:
        """What besides the weights decides a prediction, ready for JSON."""
        windows = [member.windows for member in self.members]
        return {
            "overlap": [w.overlap for w in windows],
            "mirror_axes": [list(w.mirror_axes) for w in windows],
            "precision": windows[0].runtime.precision,
            "postprocessing": [
                b.description.postprocessing.model_dump(mode="json")
                for b in self.bundles
            ],
            "temperature": [member.temperature for member in self.members],
            "scales": list(self.scales),
            "mc_samples": self.members[0].passes,
            "seed": self.seed,
            "missing": self.missing,
        }

    @property
    def votes(self) -> int:
        """How many votes there are: models x folds x mirrored copies x Monte Carlo
        passes x scales.
        """
        return sum(len(member.votes()) for member in self.members)

    @property
    def abstention(self) -> Abstention | None:
        """When a case is flagged; several models need a rule each, and the mean of
        their thresholds holds.
        """
        rules = [bundle.description.abstention for bundle in self.bundles]
        known = [rule for rule in rules if rule is not None]
        if len(known) < len(rules):
            return None
        return known[0].model_copy(
            update={"threshold": float(np.mean([rule.threshold for rule in known]))}
        )

    def predict_array(self, image: Array, spacing: Spacing) -> Array:
        """Labels `(z, y, x)` for an image `(c, z, y, x)` or `(z, y, x)` in RAS
        orientation with `spacing` in mm.
        """
        volume = Volume(
            image if image.ndim == 4 else image[None], affine_from_spacing(spacing)
        )
        return np.asarray(self.predict_volume(volume).labels.array[0])

    def predict_file(
        self, images: Path | str | Sequence[Path | str], out: Path | str | None = None
    ) -> Prediction:
        """Predict from one image file or DICOM folder (or one for each channel); writes
        the label map to `out` if given.
        """
        paths = [images] if isinstance(images, str | Path) else list(images)
        first = Path(paths[0])
        prediction = self.predict_case(
            Case(name=case_stem(first), images=tuple(Path(path) for path in paths))
        )
        if out is not None:
            write_volume(Path(out), prediction.labels)
        return prediction

    def predict_case(
        self,
        case: Case,
        *,
        probabilities: bool = False,
        uncertainty: Sequence[str] = (),
        reference: Array | None = None,
    ) -> Prediction:
        """Predict from files; errors name the case.

        The label map is written with the case's own values, if it has any.
        """
        if case.absent and self.missing == "refuse":
            names = ", ".join(self.channels[index] for index in case.absent)
            raise DataError(
                f"{case.name}: has no {names}; add the file, or predict with zeros in its place by --missing-channels zeros"
            )
        volume = read_channels(case, channels=len(self.channels))
        found = self.predict_volume(
            volume,
            probabilities=probabilities,
            uncertainty=uncertainty,
            reference=reference,
            where=case.name,
        )
        labels, lost = in_values_of(case, found.labels, self.labels)
        warnings = (
            *found.warnings,
            *about_absent(case, self.channels, self.bundles),
            *lost,
        )
        return replace(found, labels=labels, warnings=warnings)

    def predict_volume(
        self,
        volume: Volume,
        *,
        probabilities: bool = False,
        uncertainty: Sequence[str] = (),
        reference: Array | None = None,
        where: str = "image",
    ) -> Prediction:
        """Predict one image; the result lies on its grid.

        uncertainty: kinds of doubt (`trivox.inference.doubt.uncertainty.KINDS`); raises
        `RecipeError` for kinds that a single vote cannot give. reference: label indices
        `(z, y, x)` on the source grid; voxels near them are sampled. Neither changes
        the label map.
        """
        started = time.monotonic()
        require_kinds(uncertainty, votes=self.votes)
        if volume.channels != len(self.channels):
            raise DataError(
                f"{where}: {volume.channels} channels found, the model needs {len(self.channels)}: {self.channels}"
            )
        cropped = crop_volume(volume, None, where=where)
        prepared = [prepare(cropped, member.plan) for member in self.members]
        record = prepared[0].record
        sampler = self._sampler(record, reference)
        raw, poll = self._label(
            prepared, probabilities or bool(uncertainty), uncertainty, sampler
        )
        indices = self._clean(raw, record)
        source = record.to_source(
            self.labels.decode(indices), fill=self.labels.background
        )
        classification, readings = self._classify(
            prepared, record.to_source(raw).array[0]
        )
        sample = sampler.sample() if sampler is not None else None
        return Prediction(
            labels=source,
            probabilities=self._to_source(poll.probabilities.numpy(), record)
            if poll and probabilities
            else None,
            seconds=time.monotonic() - started,
            warnings=tuple(_warnings(prepared[0], self.members[0].plan)),
            uncertainty={
                kind: record.to_source(array) for kind, array in poll.maps.items()
            }
            if poll
            else {},
            trust=self._trust(raw, indices, poll, sample, record.source.voxel_ml),
            sample=sample if reference is not None else None,
            classification=classification,
            readings=readings,
        )

    def _label(
        self,
        prepared: Sequence[PreparedCase],
        detailed: bool,
        kinds: Sequence[str],
        sampler: BandSampler | None,
    ) -> tuple[Array, Poll | None]:
        """Label indices before cleaning, and what a poll found if one was needed."""
        passes = self.members[0].passes
        if len(self.members) == 1 and not (detailed or passes):
            slabs = self.members[0].windows.slabs(prepared[0].image)
            return label_case(slabs, prepared[0].record, self.labels, sampler), None
        spread = bool(kinds or passes)
        clean = partial(self._clean, record=prepared[0].record)
        pollster = Pollster(
            self.members, self.labels, kinds, spread=spread, seed=self.seed, clean=clean
        )
        poll = pollster.poll(prepared, sampler)
        return poll.labels, poll

    def _classify(
        self, prepared: Sequence[PreparedCase], indices: Array
    ) -> tuple[Classification | None, tuple[Reading, ...]]:
        """The class of the case; every network votes once.

        indices: labels `(z, y, x)` on the source grid, before cleaning: classifiers
        were fitted on such.
        """
        found, readings = [], []
        for member, case in zip(self.members, prepared, strict=True):
            own = case.record.to_grid(indices) if member.readers else indices
            for reader in member.readers:
                readings.append(
                    reader.read(case.image, own, everything=self.read_everything)
                )
                found.append(reader.log_probabilities(readings[-1]))
        if not found:
            return None, ()
        flags = [flag for reading in readings for flag in reading.flags]
        return joined(self.classes, found, flags), tuple(readings)

    def _clean(self, indices: Array, record: GridRecord) -> Array:
        voxel_mm3 = record.source.voxel_ml * 1000
        for bundle in self.bundles:
            indices = bundle.description.postprocessing.apply(
                indices, self.labels, voxel_mm3=voxel_mm3
            )
        return indices

    def _sampler(
        self, record: GridRecord, reference: Array | None
    ) -> BandSampler | None:
        """Where a single member decides, voxels are sampled for calibration or to know
        whether to flag the case.
        """
        if len(self.members) > 1 or (reference is None and self.abstention is None):
            return None
        return BandSampler(None if reference is None else record.from_source(reference))

    def _trust(
        self,
        raw: Array,
        indices: Array,
        poll: Poll | None,
        sample: VoxelSample | None,
        voxel_ml: float,
    ) -> dict[str, Any]:
        volumes, rule, score = (
            volumes_of(raw, indices, poll, self.labels, voxel_ml=voxel_ml),
            self.abstention,
            None,
        )
        if rule is not None:
            score = doubt_in_foreground(
                raw,
                poll,
                sample,
                exclusive=self.labels.exclusive,
                temperature=self.members[0].temperature,
            )
        return {"volumes": volumes, **votes_of(poll), **verdict(rule, score)}

    def _to_source(self, chance: Array, record: GridRecord) -> Volume:
        """Probabilities on the source grid; outside the cropped box the background is
        certain.
        """
        whole = record.to_source(chance)
        if self.labels.exclusive:
            outside = record.to_source(np.ones(chance.shape[1:], bool)).array[0] == 0
            whole.array[0][outside] = 1
        return whole


def _warnings(case: PreparedCase, plan: Plan) -> list[str]:
    """What makes a prediction doubtful."""
    found = []
    if min(case.record.shape) < 4:
        found.append(
            f"only {case.record.shape} voxels (z, y, x) at the plan's spacing of {plan.spacing} mm"
        )
    if not bool(torch.any(case.image[: len(plan.channels)] != 0)):
        found.append("the image is constant")
    return found
