"""What takes minutes: the main job on real scans, as a user runs it.

`make test-slow`, or pytest -m slow.
"""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

LEAST_DICE = 0.84


def run(*arguments):
    command = [sys.executable, "-m", "trivox", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hippocampus_in_twelve_minutes_and_the_same_figures_from_files(
    data_root, tmp_path
):
    data = data_root / "hippocampus"
    out = tmp_path / "run"
    options = "--preset quick_test --fold 0 --minutes 12 --device cpu"
    run("train", data, "--out", out, *options.split())
    validation = json.loads((out / "validation" / "metrics.json").read_text())
    assert validation["summary"]["mean"]["dice"]["mean"] >= LEAST_DICE
    assert (out / "report.html").stat().st_size > 100_000

    names = tmp_path / "names.txt"
    names.write_text("\n".join(validation["cases"]))
    predictions = tmp_path / "predictions"
    run("predict", out, data, "--cases", names, "--out", predictions, "--device", "cpu")
    metrics = tmp_path / "metrics.json"
    run("evaluate", predictions, data, "--out", metrics)
    assert json.loads(metrics.read_text())["summary"] == validation["summary"]


def test_demo_reaches_its_report(tmp_path):
    printed = run("demo", "--out", tmp_path / "demo", "--minutes", 1)
    assert "test Dice" in printed
    assert (tmp_path / "demo" / "run" / "report.html").exists()
