"""Plain folders: `images/` and `labels/` (or the like), paired by file name; labels are
found by reading them.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from trivox.datasets.channels import endings_after, named_cases, numbered_case
from trivox.datasets.dataset import Case, Dataset, Side, listed_case
from trivox.datasets.listing import (
    CHANNEL_SUFFIX,
    LABEL_SUFFIX,
    channel_names,
    discover_labels,
    entries,
    survey,
    unique_cases,
    unread_files,
    with_complaints,
)
from trivox.errors import FormatError

ALONE = -1
"""In place of the number of a channel: a file that holds all of a case."""
IMAGE_FOLDERS = ("images", "image", "imagestr", "img", "imgs")
LABEL_FOLDERS = (
    "labels",
    "label",
    "labelstr",
    "masks",
    "mask",
    "segmentations",
    "segmentation",
)


def matches(path: Path) -> bool:
    """Whether `path` holds an image and a label folder."""
    return bool(find_folder(path, IMAGE_FOLDERS) and find_folder(path, LABEL_FOLDERS))


def find_folder(root: Path, names: Collection[str]) -> Path | None:
    """The subfolder of `root` whose name (in any case) comes first in `names`."""
    if not root.is_dir():
        return None
    present = {path.name.lower(): path for path in entries(root) if path.is_dir()}
    return next((present[name] for name in names if name in present), None)


def load(path: Path) -> Dataset:
    """Pair images with labels by case name; DICOM folders count as images.

    Images of several channels are those of a label map's name with `_0000`, `_0001`...
    or with the channels' names (`p0_T1`, `p0_T2` and `p0`). An image without label
    becomes a case without label; `imagesTs` (and `labelsTs`) are test cases. Raises
    `FormatError` if nothing pairs.
    """
    root = path.absolute()
    images = find_folder(root, IMAGE_FOLDERS)
    labels = find_folder(root, LABEL_FOLDERS)
    assert images is not None, "`matches` was not asked"
    assert labels is not None, "`matches` was not asked"
    channels = _named_channels(images, labels)
    numbers = _usual_numbers(images, labels)
    train = _cases(images, labels, channels, numbers, split="train")
    if not any(case.label for case in train):
        raise FormatError(f"{root}: {_why_nothing_pairs(images, labels)}")
    test: list[Case] = []
    test_images = find_folder(root, ["imagests"])
    if test_images is not None:
        test_labels = find_folder(root, ["labelsts"])
        test = _cases(test_images, test_labels, channels, numbers, split="test")
    cases = unique_cases([*train, *test], where=root)
    files = [case.label for case in train if case.label and not case.complaint]
    return Dataset(
        name=root.name,
        root=root,
        layout="folders",
        channels=channels or channel_names(train),
        labels=discover_labels(files, where=labels),
        cases=cases,
    )


def _why_nothing_pairs(images: Path, labels: Path) -> str:
    """What the two folders hold instead of files of the same names."""
    for folder in (images, labels):
        if not survey(folder).images:
            return f"{folder.name}/ {unread_files(folder)}"
    example = next(iter(survey(images).images))
    other = next(iter(survey(labels).images))
    return (
        f"no file in {images.name}/ has the name of one in {labels.name}/ ({example} "
        f"and {other}); rename them to pair: an image CASE.nii.gz, or CASE_0000.nii.gz, "
        "CASE_0001.nii.gz... of several channels, with the label map CASE.nii.gz"
    )


def _masks(labels: Path | None, images: Collection[str]) -> dict[str, Path]:
    """Label maps by case; `case_seg` is that of `case`, unless an image is called so."""
    listed = survey(labels).images if labels else {}
    return {
        stem if stem in images else LABEL_SUFFIX.sub("", stem): file
        for stem, file in listed.items()
    }


def _named_channels(images: Path, labels: Path) -> tuple[str, ...]:
    """Channels by which most images go on after the name of a label map, sorted; none
    if most label maps have an image of their own name, or numbered ones.
    """
    stems = survey(images).images
    masks = _masks(labels, stems)
    lonely = {name for name in masks if name not in stems}
    endings = endings_after(stems, lonely)
    if any(ending.isdigit() for ending in endings.values()):
        return ()
    paired = {stem[: -len(ending) - 1] for stem, ending in endings.items()}
    if 2 * len(paired) <= len(masks):
        return ()
    counts = Counter(endings.values())
    return tuple(sorted(name for name in counts if 2 * counts[name] > len(paired)))


def _cases(
    images: Path,
    labels: Path | None,
    channels: Sequence[str],
    numbers: Sequence[int],
    *,
    split: Side,
) -> list[Case]:
    """channels: that names of files end in; numbers: that they end in otherwise."""
    files, complaints = survey(images)
    masks = _masks(labels, files)
    if labels is not None:
        complaints |= survey(labels).complaints
    if channels:
        listed = named_cases(files, channels)
    else:
        groups = _group_channels(files, masks)
        listed = [
            _case_of(name, paths, numbers) for name, paths in sorted(groups.items())
        ]
    changed = (
        case.model_copy(update={"label": masks.get(case.name), "split": split})
        for case in listed
    )
    return list(with_complaints(changed, complaints))


def _case_of(name: str, files: Mapping[int, Path], numbers: Sequence[int]) -> Case:
    """A case of numbered files, or of one file that holds all channels."""
    if ALONE in files:
        return listed_case(name, images=tuple(files.values()))
    places = {number: place for place, number in enumerate(numbers)}
    placed = {places.get(number, number + 1000): files[number] for number in files}
    names = [f"channel_{number}" for number in numbers]
    return numbered_case(name, placed, names)


def _usual_numbers(images: Path, labels: Path) -> tuple[int, ...]:
    """The channel numbers that most cases have; none without."""
    files = survey(images).images
    groups = _group_channels(files, _masks(labels, files))
    counts = Counter(
        tuple(sorted(present)) for present in groups.values() if ALONE not in present
    )
    ((usual, _),) = counts.most_common(1) or [((), 0)]
    return usual


def _group_channels(
    images: Mapping[str, Path], masks: Collection[str]
) -> dict[str, dict[int, Path]]:
    """Files of each case by channel number, or `ALONE`.

    A trailing `_0001` is a channel only where the labels' names (or all images) say so.
    """
    parts = {stem: CHANNEL_SUFFIX.fullmatch(stem) for stem in images}
    numbers = [match for match in parts.values() if match]
    if masks:
        numbered = any(match["case"] in masks for match in numbers)
    else:
        numbered = any(match["channel"] == "0000" for match in numbers)
    groups: dict[str, dict[int, Path]] = defaultdict(dict)
    for stem, match in sorted(parts.items()):
        if match and numbered and stem not in masks:
            groups[match["case"]][int(match["channel"])] = images[stem]
        else:
            groups[stem][ALONE] = images[stem]
    return dict(groups)
