"""Which label maps of two folders belong together, and what their values mean."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from trivox.datasets.dataset import Dataset
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.layouts.folders import LABEL_FOLDERS, find_folder
from trivox.datasets.listing import (
    LABEL_SUFFIX,
    discover_labels,
    image_stem,
    is_image_file,
    survey,
)
from trivox.errors import DataError, FormatError, LabelError, few
from trivox.evaluation.folders.class_answers import is_class_table
from trivox.inference.doubt.kinds import EXTRAS
from trivox.inference.records import meant_labels
from trivox.volumes.choice import NO_CHOICE, SeriesChoice
from trivox.volumes.formats import read_header, segment_values
from trivox.volumes.segmentations.signature import (
    class_in,
    is_segmentation,
    segmentation_in,
)

T = TypeVar("T")
OTHER_FORM = re.compile(r"[.](seg|rtstruct)$", re.IGNORECASE)
"""What the names of segmentations end in that `trivox predict` and 3D Slicer write."""


class LabelPair(NamedTuple):
    """Two label maps of a case.

    labels: how the case's are written, if its dataset says so; image: the case's first
    image, if known, read by a choice; segmentations: which of the two files mark
    segments by name, on voxels that an image has.
    """

    case: str
    prediction: Path
    reference: Path
    labels: LabelScheme | None = None
    image: Path | None = None
    choice: SeriesChoice = NO_CHOICE
    segmentations: tuple[Path, ...] = ()


class Reference(NamedTuple):
    """A label map that is measured against, and what its dataset says of its case."""

    file: Path
    labels: LabelScheme | None = None
    image: Path | None = None
    choice: SeriesChoice = NO_CHOICE


class References(NamedTuple):
    """The label map of each case, whether each of them should have a prediction, and
    their dataset.
    """

    files: dict[str, Reference]
    labels: LabelScheme | None = None
    complete: bool = False
    dataset: Dataset | None = None


def image_files(path: Path) -> dict[str, Path]:
    """Images by case name: those in a folder that can be used, or the file itself;
    raises `DataError` if there is no such path.
    """
    if not path.exists():
        raise DataError(f"{path}: not found; check the path")
    if is_image_file(path):
        return {image_stem(path): path}
    listing = survey(path)
    return {
        name: file
        for name, file in listing.images.items()
        if file not in listing.complaints
    }


def unusable_files(path: Path) -> list[str]:
    """A warning for each file of a folder that is left out, with the reason."""
    listing = survey(path)
    return [
        not_measured(name, listing.complaints[file])
        for name, file in listing.images.items()
        if file in listing.complaints
    ]


def not_measured(case: str, reason: str) -> str:
    """The warning that a case is left out."""
    return f"{case}: not measured: {reason.removeprefix(f'{case}: ')}"


def label_maps(path: Path) -> dict[str, Path]:
    """Files that can be label maps, by case name: those in a folder, or the file
    itself.

    `case.seg.dcm`, `case.rtstruct.dcm` and `case.seg.nrrd` are those of `case`, unless
    `case.nii.gz` or the like is there, of which they are other forms.
    """
    files = image_files(path)
    if find_folder(path, LABEL_FOLDERS) is None:  # a dataset's are no cases
        files = {name: segmentation_in(file) for name, file in files.items()}
    files = {name: file for name, file in files.items() if file.is_file()}
    if path.is_file():
        return files
    extras: set[str] = set()  # what `trivox predict` writes beside a label map
    for name in files:
        extras.update(f"{name}_{extra}" for extra in EXTRAS)
    maps: dict[str, Path] = {}
    for name in sorted(files.keys() - extras, key=_plain_first):
        maps.setdefault(OTHER_FORM.sub("", name), files[name])
    return {name: file for name, file in sorted(maps.items()) if not _is_report(file)}


def _plain_first(name: str) -> tuple[str, bool, bool, str]:
    """An order in which the other forms of a label map come after it."""
    case, form, _ = OTHER_FORM.sub("\0", name).partition("\0")
    return case, bool(form), name.endswith("rtstruct"), name


def _is_report(file: Path) -> bool:
    """Whether it is DICOM that holds neither image nor segments."""
    kind = class_in(file)
    return bool(kind) and not is_segmentation(file)


def references_of(path: Path, predicted: Iterable[str]) -> References:
    """What to compare with.

    Of a plain folder all should be predicted; of a dataset usually only some are, those
    of a fold for example.
    """
    files = label_maps(path)
    if files:
        cases = set(predicted)
        unlabelled = {
            name if name in cases else LABEL_SUFFIX.sub("", name): Reference(file)
            for name, file in files.items()
        }
        return References(unlabelled, complete=True)
    if is_class_table(path):
        return References({})
    dataset = load_dataset(path)
    labelled = {
        case.name: Reference(
            case.label, case.labels, next(iter(case.images), None), case.choice
        )
        for case in dataset.cases
        if case.label is not None
    }
    return References(labelled, labels=dataset.labels, dataset=dataset)


def pair_up(
    predictions: Path,
    references: Path,
    predicted: Mapping[str, Path],
    expected: References,
) -> tuple[list[LabelPair], list[str]]:
    """The cases that are in both, and warnings about those that are not.

    Raises `DataError` if there are no predictions or no case is in both.
    """
    if not predicted:
        raise DataError(
            f"{predictions}: no label maps found; give the folder that 'trivox predict' "
            "wrote"
        )
    files = named_alike(predictions, references, predicted, expected.files)
    warnings = []
    unmeasured = sorted(set(predicted) - set(files))
    if unmeasured:
        warnings.append(
            f"prediction without reference, not measured: {few(unmeasured)}"
        )
    unpredicted = sorted(set(files) - set(predicted))
    if unpredicted and expected.complete:
        warnings.append(
            f"reference without prediction, not measured: {few(unpredicted)}"
        )
    common = sorted(set(predicted) & set(files))
    pairs = [pair_of(case, predicted[case], files[case]) for case in common]
    return pairs, warnings


def pair_of(case: str, prediction: Path, reference: Reference) -> LabelPair:
    """The two label maps of a case."""
    file = segmentation_in(reference.file)
    named = tuple(each for each in (prediction, file) if is_segmentation(each))
    return LabelPair(
        case,
        prediction,
        file,
        reference.labels,
        reference.image,
        reference.choice,
        named,
    )


def named_alike(
    predictions: Path,
    references: Path,
    predicted: Mapping[str, Path],
    expected: Mapping[str, T],
) -> Mapping[str, T]:
    """`expected` by the names of the predictions: two single files belong together,
    whatever they are called.

    Raises `DataError` if no name is in both.
    """
    if predictions.is_file() and references.is_file() and len(expected) == 1:
        return dict(zip(predicted, expected.values(), strict=True))
    if predicted.keys().isdisjoint(expected):
        raise DataError(
            f"{predictions} and {references}: no case name is in both "
            f"({few(predicted)} and {few(expected)}); give prediction and reference of "
            "a case the same file name"
        )
    return expected


def readable_pairs(
    pairs: Iterable[LabelPair],
) -> tuple[list[LabelPair], list[str]]:
    """The pairs whose headers can be read, and warnings about the others."""
    readable = []
    warnings = []
    for pair in pairs:
        try:
            for file in (pair.prediction, pair.reference):
                if file in pair.segmentations:
                    segment_values(file)
                else:
                    read_header(file)
        except FormatError as error:
            warnings.append(not_measured(pair.case, str(error)))
        else:
            readable.append(pair)
    return readable, warnings


def require_same_meaning(predictions: Path, references: LabelScheme) -> None:
    """Raise `LabelError` where the model that predicted into a folder writes a label of
    the same name by another value than the references.
    """
    meant = meant_labels(predictions)
    others = [
        f"{name} is {meant[name]} in the predictions and {value} in the references"
        for name, value in references.labels.items()
        if name in meant and meant[name] != value
    ]
    if others:
        raise LabelError(
            f"{predictions}: label values mean other labels: {few(others)}; correct "
            "the dataset's declaration, or measure against references of this meaning"
        )


def labels_found(
    pairs: Sequence[LabelPair], predictions: Path, where: Path
) -> LabelScheme:
    """Each value in the files as a label named `label_<value>`, or as segments are named.

    Where files of segments are among them, what the model that predicted says of its
    labels decides.
    """
    if any(pair.segmentations for pair in pairs):
        meant = meant_labels(predictions)
        if meant:
            return LabelScheme(labels=meant)
    files: list[Path] = []
    for pair in pairs:
        files += [pair.prediction, pair.reference]
    return discover_labels(files, where=where)


def labels_of(pair: LabelPair, scheme: LabelScheme) -> LabelScheme:
    """How the label maps of a case are written: its own way where that contradicts the
    dataset's.
    """
    if pair.labels is None or pair.labels.labels.items() <= scheme.labels.items():
        return scheme
    return pair.labels
