"""Records that people edit: read as they were written, or refused in one line that
names the file.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from damaged_json import WRONG, damaged
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.splits import Split, read_folds, write_folds
from trivox.errors import DataError, FormatError, TrivoxError
from trivox.files import file_hash, read_json, write_json
from trivox.importing.staging import begin, is_done
from trivox.privacy.folder import require_same_key
from trivox.privacy.key import Key
from trivox.tasks.reconstruction.rendered import claim_exam, require_rendered
from trivox.tasks.stages import RunFile, read_run, splits_of, write_run
from trivox.tasks.verification.record import NOT_VERIFIED, verified_line, write_record

SPLITS = (Split(("a", "b"), ("c",), "dealt"), Split(("c",), ("a", "b"), "dealt"))
KEY = Key(b"0" * 32)
STAMP = {
    "format": "nnunet",
    "source": "/scans",
    "files": 3,
    "bytes": 10,
    "modified": 7,
    "listing": "0123",
}
DEIDENTIFIED = {
    "task": None,
    "format_version": 1,
    "method": "m",
    "key": KEY.fingerprint,
    "dates": "shift",
    "written": 1,
    "patients": 1,
    "set_aside": {"is no scan": 2},
    "notes": ["n"],
}


@dataclass(frozen=True)
class Record:
    """A record in a folder: how it is written and read there."""

    name: str
    write: Any
    read: Any


def verified(folder):
    return write_record(folder, "segmentation", numbers=3, cases=1, unchecked=["x"])


def deidentified(folder):
    write_json(folder / "deidentified.json", DEIDENTIFIED)


def imported(folder):
    begun = begin(folder / "data", STAMP)
    (begun / "image").touch()
    begun.rename(folder / "data")


RECORDS = [
    Record("splits.json", lambda at: write_folds(SPLITS, at), read_folds),
    Record(
        "run.json",
        lambda at: write_run(RunFile(task="segmentation", fold="0"), at),
        read_run,
    ),
    Record("verified.json", verified, verified_line),
    Record(
        "rendered.json",
        lambda at: claim_exam(at, "anna", "reconstruction"),
        lambda at: require_rendered(at, {"anna": at / "ct.nii"}),
    ),
    Record(
        "deidentified.json",
        deidentified,
        lambda at: require_same_key(at, KEY, "shift"),
    ),
    Record(
        "data/import.json",
        imported,
        lambda at: is_done(at / "data", STAMP, Path("/scans")),
    ),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_a_damaged_record_is_read_or_refused_in_a_line_that_names_it(record, tmp_path):
    record.write(tmp_path)
    record.read(tmp_path)
    file = tmp_path / record.name
    whole = read_json(file)
    complaints = []
    for content in [*WRONG, *damaged(whole)]:
        file.write_text(json.dumps(content), encoding="utf-8")
        try:
            record.read(tmp_path)
        except TrivoxError as error:
            complaints.append(str(error))
    assert len(complaints) >= len(WRONG)
    assert all(str(file.parent) in each and "\n" not in each for each in complaints)
    file.write_text("{", encoding="utf-8")
    with pytest.raises(TrivoxError, match=file.parent.name):
        record.read(tmp_path)


def test_folds_are_read_as_they_were_written(tmp_path):
    write_folds(SPLITS, tmp_path)
    read = read_folds(tmp_path)
    assert read == list(SPLITS)
    assert [split.source for split in read] == ["dealt", "dealt"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "Input should be a valid tuple"),
        ([], "at least 1 item"),
        ([{"train": ["a"]}], "0.validation: Field required"),
        ([{"train": ["a"], "validation": "b"}], "0.validation: Input should be"),
        ([{"train": [1], "validation": []}], "0.train.0: Input should be"),
    ],
)
def test_folds_that_are_none_say_what_is_wrong(tmp_path, content, said):
    write_json(tmp_path / "splits.json", content)
    with pytest.raises(DataError, match=said):
        read_folds(tmp_path)


def test_a_begun_run_with_damaged_folds_is_not_said_to_have_other_ones(tmp_path):
    cases = tuple(Case(name=name, images=(Path("i"),)) for name in "abcdefgh")
    dataset = Dataset(
        name="d", root=tmp_path, layout="manifest", channels=("CT",), cases=cases
    )
    splits_of(dataset, tmp_path)
    before = file_hash(tmp_path / "splits.json")
    (tmp_path / "checkpoints" / "latest").mkdir(parents=True)
    splits_of(dataset, tmp_path)
    assert file_hash(tmp_path / "splits.json") == before
    write_json(tmp_path / "splits.json", read_json(tmp_path / "splits.json")[1:])
    with pytest.raises(DataError, match="the folds changed since this run began"):
        splits_of(dataset, tmp_path)
    write_json(tmp_path / "splits.json", {"train": []})
    with pytest.raises(DataError, match=r"splits\.json: .*restore the file"):
        splits_of(dataset, tmp_path)


def test_a_run_of_0_1_0_says_its_fold_without_a_version(tmp_path):
    write_json(tmp_path / "run.json", {"fold": "all", "task": "multitask"})
    assert read_run(tmp_path) == RunFile(task="multitask", fold="all")
    with pytest.raises(FormatError, match="file not found"):
        read_run(tmp_path / "elsewhere")


def test_a_record_of_other_files_is_not_of_this_run(tmp_path):
    verified(tmp_path)
    assert verified_line(tmp_path) == "verified: 3 numbers follow from the files"
    write_folds(SPLITS, tmp_path)
    assert verified_line(tmp_path) == NOT_VERIFIED
