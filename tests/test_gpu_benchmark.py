"""What `benchmarks/gpu.py` needs no GPU for: parts that die, tables, torch's warnings."""

import json
import sys
import warnings
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
DIES = """
import os
import sys
from pathlib import Path
from gpu_parts.record import Record

record = Record(Path(sys.argv[1]))
record.measure("first", lambda: {"step_seconds": 0.5})
record.measure("second", lambda: os._exit(9))
record.measure("third", lambda: {"waits": 1})
"""
SLEEPS = "import time; print('began', flush=True); time.sleep(60)"


@pytest.fixture
def gpu(monkeypatch):
    """The module `benchmarks/gpu.py`."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    yield gpu
    for name in [name for name in sys.modules if name.startswith("gpu")]:
        del sys.modules[name]


@pytest.fixture
def options(gpu, tmp_path):
    return gpu.Options(
        tmp_path, pretend=False, peers=Path(sys.executable), expected=None
    )


def with_process(gpu, monkeypatch, options, text):
    file = str(options.file("facts"))
    command = [sys.executable, "-c", text, file]
    monkeypatch.setattr(gpu.Options, "command", lambda self, part: command)
    return gpu.run_part("facts", options)


def test_a_part_that_dies_goes_on_with_the_next_row(gpu, monkeypatch, options, capsys):
    content = with_process(gpu, monkeypatch, options, DIES)
    assert content["ended"] == "finished"
    assert content["rows"] == [
        {"name": "first", "step_seconds": 0.5},
        {"name": "second", "error": "ended without an answer"},
        {"name": "third", "waits": 1},
    ]
    assert json.loads(options.file("facts").read_text()) == content
    assert "facts: finished, 3 rows" in capsys.readouterr().out


def test_a_part_ends_with_its_time(gpu, monkeypatch, options):
    monkeypatch.setitem(gpu.LIMITS, "facts", 0.3)
    content = with_process(gpu, monkeypatch, options, SLEEPS)
    assert content["ended"] == "out of time"
    assert content["rows"] == []


def test_all_parts_together_take_less_than_ten_minutes(gpu):
    assert sum(gpu.LIMITS.values()) < 600


def test_without_a_gpu_one_line_says_so(gpu, monkeypatch, tmp_path):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="torch sees no NVIDIA GPU here"):
        gpu.main()
    assert not (tmp_path / "out").exists()


def test_of_a_pretended_device_no_speed_is_kept(gpu, tmp_path):
    from gpu_parts.record import Record

    record = Record(tmp_path / "a.json", pretended=True)
    row = {"step_seconds": 1.0, "patches_per_second": 2.0, "busy": 0.9, "waits": 3}
    record.measure("step", lambda: row)
    assert record.rows["step"] == {"name": "step", "waits": 3}


def test_an_error_is_a_row_and_the_table_shows_it_last(gpu, tmp_path):
    from gpu_parts.record import Record
    from gpu_parts.table import page

    record = Record(tmp_path / "a.json")
    record.measure("bad", lambda: 1 / 0)
    record.measure("good", lambda: {"step_seconds": 0.125, "allocated_bytes": 2.5e9})
    content = {"pretended": False, "rows": list(record.rows.values())}
    text = page({"step": {**content, "ended": "out of time"}})
    assert "## step: out of time" in text
    assert "| name | step (ms) | allocated (MB) | error |" in text
    assert "| bad |  |  | ZeroDivisionError: division by zero |" in text
    assert "| good | 125 | 2,500.0 |  |" in text
    assert "pretended" not in text


def test_torchs_warnings_are_counted_by_place(gpu, monkeypatch):
    import torch

    from gpu_parts import meters

    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(meters, "pretends", lambda: False)
    text = f"\nimport warnings\ndef step(): warnings.warn({meters.SAID!r})"
    room = {}
    exec(compile(text, "/any/src/trivox/learning/some.py", "exec"), room)
    with meters.Waits() as waits:
        room["step"]()
        room["step"]()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.warn("another", stacklevel=1)
    assert waits.places == {"learning/some.py:3": 2}
    assert modes == ["warn", "default"]


def test_a_gpu_is_busy_once_where_kernels_overlap(gpu):
    from gpu_parts.meters import covered

    assert covered([(0, 10), (5, 12), (20, 21), (20, 21), (6, 7)]) == 13
