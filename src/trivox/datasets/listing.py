"""What the layouts share: listing image files, reading label names, and errors that
name the dataset file.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.dicom_folders import holds_dicom
from trivox.datasets.labels import LabelScheme, discovered_name
from trivox.datasets.names import one_file
from trivox.errors import DataError, FormatError, LabelError, TrivoxError, few
from trivox.files import read_json
from trivox.volumes.formats import (
    SUFFIXES,
    VOLUMES,
    case_stem,
    read_header,
    read_labels,
    segment_values,
)
from trivox.volumes.picture_names import SPACING, is_picture, is_picture_stack
from trivox.volumes.segmentations.signature import (
    folded,
    is_segmentation,
    segmentation_in,
)
from trivox.volumes.volume import Array

CHANNEL_SUFFIX = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
"""nnU-Net's channel naming: `case_0000`, `case_0001`..."""

MAXIMUM_LABELS = 1000
ADVICE = "correct it there"
"""What to do about a description of a dataset that is wrong."""

UNREADABLE = ".unreadable"
"""Stands for what lies in a folder that cannot be looked into."""
NOT_OURS = ("lost+found", "$RECYCLE.BIN", "System Volume Information")
"""Folders of file systems, which are no cases."""
LABEL_SUFFIX = re.compile(
    r"[._-](seg|label|labels|mask|segmentation|rtstruct|rtss)$", re.IGNORECASE
)
"""What names of label maps end in; 3D Slicer saves `case.seg.nrrd`."""
SEGMENTATIONS = (".seg.nrrd", ".seg.dcm", ".rtstruct.dcm", ".dcm", ".seg.nhdr")
"""How files end that name their segments, the longer endings first."""


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, empty where there is no such file; raises
    `FormatError` if it is malformed.
    """
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted; raises `FormatError` if it cannot be looked into."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise FormatError(
            f"{folder}: cannot be opened ({error.strerror}); correct its rights"
        ) from error


def is_image_file(path: Path) -> bool:
    """Whether the name is that of a format of volumes, be it of a link to nothing;
    hidden files (macOS `._*` copies included) are not, nor are pictures.
    """
    readable = path.name.lower().endswith(VOLUMES)
    if not readable or path.name.startswith("."):
        return False
    return path.is_file() or is_dangling(path)


def segmentation_files(folder: Path) -> dict[str, Path]:
    """Files of a folder that name their segments, by what their names begin with."""
    listed: dict[str, Path] = {}
    if not folder.is_dir():
        return listed
    for path in entries(folder):
        name = path.name
        ending = next((e for e in SEGMENTATIONS if name.lower().endswith(e)), "")
        if ending and not name.startswith(".") and is_segmentation(path):
            listed.setdefault(name[: -len(ending)], path)
    return listed


def is_picture_file(path: Path) -> bool:
    """Likewise of a picture: PNG, TIFF and the like."""
    if not is_picture(path) or path.name.startswith("."):
        return False
    return path.is_file() or is_dangling(path)


def is_dangling(path: Path) -> bool:
    """Whether it is a link to nothing, which readers refuse by that name."""
    return path.is_symlink() and not path.exists()


def image_stem(path: Path) -> str:
    """Case name of an image file or DICOM folder."""
    return path.name if path.is_dir() else case_stem(path)


class Listing(NamedTuple):
    """Image files and DICOM folders by stem, and what is wrong with those that cannot
    be used, by path.
    """

    images: dict[str, Path]
    complaints: dict[Path, str]


def survey(folder: Path) -> Listing:
    """Image files and DICOM folders in `folder`, sorted; pictures where there is nothing
    else, since figures may lie beside volumes; none where the folder does not exist.

    Of two files of one stem (`a.nii` and `a.nii.gz`) only one can be meant: the first is
    listed, with a complaint; so is a folder that cannot be looked into.
    """
    if not folder.is_dir():
        return Listing({}, {})
    inside = entries(folder)
    listing = _listed(inside, _may_be_image)
    return listing if listing.images else _listed(inside, is_picture_file)


def _listed(paths: Iterable[Path], wanted: Callable[[Path], bool]) -> Listing:
    listing = Listing({}, {})
    for path in paths:
        try:
            if not wanted(path):
                continue
        except (FormatError, OSError) as error:
            listing.images[path.name] = path
            listing.complaints[path] = str(error)
            continue
        earlier = listing.images.setdefault(image_stem(path), path)
        is_pixel_half = earlier == path.with_suffix(".hdr")  # of Analyze
        if earlier != path and not is_pixel_half:
            names = f"{earlier.name} and {path.name}"
            listing.complaints[earlier] = f"{names} are both this case; remove one"
    return listing


def list_images(folder: Path) -> dict[str, Path]:
    """The images of `survey`; raises `FormatError` with the first complaint."""
    listing = survey(folder)
    for stem, path in listing.images.items():
        if path in listing.complaints:
            raise FormatError(f"{folder}: {stem}: {listing.complaints[path]}")
    return listing.images


def _may_be_image(path: Path) -> bool:
    """Whether it is an image file or a DICOM folder, or a link that was one."""
    if path.name.startswith(".") or path.name in NOT_OURS:
        return False
    if is_dangling(path):
        return not path.suffix[1:].isalpha() or is_image_file(path)
    return is_image_file(path) or is_picture_stack(path) or holds_dicom(path)


def with_complaints(
    cases: Iterable[Case], complaints: Mapping[Path, str]
) -> Iterator[Case]:
    """`cases`, those with the complaint of one of their files that have one."""
    for case in cases:
        files = (*case.images, *([case.label] if case.label else ()))
        reasons = [complaints[file] for file in files if file in complaints]
        if reasons and not case.complaint:
            yield case.with_complaint(reasons[0])
        else:
            yield case


def unread_files(folder: Path) -> str:
    """What lies in a folder in which no image is found, and what to do: a sentence
    without subject.
    """
    inside = [path for path in entries(folder) if not path.name.startswith(".")]
    files = [path for path in inside if not path.is_dir()]
    endings = {path.suffix.lower() or path.name for path in files}
    if files:
        count = f"{len(files)} files ({files[0].name}...)"
        return (
            f"holds {count} that end in {few(sorted(endings))}, which is not read; "
            f"convert them to one of {', '.join(SUFFIXES)}"
        )
    deeper = [path.name for path in inside]
    stacks = [path for path in inside if any(map(is_picture_file, entries(path)))]
    if stacks:
        return (
            f"holds folders of pictures ({stacks[0].name}...); where they are slices of "
            f'one image, put {SPACING} with {{"spacing": [z, y, x]}} in mm into each'
        )
    if deeper:
        return (
            f"holds no image but the folders {few(deeper)}; give one of them, "
            "or list their files in a manifest.csv (case,image)"
        )
    return "holds no image, DICOM series or dataset; check the path"


def unlisted_labels(dataset: Dataset) -> tuple[Path, ...]:
    """Files in the folders of the dataset's label maps that are no case's."""
    paired = {case.label for case in dataset.cases if case.label is not None}
    unlisted: list[Path] = []
    for folder in sorted({file.parent for file in paired}):
        files = survey(folder).images.values()
        unlisted += [file for file in files if file not in paired]
    return tuple(unlisted)


def unique_cases(cases: Iterable[Case], *, where: Path) -> tuple[Case, ...]:
    """`cases` sorted as given; several of one name become one that cannot be used.

    Raises `DataError` naming `where` unless there is one that can.
    """
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(one_file(case.name), []).append(case)
    if not groups:
        raise DataError(f"{where}: no cases found; check that the dataset is complete")
    cases = tuple(_only_one(group) for group in groups.values())
    if all(case.complaint for case in cases):
        first = cases[0]
        raise DataError(
            f"{where}: none of {len(cases)} cases can be used: {first.name}: "
            f"{first.complaint}"
        )
    return cases


def _only_one(group: Sequence[Case]) -> Case:
    """The case, or the first of several with the complaint that they are several."""
    first = group[0]
    if len(group) == 1:
        return first
    files = few(str(case.images[0]) for case in group if case.images)
    names = [*dict.fromkeys(f"'{case.name}'" for case in group)]
    have = "have this name"
    if len(names) > 1:
        have = f"are named {' or '.join(names)}, one file on some systems"
    return first.with_complaint(
        f"{len(group)} cases {have} ({files}); give every case its own name"
    )


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
    """Label values found by reading all label maps; value v is named `label_v`, where
    files name their segments as they do.

    Unreadable label maps are passed over here, `check_dataset` reports them. Raises
    `LabelError` if no value but 0 is found, with the reason where files cannot be read,
    or so many that the files can hardly be label maps.
    """
    with ThreadPoolExecutor(8) as pool:
        contents = [*pool.map(_values_in, files)]
    reasons = [content for content in contents if isinstance(content, str)]
    read = [content for content in contents if not isinstance(content, str)]
    named = common_values(each for each in read if isinstance(each, dict))
    plain = (each for each in read if isinstance(each, set))
    values = sorted(set[int]().union(*plain) - {0} - set(named.values()))
    named |= {discovered_name(value): value for value in values}
    if not named and reasons:
        rest = ", the others hold no label" if read else ""
        raise LabelError(
            f"{where}: {len(reasons)} of {len(files)} label maps cannot be read{rest}: "
            f"{reasons[0]}"
        )
    if not named:
        raise LabelError(
            f"{where}: no label but background in {len(files)} label maps; check the "
            "label files"
        )
    if len(named) > MAXIMUM_LABELS:
        raise LabelError(
            f"{where}: {len(named)} different label values; were images and labels "
            "swapped?"
        )
    return LabelScheme(labels=named)


def common_values(files: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """A value for each name of segments in several files: its number where all files
    agree and no two names share one, else its place among the sorted names.

    Names that differ in capitals and the like are one, as the first file writes it.
    """
    spelt: dict[str, str] = {}
    numbers: dict[str, set[int]] = {}
    for named in files:
        for name, number in named.items():
            key = folded(name)
            spelt.setdefault(key, name)
            numbers.setdefault(key, set()).add(number)
    distinct = set[int]().union(*numbers.values())
    if len(distinct) == len(numbers) == sum(map(len, numbers.values())):
        return {spelt[key]: each for key, (each,) in numbers.items()}
    return {spelt[key]: place for place, key in enumerate(sorted(spelt), start=1)}


def _values_in(file: Path) -> dict[str, int] | set[int] | str:
    """The values of a label map, by name where it names them, or why it cannot be
    read.
    """
    try:
        file = segmentation_in(file)
        if is_segmentation(file):
            return segment_values(file)
        return set(present_values(read_labels(file).array))
    except (TrivoxError, OSError) as error:
        return str(error)


def channel_names(cases: Sequence[Case]) -> tuple[str, ...]:
    """Names for channels that the layout does not name: as many as most cases have
    files, or the first file holds.
    """
    usable = [case for case in cases if case.images and not case.complaint]
    counts_of_files = Counter(len(case.images) + len(case.absent) for case in usable)
    ((count, _),) = counts_of_files.most_common(1) or [(1, 0)]
    if count == 1:
        counts = (_channels_in(case.images[0]) for case in usable[:3])
        count = next((number for number in counts if number), 1)
    return ("image",) if count == 1 else tuple(f"channel_{i}" for i in range(count))


def _channels_in(file: Path) -> int:
    try:
        return read_header(file).channels
    except (TrivoxError, OSError):
        return 0
