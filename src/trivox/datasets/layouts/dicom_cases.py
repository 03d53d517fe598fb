"""A folder a patient, as archives export them: a DICOM series and, beside it or in a
folder of its own, the SEG or RTSTRUCT that was drawn on it.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from trivox.datasets.dataset import Case, Dataset, listed_case
from trivox.datasets.dicom_folders import holds_dicom
from trivox.datasets.listing import NOT_OURS, discover_labels, entries, unique_cases
from trivox.errors import FormatError, TrivoxError, few
from trivox.volumes.choice import NO_CHOICE, SeriesChoice
from trivox.volumes.segmentations.signature import is_dicom_segmentation

_LOOKED_INTO = 20
"""Folders that are looked into before a folder counts as none of these."""
_DEPTH = 5
"""Folders in each other: patient, study, series."""


class Exam(NamedTuple):
    """What a patient's folder holds: files that mark segments, and images."""

    segmentations: list[Path]
    images: list[Path]


def matches(path: Path) -> bool:
    """Whether `path` holds folders with DICOM images, one of them with a SEG or an
    RTSTRUCT.
    """
    if not path.is_dir():
        return False
    folders = (each for each in entries(path) if each.is_dir())
    return any(_is_exam(folder) for folder in islice(folders, _LOOKED_INTO))


def _is_exam(folder: Path) -> bool:
    try:
        exam = _exam(folder) if holds_dicom(folder) else Exam([], [])
    except FormatError:
        return False
    return bool(exam.segmentations and exam.images)


def load(path: Path) -> Dataset:
    """A case a folder, named after it; its label map is the only SEG or RTSTRUCT there.

    Where a patient has several series, the one is read that the segmentation names. A
    folder with several segmentations is a case that cannot be used. Values are those of
    the segments' names.
    """
    root = path.absolute()
    cases = unique_cases(_cases(root), where=root)
    labels = [case.label for case in cases if case.label and not case.complaint]
    return Dataset(
        name=root.name,
        root=root,
        layout="dicom",
        channels=("image",),
        labels=discover_labels(labels, where=root),
        cases=cases,
    )


def _cases(root: Path) -> Iterator[Case]:
    for folder in entries(root):
        if (
            not folder.is_dir()
            or folder.name.startswith(".")
            or folder.name in NOT_OURS
        ):
            continue
        try:
            if holds_dicom(folder):
                yield _case(folder)
        except FormatError as error:
            yield listed_case(folder.name, images=()).with_complaint(str(error))


def _case(folder: Path) -> Case:
    exam = _exam(folder)
    case = listed_case(folder.name, images=(folder,))
    if len(exam.segmentations) > 1:
        names = few(file.name for file in exam.segmentations)
        return case.with_complaint(
            f"holds {len(exam.segmentations)} segmentations ({names}); keep one, or say "
            "which in a manifest.csv (case,image,label)"
        )
    if not exam.segmentations:
        return case
    label = exam.segmentations[0]
    try:
        choice = _choice(label, exam.images)
    except (TrivoxError, OSError):
        choice = NO_CHOICE  # whoever reads the label says what is wrong with it
    return case.model_copy(update={"label": label, "choice": choice})


def _exam(folder: Path) -> Exam:
    """The segmentations below a folder, and two images of each folder there."""
    exam = Exam([], [])
    below = [folder]
    while below:
        current = below.pop(0)
        inside = [path for path in entries(current) if not path.name.startswith(".")]
        if len(current.relative_to(folder).parts) < _DEPTH:
            below += [path for path in inside if path.is_dir()]
        images: list[Path] = []
        for file in inside:
            if file.is_dir():
                continue
            marks = is_dicom_segmentation(file)
            (exam.segmentations if marks else images).append(file)
        exam.images.extend(dict.fromkeys([*images[:1], *images[-1:]]))
    return exam


def _choice(label: Path, images: list[Path]) -> SeriesChoice:
    """The series that a segmentation names, where there are several."""
    from trivox.volumes.segmentations.reading import series_in, series_named

    present = series_in(images)
    named = series_named(label) & present
    if len(present) < 2 or len(named) != 1:
        return NO_CHOICE
    return SeriesChoice(series=next(iter(named)))
