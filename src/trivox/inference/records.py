"""`predictions.json`: what was predicted, and which case each file in its folder is of.

Only what a prediction wrote is ever written over or removed by a later one.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from threading import RLock
from typing import Any

from pydantic import ValidationError

from trivox.datasets.dataset import Case
from trivox.datasets.listing import is_image_file
from trivox.errors import DataError, FormatError, few
from trivox.files import read_json, remove_path, write_json
from trivox.inference.classes.files import CLASSES_FILE, SUBTYPE_FILE
from trivox.inference.doubt.kinds import EXTRAS
from trivox.inference.writing import Record, file_names
from trivox.locks import alone
from trivox.schema import STAMP
from trivox.sources import Source, is_unchanged, source_of
from trivox.volumes.formats import case_stem

RECORDS = "predictions.json"
ALL_CASES = ""
"""Whose the tables about all cases are."""
ADVICE = "choose another --out"
LATER = ("description", "precision", "labels")
"""What 0.1.0 did not write about a model; there it is taken to be the same."""
LONGEST = 255
"""Bytes of a name that file systems take."""


@dataclass
class PredictionRecords:
    """The records of a folder while it is predicted into.

    model: its identity and settings; outputs: names of all files that may be written
    about each case that is asked for, and, under `ALL_CASES`, about all together;
    cases: their records so far; owners: file name -> case; order: of the cases. Several
    threads may write cases, one at a time changes what is said of them.
    """

    out: Path
    model: Record
    outputs: Mapping[str, Sequence[str]]
    cases: dict[str, Record] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    order: Sequence[str] = ()
    lock: AbstractContextManager[object] = field(default_factory=RLock, repr=False)

    def claim(self, case: str) -> None:
        """Say before it is written what will be of a case, so that a killed process
        leaves no file of which nobody knows.
        """
        with self.lock:
            self.owners |= dict.fromkeys(self.outputs[case], case)

    def remove(self, case: str) -> None:
        """Remove all files of a case."""
        with self.lock:
            names = [name for name, owner in self.owners.items() if owner == case]
            for name in names:
                remove_path(self.out / name)
                del self.owners[name]

    def note(self, case: str, record: Record) -> None:
        """Note the record of a case, in its place among those of the others."""
        self.cases[case] = record
        places = {name: place for place, name in enumerate(self.order)}
        self.cases = dict(sorted(self.cases.items(), key=lambda each: places[each[0]]))

    def save(self) -> None:
        """Write them, beside what another process said of other cases meanwhile."""
        with self.lock, alone(self.out):
            self.save_here()

    def save_here(self) -> None:
        """`save`, of a process that is `alone` already."""
        owners = owners_of(read_records(self.out), self.out)
        others = {n: owner for n, owner in owners.items() if owner not in self.outputs}
        files = dict(sorted((others | self.owners).items()))
        content = {**self.model, "files": files, "cases": self.all_cases()}
        write_json(self.out / RECORDS, content)

    def all_cases(self) -> dict[str, Record]:
        """Records of all cases that this model predicted into the folder."""
        there = read_records(self.out)
        if not is_of(there, self.model):
            return dict(self.cases)
        return _others(there["cases"], self.outputs) | self.cases


def read_records(out: Path) -> dict[str, Any]:
    """What `predictions.json` says, nothing if there is none; raises `DataError` for a
    file of that name that no prediction wrote, and if `out` is a file itself.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file, not a folder; {ADVICE}")
    file = out / RECORDS
    if not file.exists():
        return {}
    try:
        content: dict[str, Any] | None = read_json(file)
    except FormatError:
        content = None
    if content is None or not _is_written(content):
        raise DataError(f"{file}: was not written by a prediction; {ADVICE}")
    return content


def is_of(content: Mapping[str, Any], model: Record) -> bool:
    """Whether the records are of this model and these settings; those of 0.1.0 say
    less.
    """
    later = (*LATER, *STAMP)
    same = all(
        content.get(key) == value or (key in later and key not in content)
        for key, value in model.items()
    )
    return bool(content) and same


def is_of_another(content: Mapping[str, Any], model: Record) -> bool:
    """Whether the records are of another model, or of other settings."""
    return bool(content) and not is_of(content, model)


def require_no_strangers(
    content: Mapping[str, Any], out: Path, asked: Mapping[str, Sequence[str]]
) -> None:
    """Raise `DataError` where a folder holds cases of another model that are not asked
    for: they would stand there as if this one had predicted them.
    """
    owners = {*owners_of(content, out).values(), *content.get("cases", {})}
    strangers = sorted(owners - asked.keys() - {ALL_CASES})
    if strangers:
        raise DataError(
            f"{out}: holds predictions of {few(strangers)} by another model or with "
            f"other settings; {ADVICE}, or add --overwrite to remove them"
        )


def written_files(out: Path, names: Iterable[str]) -> Record:
    """What the files of a case are when they were written, for its record."""
    there = [name for name in names if (out / name).exists()]
    sources = {name: source_of(out / name) for name in there}
    return {"written": {name: source.model_dump() for name, source in sources.items()}}


def altered_cases(content: Mapping[str, Any], out: Path) -> list[str]:
    """Cases of which a file is not what was written: somebody corrected or damaged it.
    Of records of 0.1.0, which do not say what was written, none.
    """
    cases = content.get("cases", {})
    return [name for name, record in cases.items() if _is_altered(record, out)]


def _is_altered(record: Record, out: Path) -> bool:
    written = record.get("written")
    if not isinstance(written, dict):
        return False
    try:
        sources = {n: Source.model_validate(source) for n, source in written.items()}
    except ValidationError:
        return False
    return any(
        _there(out / name) and not is_unchanged(out / name, source)
        for name, source in sources.items()
    )


def require_unaltered(out: Path, altered: Iterable[str]) -> None:
    """Raise `DataError` where maps that somebody changed would be written over or
    removed.
    """
    listed = list(altered)
    if listed:
        raise DataError(
            f"{out}: {few(listed)} changed since they were predicted and would be "
            f"lost; {ADVICE}, or add --overwrite"
        )


def meant_labels(out: Path) -> dict[str, int]:
    """Name -> value of the labels of the model that predicted into a folder; empty
    where nothing says so.
    """
    try:
        labels = read_records(out).get("labels") if out.is_dir() else None
    except DataError:
        labels = None
    if not isinstance(labels, dict):
        return {}
    return {name: value for name, value in labels.items() if type(value) is int}


def unfinished_cases(out: Path) -> list[str]:
    """Cases that have files in a folder of predictions and no record there: their
    prediction was begun and not ended, or failed.
    """
    try:
        content = read_records(out) if out.is_dir() else {}
    except DataError:
        return []
    finished = {
        n for n, record in content.get("cases", {}).items() if "error" not in record
    }
    owners = set(owners_of(content, out).values())
    return sorted(owners - finished - {ALL_CASES})


def owners_of(content: Mapping[str, Any], out: Path) -> dict[str, str]:
    """File name -> case. trivox 0.1.0 did not write it down: there it is what lies in
    `out` and a case may have had.
    """
    if "files" in content:
        return dict(content["files"])
    cases = content.get("cases", {})
    owners = {file_names(case)[0]: case for case in cases}
    if any("class" in record for record in cases.values()):
        owners |= dict.fromkeys((CLASSES_FILE, SUBTYPE_FILE), ALL_CASES)
    for case in cases:
        for name in (*file_names(case, EXTRAS), f"{case}.png", f"{case}.json"):
            owners.setdefault(name, case)
    return {name: case for name, case in owners.items() if _there(out / name)}


def require_free(
    out: Path,
    cases: Iterable[Case],
    outputs: Mapping[str, Sequence[str]],
    owners: Mapping[str, str],
    *,
    replaced: bool = False,
) -> None:
    """Raise `DataError` where a file of somebody else would be written over: of
    another case, an input, or one that no prediction wrote.

    replaced: all that was predicted before will be removed, so it must be no input.
    """
    _require_own_names(out, outputs, owners)
    names = set(chain.from_iterable(outputs.values()))
    removed = {name for name, case in owners.items() if replaced or case in outputs}
    written = {out.resolve() / name for name in names | removed}
    for case in cases:
        for file in _inputs(case):
            # not `resolve`, which refuses a link to itself
            if Path(os.path.realpath(file)) in written:
                raise DataError(
                    f"{file}: is an input, and would be written over; {ADVICE}"
                )
    foreign = [name for name in sorted(names - owners.keys()) if _there(out / name)]
    if foreign:
        raise DataError(
            f"{out}: {few(foreign)} would be written over, and no prediction wrote "
            f"them; {ADVICE}"
        )
    _require_no_twins(out, outputs, owners)


def _require_no_twins(
    out: Path, outputs: Mapping[str, Sequence[str]], owners: Mapping[str, str]
) -> None:
    """Raise `DataError` where an image of another format has the name of an output
    (`a.nii` beside `a.nii.gz`): nobody could tell any more which of them is the case.
    """
    if not out.is_dir():
        return
    new = set(chain.from_iterable(outputs.values())) - owners.keys()
    stems = {case_stem(Path(name)) for name in new}
    images = filter(is_image_file, sorted(out.iterdir()))
    foreign = [path for path in images if path.name not in owners]
    twins = [path.name for path in foreign if case_stem(path) in stems]
    if twins:
        raise DataError(
            f"{out}: {few(twins)} would have a second image of the same name beside it; "
            f"{ADVICE}"
        )


def _require_own_names(
    out: Path, outputs: Mapping[str, Sequence[str]], owners: Mapping[str, str]
) -> None:
    taken = {RECORDS: ALL_CASES}
    taken |= {name: case for name, case in owners.items() if _there(out / name)}
    for case, names in outputs.items():
        for name in names:
            owner = taken.setdefault(name, case)
            if owner != case:
                whose = f"of case {owner}" if owner else "of all cases together"
                raise DataError(
                    f"{out / name}: would be written for case {case}, and is {whose}; "
                    "rename one case, or predict it into another --out"
                )


def _is_written(content: Any) -> bool:
    """Whether a prediction may have written it; names of files lead to no other
    folder.
    """
    cases = content.get("cases") if isinstance(content, dict) else None
    if not isinstance(cases, dict):
        return False
    if not all(isinstance(record, dict) for record in cases.values()):
        return False
    files = content.get("files", {})
    if not isinstance(files, dict):
        return False
    return all(_names_file(name) for name in (*cases, *files))


def _names_file(name: str) -> bool:
    """Whether files in one folder may be called so."""
    short = len(name.encode()) <= LONGEST
    return short and name.isprintable() and Path(name).name == name


def _inputs(case: Case) -> list[Path]:
    known = (case.label, case.geometry, case.volume)
    return [*case.images, *(path for path in known if path is not None)]


def _there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _others(
    cases: Mapping[str, Record], asked: Mapping[str, Sequence[str]]
) -> dict[str, Record]:
    return {name: record for name, record in cases.items() if name not in asked}
