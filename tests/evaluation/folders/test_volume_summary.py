import base64
import json
from functools import cache, partial

import numpy as np
import pytest
from scipy.stats import wilcoxon

from thoraxes import picture
from trivox.errors import DataError
from trivox.evaluation.folders.volume_summary import (
    CONSISTENT,
    NETWORK,
    Rungs,
    collect_volumes,
)
from trivox.evaluation.metrics.claims import paired_difference
from trivox.evaluation.metrics.statistics import summarise
from trivox.evaluation.metrics.volumes import METRICS, NOTICE, WINDOW
from trivox.evaluation.report.charts import volume_curves
from trivox.evaluation.report.page import write_report
from trivox.evaluation.report.parts.volumes import volume_headline, volume_part
from trivox.evaluation.report.volume_figures import ladder_chart
from trivox.projection.ladder import ROWS

collect = partial(collect_volumes, task="reconstruction", window=WINDOW)

NAMES = [f"case_{i}" for i in range(12)]


def rows(level, *, seed=0, names=NAMES):
    """Metrics of each case; PSNR about `level`."""
    rng = np.random.default_rng(seed)
    return {
        name: {
            **dict.fromkeys(METRICS, 0.5),
            "psnr_ceiling_db": None,
            "psnr_db": level + rng.normal(),
        }
        for name in names
    }


@cache
def rungs(views=2):
    methods = [*ROWS, NETWORK, CONSISTENT]
    return Rungs(
        views, {name: rows(15 + views + i, seed=i) for i, name in enumerate(methods)}
    )


@cache
def content(warnings=()):
    ladder = rungs()
    return collect(
        ladder.rows[NETWORK],
        ladder=ladder,
        by_views=[rungs(1), ladder, rungs(4)],
        warnings=warnings,
    )


def test_metrics_json_holds_what_the_contract_names():
    metrics = content(warnings=("look",))
    assert metrics == json.loads(json.dumps(metrics, allow_nan=False))
    assert list(metrics)[:2] == ["task", "format_version"]
    assert (metrics["task"], metrics["format_version"]) == ("reconstruction", 1)
    assert (metrics["notice"], metrics["warnings"]) == (NOTICE, ["look"])
    assert list(metrics["cases"]["case_0"]["volume"]) == list(METRICS)
    assert set(METRICS) < set(metrics["convention"])
    assert set(metrics["summary"]["volume"]) == set(METRICS)
    assert [row["name"] for row in metrics["ladder"]["rows"]] == [
        *ROWS,
        NETWORK,
        CONSISTENT,
    ]
    assert [section["views"] for section in metrics["by_views"]] == [1, 2, 4]
    without = collect(rows(20))
    assert not {"ladder", "by_views"} & set(without)


def test_statistics_are_those_over_cases():
    values = [row["psnr_db"] for row in rungs().rows["SIRT"].values()]
    ladder = {row["name"]: row["summary"] for row in content()["ladder"]["rows"]}
    assert ladder["SIRT"]["psnr_db"] == summarise(values)
    assert ladder["SIRT"]["psnr_ceiling_db"]["mean"] is None


def test_the_network_is_compared_with_every_other_row_on_the_same_cases():
    ladder = rungs()
    section = content()["ladder"]
    network = [row["psnr_db"] for row in ladder.rows[NETWORK].values()]
    for row in section["rows"]:
        other = [case["psnr_db"] for case in ladder.rows[row["name"]].values()]
        if row["name"] == NETWORK:
            assert row["paired"] == {}
            continue
        expected = paired_difference(network, other)
        assert row["paired"]["psnr_db"] == {
            "difference": expected["mean"],
            "ci95": expected["ci95"],
            "wilcoxon_p": wilcoxon(network, other).pvalue,
            "method": "Student-t",
            "p_false_claim": expected["p_false_claim"],
            "effect_size": expected["effect_size"],
        }


def test_cases_are_paired_by_name_not_by_order():
    first = rows(20)
    backwards = dict(reversed(rows(19).items()))  # the same noise, one less
    section = collect(first, ladder=Rungs(2, {"SIRT": backwards, NETWORK: first}))[
        "ladder"
    ]
    assert section["rows"][0]["paired"]["psnr_db"]["ci95"] == pytest.approx([1, 1])


def test_few_cases_have_no_p_value_and_a_single_one_no_interval():
    for count in (1, 5):
        ladder = Rungs(
            2,
            {
                "SIRT": rows(19, names=NAMES[:count]),
                NETWORK: rows(20, seed=1, names=NAMES[:count]),
            },
        )
        paired = collect(ladder.rows[NETWORK], ladder=ladder)["ladder"]["rows"][0][
            "paired"
        ]
        assert paired["psnr_db"]["wilcoxon_p"] is None
        assert (paired["psnr_db"]["ci95"] is None) == (count == 1)


def test_equal_methods_have_no_p_value():
    ladder = Rungs(2, {"SIRT": rows(20), NETWORK: rows(20)})
    paired = collect(rows(20), ladder=ladder)["ladder"]["rows"][0]["paired"]["psnr_db"]
    assert (paired["difference"], paired["wilcoxon_p"]) == (0, None)


def test_rows_on_other_cases_are_refused():
    ladder = Rungs(2, {"SIRT": rows(20, names=NAMES[:-1]), NETWORK: rows(20)})
    with pytest.raises(DataError, match="same cases"):
        collect(rows(20), ladder=ladder)


# -- report ----------------------------------------------------------------------------
def test_the_report_has_every_row_of_the_ladder_and_says_synthetic(tmp_path):
    metrics = content()
    records = [
        {
            "kind": "epoch",
            "epoch": i,
            "train_loss": 1.0,
            "validation_psnr": 20.0 + i,
            "validation_psnr/2 views": 21.0,
        }
        for i in range(3)
    ]
    write_report(
        tmp_path / "r.html", title="chests", parts=[volume_part(metrics, records)]
    )
    text = (tmp_path / "r.html").read_text()
    assert NOTICE in text
    for name in (*ROWS, NETWORK, CONSISTENT):
        # The ladder, and the table by views.
        assert text.count(f'<td class="text">{name}</td>') == 2
    assert text.count('class="overall"') == 1 + 2 + 2
    gained = metrics["ladder"]["rows"][0]["paired"]["psnr_db"]
    low, high = gained["ci95"]
    interval = '<small title="Student-t">' + f"{low:.2f} to {high:.2f}</small>"
    assert f"<td>{gained['difference']:.2f}{interval}</td>" in text
    assert "1 view</th>" in text
    assert "4 views</th>" in text
    assert "R = 2500 HU" in text
    assert text.count("<img") == 2  # the ladder as a chart, and the curves
    assert base64.b64encode(volume_curves(records)).decode() in text
    assert "Results</h2>" not in text  # tables of labels
    cases = metrics["cases"]
    worst = min(cases, key=lambda name: cases[name]["volume"]["psnr_db"])
    others = [text.index(f">{name}<") for name in NAMES if name != worst]
    assert text.index(f">{worst}<") < min(others)


def test_the_report_does_with_a_single_case_and_no_ladder(tmp_path):
    metrics = collect(rows(20, names=NAMES[:1]))
    write_report(tmp_path / "r.html", title="x", parts=[volume_part(metrics)])
    text = (tmp_path / "r.html").read_text()
    assert "no interval" in text
    assert "What had to be beaten" not in text


def test_the_headline_states_the_window():
    headline = volume_headline(content())
    assert "PSNR 24.64 dB [23.88, 25.40], SSIM 0.500" in headline
    assert "over 12 cases, Student-t; window [-1024, 1476] HU" in headline


def test_the_ladder_chart_draws_one_panel_for_each_number_of_views():
    sections = content()["by_views"]
    one, three = (
        picture(ladder_chart(part, of_network=(NETWORK, CONSISTENT)))
        for part in (sections[:1], sections)
    )
    orange = np.array([0xD5, 0x5E, 0x00])
    assert [
        (np.abs(image.astype(int) - orange).max(2) < 3).sum() > 40
        for image in (one, three)
    ] == [True, True]
    assert ladder_chart([], of_network=()) is None


def test_curves_need_psnr():
    assert volume_curves([{"kind": "epoch", "epoch": 0, "train_loss": 1.0}]) is None
    record = {
        "kind": "epoch",
        "epoch": 0,
        "train_loss": 1.0,
        "validation_psnr": 20.0,
        "validation_ssim": 0.5,
    }
    assert picture(volume_curves([record])).size


def test_a_network_that_loses_says_with_how_many_views_and_to_what():
    better = Rungs(
        8, {"TV": rows(30), "SIRT": rows(25), NETWORK: rows(26), CONSISTENT: rows(28)}
    )
    metrics = collect(
        better.rows[CONSISTENT], ladder=better, by_views=[rungs(2), better]
    )
    (sentence,) = metrics["warnings"]
    assert sentence.startswith("with 8 views the network loses: TV has 2.00 dB more")
    assert volume_part(metrics, []).warnings == [sentence]


def test_a_network_that_wins_with_every_number_of_views_warns_of_nothing():
    assert content()["warnings"] == []


def test_the_headline_says_for_how_many_views_it_holds():
    metrics = content()
    assert volume_headline(metrics).startswith("2 views: PSNR ")
    headings = [each.heading for each in volume_part(metrics).headlines]
    assert headings[0] == "Mean PSNR, 2 views"
    assert not volume_headline(collect(rows(20))).startswith("2 views")
