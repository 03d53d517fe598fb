"""What the layouts share: listing image files, reading label names, and errors that
name the dataset file.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.errors import DataError, FormatError, LabelError, TrivoxError
from trivox.files import read_json
from trivox.volumes.formats import SUFFIXES, case_stem, read_header, read_labels
from trivox.volumes.volume import Array

CHANNEL_SUFFIX = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
"""nnU-Net's channel naming: `case_0000`, `case_0001`..."""

MAXIMUM_LABELS = 1000
Model = TypeVar("Model", bound=BaseModel)


def validated(
    model: type[Model],
    content: object,
    *,
    where: str,
    error: type[DataError] = FormatError,
) -> Model:
    """`content` as `model`; raises `error` with the first complaint on one line, naming
    `where`.
    """
    try:
        return model.model_validate(content)
    except ValidationError as failure:
        first = failure.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        what = f"'{place}': {first['msg']}" if place else first["msg"]
        raise error(f"{where}: {what}; correct it there") from failure


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
    return (
        not path.name.startswith(".")
        and path.name.lower().endswith(tuple(SUFFIXES))
        and path.is_file()
    )


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
    return any(
        _is_dicom(file) for file in files[:5]
    )  # a few, since opening thousands takes seconds


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
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not is_image_file(path) and (
            path.name.startswith(".") or not is_dicom_folder(path)
        ):
            continue
        stem = image_stem(path)
        if path.with_suffix(".hdr") == found.get(
            stem
        ):  # the pixel half of an Analyze pair
            continue
        if stem in found:
            raise FormatError(
                f"{folder}: {found[stem].name} and {path.name} are both case '{stem}'; remove one"
            )
        found[stem] = path
    return found


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
            f"{where}: {count} cases are named '{name}' ({files}); give every case its own name"
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
            f"{where}: no label but background in {len(files)} label maps; check the label files"
        )
    if len(values) > MAXIMUM_LABELS:
        raise LabelError(
            f"{where}: {len(values)} different label values; were images and labels swapped?"
        )
    return LabelScheme(labels={f"label_{value}": value for value in values})


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
            f"{where}: labels must map names to whole numbers, found {raw!r:.60}; correct it there"
        )
    try:
        named = {name: _as_ints(value) for name, value in _by_name(raw).items()}
    except (TypeError, ValueError) as error:
        raise LabelError(
            f"{where}: labels must map names to whole numbers, found {dict(raw)}"
        ) from error
    background = next(
        (v[0] for name, v in named.items() if name.lower() == "background" and v), 0
    )
    ignored = named.pop("ignore", () if ignore is None else (ignore,))
    named = {name: values for name, values in named.items() if values != (background,)}
    if any(
        isinstance(value, list | tuple) and name in named for name, value in raw.items()
    ):
        regions = named
        named = {
            _name_of(v, named): (v,)
            for v in sorted({v for values in named.values() for v in values})
        }
    content = {
        "labels": {name: values[0] for name, values in named.items()},
        "regions": regions or {},
        "region_order": tuple(order),
        "background": background,
        "ignore": ignored[0] if ignored else None,
    }
    return validated(LabelScheme, content, where=str(where), error=LabelError)


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


def _as_ints(value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if any(
        isinstance(v, bool) or (isinstance(v, float) and not v.is_integer())
        for v in values
    ):
        raise ValueError(value)
    return tuple(int(v) for v in values)


def _name_of(value: int, regions: Mapping[str, tuple[int, ...]]) -> str:
    return next(
        (name for name, values in regions.items() if values == (value,)),
        f"label_{value}",
    )


def channel_names(cases: Sequence[Case]) -> tuple[str, ...]:
    """Names for channels that the layout does not name: as many as most cases have
    files, or the first file holds.
    """
    count = Counter(len(case.images) for case in cases).most_common(1)[0][0]
    if count == 1:
        count = next(
            (header for case in cases[:3] if (header := _channels_in(case.images[0]))),
            1,
        )
    return ("image",) if count == 1 else tuple(f"channel_{i}" for i in range(count))


def _channels_in(file: Path) -> int:
    try:
        return read_header(file).channels
    except (TrivoxError, OSError):
        return 0
