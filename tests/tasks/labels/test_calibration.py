import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from trivox.datasets.labels import LabelScheme
from trivox.inference.bundle import read_bundle
from trivox.inference.doubt.label_voxels import VoxelSample
from trivox.tasks.labels import validation as validating
from trivox.tasks.labels.calibration import FIT_VOXELS, calibrate
from trivox.tasks.labels.promises.held_out import VOXELS_A_CASE, HeldOut, held_out
from trivox.tasks.labels.promises.volumes import learn_volumes
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest

pytestmark = pytest.mark.usefixtures("without_figures")

SCHEME = LabelScheme(labels={"a": 7, "b": 300})
REGIONS = LabelScheme(
    labels={"a": 1, "b": 2},
    regions={"whole": (1, 2), "core": (2,)},
    region_order=(1, 2),
)


def case(seed=0, *, fold="0", scale=2.5, voxels=4000, dice=0.9, empty=False):
    """Logits `scale` times as large as those that the references were drawn from."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(voxels, 3, generator=generator) * 2
    reference = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return HeldOut(fold, VoxelSample(logits * scale, reference), dice, empty)


def region_case(seed=0, scale=2.5):
    """References where 'core' lies within 'whole', as painted regions must."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4000, 2, generator=generator) * 2
    whole, core = torch.rand(4000, 2, generator=generator).T < logits.sigmoid().T
    known = whole | ~core  # what no label map can say is left out
    return HeldOut(
        "0",
        VoxelSample(logits[known] * scale, (whole.long() + (whole & core))[known]),
        0.9,
        False,
    )


def cases(count, **options):
    return {f"case_{i}": case(i, **options) for i in range(count)}


def test_a_known_temperature_is_found_and_lowers_the_error_on_other_cases():
    found = calibrate(cases(8), SCHEME, seed=0)
    assert found.temperature == pytest.approx(2.5, rel=0.05)
    section = found.section
    assert section["temperature"] == found.temperature
    assert len(section["cross_fitted"]) == 2
    assert section["after"]["ece"] < 0.2 * section["before"]["ece"]
    for measure in ("nll", "brier", "adaptive_ece", "classwise_ece"):
        assert section["after"][measure] < section["before"][measure]
    assert section["voxels"] == 8 * 4000
    assert section["error_ranking_auroc"] > 0.6
    assert json.loads(json.dumps(section))["convention"]["after"]


def test_after_is_measured_with_temperatures_of_other_cases():
    """One half is scaled by 1, the other by 4: fitted on the other half, each is wrong;
    fitted on itself, right.
    """
    mixed = {
        **{f"a{i}": case(i, fold="0", scale=1.0) for i in range(3)},
        **{f"b{i}": case(i, fold="1", scale=4.0) for i in range(3)},
    }
    section = calibrate(mixed, SCHEME, seed=0).section
    assert section["cross_fitted"] == pytest.approx([1.0, 4.0], rel=0.06)
    assert section["after"]["ece"] > 0.1
    assert section["after"]["nll"] > section["before"]["nll"]
    assert (
        section["temperature"] == 1.0
    )  # what does not help on other cases is not kept


def test_halves_of_one_fold_are_drawn_by_the_seed():
    first, again, other = (
        calibrate(cases(9, voxels=300), SCHEME, seed=seed).section["cross_fitted"]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_regions_are_calibrated_as_yes_or_no_answers():
    found = calibrate({f"case_{i}": region_case(i) for i in range(6)}, REGIONS, seed=0)
    assert found.section["after"]["ece"] < found.section["before"]["ece"]
    assert 1.5 < found.temperature < 3.5
    assert found.section["doubt"]["cases"] == 6


def test_one_case_gives_no_temperature_and_says_so():
    found = calibrate(cases(1), SCHEME, seed=0)
    assert found.temperature == 1.0
    assert found.abstention is None
    assert found.section["after"] is None
    assert found.section["before"]["ece"] > 0


def test_cases_without_any_voxel_are_no_obstacle():
    nothing = HeldOut(
        "0",
        VoxelSample(torch.empty(0, 3), torch.empty(0, dtype=torch.long)),
        float("nan"),
        True,
    )
    found = calibrate({"a": nothing, "b": nothing}, SCHEME, seed=0)
    assert (found.temperature, found.section["before"], found.section["doubt"]) == (
        1.0,
        None,
        {"cases": 0},
    )
    mixed = calibrate({**cases(4), "empty": nothing}, SCHEME, seed=0)
    assert mixed.section["after"]["ece"] < mixed.section["before"]["ece"]


def test_the_rule_is_learnt_from_doubt_and_dice():
    certain = {f"good_{i}": case(i, scale=6.0, dice=0.9 + 0.01 * i) for i in range(7)}
    doubtful = {f"poor_{i}": case(i + 50, scale=0.3, dice=0.3) for i in range(2)}
    found = calibrate({**certain, **doubtful}, SCHEME, seed=0)
    assert (
        found.abstention.poor,
        found.abstention.flagged,
        found.abstention.flagged_poor,
    ) == (2, 2, 2)
    assert found.section["doubt"]["spearman_with_dice"] < 0
    assert found.section["doubt"]["aurc"] < found.section["doubt"]["random"]
    assert calibrate(cases(6, empty=True), SCHEME, seed=0).abstention.empty == "pass"


@pytest.mark.parametrize("better", ["entropy", "agreement"])
def test_the_score_that_ranks_poor_cases_better_flags(better):
    """One score follows Dice, the other runs against it."""
    given = {}
    for i in range(10):
        scale = 0.3 + 0.5 * (i if better == "entropy" else 9 - i)
        agreement = 0.5 + 0.05 * (i if better == "agreement" else 9 - i)
        known = case(i, scale=scale, dice=0.5 + 0.05 * i, voxels=400)
        given[f"case_{i}"] = replace(known, votes=8, agreement=agreement)
    found = calibrate(given, SCHEME, seed=0)
    section = found.section["flag"]
    assert found.flag.chosen == section["chosen"] == better
    other = "entropy" if better == "agreement" else "agreement"
    assert section["aurc"] == found.flag.aurc
    assert section["best"] == pytest.approx(section["aurc"][better], abs=1e-3)
    assert section["aurc"][other] > section["random"]
    assert (section["votes"], section["cases"]) == (8, 10)
    rule = found.flag.rule
    assert rule.score == "disagreement_of_votes"
    assert 0 <= rule.threshold <= 0.5
    assert found.abstention.score == "mean_foreground_entropy"
    assert section["aurc"]["entropy"] == pytest.approx(found.section["doubt"]["aurc"])


def test_single_votes_and_few_cases_leave_it_to_entropy():
    voted = {
        name: replace(each, votes=2, agreement=0.5) for name, each in cases(4).items()
    }
    for given in (cases(9), voted):
        found = calibrate(given, SCHEME, seed=0)
        assert found.flag is None
        assert "flag" not in found.section


def test_equal_scores_leave_it_to_entropy():
    alike = {
        name: replace(each, votes=2, agreement=0.5)
        for name, each in cases(9, dice=0.8).items()
    }
    assert calibrate(alike, SCHEME, seed=0).flag.chosen == "entropy"


def test_what_is_kept_of_a_case_is_bounded():
    sample = VoxelSample(torch.randn(20_000, 3), torch.ones(20_000, dtype=torch.long))
    reference = np.zeros((2, 2, 2), np.int16)
    kept = held_out("0", sample, np.array([0.5, np.nan, 0.7]), reference, cases=10)
    assert len(kept.sample.logits) == len(kept.sample.reference) == VOXELS_A_CASE
    assert (kept.dice, kept.empty) == (pytest.approx(0.6), True)
    many = held_out("0", sample, np.array([np.nan]), reference + 1, cases=10_000)
    assert len(many.sample.logits) < 2000
    assert np.isnan(many.dice)
    assert not many.empty
    assert FIT_VOXELS > VOXELS_A_CASE


def test_what_was_learnt_goes_into_the_bundle(
    tiny_data, tiny_settings, tmp_path, monkeypatch
):
    learnt = calibrate(cases(6), SCHEME, seed=0)
    seen = {}
    monkeypatch.setattr(
        validating,
        "calibrate",
        lambda given, scheme, *, seed: seen.update(given) or learnt,
    )
    metrics = run_request(
        RunRequest(
            tiny_data, tmp_path / "run", "quick_test", {**tiny_settings, "epochs": 1}
        )
    )
    description = read_bundle(tmp_path / "run").description
    assert (description.temperature, description.abstention) == (
        learnt.temperature,
        learnt.abstention,
    )
    assert list(metrics["cases"]) == list(seen)
    assert all(len(case.sample.reference) > 500 for case in seen.values())


def test_a_run_of_all_folds_learns_trust_for_its_bundle(
    tiny_data, tiny_settings, tmp_path
):
    metrics = run_request(
        RunRequest(
            tiny_data,
            tmp_path / "run",
            "quick_test",
            {**tiny_settings, "epochs": 1},
            fold="all",
        )
    )
    section, description = (
        metrics["calibration"],
        read_bundle(tmp_path / "run").description,
    )
    assert section["cases"] == 5
    assert len(section["cross_fitted"]) == 5
    lower = section["after"]["nll"] <= section["before"]["nll"]
    assert description.temperature == section["temperature"]
    assert (section["temperature"] != 1.0) is lower
    stored = description.abstention
    assert section["abstention"] == (
        None if stored is None else stored.model_dump(mode="json")
    )
    assert (
        json.loads((tmp_path / "run/validation/metrics.json").read_text())[
            "calibration"
        ]["voxels"]
        > 1000
    )
    assert "<h2>Trust</h2>" in (tmp_path / "run/report.html").read_text()


def volumes_of(count, bias=1.2):
    rng = np.random.default_rng(0)
    rows = {}
    for i in range(count):
        true = float(rng.lognormal(2, 0.4))
        predicted = true * bias * float(rng.lognormal(0, 0.1))
        row = {"volume_ml": predicted, "reference_volume_ml": true}
        rows[f"case_{i}"] = {"a": row}
    return rows


@pytest.mark.parametrize("folds", [1, 5])
def test_intervals_of_volumes_are_measured_on_cases_they_were_not_learnt_on(folds):
    rows = volumes_of(60)
    of_case = {name: str(i % folds) for i, name in enumerate(rows)}
    lesson = learn_volumes(rows, of_case, ["a"], offset_ml=0.001, seed=0)
    row = lesson.section["targets"]["a"]
    low, high = lesson.intervals.interval("a", 12.0)
    assert low < 10 < high
    assert row["low_factor"] == pytest.approx(low / 12, rel=1e-3)
    assert row["cases"] == row["tested"] == 60
    assert row["coverage"] == row["covered"] / 60
    assert row["ci95"][0] < 0.9 < row["ci95"][1]
    again = learn_volumes(rows, of_case, ["a"], offset_ml=0.001, seed=0)
    assert again.section == lesson.section


def test_few_cases_have_no_interval_and_fewer_no_coverage():
    lesson = learn_volumes(
        volumes_of(8),
        {f"case_{i}": "0" for i in range(8)},
        ["a"],
        offset_ml=0.1,
        seed=0,
    )
    assert lesson.intervals is None
    row = lesson.section["targets"]["a"]
    assert row["low_factor"] is row["coverage"] is row["ci95"] is None
    assert (row["tested"], row["covered"]) == (0, 0)
