"""Plain folders: `images/` and `labels/` (or the like), paired by file name; labels are
found by reading them.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.listing import (
    CHANNEL_SUFFIX,
    channel_names,
    discover_labels,
    list_images,
    unique_cases,
)
from trivox.errors import FormatError

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
LABEL_SUFFIX = re.compile(r"[_-](seg|label|labels|mask|segmentation)$", re.IGNORECASE)


def matches(path: Path) -> bool:
    """Whether `path` holds an image and a label folder."""
    return bool(find_folder(path, IMAGE_FOLDERS) and find_folder(path, LABEL_FOLDERS))


def find_folder(root: Path, names: Collection[str]) -> Path | None:
    """The subfolder of `root` whose name (in any case) comes first in `names`."""
    if not root.is_dir():
        return None
    present = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
    return next((present[name] for name in names if name in present), None)


def load(path: Path) -> Dataset:
    """Pair images with labels by case name, with or without channel suffix `_0000`;
    DICOM folders count as images.

    An image without label becomes a case without label; `imagesTs` (and `labelsTs`) are
    test cases. Raises `FormatError` if nothing pairs.
    """
    root = path.absolute()
    images = find_folder(root, IMAGE_FOLDERS)
    labels = find_folder(root, LABEL_FOLDERS)
    assert images is not None, "`matches` was not asked"
    assert labels is not None, "`matches` was not asked"
    train = _cases(images, labels, split="train")
    if not any(case.label for case in train):
        raise FormatError(
            f"{root}: no file in {images.name}/ has the name of one in {labels.name}/; "
            "rename them to pair"
        )
    test: list[Case] = []
    test_images = find_folder(root, ["imagests"])
    if test_images is not None:
        test = _cases(test_images, find_folder(root, ["labelsts"]), split="test")
    files = [case.label for case in train if case.label]
    return Dataset(
        name=root.name,
        root=root,
        layout="folders",
        channels=channel_names(train),
        labels=discover_labels(files, where=labels),
        cases=unique_cases([*train, *test], where=root),
    )


def _cases(
    images: Path, labels: Path | None, *, split: Literal["train", "test"]
) -> list[Case]:
    files = list_images(images)
    masks: dict[str, Path] = {}
    for stem, file in list_images(labels).items() if labels else ():
        masks[stem if stem in files else LABEL_SUFFIX.sub("", stem)] = file
    groups = _group_channels(files, masks)
    return [
        Case(name=name, images=paths, label=masks.get(name), split=split)
        for name, paths in sorted(groups.items())
    ]


def _group_channels(
    images: Mapping[str, Path], masks: Collection[str]
) -> dict[str, tuple[Path, ...]]:
    """Files of each case.

    A trailing `_0001` is a channel only where the labels' names (or all images) say so.
    """
    parts = {stem: CHANNEL_SUFFIX.fullmatch(stem) for stem in images}
    numbers = [match for match in parts.values() if match]
    if masks:
        numbered = any(match["case"] in masks for match in numbers)
    else:
        numbered = any(match["channel"] == "0000" for match in numbers)
    groups: dict[str, list[Path]] = defaultdict(list)
    for stem, match in sorted(parts.items()):
        name = match["case"] if match and numbered and stem not in masks else stem
        groups[name].append(images[stem])
    return {name: tuple(files) for name, files in groups.items()}
