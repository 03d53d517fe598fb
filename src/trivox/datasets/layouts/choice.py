"""Finding out how a dataset is laid out, and the cases to predict on."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from trivox.datasets.channels import by_name, named_cases, numbered_case, split_stem
from trivox.datasets.dataset import NOTE, Case, Dataset, listed_case
from trivox.datasets.dicom_folders import is_dicom_file, is_dicom_folder
from trivox.datasets.layouts import (
    brats,
    class_folders,
    dicom_cases,
    exams,
    folders,
    manifest,
    msd,
    nnunet_raw,
)
from trivox.datasets.listing import (
    ADVICE,
    CHANNEL_SUFFIX,
    image_stem,
    is_image_file,
    is_picture_file,
    json_object,
    survey,
    unique_cases,
    unlisted_labels,
    unread_files,
    with_complaints,
)
from trivox.errors import FormatError
from trivox.files import read_json, write_json
from trivox.schema import validated
from trivox.volumes.picture_names import is_picture_stack

LONGEST_NOTE = 500
"""Characters of a note that are read."""


class Layout(NamedTuple):
    """One way to arrange a dataset: what it looks like, whether a path is so arranged,
    and how to read it.

    inputs: how to read cases to predict on for a model with given channels, where that
    is not the same. orphans: where images and labels are paired by their names, the
    label files of a dataset that no image goes with; None: they are not paired by name.
    """

    description: str
    matches: Callable[[Path], bool]
    load: Callable[[Path], Dataset]
    inputs: Callable[[Path, Sequence[str]], tuple[Case, ...]] | None = None
    orphans: Callable[[Dataset], tuple[Path, ...]] | None = None


LAYOUTS: dict[str, Layout] = {
    "manifest": Layout(
        "a CSV or JSON manifest (manifest.csv with columns case,image,label)",
        manifest.matches,
        manifest.load,
    ),
    "nnunet": Layout(
        "nnU-Net raw (dataset.json with channel_names, imagesTr, labelsTr)",
        nnunet_raw.matches,
        nnunet_raw.load,
        orphans=unlisted_labels,
    ),
    "msd": Layout(
        "Medical Segmentation Decathlon (dataset.json with training)",
        msd.matches,
        msd.load,
    ),
    "xrays": Layout(
        "X-ray exams (patients/ID/views.npz and geometry.json, with ct.nii.gz to learn "
        "from)",
        exams.matches,
        exams.load,
    ),
    "brats": Layout(
        "BraTS case folders (BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz "
        "and the like)",
        brats.matches,
        brats.load,
        inputs=brats.find_inputs,
        orphans=brats.orphan_labels,
    ),
    "folders": Layout(
        "folders images/ and labels/ with files of the same names",
        folders.matches,
        folders.load,
        orphans=unlisted_labels,
    ),
    "dicom": Layout(
        "a folder a patient with a DICOM series and its SEG or RTSTRUCT",
        dicom_cases.matches,
        dicom_cases.load,
    ),
    "class-folders": Layout(
        "a folder a class, images and masks together (train/subtype0/case_0000.nii.gz "
        "and case.nii.gz; also validation, test)",
        class_folders.matches,
        class_folders.load,
        orphans=class_folders.orphan_labels,
    ),
}
"""By the name that datasets carry. Asked in this order; the first that matches reads the
dataset.
"""


def load_dataset(path: Path) -> Dataset:
    """Read the dataset at `path` (a folder, a manifest or a saved dataset), whatever
    its layout.

    Image files are not opened; label maps are, where the layout does not name their
    values. Raises `FormatError` if no layout fits, `LabelError` for contradictory
    labels.
    """
    if is_saved_dataset(path):
        return read_saved_dataset(path)
    layout = find_layout(path)
    if layout is None:
        supported = "; ".join(layout.description for layout in LAYOUTS.values())
        raise FormatError(f"{path}: no dataset found here; supported: {supported}")
    dataset = layout.load(path)
    file = dataset.root / NOTE
    if not file.is_file():
        return dataset
    words = file.read_text(encoding="utf-8", errors="replace").split()
    return dataset.model_copy(update={"note": " ".join(words)[:LONGEST_NOTE]})


def is_saved_dataset(path: Path) -> bool:
    """Whether `path` is a file that `save_dataset` wrote."""
    return path.suffix == ".json" and {"root", "layout"} <= set(json_object(path))


def find_layout(path: Path) -> Layout | None:
    """How the dataset at `path` is arranged, None if it is none; raises `FormatError`
    if there is nothing.
    """
    if not path.exists():
        raise FormatError(f"{path}: not found; check the path")
    if path.is_file() and path.suffix.lower() not in (".json", ".csv"):
        return None
    return next((layout for layout in LAYOUTS.values() if layout.matches(path)), None)


def save_dataset(dataset: Dataset, path: Path) -> None:
    """Write `dataset` as JSON, atomically."""
    write_json(path, dataset.model_dump(mode="json"))


def read_saved_dataset(path: Path) -> Dataset:
    """Read what `save_dataset` wrote; raises `FormatError` naming the file if it is not
    that.
    """
    content = read_json(path)
    return validated(Dataset, content, where=path, error=FormatError, advice=ADVICE)


class Unpaired(NamedTuple):
    """Files without counterpart."""

    images: tuple[Path, ...]
    labels: tuple[Path, ...]


def unpaired_files(dataset: Dataset) -> Unpaired:
    """Images to learn from without label and label files without image, for layouts
    that pair by name; else none.
    """
    layout = LAYOUTS.get(dataset.layout)
    if dataset.labels is None or layout is None or layout.orphans is None:
        return Unpaired((), ())
    images = tuple(
        case.images[0]
        for case in dataset.cases
        if case.split != "test" and case.label is None
        if not case.complaint and not case.taught
    )
    return Unpaired(images, layout.orphans(dataset))


def load_inputs(
    path: Path,
    *,
    channels: Sequence[str],
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Case, ...]:
    """Cases to predict on, for a model with these `channels`.

    path: an image, a DICOM folder, a folder of either (one file a case, or one a channel
    that ends in its number, `_0000`, or its name, `_T1`), or a dataset in any layout,
    whose channels are matched by name where they have the model's names. say: is given
    a line about that. A case with a wrong number of files has a complaint; channels that
    it lacks are among its `absent` ones. Raises `FormatError` if there is nothing to
    read, `DataError` if no case can be used.
    """
    if not path.exists():
        raise FormatError(f"{path}: not found; check the path")
    path = path.absolute()
    if _is_one_image(path):
        cases: tuple[Case, ...] = (_single_case(path, channels),)
    else:
        cases = _cases_in_folder(path, channels, say)
    return unique_cases((_counted(case, channels) for case in cases), where=path)


def _is_one_image(path: Path) -> bool:
    """Whether it is one image of any format, and not a folder of them."""
    if is_image_file(path) or is_picture_file(path) or is_dicom_file(path):
        return True
    return is_picture_stack(path) or is_dicom_folder(path)


def _counted(case: Case, channels: Sequence[str]) -> Case:
    """The case, with a complaint if it has a wrong number of files."""
    count = len(case.images) + len(case.absent)
    if case.complaint or case.order or count in (1, len(channels)):
        return case
    return case.with_complaint(
        f"{len(case.images)} image files, the model reads {', '.join(channels)}; give "
        "one for each"
    )


def _single_case(path: Path, channels: Sequence[str]) -> Case:
    """The image with its sibling channels if it is the first of a complete nnU-Net set,
    or named after a channel; else alone.
    """
    stem = image_stem(path)
    parts = CHANNEL_SUFFIX.fullmatch(stem)
    suffix = path.name.removeprefix(stem)
    if parts and parts["channel"] == "0000":
        name = parts["case"]
        files = tuple(
            path.with_name(f"{name}_{i:04d}{suffix}") for i in range(len(channels))
        )
        if all(file.exists() for file in files):
            return Case(name=name, images=files)
        alone = numbered_case(name, {0: path}, channels)
        if not alone.absent:
            return alone
    named = split_stem(stem, channels) if len(channels) > 1 else None
    if named is not None:
        siblings = named_cases(survey(path.parent).images, channels)
        return next(case for case in siblings if path in case.images)
    return Case(name=stem, images=(path,))


def _cases_in_folder(
    path: Path, channels: Sequence[str], say: Callable[[str], None]
) -> tuple[Case, ...]:
    layout = None if is_saved_dataset(path) else find_layout(path)
    if layout and layout.inputs:
        return layout.inputs(path, channels)
    if layout or is_saved_dataset(path):
        dataset = layout.load(path) if layout else read_saved_dataset(path)
        cases, line = by_name(dataset.cases, dataset.channels, channels)
        if line:
            say(line)
        return cases
    listing = survey(path)
    inner = folders.find_folder(path, [*folders.IMAGE_FOLDERS, "imagests"])
    if inner and (not listing.images or inner in listing.images.values()):
        listing = survey(inner)
    if not listing.images:
        raise FormatError(f"{path}: {unread_files(inner or path)}")
    cases = tuple(_group_inputs(listing.images, channels))
    return tuple(with_complaints(cases, listing.complaints))


def _group_inputs(images: Mapping[str, Path], channels: Sequence[str]) -> list[Case]:
    """One case a file, unless files end in the names of channels, or their numbers: of
    one case there are all of 0..channels-1, or of each case 0.
    """
    named = named_cases(images, channels) if len(channels) > 1 else []
    if named:
        return named
    groups: dict[str, dict[int, Path]] = {}
    alone: list[Case] = []
    for stem, file in images.items():
        parts = CHANNEL_SUFFIX.fullmatch(stem)
        if parts:
            groups.setdefault(parts["case"], {})[int(parts["channel"])] = file
        else:
            alone.append(listed_case(stem, images=(file,)))
    if not _are_channels(groups, len(channels), mixed=bool(alone)):
        return [listed_case(stem, images=(file,)) for stem, file in images.items()]
    numbered = [numbered_case(name, files, channels) for name, files in groups.items()]
    return sorted([*numbered, *alone], key=lambda case: case.name)


def _are_channels(
    groups: Mapping[str, Mapping[int, Path]], channels: int, *, mixed: bool
) -> bool:
    """Whether the numbers at the end of names are those of channels; mixed: other names
    have none.
    """
    complete = [sorted(files) == list(range(channels)) for files in groups.values()]
    if channels == 1:
        return all(complete) and not mixed
    starts = [0 in files for files in groups.values()]
    return any(complete) or (bool(groups) and all(starts) and not mixed)
