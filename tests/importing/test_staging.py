"""The folder that an import works in is its own."""

import json

import pytest

from trivox.errors import DataError
from trivox.importing.staging import STAMP, begin, is_done

ASKED = {"format": "brats", "source": "/s", "files": 3, "bytes": 9, "modified": 1}


def test_a_folder_in_the_way_is_left_alone(tmp_path):
    mine = tmp_path / ".out.partial" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(DataError, match="in the way"):
        begin(tmp_path / "out", ASKED)
    assert mine.read_text() == "mine"


def test_an_import_that_was_begun_goes_on_and_another_begins_anew(tmp_path):
    folder = begin(tmp_path / "out", ASKED)
    (folder / "case.nii.gz").write_bytes(b"whole")
    assert (begin(tmp_path / "out", ASKED) / "case.nii.gz").exists()
    assert not (begin(tmp_path / "out", ASKED | {"files": 4}) / "case.nii.gz").exists()


def test_imports_of_before_are_recognised(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / STAMP).write_text(json.dumps(ASKED))
    assert is_done(tmp_path / "out", ASKED, tmp_path / "source")
    with pytest.raises(DataError, match="is no import"):
        is_done(tmp_path / "out", ASKED | {"files": 4}, tmp_path / "source")


def test_a_link_is_not_replaced(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "empty")
    with pytest.raises(DataError, match="is a link"):
        is_done(tmp_path / "out", ASKED, tmp_path / "source")
