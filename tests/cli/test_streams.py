"""The command line does its work whoever listens, in whatever letters."""

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest

from trivox.cli import main
from trivox.cli.streams import Steady
from trivox.files import read_json, write_json

VERBS = """
import sys
from trivox.cli import main

codes = []
for arguments in {commands!r}:
    sys.argv = ["trivox", *arguments]
    try:
        main()
        codes.append(0)
    except SystemExit as stop:
        codes.append(stop.code)
with open("codes.txt", "w") as file:
    print(*codes, file=file)
"""
NOWHERE = {"stdin": subprocess.DEVNULL}
UMLAUT = "\N{LATIN SMALL LETTER A WITH DIAERESIS}"


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_data):
    """Cases and labels with names beyond ASCII."""
    folder = tmp_path_factory.mktemp("data") / f"B{UMLAUT}uche"
    shutil.copytree(tiny_data, folder)
    manifest = read_json(folder / "manifest.json")
    for entry in manifest["cases"]:
        entry["case"] = f"B{UMLAUT}r \N{SNOWMAN} {entry['case']}"
    manifest["labels"] = {f"L{UMLAUT}sion": 7, "organ": 300}
    write_json(folder / "manifest.json", manifest)
    (folder.parent / "maps").mkdir()
    for entry in manifest["cases"]:
        target = folder.parent / "maps" / f"{entry['case']}.nii.gz"
        shutil.copy(folder / entry["label"], target)
    return folder


@pytest.fixture
def commands(data, tiny_run):
    """Verbs that take no time."""
    return [
        ["check", f"{data}", "--out", "check.json"],
        ["plan", f"{data}", "--network", "unet-tiny"],
        ["evaluate", f"{data.parent / 'maps'}", f"{data}"],
        ["rank", "metrics.json", f"{data.parent / 'other.json'}", "--names", "a,b"],
        ["report", "metrics.json"],
        ["info", f"{tiny_run}"],
        ["doctor"],
        ["check", "nowhere"],
    ]


def run_all(commands, folder, before="", **options):
    """Exit codes of commands, run one after another in a process of their own."""
    script = before + VERBS.format(commands=commands)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, check=False, **NOWHERE, **options
    )
    codes = (folder / "codes.txt").read_text().split()
    return done, [int(code) for code in codes]


def expected(commands):
    return [0] * (len(commands) - 1) + [1]


def require_files(folder):
    """What the verbs leave, whole and in UTF-8."""
    for name in ("check.json", "plan.json", "metrics.json", "ranking.json"):
        assert isinstance(json.loads((folder / name).read_bytes().decode()), dict)
    assert f"L{UMLAUT}sion" in (folder / "metrics.html").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def other_metrics(data, tmp_path_factory):
    """Metrics to rank with."""
    import trivox

    file = data.parent / "other.json"
    if not file.exists():
        trivox.evaluate(data.parent / "maps", data, file)


def test_closed_streams_stop_nothing(commands, tmp_path):
    close = "import os\nfor number in range(3): os.close(number)\n"
    _, codes = run_all(commands, tmp_path, close)
    assert codes == expected(commands)
    require_files(tmp_path)


def test_a_reader_that_leaves_stops_nothing(commands, tmp_path):
    commands = [commands[0], *commands[-2:]]
    reading, writing = os.pipe()
    os.close(reading)
    done, codes = run_all(commands, tmp_path, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert codes == expected(commands)
    assert done.stderr.decode() == "error: nowhere: not found; check the path\n"
    assert read_json(tmp_path / "check.json")["errors"] == 0


def test_every_letter_is_printed_in_ascii(commands, tmp_path):
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}
    environment = os.environ | ascii_only
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done, codes = run_all(commands, tmp_path, env=environment, **pipes)
    assert codes == expected(commands)
    assert done.stdout.isascii()
    assert rb"L\xe4sion" in done.stdout
    assert b"\x1b" not in done.stdout + done.stderr
    require_files(tmp_path)


def test_what_a_stream_cannot_take_is_swallowed_and_remembered(tmp_path):
    file = tmp_path / "lines"
    file.write_text("")
    reading = os.open(file, os.O_RDONLY)
    with Steady(reading, "w") as stream:
        assert stream.write(b"gone") == 4
        assert stream.lost is None, "nobody waits for it"
        assert stream.write(b"more") == 4


def test_a_line_that_did_not_fit_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["trivox", "--version"])
    with Steady(os.dup(1), "w") as stream:
        stream.lost = OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr("trivox.cli.steady_streams", lambda **asked: stream)
        with pytest.raises(SystemExit) as stop:
            main()
    assert stop.value.code == 1
    assert "No space left" in capsys.readouterr().err
