"""The pair that detection challenges ask for: a map of candidates for lesions, each with
one likelihood, and the likelihood of the case, which is the largest of the map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from typing_extensions import TypedDict

from trivox.datasets.labels import LabelScheme
from trivox.datasets.lesions import lesion_indices, lesion_names, outputs_within
from trivox.errors import UsageError
from trivox.inference.descriptions import LabelDescription
from trivox.inference.detection.candidates import candidates_of, detection_map
from trivox.preparation.grid import GridRecord
from trivox.volumes.volume import Array, Volume

AUTO = "auto"
"""As the model says what its lesions are, or by their names."""


class CandidateRecord(TypedDict):
    """A candidate for a lesion."""

    likelihood: float
    volume_ml: float


class DetectionRecord(TypedDict):
    """What predictions.json says of the lesions of a case.

    likelihood: that it has one, the largest value of its map; lesion: names of the
    labels that count as lesion; candidates: the most likely first.
    """

    likelihood: float
    lesion: list[str]
    candidates: list[CandidateRecord]


@dataclass(frozen=True, eq=False)
class Detection:
    """Candidates for lesions in a case.

    map: `(1, z, y, x)` float32 on the source's grid; lesion: names of the labels that
    a lesion is made of.
    """

    map: Volume
    lesion: tuple[str, ...]

    @property
    def likelihood(self) -> float:
        """That there is a lesion in the case: the largest value of the map, so that the
        two cannot contradict each other.
        """
        return float(self.map.array.max())

    def record(self) -> DetectionRecord:
        """What the record of the case says, ready for JSON."""
        numbers, likelihoods = candidates_of(self.map.array[0])
        voxels = np.bincount(numbers.reshape(-1), minlength=len(likelihoods) + 1)[1:]
        rows: list[CandidateRecord] = [
            {"likelihood": likelihood, "volume_ml": int(count) * self.map.voxel_ml}
            for likelihood, count in zip(likelihoods, voxels, strict=True)
        ]
        rows.sort(key=lambda row: row["likelihood"], reverse=True)
        lesion = list(self.lesion)
        return {"likelihood": self.likelihood, "lesion": lesion, "candidates": rows}


def detected(
    probabilities: Tensor,
    scheme: LabelScheme,
    lesion: Sequence[str],
    record: GridRecord,
) -> Detection:
    """The candidates in probabilities `(c, z, y, x)` on the cropped grid of a case."""
    chance = lesion_probability(probabilities, scheme, lesion)
    return Detection(record.to_source(detection_map(chance)), tuple(lesion))


def lesion_probability(
    probabilities: Tensor, scheme: LabelScheme, lesion: Sequence[str]
) -> Array:
    """That each voxel is lesion, `(z, y, x)`: the sum over its labels; of regions,
    which overlap, the largest.
    """
    indices = [scheme.values.index(scheme.labels[name]) for name in lesion]
    outputs = outputs_within(scheme, sorted(indices))
    chosen = probabilities[list(outputs)]
    joined = chosen.sum(0).clamp(max=1) if scheme.exclusive else chosen.amax(0)
    return np.asarray(joined.float().cpu().numpy())


def chosen_lesion(wanted: str, description: LabelDescription) -> tuple[str, ...]:
    """Names of the labels that lesions are made of: those of the labels and regions in
    `wanted`, with commas between, or, where it is `auto`, those that the model's class
    is read from, else those that are named like lesions.

    Raises `UsageError` for a name that the model lacks, and where nothing is named like
    a lesion.
    """
    scheme = description.plan.labels
    there = ", ".join(scheme.targets)
    answers = description.classification
    if wanted != AUTO:
        names = [part.strip() for part in wanted.split(",")]
        strange = [name for name in names if name not in scheme.targets]
        if strange:
            raise UsageError(
                f"--detection {wanted}: the model has no label '{strange[0]}'; it has "
                f"{there}"
            )
        indices = lesion_indices(scheme, names)
    elif answers is not None:
        indices = answers.lesion
    elif lesion_names(scheme):
        indices = lesion_indices(scheme)
    else:
        raise UsageError(
            f"--detection auto: none of the model's labels ({there}) is named like a "
            "lesion; name those that are, for example --detection "
            f"{next(iter(scheme.targets))}"
        )
    values = [scheme.values[index] for index in indices]
    return tuple(name for name, value in scheme.labels.items() if value in values)
