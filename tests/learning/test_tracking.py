"""The log of a run: records, lines, and what is left of them on a resume."""

import pytest

from trivox.learning.tracking import RunLog


# -- tracking --------------------------------------------------------------------------
def test_records_of_a_silent_log_are_not_written(tmp_path):
    log = RunLog(tmp_path, say=pytest.fail, active=False)
    log.line("x")
    log.record({"step": 1})
    log.forget_after(0)
    assert list(tmp_path.iterdir()) == []


def test_lines_go_to_console_and_file(tmp_path):
    lines = []
    RunLog(tmp_path, say=lines.append).line("hello")
    assert lines == ["hello"]
    assert (tmp_path / "log.txt").read_text().endswith("hello\n")
