"""A bundle made ready: images in, label maps on the image's own grid out.

In-process, no files in between. The way of an image is a line of steps, each in a
module of its name: read, prepare, compute (`windows` and `engines`), decide (and clean
by `rules`), restore to the source's grid (`source_grid`), judge, classify, describe;
`writing` makes files of it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from trivox.config.choices import EngineChoice, MissingChannels, require_choice
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.errors import UsageError
from trivox.inference.bundle import model_paths, read_bundle
from trivox.inference.classes.files import (
    CLASSES_FILE,
    SUBTYPE_FILE,
    write_class_tables,
)
from trivox.inference.classify import classify
from trivox.inference.decide import Decision, Pollster
from trivox.inference.describe import (
    Computed,
    Prediction,
    about_absent,
    in_values_of,
    prediction_of,
)
from trivox.inference.descriptions import LabelDescription, digest_of
from trivox.inference.doubt.calibration import Abstention, joint_rule
from trivox.inference.doubt.flags import Flag, flag_of
from trivox.inference.doubt.kinds import NOTHING_ELSE, Extras
from trivox.inference.doubt.sampling import BandSampler, sampler_of
from trivox.inference.doubt.shift import CaseVolumes
from trivox.inference.doubt.uncertainty import require_kinds
from trivox.inference.engines.making import runtime_beside
from trivox.inference.engines.torch import time_convolutions
from trivox.inference.members import (
    Member,
    WindowOptions,
    fitting_runtime,
    load_member,
    load_members,
    quickest,
    require_alike,
    require_scale_one,
    require_scales,
    settings_of,
)
from trivox.inference.prepare import Begun, begun_image, case_bytes
from trivox.inference.read import read_image
from trivox.inference.rules.postprocess import apply_rules
from trivox.inference.writing import Record, file_names
from trivox.learning.runtime import Runtime
from trivox.preparation.grid import GridRecord, PreparedCase
from trivox.volumes.formats import case_stem, write_volume
from trivox.volumes.volume import Array, Spacing, Volume, affine_from_spacing


@dataclass(frozen=True, eq=False)
class Predictor:
    """Ready to predict; build it with `Predictor.load`.

    extras: what is given beside label maps; others by `dataclasses.replace`. Raises
    `UsageError` for kinds of doubt that the members cannot give.
    """

    descriptions: tuple[LabelDescription, ...]
    members: tuple[Member, ...] = field(repr=False)
    scales: tuple[float, ...] = (1.0,)
    seed: int = 0
    missing: MissingChannels = "refuse"
    extras: Extras = NOTHING_ELSE
    read_everything: bool = False
    """Whether networks are run for the class where the answer does not need it, to
    compare with.
    """

    def __post_init__(self) -> None:
        require_kinds(self.extras.uncertainty, votes=self.votes)

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
        missing: MissingChannels = "refuse",
        engine: EngineChoice = "torch",
    ) -> "Predictor":
        """Load a run or bundle, or several for an ensemble.

        mirror: average over mirrored copies (None: as the bundle says); overlap: of
        windows, likewise; mc_samples: passes with random dropout, drawn from `seed`;
        scales: predict with structures that many times as large, and average; missing:
        cases that lack a channel are refused, or predicted with zeros in its place and
        a warning; engine: what computes the networks, "auto": the fastest here. Raises
        `BundleError` for a damaged model, models that do not fit together, or
        `mc_samples` without any dropout.
        """
        require_scales(scales)
        if mc_samples < 0:
            raise UsageError(f"mc_samples {mc_samples} must not be below 0")
        require_choice("missing", missing, MissingChannels)
        require_choice("engine", engine, EngineChoice)
        bundles = [read_bundle(path) for path in model_paths(models)]
        require_alike(bundles)
        descriptions = tuple(bundle.description for bundle in bundles)
        if descriptions[0].classification is not None:
            require_scale_one(scales)
        if engine == "auto":
            engine = quickest(bundles[0], device, precision, passes=mc_samples)
        runtime = runtime_beside(engine, device, precision)
        if precision == "auto":
            runtime = fitting_runtime(runtime, descriptions)
        time_convolutions(runtime)
        options = WindowOptions(mirror, overlap, mc_samples, engine)
        members = load_members(bundles, runtime, options, scales)
        return cls(descriptions, members, tuple(scales), seed, missing)

    @classmethod
    def of(
        cls,
        description: LabelDescription,
        weights: Sequence[Path],
        runtime: Runtime,
        *,
        classifiers: Sequence[Path] = (),
        read_everything: bool = False,
    ) -> "Predictor":
        """From weights that are in no bundle yet."""
        member = load_member(
            description, weights, classifiers, runtime, WindowOptions()
        )
        return cls((description,), (member,), read_everything=read_everything)

    @property
    def labels(self) -> LabelScheme:
        """What the values in the predicted label maps mean."""
        return self.members[0].plan.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that a case may belong to; none for models that only segment."""
        answers = self.descriptions[0].classification
        return () if answers is None else answers.classes

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the input channels, in order."""
        return self.members[0].plan.channels

    @property
    def identity(self) -> str:
        """Hash of all weights."""
        return "+".join(each.identity for each in self.descriptions)

    @property
    def settings(self) -> dict[str, object]:
        """What besides the weights decides a prediction, ready for JSON."""
        return {
            **settings_of(self.members, self.descriptions),
            "scales": list(self.scales),
            "mc_samples": self.members[0].passes,
            "seed": self.seed,
            "missing": self.missing,
            **self.extras.settings,
        }

    @property
    def votes(self) -> int:
        """How many votes there are: models x folds x mirrored copies x Monte Carlo
        passes x scales.
        """
        return sum(len(member.votes()) for member in self.members)

    @property
    def abstention(self) -> Abstention | None:
        """When a case is flagged."""
        return joint_rule([each.abstention for each in self.descriptions])

    @property
    def flag(self) -> Flag | None:
        """By how much votes agree, if that flags a case rather than entropy."""
        usual = self.scales == (1.0,) and not self.members[0].passes
        return flag_of(self.descriptions, self.votes) if usual else None

    # -- one image ---------------------------------------------------------------------
    def predict_array(self, image: Array, spacing: Spacing) -> Array:
        """Labels `(z, y, x)` for an image `(c, z, y, x)` or `(z, y, x)` in RAS
        orientation with `spacing` in mm.
        """
        channels = image if image.ndim == 4 else image[None]
        volume = Volume(channels, affine_from_spacing(spacing))
        return np.asarray(self.predict_volume(volume).labels.array[0])

    def predict_file(
        self, images: Path | str | Sequence[Path | str], out: Path | str | None = None
    ) -> Prediction:
        """Predict from one image file or DICOM folder (or one for each channel); writes
        the label map to `out` if given.
        """
        given = [images] if isinstance(images, str | Path) else list(images)
        paths = tuple(Path(path) for path in given)
        prediction = self.predict_case(Case(name=case_stem(paths[0]), images=paths))
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
        extras = self._asked(probabilities, uncertainty)
        computed = self._computed(self.begin(case), extras, reference)
        return self.complete(case, computed)

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
        `UsageError` for kinds that a single vote cannot give. They and probabilities
        come in addition to the predictor's `extras`. reference: label indices `(z, y,
        x)` on the source grid; voxels near them are sampled. Neither changes the label
        map.
        """
        extras = self._asked(probabilities, uncertainty)
        begun = begun_image(volume, self.members, self.descriptions, where=where)
        return self._restored(self._computed(begun, extras, reference), None)

    def _asked(self, probabilities: bool, uncertainty: Sequence[str]) -> Extras:
        extras = self.extras.also(probabilities=probabilities, uncertainty=uncertainty)
        require_kinds(extras.uncertainty, votes=self.votes)
        return extras

    # -- the steps of a case, see `trivox.inference.many` ------------------------------
    @property
    def device(self) -> torch.device:
        """Where the networks lie."""
        return self.members[0].windows.device

    def forecast(self, case: Case) -> float:
        """Bytes of memory that a case takes on its way, from what its headers say."""
        plans = [member.plan for member in self.members]
        return case_bytes(case, plans, detailed=self.extras.detailed)

    def begin(self, case: Case) -> Begun:
        """Read a case and prepare it; errors name the case."""
        volume = read_image(case, self.channels, missing=self.missing)
        begun = begun_image(volume, self.members, self.descriptions, where=case.name)
        return replace(begun, cells=self.extras.cells(case))

    def compute(self, begun: Begun) -> Computed:
        """What the networks make of a case."""
        return self._computed(begun, self.extras, None)

    def _computed(
        self, begun: Begun, extras: Extras, reference: Array | None
    ) -> Computed:
        started = time.monotonic()
        ready = begun.made_ready(self.members, self.descriptions)
        decision = self._decide(ready.cases, extras, reference)
        classification, readings = classify(
            self.members,
            ready.cases,
            decision.raw,
            self.classes,
            everything=self.read_everything,
            cells=begun.cells,
        )
        return Computed(
            decision=decision,
            record=ready.cases[0].record,
            unlike=ready.unlike,
            warnings=(*begun.remarks, *ready.warnings),
            extras=extras,
            sampled=reference is not None,
            classification=classification,
            readings=readings,
            seconds=begun.seconds + time.monotonic() - started,
        )

    def complete(self, case: Case, computed: Computed) -> Prediction:
        """The prediction of a case, in the case's own values if it has any."""
        prediction = self._restored(computed, self.extras.volumes_of(case))
        labels, lost = in_values_of(case, prediction.labels, self.labels)
        absent = about_absent(case, self.channels, self.descriptions)
        warnings = (*prediction.warnings, *absent, *lost)
        return replace(prediction, labels=labels, warnings=warnings)

    def _restored(self, computed: Computed, weighted: CaseVolumes | None) -> Prediction:
        return prediction_of(
            computed,
            self.labels,
            self.abstention,
            self.flag,
            self.members[0].temperature,
            [each.volumes for each in self.descriptions],
            weighted,
        )

    def _decide(
        self,
        cases: Sequence[PreparedCase],
        extras: Extras,
        reference: Array | None,
    ) -> Decision:
        """The labels of a case, prepared for each member, and what was asked for."""
        record = cases[0].record
        rules = [each.postprocessing for each in self.descriptions]
        clean = partial(
            apply_rules,
            rules,
            scheme=self.labels,
            voxel_mm3=record.source.voxel_ml * 1000,
        )
        pollster = Pollster(
            self.members,
            self.labels,
            extras.uncertainty,
            spread=bool(extras.uncertainty or self.members[0].passes),
            seed=self.seed,
            clean=clean,
            compared=extras.compared or self.flag is not None,
        )
        return pollster.decide(
            cases,
            detailed=extras.detailed,
            sampler=partial(self._sampler, record, reference),
        )

    def _sampler(
        self, record: GridRecord, reference: Array | None
    ) -> BandSampler | None:
        """Where a single member decides, voxels are sampled for calibration or to know
        whether to flag the case.
        """
        if len(self.members) > 1 or (reference is None and self.abstention is None):
            return None
        return sampler_of(record, reference, self.labels)

    # -- many cases, see `trivox.inference.folder` -------------------------------------
    def about(self) -> dict[str, object]:
        """What `predictions.json` says of it beside its identity."""
        return {
            "task": self.members[0].plan.task,
            "settings": self.settings,
            "description": digest_of(self.descriptions),
            "labels": self.members[0].plan.labels.labels,
        }

    def files(self, case: Case) -> list[str]:
        """Names of the files that the prediction of a case leaves."""
        return file_names(case.name, self.extras.maps)

    def tables(self) -> list[str]:
        """Names of the files that are written about all cases together."""
        if not self.classes:
            return []
        numbered = [SUBTYPE_FILE] if self.extras.numbered_classes else []
        return [CLASSES_FILE, *numbered]

    def finish(self, records: Mapping[str, Record], out: Path) -> None:
        """Write the classes of the cases that did not fail as tables: `classes.csv`,
        and `subtype_results.csv` if asked for.
        """
        if self.classes:
            numbered = self.extras.numbered_classes
            write_class_tables(out, records, classes=self.classes, numbered=numbered)
