"""Channels by their names: between a dataset and a model, and at the end of file names.

Names are compared without capitals and marks; MRI sequences under any name that they
are known by (`t1n` is `T1`, `T2-FLAIR` is `FLAIR`).
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from trivox.datasets.dataset import Case, listed_case
from trivox.errors import TrivoxError, few
from trivox.volumes.formats import read_header
from trivox.volumes.picture_names import is_picture

ALIASES = {
    "t1": "T1",
    "t1n": "T1",
    "t1w": "T1",
    "t1ce": "T1ce",
    "t1c": "T1ce",
    "t1gd": "T1ce",
    "t2": "T2",
    "t2w": "T2",
    "flair": "FLAIR",
    "t2f": "FLAIR",
}
"""MRI sequences by the names that they go by, in small letters."""
SEPARATOR = re.compile(r"[_\-. ]+")
"""Before the name of a channel at the end of a file name."""


def sequence_of(name: str) -> str:
    """The sequence that a channel or file ending like `t1gd` or `T2-FLAIR` means; empty
    if it is none.
    """
    return ALIASES.get(name.lower().removeprefix("t2-").removeprefix("t2_"), "")


def channel_key(name: str) -> str:
    """What two names of one channel have in common."""
    plain = re.sub(r"[\W_]", "", name.casefold())
    return sequence_of(name.strip()) or plain or name


def positions(given: Sequence[str], wanted: Sequence[str]) -> list[int | None] | None:
    """For each channel `wanted` the number of the one `given` that has its name, None
    where there is none.

    Nothing if no name is in both, or one is in either twice: then the order alone says
    which channel is which.
    """
    keys = [channel_key(name) for name in given]
    needed = [channel_key(name) for name in wanted]
    if len(set(keys)) < len(keys) or len(set(needed)) < len(needed):
        return None
    if set(keys).isdisjoint(needed):
        return None
    numbers = {key: number for number, key in enumerate(keys)}
    return [numbers.get(key) for key in needed]


def by_name(
    cases: Iterable[Case], given: Sequence[str], wanted: Sequence[str]
) -> tuple[tuple[Case, ...], str]:
    """Cases whose channels are `given` as those of a model that reads `wanted`, and
    what there is to say of it: nothing where the order is the same.

    A channel that a case has not is among its `absent` ones.
    """
    numbers = positions(given, wanted)
    if numbers is None or numbers == list(range(len(given))):
        return tuple(cases), ""
    matched = tuple(_reordered(case, len(given), numbers) for case in cases)
    return matched, _told(given, wanted, numbers)


def _told(
    given: Sequence[str], wanted: Sequence[str], numbers: Sequence[int | None]
) -> str:
    """How the channels were matched, in one line."""
    lacking = [
        name for name, number in zip(wanted, numbers, strict=True) if number is None
    ]
    unused = [name for number, name in enumerate(given) if number not in numbers]
    line = (
        f"channels are matched by name: {', '.join(given)} in the input, "
        f"{', '.join(wanted)} in the model"
    )
    if lacking:
        line += f"; the input has no {', '.join(lacking)}"
    if unused:
        line += f"; {', '.join(unused)} is not used"
    return line


def _reordered(case: Case, count: int, numbers: Sequence[int | None]) -> Case:
    """A case of `count` channels with those at `numbers`, in this order."""
    present = [number for number in range(count) if number not in case.absent]
    taken = [number for number in numbers if number in present]
    absent = [i for i, number in enumerate(numbers) if number not in present]
    changes: dict[str, object] = {"absent": tuple(absent)}
    if len(case.images) == len(present):
        files = dict(zip(present, case.images, strict=True))
        changes["images"] = tuple(files[number] for number in taken if number in files)
    elif len(case.images) == 1:
        changes["order"] = tuple(present.index(number) for number in taken)
    else:
        return case
    return case.model_copy(update=changes)


# -- at the end of file names ----------------------------------------------------------
def split_stem(stem: str, channels: Sequence[str]) -> tuple[str, int] | None:
    """Case and number of the channel whose name ends a file's name, `p0_T1`."""
    keys = [channel_key(name) for name in channels]
    for mark in SEPARATOR.finditer(stem):
        key = channel_key(stem[mark.end() :])
        if mark.start() and key in keys:
            return stem[: mark.start()], keys.index(key)
    return None


def named_cases(images: Mapping[str, Path], channels: Sequence[str]) -> list[Case]:
    """Cases of files that end in the names of `channels`; a file that does not is a
    case alone. None where no file does.
    """
    groups: dict[str, dict[int, Path]] = {}
    twice: dict[str, str] = {}
    alone: list[Case] = []
    for stem, file in images.items():
        parts = split_stem(stem, channels)
        if parts is None:
            alone.append(listed_case(stem, images=(file,)))
            continue
        name, number = parts
        earlier = groups.setdefault(name, {}).setdefault(number, file)
        if earlier != file:
            twice[name] = f"{earlier.name} and {file.name} are both {channels[number]}"
    if not groups:
        return []
    for name, files in groups.items():
        case = numbered_case(name, files, channels)
        complaint = f"{twice[name]}; remove one" if name in twice else case.complaint
        alone.append(case.with_complaint(complaint))
    return sorted(alone, key=lambda case: case.name)


def numbered_case(
    name: str, files: Mapping[int, Path], channels: Sequence[str]
) -> Case:
    """A case of the files of its channels; those without file are absent, and a number
    that no channel has is a complaint.
    """
    count = len(channels)
    ordered = tuple(files[number] for number in sorted(files))
    absent = tuple(number for number in range(count) if number not in files)
    if [*files] == [0] and _holds_colours(files[0], count):
        absent = ()
    case = listed_case(name, images=ordered, absent=absent)
    superfluous = [files[number].name for number in sorted(files) if number >= count]
    if not superfluous or case.complaint:
        return case
    return case.with_complaint(
        f"has {few(superfluous)} beside the channels {', '.join(channels)}; "
        "remove or rename it"
    )


def _holds_colours(file: Path, channels: int) -> bool:
    """Whether a picture holds all channels as its colours, as nnU-Net has them."""
    if channels == 1 or not is_picture(file):
        return False
    try:
        return read_header(file).channels == channels
    except (TrivoxError, OSError):
        return False


def endings_after(stems: Iterable[str], names: Collection[str]) -> dict[str, str]:
    """How the stems go on that begin with one of `names` and a separator: `T1` for
    `p0_T1` and `p0`; the longest name counts.
    """
    endings: dict[str, str] = {}
    for stem in stems:
        for mark in SEPARATOR.finditer(stem):
            if stem[: mark.start()] in names and stem[mark.end() :]:
                endings[stem] = stem[mark.end() :]
    return endings
