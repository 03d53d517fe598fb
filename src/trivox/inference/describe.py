"""Describe: the prediction of a case as people and files want it, in the case's own
label values, with what makes it doubtful.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.inference.classes.reader import Reading
from trivox.inference.classify import Classification
from trivox.inference.decide import Decision
from trivox.inference.descriptions import LabelDescription
from trivox.inference.detection.pair import Detection, detected
from trivox.inference.doubt.calibration import Abstention
from trivox.inference.doubt.conformal import VolumeIntervals, joint_intervals
from trivox.inference.doubt.flags import Flag
from trivox.inference.doubt.kinds import SENSITIVE, Extras
from trivox.inference.doubt.label_voxels import VoxelSample
from trivox.inference.doubt.shift import CaseVolumes
from trivox.inference.judge import judge, sensitive_targets
from trivox.inference.source_grid import to_source
from trivox.inference.writing import Record, write_prediction
from trivox.planning.plan import Plan
from trivox.preparation.grid import GridRecord, PreparedCase
from trivox.volumes.volume import Volume

FEW_VOXELS = 4
"""Along an axis of the network's grid; fewer are hardly an image."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """One case, everything on its source grid.

    labels: file values `(1, z, y, x)`; probabilities: `(c, z, y, x)` float32 if asked
    for; uncertainty: the kinds asked for, `(1, z, y, x)` float32; sensitive: where few
    voxels are missed, `(target, z, y, x)` of 0 and 1 if asked for; trust: ready for
    JSON: `volumes` of each target (ml, and an interval where probabilities were at
    hand), `votes` and their `agreement`, and, if the model has a rule for it, `abstain`
    with score and reason; sample: voxels with logits, if a reference was given;
    classification: the class of the case, if the model gives one; readings: what each
    network read for it; fractions: whether no map is written of the probabilities;
    detection: candidates for lesions, if asked for.
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
    fractions: bool = False
    detection: Detection | None = None
    sensitive: Volume | None = None

    def write(self, case: Case, out: Path) -> Record:
        """Write the label map and what stands beside it into `out`; returns the record
        of the case.
        """
        extras = dict(self.uncertainty)
        if self.probabilities is not None and not self.fractions:
            extras["probabilities"] = self.probabilities
        if self.detection is not None:
            extras["detection"] = self.detection.map
        if self.sensitive is not None:
            extras[SENSITIVE] = self.sensitive
        output = write_prediction(out, case.name, self.labels, extras)
        return {"output": output, **self.record()}

    def record(self) -> Record:
        """What the record of the case says beside the names of its files."""
        record: Record = {"warnings": list(self.warnings), **self.trust}
        if self.classification is not None:
            record["class"] = {
                "answer": self.classification.answer,
                "probabilities": dict(self.classification.probabilities),
                "flags": list(self.classification.flags),
            }
        if self.detection is not None:
            record["detection"] = self.detection.record()
        return record


@dataclass(frozen=True, eq=False)
class Computed:
    """What networks made of a case, not yet on its source grid.

    record: of the first member; unlike, warnings: what was seen of the image; extras:
    what is wanted beside labels; sampled: whether the sample is.
    """

    decision: Decision
    record: GridRecord
    unlike: Sequence[str] | None
    warnings: tuple[str, ...]
    extras: Extras
    sampled: bool
    classification: Classification | None
    readings: tuple[Reading, ...]
    seconds: float


def prediction_of(
    computed: Computed,
    scheme: LabelScheme,
    rule: Abstention | None,
    flag: Flag | None,
    temperature: float,
    volumes: Sequence[VolumeIntervals | None],
    weighted: CaseVolumes | None,
) -> Prediction:
    """What was computed, on the source grid and judged; see `judge`.

    volumes: what each model knows of volumes; weighted: and by weighing its cases.
    """
    started = time.monotonic()
    decision = computed.decision
    restored = to_source(
        decision,
        computed.record,
        scheme,
        probabilities=computed.extras.given,
        sensitive=computed.extras.sensitive,
    )
    judgement = judge(
        decision,
        scheme,
        rule,
        flag=flag,
        unlike=computed.unlike,
        temperature=temperature,
        voxel_ml=computed.record.source.voxel_ml,
        intervals=joint_intervals(volumes),
        weighted=weighted,
    )
    asked = computed.extras.sensitive
    if asked is not None and restored.sensitive is not None:
        judgement["sensitive"] = sensitive_targets(
            asked, restored.sensitive, unlike=bool(computed.unlike)
        )
    return Prediction(
        labels=restored.labels,
        probabilities=restored.probabilities,
        seconds=computed.seconds + time.monotonic() - started,
        warnings=computed.warnings,
        uncertainty=restored.uncertainty,
        trust=judgement,
        sample=decision.sample if computed.sampled else None,
        classification=computed.classification,
        readings=computed.readings,
        fractions=not computed.extras.probabilities,
        detection=_detection(computed, scheme),
        sensitive=restored.sensitive,
    )


def _detection(computed: Computed, scheme: LabelScheme) -> Detection | None:
    """Candidates for lesions, where they are wanted."""
    lesion = computed.extras.detection
    poll = computed.decision.poll
    if not lesion or poll is None:
        return None
    return detected(poll.probabilities, scheme, lesion, computed.record)


def about_image(case: PreparedCase, plan: Plan) -> tuple[str, ...]:
    """What makes a prediction doubtful."""
    warnings = []
    if min(case.record.shape) < FEW_VOXELS:
        warnings.append(
            f"only {case.record.shape} voxels (z, y, x) at the plan's spacing of "
            f"{plan.spacing} mm"
        )
    if not bool(torch.any(case.image[: len(plan.channels)] != 0)):
        warnings.append("the image is constant")
    return tuple(warnings)


def about_absent(
    case: Case, channels: Sequence[str], models: Sequence[LabelDescription]
) -> tuple[str, ...]:
    """A warning where channels are absent, which says whether the models were trained
    for that.
    """
    if not case.absent:
        return ()
    doubt = ""
    if not all(_drops_channels(model) for model in models):
        doubt = "; the model was not trained for that (augmentation.drop_channel)"
    names = ", ".join(channels[index] for index in case.absent)
    return (f"no {names}: predicted with zeros in its place{doubt}",)


def _drops_channels(model: LabelDescription) -> bool:
    """Whether channels were left out at times while the model was trained."""
    recipe = model.training.get("recipe")
    augmentation = recipe.get("augmentation") if isinstance(recipe, dict) else None
    chance = augmentation.get("drop_channel") if isinstance(augmentation, dict) else 0
    return isinstance(chance, int | float) and chance > 0


def in_values_of(
    case: Case, labels: Volume, scheme: LabelScheme
) -> tuple[Volume, tuple[str, ...]]:
    """A label map of `scheme` in the case's own values, matched by label name, and a
    warning for names that it lacks.
    """
    wanted = _own_scheme(case, scheme)
    if wanted is None:
        return labels, ()
    table, unknown = scheme.translation(wanted)
    lost = [name for name in unknown if (labels.array == scheme.labels[name]).any()]
    warnings: tuple[str, ...] = ()
    if lost:
        warnings = (
            f"{', '.join(lost)} was found but does not exist in this case's labels; "
            "written as background",
        )
    values = table.astype(np.min_scalar_type(table.max()))
    return labels.with_array(values[scheme.encode(labels.array)]), warnings


def written_labels(case: Case, scheme: LabelScheme) -> dict[str, int]:
    """Name -> value of the labels of a model in the map that is written of a case;
    labels that the case's own scheme lacks are not among them.
    """
    wanted = _own_scheme(case, scheme)
    if wanted is None:
        return dict(scheme.labels)
    return {
        name: wanted.labels[name] for name in scheme.labels if name in wanted.labels
    }


def _own_scheme(case: Case, scheme: LabelScheme) -> LabelScheme | None:
    """What the values of a case's own label maps mean; None where the model's values
    are written: they are the same, or the model is of other things.
    """
    wanted = case.labels
    if wanted is None or wanted.labels == scheme.labels:
        return None
    return wanted if set(wanted.labels) & set(scheme.labels) else None
