"""BraTS as it is downloaded (tar, zip or folders) to a tidy dataset folder, or to the
raw format of nnU-Net 2.
"""

import gzip
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from trivox.datasets.dataset import NOTE
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.brats import (
    FAMILIES,
    LABEL,
    SEQUENCES,
    SUFFIXES,
    Scan,
    group_files,
    parse_name,
    patient_of,
)
from trivox.errors import DataError, FormatError, RecipeError
from trivox.files import atomic_path, in_one_line, temporary_name, write_json
from trivox.importing.archives import ArchiveMember, members
from trivox.importing.staging import (
    ImportFile,
    begin,
    is_done,
    listing_of,
    require_space,
    sole_import,
)
from trivox.volumes.formats import read_labels, write_volume

TABLES = ("name_mapping.csv", "survival_info.csv", NOTE.lower())
"""Tables of some releases that lie beside the cases: grade, and survival, of each; and
what reports have to say.
"""

COMPRESSION = 4
"""Level of gzip; 6 takes half as long again for 1 % less."""


@dataclass(frozen=True)
class Imported:
    """What there is in an import: cases, families, and how many cases are held out,
    lack a label map or a sequence.
    """

    cases: int
    families: tuple[str, ...]
    held_out: int
    unlabelled: int
    incomplete: int


@dataclass(frozen=True)
class Step:
    """One file to write: where it comes from, where it goes in the new folder, and what
    its label values are turned to.
    """

    member: ArchiveMember
    target: PurePosixPath
    translation: tuple[LabelScheme, LabelScheme] | None = None


@dataclass(frozen=True)
class Job:
    """Everything to write: files in the order of the archive, and JSON files by name."""

    steps: tuple[Step, ...]
    descriptions: Mapping[str, Any]


Files = Mapping[PurePosixPath, ArchiveMember]
"""What is taken out of an archive."""

ShowFiles = Callable[[Iterable[Step], int], Iterable[Step]]
"""Passes steps on and shows how many of the total are done."""


def _in_silence(steps: Iterable[Step], total: int) -> Iterable[Step]:
    return steps


@in_one_line()
def import_brats(
    source: Path, out: Path, *, to: str = "brats", progress: ShowFiles = _in_silence
) -> Imported:
    """Bring the BraTS cases in an archive or folder to `out`, all files as `.nii.gz`.

    to: a key of `FORMATS`. Nothing but BraTS images and `TABLES` is taken out of an
    archive. The work is done in a folder beside `out` that is renamed at the end; after
    an interruption the same call goes on. Raises `FormatError` for a damaged archive,
    `DataError` if there is nothing to import, `out` holds something else or a case does
    not fit the format, `ResourceError` if the disk is too small.
    """
    if to not in FORMATS:
        raise RecipeError(
            f"format '{to}' does not exist; choose one of {', '.join(FORMATS)}"
        )
    with members(source, _is_wanted) as files:
        scans = [scan for scan in group_files(files, where=source) if scan.images]
        for scan in scans:
            if scan.complaint:
                raise FormatError(f"{source}: {scan.name}: {scan.complaint}")
        if not scans:
            known = ", ".join(family.example for family in FAMILIES.values())
            raise DataError(
                f"{source}: no BraTS case inside; known are names like {known}"
            )
        stamp = _identity(source, files, to)
        with sole_import(out):
            if not is_done(out, stamp, source):
                job = FORMATS[to](scans, files, f"{source}", out.name)
                _write(_with_tables(job, files), begin(out, stamp), out, progress)
    return _summary(scans)


def _summary(scans: Sequence[Scan]) -> Imported:
    return Imported(
        cases=len(scans),
        families=tuple(dict.fromkeys(scan.family.title for scan in scans)),
        held_out=sum(scan.held_out for scan in scans),
        unlabelled=sum(scan.label is None for scan in scans),
        incomplete=sum(len(scan.images) < len(SEQUENCES) for scan in scans),
    )


def _is_wanted(name: PurePosixPath) -> bool:
    file = name.name.lower()
    if file in TABLES:
        return True
    if not file.endswith(SUFFIXES) or file.startswith("."):
        return False
    return LABEL in file or parse_name(file) is not None


def _identity(source: Path, files: Files, form: str) -> ImportFile:
    """What tells an import from that of another source, of the same after a change, or
    in another form.
    """
    if source.is_dir():
        paths = {name: source / name for name in files}
    else:
        paths = dict.fromkeys(files, source)
    times = {name: path.stat().st_mtime_ns for name, path in paths.items()}
    listed = [(str(name), files[name].size, times[name]) for name in files]
    return {
        "format": form,
        "source": str(source.absolute()),
        "files": len(files),
        "bytes": sum(member.size for member in files.values()),
        "modified": max(times.values()),
        "listing": listing_of(listed),
    }


def _with_tables(job: Job, files: Files) -> Job:
    """`job` with the tables, in the order of the archive: a packed tar is read from
    front to back.
    """
    place = {name: number for number, name in enumerate(files)}
    steps = sorted(
        (*job.steps, *_tables(files)), key=lambda step: place[step.member.name]
    )
    return Job(tuple(steps), job.descriptions)


def _write(job: Job, folder: Path, out: Path, progress: ShowFiles) -> None:
    # files are whole or not there
    todo = [step for step in job.steps if not (folder / step.target).exists()]
    require_space(folder, sum(step.member.size for step in todo), out=out)
    for step in progress(todo, len(todo)):
        _carry_out(step, folder)
    for name, content in job.descriptions.items():
        write_json(folder / name, content)
    folder.rename(out)


def _carry_out(step: Step, folder: Path) -> None:
    target = folder / step.target
    packed = step.member.name.name.lower().endswith(".gz")
    if step.translation is None:
        _copy(step.member, target, pack=target.name.endswith(".gz") and not packed)
        return
    raw = temporary_name(folder / ("label.nii.gz" if packed else "label.nii"))
    try:
        _copy(step.member, raw, pack=False)
        _translate(raw, target, *step.translation, where=str(step.member.name))
    finally:
        raw.unlink(missing_ok=True)


def _copy(member: ArchiveMember, target: Path, *, pack: bool) -> None:
    with (
        atomic_path(target) as temporary,
        member.read() as stream,
        temporary.open("wb") as file,
    ):
        if not pack:
            shutil.copyfileobj(stream, file)
            return
        with gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0) as zipped:
            shutil.copyfileobj(stream, zipped)


def _translate(
    source: Path, target: Path, old: LabelScheme, new: LabelScheme, *, where: str
) -> None:
    """Write a label map with the values of `new`; raises an error naming `where` for
    values that `old` has not.
    """
    try:
        volume = read_labels(source)
    except DataError as error:
        raise type(error)(str(error).replace(str(source), where)) from error
    values, _ = old.translation(new)
    indices = old.encode(volume.array, where=where)
    write_volume(target, volume.with_array(values.astype("uint8")[indices]))


def _tables(files: Files) -> Iterator[Step]:
    """The tables, beside the cases; where there are several of a name, each after the
    folder that it lay in.
    """
    tables = [name for name in files if name.name.lower() in TABLES]
    counts = Counter(name.name.lower() for name in tables)
    for name in tables:
        target = name.name if counts[name.name.lower()] == 1 else "_".join(name.parts)
        yield Step(files[name], PurePosixPath(target))


def _as_brats(scans: Sequence[Scan], files: Files, _where: str, _name: str) -> Job:
    """A folder a case, held-out cases in a folder `test`, file names as their family
    has them.
    """
    targets: dict[PurePath, PurePosixPath] = {}
    for scan in scans:
        folder = PurePosixPath("test" if scan.held_out else "", scan.name)
        for content, file in scan.contents.items():
            targets[file] = folder / scan.family.file_name(scan.name, content)
    steps = [
        Step(member, targets[name]) for name, member in files.items() if name in targets
    ]
    return Job(tuple(steps), {})


def _as_nnunet(scans: Sequence[Scan], files: Files, where: str, name: str) -> Job:
    """`imagesTr` and `labelsTr`; cases that are held out or have no label map in
    `imagesTs` (and `labelsTs`).
    """
    cavity = any("RC" in scan.family.labels.labels for scan in scans)
    # values without gaps, as nnU-Net demands
    scheme = FAMILIES["post-treatment" if cavity else "2023"].labels
    make: dict[PurePath, partial[Step]] = {}
    for scan in scans:
        missing = [sequence for sequence in SEQUENCES if sequence not in scan.images]
        if missing:
            raise DataError(
                f"{where}: {scan.name} has no {', '.join(missing)}, and nnU-Net needs "
                "all sequences; remove the case, or import with --format brats"
            )
        part = "Tr" if _trains(scan) else "Ts"
        for number, sequence in enumerate(SEQUENCES):
            target = PurePosixPath(f"images{part}", f"{scan.name}_{number:04d}.nii.gz")
            make[scan.images[sequence]] = partial(Step, target=target)
        if scan.label is not None:
            target = PurePosixPath(f"labels{part}", f"{scan.name}.nii.gz")
            make[scan.label] = partial(
                Step, target=target, translation=(scan.family.labels, scheme)
            )
    steps = [make[file](member) for file, member in files.items() if file in make]
    return Job(tuple(steps), {"dataset.json": _description(scans, scheme, name)})


def _trains(scan: Scan) -> bool:
    return scan.label is not None and not scan.held_out


def _description(
    scans: Sequence[Scan], scheme: LabelScheme, name: str
) -> dict[str, object]:
    """Content of `dataset.json`; what nnU-Net has no place for stands under `trivox`."""
    titles = ", ".join(dict.fromkeys(scan.family.title for scan in scans))
    values = ", ".join(f"{value} {label}" for label, value in scheme.labels.items())
    moved = any(
        scan.family.labels.labels["ET"] != scheme.labels["ET"] for scan in scans
    )
    note = "; ET was 4 in BraTS up to 2022" if moved else ""
    regions = {region: list(values) for region, values in scheme.regions.items()}
    return {
        "name": name,
        "description": f"{titles}, imported by trivox; label values: {values}{note}",
        "channel_names": {
            str(number): sequence for number, sequence in enumerate(SEQUENCES)
        },
        "labels": {"background": 0, **regions},
        "regions_class_order": list(scheme.region_order),
        "numTraining": sum(_trains(scan) for scan in scans),
        "file_ending": ".nii.gz",
        "trivox": {
            "label_names": {
                str(value): label for label, value in scheme.labels.items()
            },
            "nested": scheme.nested,
            "patients": {scan.name: patient_of(scan.name) for scan in scans},
        },
    }


FORMATS: dict[str, Callable[[Sequence[Scan], Files, str, str], Job]] = {
    "brats": _as_brats,
    "nnunet": _as_nnunet,
}
"""Forms of an import: a folder a case under the names of its family, or nnU-Net's raw
format 2 with regions.
"""
