"""A finished run knows how far its volumes lie from the true ones, and says so."""

import json

import pytest

import trivox
from conftest import TINY
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms
from trivox.inference.bundle import read_bundle

pytestmark = pytest.mark.slow


def test_what_validation_taught_of_volumes_is_said_of_new_cases(tmp_path):
    settings = PhantomSettings(
        cases=14, shape=(16, 20, 20), spacing=(2.0, 1.5, 1.5), test_cases=2
    )
    data = write_phantoms(tmp_path / "data", settings)
    run = tmp_path / "run"
    settings = [f"{name}={json.dumps(value)}" for name, value in TINY.items()]
    trivox.train(data, run, preset="quick_test", fold="all", set=settings, device="cpu")
    section = json.loads((run / "validation" / "metrics.json").read_text())
    rows = section["volume_intervals"]["targets"]
    intervals = read_bundle(run).description.volumes
    assert rows.keys() == intervals.targets.keys()
    assert {row["cases"] for row in rows.values()} == {12}
    assert {row["tested"] for row in rows.values()} == {12}
    description = read_bundle(run).description
    lesions = section["missed_lesions"]["targets"]
    assert lesions.keys() == description.missed_lesions.targets.keys() == rows.keys()
    assert all(row["cases"] == row["tested"] == 12 for _, row, _ in lesions.values())
    rows = section["missed_voxels"]["targets"]
    thresholds = description.missed
    assert rows.keys() == thresholds.targets.keys() == intervals.targets.keys()
    for target, (twentieth, tenth, fifth) in rows.items():
        entry = thresholds.targets[target]
        assert entry.cases == tenth["cases"] == tenth["tested"] == 12
        assert twentieth["threshold"] is entry.threshold(0.05) is None
        assert tenth["threshold"] == entry.threshold(0.1)
        assert fifth["threshold"] == entry.threshold(0.2)
        assert 0 <= tenth["missed"] <= 1
    out = tmp_path / "out"
    trivox.predict(run, data, out, device="cpu", statistics=True, max_missed=0.2)
    records = json.loads((out / "predictions.json").read_text())["cases"]
    measured = json.loads((out / "statistics.json").read_text())["cases"]
    for name, record in records.items():
        for target, volume in record["volumes"].items():
            bounds = intervals.interval(target, volume["volume_ml"])
            assert (volume["volume_ml_low"], volume["volume_ml_high"]) == bounds
            row = measured[name]["structures"][target]
            sensitive = record["sensitive"][target]
            assert sensitive["threshold"] == rows[target][2]["threshold"]
            assert sensitive["volume_ml"] >= volume["volume_ml"] - 1e-9
            assert row["truncated"] or row["volume_ml_low"] == bounds[0]
    page = trivox.report(run, tmp_path / "report.html").read_text("utf-8")
    assert "where the true one lies in 90 % of cases" in page
    assert "from what probability on few voxels are missed" in page
    assert "from what probability on few lesions are missed" in page
    again = trivox.verify(run)
    assert not again.disagreements
