"""What `benchmarks/gpu.py` needs no GPU for: parts that die, tables, torch's warnings."""

import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

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


def test_kernels_are_timed_between_events(gpu, monkeypatch):
    import torch

    from gpu_parts import meters

    clock = iter(range(10_000))

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = next(clock)

        def synchronize(self):
            pass

        def elapsed_time(self, end):
            return end.at - self.at

    calls = []
    monkeypatch.setattr(meters, "pretends", lambda: False)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    seconds = meters.kernel_seconds(lambda: calls.append(0), warm=3, most=5, limit=60)
    assert seconds == 0.001
    assert len(calls) == 3 + 5


def test_only_what_runs_on_the_gpu_keeps_it_busy(gpu, monkeypatch):
    import torch

    from gpu_parts import meters

    def event(kind, start, end):
        return SimpleNamespace(
            activity_type=lambda: kind, start_ns=lambda: start, end_ns=lambda: end
        )

    events = [event("kernel", 0, 4), event("cpu_op", 0, 90), event("gpu_memcpy", 3, 6)]
    monkeypatch.setattr(meters, "pretends", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    with meters.Profile() as profile:
        pass
    monkeypatch.setattr(meters, "pretends", lambda: False)
    results = SimpleNamespace(events=lambda: events)
    inner = SimpleNamespace(kineto_results=results)
    profile.profiler = SimpleNamespace(profiler=inner)
    profile.seconds = 12e-9
    assert profile.row(2) == {"busy": pytest.approx(0.5), "operations": 1.0}


def test_a_gpu_is_busy_once_where_kernels_overlap(gpu):
    from gpu_parts.meters import covered

    assert covered([(0, 10), (5, 12), (20, 21), (20, 21), (6, 7)]) == 13
