"""`trivox predict --statistics`: the tables, again and again."""

import csv
import json

import numpy as np
import pytest

import trivox
from damaged_json import damaged
from json_schemas import complaints
from trivox.errors import DataError, UsageError
from trivox.inference.records import RECORDS
from trivox.results.formats import result_files
from trivox.results.options import AS_USUAL
from trivox.results.reporting.tables import write_tables
from trivox.volumes.formats import read_volume
from untrained_models import write_scans, write_untrained


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_untrained(tmp_path_factory.mktemp("model"), balanced=True)


@pytest.fixture
def scans(tmp_path):
    write_scans(tmp_path / "scans", (20, 18, 16), (17, 21, 19))
    return tmp_path / "scans"


def rows_of(out):
    with (out / "statistics.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_label_of_every_case_is_a_row(model, scans, tmp_path):
    out = tmp_path / "out"
    trivox.predict(model, scans, out, statistics=True)
    content = json.loads((out / "statistics.json").read_text(encoding="utf-8"))
    assert complaints("statistics-file", content) == []
    assert content["task"] == "segmentation"
    assert list(content["cases"]) == ["scan_0", "scan_1"]
    rows = rows_of(out)
    assert [(row["case"], row["label"]) for row in rows] == [
        (case, label) for case in content["cases"] for label in "abc"
    ]
    for row in rows:
        labels = read_volume(out / f"{row['case']}.nii.gz")
        mask = labels.array[0] == "abc".index(row["label"]) + 1
        whole = content["cases"][row["case"]]["structures"][row["label"]]
        assert int(row["voxels"]) == whole["voxels"] == np.count_nonzero(mask)
        assert row["truncated"] == str(whole["truncated"]).lower()
        seen = np.count_nonzero(mask) * labels.voxel_ml
        assert float(row["seen_ml"]) == pytest.approx(seen)
        if whole["truncated"]:
            assert row["volume_ml"] == row["longest_mm"] == ""
        else:
            assert float(row["volume_ml"]) == pytest.approx(seen)


def test_numbers_are_the_same_after_an_interruption(model, scans, tmp_path):
    whole = tmp_path / "whole"
    trivox.predict(model, scans, whole, statistics=True)
    parts = tmp_path / "parts"
    for name in ("scan_1", "scan_0"):
        trivox.predict(model, scans / f"{name}.nii.gz", parts, statistics=True)
    for name in ("statistics.json", "statistics.csv"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_cases_that_were_not_measured_are_measured_when_asked_for(
    model, scans, tmp_path
):
    out = tmp_path / "out"
    trivox.predict(model, scans, out)
    assert not (out / "statistics.csv").exists()
    trivox.predict(model, scans, out, statistics=True)
    assert len(rows_of(out)) == 6
    before = (out / "scan_0.nii.gz").stat().st_mtime_ns
    trivox.predict(model, scans, out, statistics=True)
    assert (out / "scan_0.nii.gz").stat().st_mtime_ns == before


def test_a_case_that_is_predicted_again_leaves_no_number_behind(model, scans, tmp_path):
    out = tmp_path / "out"
    trivox.predict(model, scans, out, statistics=True)
    trivox.predict(model, scans / "scan_0.nii.gz", out, overwrite=True)
    assert {row["case"] for row in rows_of(out)} == {"scan_1"}


def test_a_table_of_somebody_else_is_not_touched(model, scans, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "statistics.csv").write_text("mine", encoding="utf-8")
    trivox.predict(model, scans, out)
    assert (out / "statistics.csv").read_text(encoding="utf-8") == "mine"
    with pytest.raises(DataError, match=r"statistics\.csv"):
        trivox.predict(model, scans, out, statistics=True)


@pytest.mark.parametrize("damage", [None, [], {}, {"structures": {"a": {"voxels": 1}}}])
def test_a_damaged_record_is_measured_again(model, scans, tmp_path, damage):
    out = tmp_path / "out"
    trivox.predict(model, scans, out, statistics=True)
    before = (out / "statistics.csv").read_bytes()
    content = json.loads((out / RECORDS).read_text(encoding="utf-8"))
    content["cases"]["scan_0"]["statistics"] = damage
    (out / RECORDS).write_text(json.dumps(content), encoding="utf-8")
    trivox.predict(model, scans, out, statistics=True)
    assert (out / "statistics.csv").read_bytes() == before


def test_tables_are_written_whatever_a_record_holds(model, scans, tmp_path):
    trivox.predict(model, scans, tmp_path, statistics=True)
    records = json.loads((tmp_path / RECORDS).read_text(encoding="utf-8"))["cases"]
    whole = (tmp_path / "statistics.csv").read_bytes()
    statistics = records["scan_0"]["statistics"]
    structures = {"a": statistics["structures"]["a"]}
    damages = list(damaged({**statistics, "structures": structures}))
    left_out = 0
    for damage in damages[::4]:
        records["scan_0"] = {"statistics": damage}
        write_tables(records, tmp_path, task="segmentation")
        left_out += "scan_0" not in {row["case"] for row in rows_of(tmp_path)}
    assert left_out > len(damages) / 8
    records["scan_0"] = {"statistics": statistics}
    write_tables(records, tmp_path, task="segmentation")
    assert (tmp_path / "statistics.csv").read_bytes() == whole


def test_a_case_that_fails_has_no_row(model, scans, tmp_path):
    (scans / "broken.nii.gz").write_bytes(b"no image")
    out = tmp_path / "out"
    trivox.predict(model, scans, out, statistics=True)
    assert {row["case"] for row in rows_of(out)} == {"scan_0", "scan_1"}
    assert "error" in json.loads((out / RECORDS).read_text("utf-8"))["cases"]["broken"]


def test_volumes_have_no_labels_to_measure():
    with pytest.raises(UsageError, match="--statistics"):
        result_files(None, AS_USUAL, "volumes", statistics=True)
