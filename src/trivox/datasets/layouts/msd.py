"""Medical Segmentation Decathlon: `dataset.json` with `modality`, `labels` (value ->
name), `training` and `test`.

Also reads nnU-Net version 1, which lists `case.nii.gz` but stores `case_0000.nii.gz`,
`case_0001.nii.gz`...
"""

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from trivox.datasets.dataset import Case, Dataset, Side, listed_case
from trivox.datasets.label_parsing import parse_labels
from trivox.datasets.listing import ADVICE, json_object, unique_cases
from trivox.errors import FormatError
from trivox.schema import validated
from trivox.volumes.formats import case_stem

NUMBER = re.compile("[0-9]{1,4}")
"""Of a channel."""


class Pair(BaseModel):
    """An entry of `training` or `test`; what else it holds is not read."""

    image: str = Field(min_length=1)
    label: str | None = None


def description_file(path: Path) -> Path:
    """`path` itself if it is a JSON file, else the `dataset.json` in it."""
    return path if path.suffix == ".json" else path / "dataset.json"


def matches(path: Path) -> bool:
    """Whether `path` is (or holds) a `dataset.json` with a list of training pairs."""
    return isinstance(json_object(description_file(path)).get("training"), list)


def load(path: Path) -> Dataset:
    """Read the dataset; a 4-D file holds all modalities.

    Files need not exist, `check_dataset` looks for them.
    """
    file = description_file(path).absolute()
    root = file.parent
    content = json_object(file)
    channels = numbered_names(content.get("modality"), where=file, key="modality")
    train = _cases(content["training"], root, len(channels), split="train")
    test = _cases(content.get("test") or [], root, len(channels), split="test")
    return Dataset(
        name=str(content.get("name") or root.name),
        root=root,
        layout="msd",
        channels=channels,
        labels=parse_labels(content.get("labels") or {}, where=file),
        cases=unique_cases([*train, *test], where=file),
    )


def numbered_names(content: Any, *, where: Path, key: str) -> tuple[str, ...]:
    """Channel names from `{"0": name, "1": name}`, in order of the number; repeated
    names get their number appended.
    """
    entries = content if isinstance(content, dict) else {}
    if not entries or not all(NUMBER.fullmatch(str(number)) for number in entries):
        raise FormatError(
            f"{where}: '{key}' must number the channels, such as "
            f'{{"0": "CT"}}, found {content!r:.60}; {ADVICE}'
        )
    names = {int(number): str(name) for number, name in entries.items()}
    counts = Counter(names.values())
    return tuple(
        name if counts[name] == 1 else f"{name}_{number}"
        for number, name in sorted(names.items())
    )


def _cases(
    entries: object,
    root: Path,
    channels: int,
    *,
    split: Side,
) -> list[Case]:
    if not isinstance(entries, list):
        raise FormatError(f"{root}: the cases of dataset.json are no list; {ADVICE}")
    cases = []
    for entry in entries:
        content = {"image": entry} if isinstance(entry, str) else entry
        where = f"{root}: an entry of dataset.json"
        pair = validated(Pair, content, where=where, error=FormatError, advice=ADVICE)
        image = root / pair.image
        if image.name.startswith("._"):  # macOS leaves these beside the real files
            continue
        files = _channel_files(image, channels)
        case = listed_case(
            case_stem(image),
            images=tuple(files.values()) or (image,),
            label=root / pair.label if pair.label else None,
            absent=tuple(i for i in range(channels) if files and i not in files),
            split=split,
        )
        cases.append(case)
    return cases


def _channel_files(image: Path, channels: int) -> dict[int, Path]:
    """The files of nnU-Net 1 by channel that stand for `image` where it does not exist;
    none if there are none.
    """
    if os.path.lexists(image):
        return {}
    stem = case_stem(image)
    suffix = image.name.removeprefix(stem)
    parts = {i: image.with_name(f"{stem}_{i:04d}{suffix}") for i in range(channels)}
    return {i: part for i, part in parts.items() if os.path.lexists(part)}
