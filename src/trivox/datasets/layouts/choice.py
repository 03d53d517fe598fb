"""Finding out how a dataset is laid out, and the cases to predict on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from trivox.datasets.dataset import NOTE, Case, Dataset
from trivox.datasets.layouts import (
    brats,
    class_folders,
    folders,
    manifest,
    msd,
    nnunet_raw,
)
from trivox.datasets.layouts import (
    exams as xray_layout,
)
from trivox.datasets.listing import (
    CHANNEL_SUFFIX,
    image_stem,
    is_dicom_folder,
    is_image_file,
    json_object,
    list_images,
    unique_cases,
    validated,
)
from trivox.errors import DataError, FormatError
from trivox.files import read_json, write_json


class Layout(NamedTuple):
    """One way to arrange a dataset: what it looks like, whether a path is so arranged,
    and how to read it.

    inputs: how to read cases to predict on for a model with given channels, where that
    is not the same.
    """

    description: str
    matches: Callable[[Path], bool]
    load: Callable[[Path], Dataset]
    inputs: Callable[[Path, Sequence[str]], tuple[Case, ...]] | None = None


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
    ),
    "msd": Layout(
        "Medical Segmentation Decathlon (dataset.json with training)",
        msd.matches,
        msd.load,
    ),
    "xrays": Layout(
        "X-ray exams (patients/ID/views.npz and geometry.json, with ct.nii.gz to learn from)",
        xray_layout.matches,
        xray_layout.load,
    ),
    "brats": Layout(
        "BraTS case folders (BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz and the like)",
        brats.matches,
        brats.load,
        brats.find_inputs,
    ),
    "folders": Layout(
        "folders images/ and labels/ with files of the same names",
        folders.matches,
        folders.load,
    ),
    "class-folders": Layout(
        "a folder a class, images and masks together (train/subtype0/case_0000.nii.gz and case.nii.gz; also validation, "
        "test)",
        class_folders.matches,
        class_folders.load,
    ),
}
"""Asked in this order; the first that matches reads the dataset."""


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
    note = dataset.root / NOTE
    text = (
        " ".join(note.read_text(encoding="utf-8", errors="replace").split())[:500]
        if note.is_file()
        else ""
    )
    return dataset.model_copy(update={"note": text})


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
    return validated(Dataset, read_json(path), where=str(path))


ORPHANS = {"brats": brats.orphan_labels, "class-folders": class_folders.orphan_labels}


class Unpaired(NamedTuple):
    """Files without counterpart."""

    images: tuple[Path, ...]
    labels: tuple[Path, ...]


def unpaired_files(dataset: Dataset) -> Unpaired:
    """Images to learn from without label and label files without image, for layouts
    that pair by name; else none.
    """
    if dataset.labels is None or dataset.layout not in (
        "folders",
        "nnunet",
        "brats",
        "class-folders",
    ):
        return Unpaired((), ())
    images = tuple(
        case.images[0]
        for case in dataset.cases
        if case.split != "test" and case.label is None
    )
    if dataset.layout in ORPHANS:
        return Unpaired(images, ORPHANS[dataset.layout](dataset.root))
    paired = {case.label for case in dataset.cases if case.label}
    listed = [
        file
        for folder in sorted({file.parent for file in paired})
        for file in list_images(folder).values()
    ]
    return Unpaired(images, tuple(file for file in listed if file not in paired))


def load_inputs(path: Path, *, channels: Sequence[str]) -> tuple[Case, ...]:
    """Cases to predict on, for a model with these `channels`.

    path: an image, a DICOM folder, a folder of either (one file a case, or nnU-Net's
    `_0000` files), or a dataset in any layout. Raises `FormatError` if there is nothing
    to read, `DataError` if a case has a wrong number of files.
    """
    if not path.exists():
        raise FormatError(f"{path}: not found; check the path")
    path = path.absolute()
    if is_image_file(path) or is_dicom_folder(path):
        cases: tuple[Case, ...] = (_single_case(path, len(channels)),)
    else:
        cases = _cases_in_folder(path, channels)
    for case in cases:
        if len(case.images) + len(case.absent) not in (1, len(channels)):
            raise DataError(
                f"{case.name}: {len(case.images)} image files, the model reads {[*channels]}; give one for each"
            )
    return cases


def _single_case(path: Path, channels: int) -> Case:
    """The image with its sibling channels if it is the first of a complete nnU-Net set,
    else alone.
    """
    parts = CHANNEL_SUFFIX.fullmatch(image_stem(path))
    if parts and parts["channel"] == "0000":
        suffix = path.name.removeprefix(image_stem(path))
        files = tuple(
            path.with_name(f"{parts['case']}_{i:04d}{suffix}") for i in range(channels)
        )
        if all(file.exists() for file in files):
            return Case(name=parts["case"], images=files)
    return Case(name=image_stem(path), images=(path,))


def _cases_in_folder(path: Path, channels: Sequence[str]) -> tuple[Case, ...]:
    if is_saved_dataset(path):
        return read_saved_dataset(path).cases
    layout = find_layout(path)
    if layout:
        return (
            layout.inputs(path, channels) if layout.inputs else layout.load(path).cases
        )
    inner = folders.find_folder(path, [*folders.IMAGE_FOLDERS, "imagests"])
    images = list_images(path) if path.is_dir() else {}
    images = images or (list_images(inner) if inner else {})
    if not images:
        raise FormatError(
            f"{path}: no image, DICOM series or dataset here; give a file, a folder of images or a dataset"
        )
    return unique_cases(_group_inputs(images, len(channels), path), where=path)


def _group_inputs(images: dict[str, Path], channels: int, where: Path) -> list[Case]:
    """One case a file, unless all names end in channel numbers and each case has
    exactly the numbers 0..channels-1.
    """
    groups: dict[str, dict[int, Path]] = {}
    for stem, file in images.items():
        parts = CHANNEL_SUFFIX.fullmatch(stem)
        if not parts:
            return [Case(name=name, images=(image,)) for name, image in images.items()]
        groups.setdefault(parts["case"], {})[int(parts["channel"])] = file
    broken = [
        name for name, files in groups.items() if sorted(files) != list(range(channels))
    ]
    if not broken:
        return [
            Case(name=name, images=tuple(files[i] for i in range(channels)))
            for name, files in groups.items()
        ]
    if channels > 1 and all(0 in files for files in groups.values()):
        raise DataError(
            f"{where}: case '{broken[0]}' has channel files {sorted(groups[broken[0]])}, the model reads "
            f"{channels} channels; add the missing files or remove the superfluous ones"
        )
    return [Case(name=name, images=(image,)) for name, image in images.items()]
