"""Class folders (`train/subtype0/case_0000.nii.gz` and `case.nii.gz`) to the raw format
of nnU-Net 2, classes included.
"""

import csv
import io
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trivox.datasets.dataset import NOTE, Case, Dataset
from trivox.datasets.declared_folds import SPLITS
from trivox.datasets.label_parsing import parse_labels
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts import class_folders
from trivox.datasets.layouts.nnunet_raw import CLASS_TABLE
from trivox.datasets.splits import make_splits
from trivox.errors import DataError, FormatError, RecipeError
from trivox.files import atomic_path, in_one_line, write_json, write_text
from trivox.importing.staging import (
    ImportFile,
    begin,
    is_done,
    listing_of,
    require_space,
    sole_import,
)
from trivox.volumes.formats import read_header, read_labels, read_volume, write_volume
from trivox.volumes.geometry import on_grid_of
from trivox.volumes.segmentations.segments import Grid
from trivox.volumes.volume import Volume

FORMATS = ("nnunet",)
ENDING = ".nii.gz"
Folds = Sequence[Mapping[str, Sequence[str]]]
"""Names under `train` and `val` of each fold."""


@dataclass(frozen=True)
class ImportedClasses:
    """What there is in an import: cases, cases of each class, and how many are
    validation, test or lack a mask.

    folds: 1 if the source declares a validation split; masks_alone: masks without
    image, which are left out.
    """

    cases: int
    classes: Mapping[str, int]
    folds: int
    validation: int
    test: int
    unlabelled: int
    masks_alone: int


@dataclass(frozen=True)
class ChannelStep:
    """One file to write: a channel of an image file, or (channel None) the mask of the
    case.
    """

    case: Case
    source: Path
    channel: int | None
    target: Path


ShowFiles = Callable[[Iterable[ChannelStep], int], Iterable[ChannelStep]]
"""Passes steps on and shows how many of the total are done."""


def _in_silence(steps: Iterable[ChannelStep], total: int) -> Iterable[ChannelStep]:
    return steps


@in_one_line()
def import_class_folders(
    source: Path,
    out: Path,
    *,
    to: str = "nnunet",
    labels: Mapping[str, int] | None = None,
    channels: Sequence[str] = (),
    progress: ShowFiles = _in_silence,
) -> ImportedClasses:
    """Write the cases in class folders `source` as nnU-Net raw data to `out`, with
    `classification_labels.csv`.

    labels: value of each structure by name, default `label_1`...; channels: their
    names, default as found (nnU-Net and trivox normalise `CT` by its own rule). Masks
    become whole numbers 0, 1, 2... in the order of their values; values further than
    1e-3 from a whole number, or not among `labels`, are refused. `splits_final.json`
    holds the declared validation split, else five folds stratified by class. Cases
    without mask go to `imagesTs`, since nnU-Net trains on none; trivox still learns
    their class. The work is done in a folder beside `out` that is renamed at the end;
    after an interruption the same call goes on. Raises `FormatError` if `source` holds
    no class folders, `DataError` naming the case that does not fit or if `out` holds
    something else, `ResourceError` if the disk is too small.
    """
    if to not in FORMATS:
        raise RecipeError(
            f"format '{to}' does not exist; choose one of {', '.join(FORMATS)}"
        )
    dataset = _load(source, labels, channels)
    folds = _folds(dataset)
    stamp = _identity(source, dataset)
    with sole_import(out):
        if not is_done(out, stamp, source):
            folder = begin(out, stamp)
            _write(dataset, folder, out, progress)
            _describe(dataset, folds, folder, name=out.name)
            folder.rename(out)
    return _summary(dataset, folds)


def _write(dataset: Dataset, folder: Path, out: Path, progress: ShowFiles) -> None:
    # files are whole or not there
    steps = [step for step in _steps(dataset, folder) if not step.target.exists()]
    require_space(folder, sum(step.source.stat().st_size for step in steps), out=out)
    for step in progress(steps, len(steps)):
        _carry_out(step, dataset.labels)


def _summary(dataset: Dataset, folds: Folds) -> ImportedClasses:
    counts = Counter(case.class_name for case in dataset.cases)
    return ImportedClasses(
        cases=len(dataset.cases),
        classes={name: counts[name] for name in dataset.classes},
        folds=len(folds),
        validation=sum(case.split == "validation" for case in dataset.cases),
        test=sum(case.split == "test" for case in dataset.cases),
        unlabelled=sum(_is_unlabelled(case) for case in dataset.cases),
        masks_alone=len(class_folders.orphan_labels(dataset)),
    )


def _load(
    source: Path, labels: Mapping[str, int] | None, channels: Sequence[str]
) -> Dataset:
    """The dataset under the names given; raises an error for whatever nnU-Net could not
    take.
    """
    if not source.exists():
        raise FormatError(f"{source}: not found; check the path")
    if not class_folders.matches(source):
        raise FormatError(
            f"{source}: holds no class folders; expected are "
            f"train/CLASS/case_0000{ENDING} with the mask case{ENDING} beside it, for "
            "two classes or more (validation/CLASS/ and test/ if there are any)"
        )
    scheme = parse_labels(labels, where=Path("--labels")) if labels else None
    dataset = class_folders.load(source, labels=scheme)
    for case in dataset.cases:
        case.require_usable()
    if channels and len(channels) != len(dataset.channels):
        raise DataError(
            f"{source}: cases have {len(dataset.channels)} channels, named are "
            f"{[*channels]}; name each once"
        )
    learnt = Counter(case.class_name for case in dataset.cases if case.split == "train")
    empty = next((name for name in dataset.classes if not learnt[name]), None)
    if empty is not None:
        raise DataError(
            f"{source}: class '{empty}' has no training case; fill its folder or "
            "remove it"
        )
    return dataset.model_copy(update={"channels": tuple(channels) or dataset.channels})


def _state(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError as error:
        raise FormatError(
            f"{file}: cannot be read ({error.strerror}); restore or remove it"
        ) from error


def _identity(source: Path, dataset: Dataset) -> ImportFile:
    """What tells this import from that of another source, of the same after a change,
    or under other names.
    """
    files: list[Path] = []
    for case in dataset.cases:
        files += case.images
        if case.label is not None:
            files.append(case.label)
    states = [_state(file) for file in files]
    listed = [
        (str(file.relative_to(dataset.root)), state.st_size, state.st_mtime_ns)
        for file, state in zip(files, states, strict=True)
    ]
    return {
        "format": "nnunet",
        "source": str(source.absolute()),
        "files": len(files),
        "bytes": sum(state.st_size for state in states),
        "modified": max(state.st_mtime_ns for state in states),
        "listing": listing_of(listed),
        "channels": list(dataset.channels),
        "labels": dict(dataset.labels.labels) if dataset.labels else {},
    }


def _trains(case: Case) -> bool:
    return case.split != "test" and case.label is not None


def _is_unlabelled(case: Case) -> bool:
    return case.split != "test" and case.label is None


def _steps(dataset: Dataset, folder: Path) -> Iterator[ChannelStep]:
    for case in dataset.cases:
        part = "Tr" if _trains(case) else "Ts"
        images = folder / f"images{part}"
        number = 0
        for file in case.images:
            for channel in range(_channels_in(file, case)):
                target = images / f"{case.name}_{number:04d}{ENDING}"
                yield ChannelStep(case, file, channel, target)
                number += 1
        if number != len(dataset.channels):
            raise DataError(
                f"{case.name}: {number} channels, the dataset has "
                f"{len(dataset.channels)}; add or remove files"
            )
        if case.label is not None:
            target = folder / f"labels{part}" / f"{case.name}{ENDING}"
            yield ChannelStep(case, case.label, None, target)


def _channels_in(file: Path, case: Case) -> int:
    try:
        return read_header(file).channels
    except DataError as error:
        raise type(error)(f"case '{case.name}': {error}") from error


def _carry_out(step: ChannelStep, labels: LabelScheme | None) -> None:
    """Write the file of `step`; raises the error of what is wrong with it, naming the
    case.
    """
    try:
        if step.channel is None:
            _write_mask(step, labels)
        else:
            _write_channel(step, step.channel)
    except DataError as error:
        raise type(error)(f"case '{step.case.name}': {error}") from error


def _write_channel(step: ChannelStep, channel: int) -> None:
    """One channel of the image file: the file as it is where that is all it holds
    (read, to find damage here).
    """
    stored = read_volume(step.source)
    volume = _on_first_grid(step, stored, what="channels")
    as_is = volume is stored and volume.channels == 1
    if as_is and step.source.name.endswith(ENDING):
        with atomic_path(step.target) as temporary:
            shutil.copyfile(step.source, temporary)
    else:
        write_volume(step.target, volume.with_array(volume.array[channel]))


def _write_mask(step: ChannelStep, labels: LabelScheme | None) -> None:
    """The mask as consecutive whole numbers, on the very grid of the image (headers of
    both differ by rounding).
    """
    assert labels is not None, "class folders have masks"
    first = _first_grid(step)
    grid = Grid(first.shape, first.affine, step.case.images[0])
    stored = read_labels(step.source, onto=grid, meaning=labels)
    mask = _on_first_grid(step, stored, what="image and mask")
    indices = labels.encode(mask.array, where=str(step.source))
    kind = np.min_scalar_type(len(labels.values) - 1)
    write_volume(step.target, Volume(indices.astype(kind), first.affine))


def _first_grid(step: ChannelStep) -> Volume:
    """The grid of the case's first image, without its voxels."""
    return read_header(step.case.images[0]).grid


def _on_first_grid(step: ChannelStep, volume: Volume, *, what: str) -> Volume:
    """`volume` with the axes of the case's first image; raises `GeometryError` if it
    lies elsewhere.
    """
    return on_grid_of(_first_grid(step), volume, where=f"{step.source}: {what}")


def _folds(dataset: Dataset) -> Folds:
    """The folds of `make_splits` as nnU-Net lists them: cases with mask, the only ones
    that it trains on.
    """
    cases = dataset.training_cases
    masked = {case.name for case in cases if case.label is not None}

    def listed(names: Sequence[str]) -> list[str]:
        return [name for name in names if name in masked]

    return [
        {"train": listed(split.train), "val": listed(split.validation)}
        for split in make_splits(cases)
    ]


def _describe(dataset: Dataset, folds: Folds, folder: Path, *, name: str) -> None:
    write_json(folder / SPLITS, folds)
    write_text(folder / CLASS_TABLE, _class_table(dataset.cases))
    if dataset.note:
        write_text(folder / NOTE, dataset.note + "\n")
    write_json(folder / "dataset.json", _description(dataset, name))


def _class_table(cases: Sequence[Case]) -> str:
    """`case,class,split`; blank where the class is not known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case", "class", "split"))
    writer.writerows((case.name, case.class_name or "", case.split) for case in cases)
    return text.getvalue()


def _description(dataset: Dataset, name: str) -> dict[str, object]:
    """Content of `dataset.json`; what nnU-Net has no place for stands under `trivox`."""
    assert dataset.labels is not None, "class folders have masks"
    old_values = dataset.labels.labels
    by_value = sorted(old_values, key=lambda label: old_values[label])
    labels = {label: number for number, label in enumerate(by_value, start=1)}
    values = ", ".join(
        f"{number} {label} ({old_values[label]} in the source)"
        for label, number in labels.items()
    )
    additions: dict[str, object] = {
        "classes": {
            case.name: case.class_name
            for case in dataset.cases
            if case.class_name is not None
        }
    }
    splits = {case.name: case.split for case in dataset.cases if _is_unlabelled(case)}
    if splits:
        additions["splits"] = splits
    return {
        "name": name,
        "description": (
            f"class folders {dataset.name}, imported by trivox; label values: {values}"
        ),
        "channel_names": {
            str(number): channel for number, channel in enumerate(dataset.channels)
        },
        "labels": {"background": 0, **labels},
        "numTraining": sum(_trains(case) for case in dataset.cases),
        "file_ending": ENDING,
        "trivox": additions,
    }
