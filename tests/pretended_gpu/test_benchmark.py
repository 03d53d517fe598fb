"""What is made for a real GPU runs: `benchmarks/gpu.py` and `scripts/waits`."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TASKS = {"segmentation", "multitask", "reconstruction", "pretraining", "prediction"}


def ran(*command):
    command = [sys.executable, *map(str, command)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_parts_of_the_benchmark_run_and_no_speed_is_written(tmp_path):
    script = ROOT / "benchmarks" / "gpu.py"
    parts = ("facts", "sync", "step")
    said = ran(script, "--pretend", "--parts", ",".join(parts), "--out", tmp_path)
    rows = {}
    for part in parts:
        content = json.loads((tmp_path / f"{part}.json").read_text())
        assert content["ended"] == "finished"
        assert content["pretended"]
        rows[part] = content["rows"]
        for row in rows[part]:
            assert row["name"] == "nvidia-smi" or "error" not in row, row
            assert not any("second" in key for key in row), row
    assert {row["name"].partition(",")[0] for row in rows["sync"]} == TASKS
    assert all(row["waits"] >= 0 for row in rows["sync"])
    drawn = [row for row in rows["step"] if "forecast_bytes" in row]
    assert len(drawn) >= 3
    assert all(row["allocated_bytes"] > 0 for row in rows["step"])
    page = (tmp_path / "gpu.md").read_text()
    assert page.strip() in said
    assert "It says nothing of speed" in page


def test_waits_are_counted_by_file_and_line():
    said = ran(ROOT / "scripts" / "waits", "prediction", "--steps", 1, "--json")
    (result,) = json.loads(said)
    assert (result["task"], result["unit"]) == ("prediction", "case")
    assert sum(result["launches_by_room"].values()) == result["launches"]
    for kind in ("waits", "launches"):
        places = result[f"{kind}_by_place"]
        assert sum(row["count"] for row in places) == result[kind]
    assert result["launches"] >= result["waits"] > 0
    assert any(".py:" in row["place"] for row in result["launches_by_place"])
