"""A result as a preview."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trivox.errors import few
from trivox.evaluation.report.case_view import CaseView
from trivox.files import write_bytes
from trivox.inference.classify import Classification
from trivox.results.case import CaseResult
from trivox.results.measuring.structures import Structures
from trivox.results.pictures.page import preview_figure
from trivox.results.pictures.preview import Preview
from trivox.volumes.geometry import canonical_orientation, reorient
from trivox.volumes.volume import Volume

SLANTED = 1.0
"""Degrees between axes of image and patient from which on it is said."""
CLASSES = 4
"""Whose probabilities are written out."""


def write_preview(result: CaseResult, path: Path) -> Sequence[str]:
    """Write `CASE.png` of a label map; a model of volumes has its own figure."""
    if result.labels is not None:
        write_bytes(path, preview_figure(preview_of(result, result.labels)))
    return ()


def preview_of(result: CaseResult, labels: Volume) -> Preview:
    """What is shown of a case and its label map."""
    structures = Structures(labels, result.segments)
    orientation = canonical_orientation(labels.affine)
    image = reorient(result.image, orientation)
    indices = orientation.apply(structures.numbers[None])[0]
    view = CaseView(
        image.array,
        np.ascontiguousarray(indices),
        None,
        image.affine,
        channels=result.channels,
        labels=(),
        targets={name: structures.members(name) for name in result.segments},
    )
    return Preview(
        title=result.case.name,
        view=view,
        rows=result.structures,
        hounsfield=result.hounsfield,
        notes=[*_absent(result), *_slant(image)],
        doubts=doubts_of(result),
    )


def class_line(classification: Classification) -> str:
    """The class of a case with its probability, and what else it may be."""
    chances = classification.probabilities
    first, *others = sorted(chances, key=lambda name: -chances[name])
    line = f"class: {first} {chances[first]:.2f}"
    shown = [f"{name} {chances[name]:.2f}" for name in others[: CLASSES - 1]]
    return f"{line} ({few(shown, shown=CLASSES)})" if shown else line


def doubts_of(result: CaseResult) -> list[str]:
    """Why not to rely on a result: what makes the model abstain, flags of the class."""
    doubts = []
    if result.trust.get("abstain"):
        doubts.append(f"LOOK AT THIS CASE: {result.trust.get('reason')}")
    if result.classification is not None and result.classification.flags:
        doubts.append(f"class in doubt: {'; '.join(result.classification.flags)}")
    return doubts


def _absent(result: CaseResult) -> list[str]:
    """The class, and labels that were not found."""
    notes = []
    if result.classification is not None:
        notes.append(class_line(result.classification))
    missing = [name for name, row in result.structures.items() if not row["present"]]
    if missing:
        notes.append(f"not found: {few(missing, shown=20)}")
    return notes


def _slant(image: Volume) -> list[str]:
    """A line where the axes of image and patient differ."""
    columns = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    cosines = np.diag(columns).clip(-1, 1)
    degrees = float(np.degrees(np.arccos(cosines)).max())
    if degrees < SLANTED:
        return []
    return [
        f"shown along the image's own axes, up to {degrees:.0f}° from the patient's"
    ]
