import json
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from trivox.errors import BundleError, DataError, RecipeError
from trivox.evaluation.conventions.choice import choose_convention
from trivox.evaluation.folders.comparing import holm
from trivox.evaluation.folders.labels import collect_metrics, read_metrics
from trivox.evaluation.folders.ranking import name_models, rank_models, ranking_lines
from trivox.evaluation.metrics.claims import claim_of, claim_text, odds_text

REGIONS = ("WT", "ET")
SIGNS = {"dice": -1, "hd95_mm": 1}
"""Of what ranks first where it is smallest."""
collect = partial(collect_metrics, task="segmentation")


def content(dice, hd95, convention="brats-legacy", first_case=0):
    """A metrics.json whose values are `(case, region)` arrays."""
    cases = {}
    for i, rows in enumerate(zip(dice, hd95, strict=True), start=first_case):
        values = zip(*rows, strict=True)
        metrics = [{"dice": float(d), "hd95_mm": float(h)} for d, h in values]
        cases[f"case{i}"] = dict(zip(REGIONS, metrics, strict=True))
    return collect(cases, convention=choose_convention(convention))


def random_models(seed, models=3, cases=7):
    rng = np.random.default_rng(seed)
    return {
        f"m{i}": content(
            rng.integers(0, 6, (cases, 2)) / 5, rng.integers(0, 9, (cases, 2))
        )
        for i in range(models)
    }


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_scores_are_mean_ranks_of_each_case_region_and_metric(seed):
    models = random_models(seed)
    ranking = rank_models(models, permutations=100)
    expected = np.zeros(3)
    for case, region, metric in product(models["m0"]["cases"], REGIONS, SIGNS):
        rows = [model["cases"][case][region] for model in models.values()]
        expected += rankdata([SIGNS[metric] * row[metric] for row in rows])
    expected /= 7 * 2 * 2
    assert [ranking["models"][f"m{i}"]["score"] for i in range(3)] == pytest.approx(
        expected
    )
    assert sum(expected) == pytest.approx(6)
    places = [row["place"] for row in ranking["models"].values()]
    assert places == sorted(places)
    for i in range(3):
        by_region = ranking["models"][f"m{i}"]["mean_ranks"].values()
        means = [np.mean(list(by_metric.values())) for by_metric in by_region]
        assert np.mean(means) == pytest.approx(expected[i])


def test_a_model_better_everywhere_is_first_and_significantly_so():
    dice = np.full((12, 2), 0.5)
    hd95 = np.full((12, 2), 9.0)
    models = {
        "low": content(dice, hd95),
        "high": content(dice + 0.1, hd95 - 1),
        "middle": content(dice + 0.1, hd95),
    }
    ranking = rank_models(models)
    assert [(name, row["place"]) for name, row in ranking["models"].items()] == [
        ("high", 1),
        ("middle", 2),
        ("low", 3),
    ]
    # Its Dice ties with the middle one's.
    assert ranking["models"]["high"]["score"] == 1.25
    first = ranking["comparisons"][0]
    assert (first["first"], first["second"], first["difference"]) == (
        "high",
        "middle",
        0.75,
    )
    assert all(pair["p_value"] < 0.01 for pair in ranking["comparisons"])
    statistics = ranking["models"]["high"]["means"]["WT"]["dice"]
    assert statistics["mean"] == pytest.approx(0.6)
    assert statistics["ci95"] is None  # all cases are alike


def test_equal_models_share_the_first_place():
    dice = np.random.default_rng(0).random((6, 2))
    ranking = rank_models({"a": content(dice, dice), "b": content(dice, dice)})
    assert [(row["place"], row["score"]) for row in ranking["models"].values()] == [
        (1, 1.5),
        (1, 1.5),
    ]
    assert ranking["comparisons"][0]["p_value"] == 1


def test_p_value_is_that_of_all_sign_changes():
    rng = np.random.default_rng(3)
    models = {
        "a": content(rng.random((8, 2)), rng.random((8, 2))),
        "b": content(rng.random((8, 2)), rng.random((8, 2))),
    }
    ranking = rank_models(models, permutations=40_000)
    first, second = (models[name]["cases"] for name in ranking["models"])
    differences = []
    for case in models["a"]["cases"]:
        wins = []
        for region, metric in product(REGIONS, SIGNS):
            gain = first[case][region][metric] - second[case][region][metric]
            wins.append(np.sign(-SIGNS[metric] * gain))
        differences.append(np.mean(wins))
    sums = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=8)]
    exact = np.mean(np.array(sums) >= abs(sum(differences)) - 1e-9)
    assert 0.01 < exact < 0.99
    assert ranking["comparisons"][0]["p_value"] == pytest.approx(exact, abs=0.01)
    assert ranking["comparisons"][0]["difference"] == pytest.approx(
        np.mean(differences)
    )


def test_the_seed_decides_the_permutations():
    models = random_models(1)
    assert rank_models(models) == rank_models(models)
    assert (
        rank_models(models, seed=1)["comparisons"] != rank_models(models)["comparisons"]
    )


def test_missing_cases_are_the_worst_and_named():
    dice = np.full((5, 2), 0.5)
    hd95 = np.full((5, 2), 3.0)
    models = {"whole": content(dice, hd95), "part": content(dice[:4] + 0.1, hd95[:4])}
    ranking = rank_models(models)
    assert ranking["models"]["part"]["missing_cases"] == 1
    assert ranking["warnings"] == [
        "part lacks 1 of 5 cases, each of which counts as its worst: case4"
    ]
    assert ranking["models"]["part"]["score"] == pytest.approx((4 * 1.25 + 2) / 5)


def test_nothing_to_find_and_nothing_found_is_best_and_no_value_is_worst():
    def one(row):
        return collect({"a": {"WT": row}})

    models = {
        "right": one({"dice": None, "hd95_mm": None, "empty": "both"}),
        "spurious": one({"dice": 0.0, "hd95_mm": None, "empty": "reference"}),
    }
    ranking = rank_models(models)
    assert {name: row["score"] for name, row in ranking["models"].items()} == {
        "right": 1,
        "spurious": 2,
    }


def test_what_to_rank_by_can_be_chosen():
    dice = np.full((4, 2), 0.5)
    hd95 = np.full((4, 2), 3.0)
    models = {"a": content(dice, hd95 + 5), "b": content(dice - 0.1, hd95)}
    assert rank_models(models, metrics=["dice"])["models"]["a"]["place"] == 1
    assert rank_models(models, metrics=["hd95_mm"])["models"]["b"]["place"] == 1
    with pytest.raises(
        RecipeError, match=r"cannot be ranked by volume_ml; choose from dice, hd95_mm"
    ):
        rank_models(models, metrics=["volume_ml"])


def test_what_cannot_be_compared_is_refused():
    values = np.ones((3, 2))
    legacy = content(values, values)
    with pytest.raises(DataError, match="at least two models, 1 given"):
        rank_models({"a": legacy})
    with pytest.raises(
        DataError, match=r"a and b were measured under different conventions.*lesion"
    ):
        rank_models({"a": legacy, "b": content(values, values, "brats-lesion-wise")})
    penalty = choose_convention("brats-legacy", {"penalty_mm": 300})
    wider = collect(legacy["cases"], convention=penalty)
    with pytest.raises(
        DataError, match=r"different conventions \(penalty_mm: 373\S* and 300"
    ):
        rank_models({"a": legacy, "b": wider})
    with pytest.raises(DataError, match="no case is in all of them"):
        rank_models({"a": legacy, "b": content(values, values, first_case=10)})
    one_region = {case: {"WT": row["WT"]} for case, row in legacy["cases"].items()}
    fewer = collect(one_region, convention=choose_convention("brats-legacy"))
    with pytest.raises(DataError, match=r"different labels \(ET in one only\)"):
        rank_models({"a": legacy, "b": fewer})


def test_models_are_named_by_what_tells_their_files_apart():
    files = [
        Path("runs/unet/validation/metrics.json"),
        Path("hybrid/metrics.json"),
        Path("resenc.json"),
    ]
    assert name_models(files) == ["unet", "hybrid", "resenc"]
    assert name_models(files, ["a", " b", "c"]) == ["a", "b", "c"]
    with pytest.raises(DataError, match="3 files need 3 names"):
        name_models(files, ["a", "b"])
    with pytest.raises(DataError, match="several models are named unet"):
        name_models([files[0], Path("unet.json")])


def test_the_table_shows_places_means_and_p_values():
    ranking = rank_models(random_models(5))
    text = "\n".join(ranking_lines(json.loads(json.dumps(ranking, allow_nan=False))))
    for name, row in ranking["models"].items():
        assert f"{row['place']}  {name}  {row['score']:.3f}" in text
        dice = row["means"]["ET"]["dice"]
        low, high = dice["ci95"]
        assert f"ET {dice['mean']:.3f} [{low:.3f}, {high:.3f}]" in text
    assert text.count("p = ") == 3


def test_claims_are_those_of_the_values_better_being_above_zero():
    models = random_models(8, cases=6)
    models["m1"]["cases"].pop("case5")
    for pair in rank_models(models, permutations=100)["comparisons"]:
        first, second = (models[pair[side]]["cases"] for side in ("first", "second"))
        cases = sorted({*first} & {*second})
        for metric, sign in SIGNS.items():
            rows = {
                side: np.array([[c[k][r][metric] for r in REGIONS] for k in cases])
                for side, c in (("first", first), ("second", second))
            }
            gains = -sign * (rows["first"] - rows["second"])
            for i, region in enumerate(REGIONS):
                assert pair["values"][region][metric] == claim_of(gains[:, i])
            mean = pair["values"]["mean"][metric]
            assert mean["n"] == len(cases)
            assert mean["mean"] == pytest.approx(gains.mean())
        assert pair["ranks"]["mean"] == pytest.approx(pair["difference"])
        assert pair["ranks"]["p_false_claim"] <= 0.5


def test_all_labels_together_do_not_count_in_the_mean_of_labels():
    dice = np.random.default_rng(0).random((4, 2))
    models = {}
    for name, score in {"a": 0.0, "b": 1.0}.items():
        cases = content(dice, dice)["cases"]
        rows = {case: {**row, "all": {"dice": score}} for case, row in cases.items()}
        models[name] = collect(rows, whole="all")
    pair = rank_models(models, metrics=["dice"], permutations=100)["comparisons"][0]
    assert pair["first"] == "b"
    assert pair["values"]["all"]["dice"]["mean"] == 1
    assert pair["values"]["mean"]["dice"]["mean"] == 0


def test_p_values_of_several_pairs_are_corrected_as_holm_does():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5]) == [0.5]
    assert holm([0.9, 0.8]) == [1, 1]
    comparisons = rank_models(random_models(4))["comparisons"]
    raw = [pair["p_value"] for pair in comparisons]
    assert [pair["p_holm"] for pair in comparisons] == holm(raw)


def test_the_table_shows_what_can_be_claimed():
    ranking = rank_models(random_models(5))
    text = "\n".join(ranking_lines(json.loads(json.dumps(ranking, allow_nan=False))))
    for pair in ranking["comparisons"]:
        for metric in SIGNS:
            claim = claim_text(pair["values"]["mean"][metric])
            line = f"{pair['first']} over {pair['second']}, {metric} of mean: {claim}"
            assert line in text
        holms = f"p = {pair['p_value']:.4g} (Holm {pair['p_holm']:.4g})"
        assert f"ranks: {holms}, {odds_text(pair['ranks'])}\n" in text
    claims = [
        pair["values"]["mean"][m] for pair in ranking["comparisons"] for m in SIGNS
    ]
    expected = sum(claim["p_false_claim"] for claim in claims)
    assert f"of these 6 claims, {expected:.2f} are expected to be false" in text
    two = rank_models(random_models(5, models=2, cases=2))
    text = "\n".join(ranking_lines(json.loads(json.dumps(two, allow_nan=False))))
    assert "2 cases: too few to claim anything" in text
    assert "P(false claim) -" not in text
    assert "are expected to be false" not in text


def test_one_label_has_no_mean_of_labels():
    dice = np.random.default_rng(0).random((2, 4))
    models = {}
    for name, scores in zip("ab", dice, strict=True):
        rows = {f"c{i}": {"WT": {"dice": float(s)}} for i, s in enumerate(scores)}
        models[name] = collect(rows)
    (pair,) = rank_models(models, metrics=["dice"], permutations=100)["comparisons"]
    assert list(pair["values"]) == ["WT"]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"summary": {}, "cases": {"a": 1}, "convention": {}}',
        '{"summary": {}, "cases": {"a": {"WT": 1}}, "convention": {}}',
    ],
)
def test_other_files_are_no_metrics(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(BundleError, match="is no metrics"):
        read_metrics(tmp_path / "x.json")


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), unknown=st.floats(0, 1))
def test_nan_in_a_file_is_what_is_not_known(tmp_path_factory, seed, unknown):
    """Other programs write it for null, and it must not make a claim."""
    models = random_models(seed)
    rng = np.random.default_rng(seed)
    for row in rows_of(models):
        row["dice"] = None if rng.random() < unknown else row["dice"]
    expected = rank_models(models, permutations=100)
    folder = tmp_path_factory.mktemp("nan")
    read = {}
    for name, each in models.items():
        text = json.dumps(each).replace('"dice": null', '"dice": NaN')
        (folder / name).write_text(text)
        read[name] = read_metrics(folder / name)
    assert rank_models(read, permutations=100) == expected


def rows_of(models):
    return [
        row
        for each in models.values()
        for case in each["cases"].values()
        for row in case.values()
    ]
