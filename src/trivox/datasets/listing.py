"""What the layouts share: listing image files, reading label names, and errors that
name the dataset file.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import LabelScheme, discovered_name
from trivox.errors import DataError, FormatError, LabelError, TrivoxError
from trivox.files import read_json
from trivox.schema import validated
from trivox.volumes.formats import SUFFIXES, case_stem, read_header, read_labels
from trivox.volumes.volume import Array

CHANNEL_SUFFIX = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
"""nnU-Net's channel naming: `case_0000`, `case_0001`..."""

MAXIMUM_LABELS = 1000
ADVICE = "correct it there"
"""What to do about a description of a dataset that is wrong."""

BACKGROUND = "background"
IGNORE = "ignore"
"""Labels that nnU-Net gives a meaning of their own."""


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, empty where there is no such file; raises
    `FormatError` if it is malformed.
    """
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def is_image_file(path: Path) -> bool:
    """Whether the name is that of a readable format; hidden files (macOS `._*` copies
    included) are not.
    """
    readable = path.name.lower().endswith(tuple(SUFFIXES))
    return readable and not path.name.startswith(".") and path.is_file()


def is_dicom_folder(path: Path) -> bool:
    """Whether `path` is a folder that directly holds DICOM files, and no images of
    other formats.
    """
    if not path.is_dir():
        return False
    files = [
        file
        for file in sorted(path.iterdir())
        if file.is_file() and not file.name.startswith(".")
    ]
    if any(is_image_file(file) and file.suffix.lower() != ".dcm" for file in files):
        return False
    few_files = files[:5]  # opening thousands takes seconds
    return any(_is_dicom(file) for file in few_files)


def _is_dicom(file: Path) -> bool:
    if file.suffix.lower() in (".dcm", ".ima"):
        return True
    with file.open("rb") as content:
        return content.read(132)[128:] == b"DICM"


def image_stem(path: Path) -> str:
    """Case name of an image file or DICOM folder."""
    return path.name if path.is_dir() else case_stem(path)


def list_images(folder: Path) -> dict[str, Path]:
    """Image files and DICOM folders in `folder`, by stem, sorted; empty where the
    folder does not exist.

    Raises `FormatError` if two files have one stem (`a.nii` and `a.nii.gz`), since only
    one can be meant.
    """
    if not folder.is_dir():
        return {}
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not (is_image_file(path) or _is_visible_dicom_folder(path)):
            continue
        stem = image_stem(path)
        earlier = images.get(stem)
        if earlier == path.with_suffix(".hdr"):  # `path` is its Analyze pixel half
            continue
        if earlier is not None:
            raise FormatError(
                f"{folder}: {earlier.name} and {path.name} are both case '{stem}'; "
                "remove one"
            )
        images[stem] = path
    return images


def _is_visible_dicom_folder(path: Path) -> bool:
    return not path.name.startswith(".") and is_dicom_folder(path)


def unlisted_labels(dataset: Dataset) -> tuple[Path, ...]:
    """Files in the folders of the dataset's label maps that are no case's."""
    paired = {case.label for case in dataset.cases if case.label is not None}
    unlisted: list[Path] = []
    for folder in sorted({file.parent for file in paired}):
        files = list_images(folder).values()
        unlisted += [file for file in files if file not in paired]
    return tuple(unlisted)


def unique_cases(cases: Iterable[Case], *, where: Path) -> tuple[Case, ...]:
    """`cases` sorted as given; raises `DataError` unless there are some and every name
    occurs once.
    """
    cases = tuple(cases)
    if not cases:
        raise DataError(f"{where}: no cases found; check that the dataset is complete")
    name, count = Counter(case.name for case in cases).most_common(1)[0]
    if count > 1:
        files = " and ".join(
            str(case.images[0]) for case in cases if case.name == name and case.images
        )
        raise DataError(
            f"{where}: {count} cases are named '{name}' ({files}); give every case its "
            "own name"
        )
    return cases


def present_values(array: Array) -> dict[int, int]:
    """Values in an integer array and how often each occurs; counts instead of sorting
    where values are small (10x).
    """
    if array.size and array.min() >= 0 and array.max() < 65536:
        counts = np.bincount(array.ravel())
        values = np.flatnonzero(counts)
        return dict(zip(values.tolist(), counts[values].tolist(), strict=True))
    values, counts = np.unique(array, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def discover_labels(files: Sequence[Path], *, where: Path) -> LabelScheme:
    """Label values found by reading all label maps; value v is named `label_v`.

    Unreadable label maps are passed over here, `check_dataset` reports them. Raises
    `LabelError` if no value but 0 is found, or so many that the files can hardly be
    label maps.
    """
    with ThreadPoolExecutor(8) as pool:
        values = sorted(set[int]().union(*pool.map(_values_in, files)) - {0})
    if not values:
        raise LabelError(
            f"{where}: no label but background in {len(files)} label maps; check the "
            "label files"
        )
    if len(values) > MAXIMUM_LABELS:
        raise LabelError(
            f"{where}: {len(values)} different label values; were images and labels "
            "swapped?"
        )
    return LabelScheme(labels={discovered_name(value): value for value in values})


def _values_in(file: Path) -> set[int]:
    try:
        return set(present_values(read_labels(file).array))
    except (TrivoxError, OSError):
        return set()


def parse_labels(
    raw: Mapping[str, Any],
    *,
    where: Path,
    regions: Mapping[str, Sequence[int]] | None = None,
    order: Sequence[int] = (),
    ignore: int | None = None,
) -> LabelScheme:
    """Labels as any layout writes them: name -> value, value -> name, or name -> list
    of values (regions).

    The entry `background` (or value 0) is the background and `ignore` the ignored
    value, as in nnU-Net. Raises `LabelError` naming `where` for values that are no
    integers or contradict each other.
    """
    if not isinstance(raw, Mapping):
        raise LabelError(
            f"{where}: labels must map names to whole numbers, found {raw!r:.60}; "
            f"{ADVICE}"
        )
    try:
        values = {name: _as_ints(value) for name, value in _by_name(raw).items()}
    except (TypeError, ValueError) as error:
        raise LabelError(
            f"{where}: labels must map names to whole numbers, found {dict(raw)}"
        ) from error
    background = _background(values)
    ignored = values.pop(IGNORE, () if ignore is None else (ignore,))
    labels = {name: each for name, each in values.items() if each != (background,)}
    if any(isinstance(raw.get(name), list | tuple) for name in labels):
        regions = labels
        labels = _labels_of(labels)
    content = {
        "labels": {name: each[0] for name, each in labels.items()},
        "regions": regions or {},
        "region_order": tuple(order),
        "background": background,
        "ignore": ignored[0] if ignored else None,
    }
    return validated(LabelScheme, content, where=where, error=LabelError, advice=ADVICE)


def _by_name(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Value -> name (MSD) turned round; a name given to two values gets the value
    appended.
    """
    if not all(
        str(key).lstrip("-").isdigit() and isinstance(value, str)
        for key, value in raw.items()
    ):
        return dict(raw)
    counts = Counter(raw.values())
    return {
        name if counts[name] == 1 else f"{name}_{value}": value
        for value, name in raw.items()
    }


def _background(labels: Mapping[str, tuple[int, ...]]) -> int:
    """The first value under the name of the background, else 0."""
    for name, values in labels.items():
        if name.lower() == BACKGROUND and values:
            return values[0]
    return 0


def _labels_of(regions: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """A label for each value of the regions, under the name of the first region that is
    this value alone, or its number.
    """
    names: dict[int, str] = {}
    for name, values in regions.items():
        if len(values) == 1:
            names.setdefault(values[0], name)
    present = sorted(set[int]().union(*regions.values()))
    return {names.get(value, f"label_{value}"): (value,) for value in present}


def _as_ints(value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if any(
        isinstance(v, bool) or (isinstance(v, float) and not v.is_integer())
        for v in values
    ):
        raise ValueError(value)
    return tuple(int(v) for v in values)


def channel_names(cases: Sequence[Case]) -> tuple[str, ...]:
    """Names for channels that the layout does not name: as many as most cases have
    files, or the first file holds.
    """
    count = Counter(len(case.images) for case in cases).most_common(1)[0][0]
    if count == 1:
        counts = (_channels_in(case.images[0]) for case in cases[:3])
        count = next((number for number in counts if number), 1)
    return ("image",) if count == 1 else tuple(f"channel_{i}" for i in range(count))


def _channels_in(file: Path) -> int:
    try:
        return read_header(file).channels
    except (TrivoxError, OSError):
        return 0
