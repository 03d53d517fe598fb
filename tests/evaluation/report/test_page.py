import base64
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from markupsafe import Markup

from trivox.evaluation.conventions.cases import evaluate_case
from trivox.evaluation.folders.labels import collect_metrics
from trivox.evaluation.metrics.calibration import reliability_curve
from trivox.evaluation.report.charts import (
    box_plots,
    reliability_chart,
    training_curves,
)
from trivox.evaluation.report.drawing import PLANES
from trivox.evaluation.report.figures import overlay_figure
from trivox.evaluation.report.page import CasePictures, write_report
from trivox.evaluation.report.pages import Curves, Headline, Part
from trivox.evaluation.report.parts.labels import (
    label_headline,
    label_part,
    trust_part,
)

RECORDS = [
    {
        "kind": "epoch",
        "epoch": i,
        "step": i,
        "train_loss": -0.1 * i,
        "validation_loss": None,
        "validation_dice": 0.1 * i,
        "validation_dice_ema": 0.1 * i,
        "lr": 0.01,
        "seconds": 1.0,
    }
    for i in range(6)
]


def scene():
    rng = np.random.default_rng(0)
    reference = np.zeros((6, 30, 24), np.int16)
    reference[1:4, 4:15, 3:12] = 1
    reference[2:5, 18:28, 10:20] = 2
    return rng.normal(size=reference.shape), np.roll(reference, 1, axis=1), reference


def metrics(names=("case_1", "case_2"), targets=("organ", "tumour")):
    _, prediction, reference = scene()
    named = {name: (i + 1,) for i, name in enumerate(targets)}
    return collect_metrics(
        {
            name: evaluate_case(
                np.roll(prediction, shift, axis=2),
                reference,
                spacing=(3, 1, 1),
                targets=named,
            )
            for shift, name in enumerate(names)
        },
        task="segmentation",
    )


def picture(png):
    from PIL import Image

    with Image.open(BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    "names", [["organ", "tumour"], [f"structure $_{i}$ <b>" for i in range(20)]]
)
def test_overlay_is_a_picture_with_both_label_colours(names):
    image, prediction, reference = scene()
    shown = picture(
        overlay_figure(
            image,
            prediction,
            reference,
            spacing=(3, 1, 1),
            names=names,
            title="case $1",
        )
    )
    for colour in ((0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9)):
        assert (np.abs(shown.astype(int) - colour).max(axis=2) < 3).sum() > 50


@pytest.mark.parametrize("empty", ["reference", "both", "no reference"])
def test_overlay_of_nothing(empty):
    image, prediction, reference = scene()
    prediction = prediction * (empty != "both")
    reference = None if empty == "no reference" else reference * 0
    arguments = {"spacing": (3, 1, 1), "names": ["organ", "tumour"], "title": "x"}
    assert picture(overlay_figure(image * 0, prediction, reference, **arguments)).size


@pytest.mark.parametrize("shape", [(1, 20, 30), (40, 5, 5), (3, 200, 6)])
def test_overlay_of_odd_shapes(shape):
    labels = np.ones(shape, np.int16)
    shown = picture(
        overlay_figure(
            labels, labels, labels, spacing=(5, 0.5, 1), names=["a"], title="x"
        )
    )
    assert shown.shape[1] == 1100
    assert shown.shape[0] < 1000


def test_patient_right_and_front_are_on_the_left():
    canonical = np.zeros((4, 5, 6), int)  # x to the right, y to the front, z upwards
    canonical[:, :, -1] = 1
    for plane in PLANES[:2]:
        assert plane.marks[:2] == ("R", "L")
        assert plane.cut(canonical, 0)[:, 0].all()
    canonical = np.zeros((4, 5, 6), int)
    canonical[:, -1, :] = 1
    assert PLANES[2].marks[0] == "A"
    assert PLANES[2].cut(canonical, 0)[:, 0].all()
    assert PLANES[0].cut(canonical, 0)[-1].all(), "rows run upwards, front on top"


def test_equal_figures_have_equal_bytes():
    image, prediction, reference = scene()
    arguments = {"spacing": (3, 1, 1), "names": ["organ", "tumour"], "title": "x"}
    first, second = (
        overlay_figure(image, prediction, reference, **arguments) for _ in range(2)
    )
    assert first == second
    assert box_plots(metrics()) == box_plots(metrics())


def test_charts_cope_with_little():
    assert training_curves([]) is None
    assert training_curves([{"kind": "step", "train_loss": 1.0}]) is None
    assert picture(
        training_curves([{"kind": "epoch", "epoch": 0, "train_loss": 1.0}])
    ).size
    assert picture(training_curves(RECORDS)).size
    assert box_plots({}) is None
    assert picture(
        box_plots(metrics(names=["one"], targets=["organ", "tumour", "absent"]))
    ).size
    assert (
        picture(box_plots(metrics(targets=[f"label_{i}" for i in range(60)]))).shape[0]
        < 2500
    )


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []
        self.sources = []
        self.text = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [
            value
            for name, value in attrs
            if name in ("src", "href", "action", "srcset")
        ]

    def handle_data(self, data):
        self.text.append(data)


def parts(metrics, records=()):
    """What a report of labels shows."""
    return [label_part(metrics, records), trust_part(metrics)]


def report(path, **changes):
    image, prediction, reference = scene()
    png = overlay_figure(
        image,
        prediction,
        reference,
        spacing=(3, 1, 1),
        names=["organ", "tumour"],
        title="x",
    )
    plan = {
        "spacing": [3.0, 1.0, 1.0],
        "network": "unet-small",
        "reasons": {"spacing": "median", "memory": "it fits"},
    }
    content = {
        "title": "A run",
        "parts": parts(metrics(), RECORDS),
        "plan": plan,
        "recipe": {"epochs": 20, "learning_rate": 0.002},
        "pictures": [CasePictures("worst case", [("a caption", png)])],
        "warnings": ["look here"],
        "facts": {"Device": "CPU"},
    }
    write_report(path, **{**content, **changes})
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    return text, page


def test_report_is_one_file_that_needs_nothing_else(tmp_path):
    text, page = report(tmp_path / "report.html")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert not re.search(
        r"(?:https?:)?//[a-z0-9]+\.", re.sub(r"base64,[^\"]+", "", text), re.IGNORECASE
    )
    assert not {"link", "iframe", "object"} & set(page.tags)
    assert len(page.sources) == 3
    for source in page.sources:
        assert picture(
            base64.b64decode(source.removeprefix("data:image/png;base64,"))
        ).size


def test_report_says_what_matters(tmp_path):
    text, _ = report(tmp_path / "report.html")
    dice = metrics()["summary"]["mean"]["dice"]
    for expected in (
        "Research use only, not a medical device",
        f"{dice['mean']:.3f}",
        f"95 % CI {dice['ci95'][0]:.3f}",
        "case_1",
        "look here",
        "it fits",
        "learning_rate",
        "0.002",
        "worst case",
        "Device",
    ):
        assert expected in text


def test_report_escapes_everything_that_came_from_outside(tmp_path):
    evil = "<script>alert(1)</script>"
    text, page = report(
        tmp_path / "report.html",
        title=evil,
        parts=parts(
            metrics(names=["<script>", 'b"><img src=x>'], targets=[evil]), RECORDS
        ),
        plan={"network": evil, "reasons": {evil: evil}},
        recipe={evil: [evil]},
        warnings=[evil],
        facts={evil: evil},
    )
    assert page.tags.count("script") == 1
    assert evil not in text
    assert "<script>" in "".join(page.text)
    assert page.tags.count("img") == len(page.sources) == 3


def test_worst_case_comes_first_and_unknown_last(tmp_path):
    content = metrics(names=["good", "bad", "none"], targets=["organ"])
    content["cases"]["bad"]["organ"]["dice"] = 0.0
    content["cases"]["none"]["organ"].update(dice=None, empty="both")
    text, _ = report(tmp_path / "report.html", parts=parts(content))
    table = text[text.index('id="cases"') :]
    assert table.index(">bad<") < table.index(">good<") < table.index(">none<")


def test_a_page_puts_parts_together_in_the_order_given(tmp_path):
    first = Part(
        body=Markup("<p>one</p>"),
        details=Markup("<p>one by case</p>"),
        headlines=[Headline("First", 0.25, (0.2, 0.3), "Wilson")],
        warnings=["look", "twice"],
        convention={"first": "of one"},
    )
    second = Part(
        body=Markup("<p>two</p>"),
        headlines=[Headline("Second", 3.0, None, "mm", 1)],
        training=[Curves(b"png", "shown")],
        cases=7,
        warnings=["twice"],
        convention={"second": "of two"},
    )
    for parts in ([first, second], [second, first]):
        pictures = [CasePictures("a case")]
        write_report(tmp_path / "r.html", title="x", parts=parts, pictures=pictures)
        text = (tmp_path / "r.html").read_text()
        orders = [("First", "Second"), ("<p>one</p>", "<p>two</p>")]
        orders.append(("of one", "of two"))
        for one, two in orders:
            assert (text.index(one) < text.index(two)) == (parts[0] is first)
        assert text.index("</p>") < text.index("a case") < text.index("one by case")
        assert text.index("one by case") < text.index("shown") < text.index("of one")
        assert text.count("twice") == 1
        assert "<b>7</b>" in text


def test_text_of_a_part_that_is_no_html_is_escaped(tmp_path):
    parts = [Part(body="<b>"), Part(details="<i>")]
    write_report(tmp_path / "r.html", title="x", parts=parts)
    text = (tmp_path / "r.html").read_text()
    assert "&lt;b&gt;" in text
    assert "&lt;i&gt;" in text


def test_the_headline_of_labels_names_each_and_their_mean():
    content = metrics()
    mean = content["summary"]["mean"]["dice"]["mean"]
    line = label_headline(content)
    assert line.startswith("Dice: organ ")
    assert f"mean over labels {mean:.4f} [" in line
    assert line.endswith("(95 % CI over 2 cases, Student-t of the logit)")
    assert label_headline({"cases": {}, "summary": {}}) == ""


def test_report_of_nothing_yet(tmp_path):
    write_report(tmp_path / "report.html", title="Empty", parts=parts({}))
    assert "Research use only" in (tmp_path / "report.html").read_text()


def trusted(after=True):
    """A calibration section as a run writes it."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.4, 1, 500)
    curve = reliability_curve(confidence, rng.random(500) < confidence**2)
    stages = ("before", "after") if after else ("before",)
    measures = {
        "ece": 0.1234,
        "adaptive_ece": 0.1,
        "classwise_ece": 0.1,
        "mce": 0.2,
        "brier": 0.3,
        "nll": 0.4,
    }
    rule = {
        "threshold": 0.345,
        "flagged": 2,
        "cases": 41,
        "flagged_poor": 1,
        "poor": 3,
        "poor_dice": 0.712,
    }
    return {
        "temperature": 1.75,
        "before": measures,
        "after": {**measures, "ece": 0.0567} if after else None,
        "reliability": dict.fromkeys(stages, curve),
        "error_ranking_auroc": 0.901,
        "abstention": rule if after else None,
        "doubt": {"cases": 41, "spearman_with_dice": -0.61},
        "convention": {"ece": "bins of equal width"},
    }


def test_report_shows_how_far_probabilities_can_be_trusted(tmp_path):
    calibrated = {**metrics(), "calibration": trusted()}
    text, page = report(tmp_path / "report.html", parts=parts(calibrated, RECORDS))
    for expected in (
        "0.1234",
        "0.0567",
        "1.750",
        "0.901",
        "\u22120.61",
        "0.345",
        "2 of 41",
        "1 of the 3",
        "bins of equal",
    ):
        assert expected in text
    assert len(page.sources) == 4
    calibrated["calibration"] = trusted(after=False)
    early, _ = report(tmp_path / "report.html", parts=parts(calibrated))
    assert "Too few validation cases" in early
    without, page = report(tmp_path / "report.html")
    assert "<h2>Trust</h2>" not in without
    assert len(page.sources) == 3


@pytest.mark.parametrize("chosen", ["entropy", "agreement"])
def test_report_shows_which_score_flags_and_why(tmp_path, chosen):
    rule = {**trusted()["abstention"], "threshold": 0.2, "flagged": 7}
    flag = {
        "chosen": chosen,
        "aurc": {"entropy": 0.2134, "agreement": 0.1812},
        "best": 0.1561,
        "random": 0.2566,
        "cases": 57,
        "votes": 8,
        "rule": rule,
    }
    measured = {**metrics(), "calibration": {**trusted(), "flag": flag}}
    text, _ = report(tmp_path / "report.html", parts=parts(measured))
    for expected in ("0.2134 for entropy, 0.1812 for", "of 8 votes", "0.1561 at best"):
        assert expected in text
    by_votes = "overlap less than 0.800: 7 of 41 validation cases" in text
    by_entropy = "flagged above 0.345 nats: 2 of 41 validation cases" in text
    assert (by_votes, by_entropy) == (chosen == "agreement", chosen == "entropy")


def test_report_shows_the_intervals_of_volumes_and_how_often_they_held(tmp_path):
    row = {
        "low_factor": 0.61,
        "high_factor": 1.274,
        "cases": 41,
        "covered": 37,
        "tested": 41,
        "coverage": 37 / 41,
        "ci95": [0.77, 0.96],
        "method": "Wilson",
    }
    few = dict.fromkeys(row) | {"cases": 5, "covered": 0, "tested": 0}
    section = {
        "level": 0.9,
        "offset_ml": 0.001,
        "convention": {"intervals": "as split conformal prediction says"},
        "targets": {"organ": row, "tumour": few},
    }
    measured = {**metrics(), "calibration": trusted(), "volume_intervals": section}
    text, _ = report(tmp_path / "report.html", parts=parts(measured))
    for expected in (
        "<td>0.61</td>",
        "<td>1.27</td>",
        '<td>37 of 41<small title="Wilson">0.77 to 0.96</small></td>',
        "as split conformal prediction says",
    ):
        assert expected in text
    without, _ = report(tmp_path / "r.html", parts=parts({**metrics()}))
    assert "where the true one lies" not in without


@pytest.mark.parametrize("what", ["voxels", "lesions"])
def test_what_is_missed_is_shown_by_share(tmp_path, what):
    row = {
        "max_missed": 0.1,
        "threshold": 0.0314,
        "cases": 41,
        "tested": 41,
        "missed": 0.0612,
        "ci95": [0.05, 0.08],
        "method": "Student t",
    }
    none = {**dict.fromkeys(row), "max_missed": 0.05, "cases": 5, "tested": 0}
    section = {
        "convention": {"threshold": "the rule"},
        "targets": {"organ": [none, row]},
    }
    measured = {**metrics(), "calibration": trusted(), f"missed_{what}": section}
    text, _ = report(tmp_path / "report.html", parts=parts(measured))
    for expected in (
        "<td>0.0314</td>",
        '<td>0.061<small title="Student t">0.050 to 0.080</small></td>',
        "<td>0.05</td>",
        "the rule",
        f"<h3>Missed {what}:",
    ):
        assert expected in text
    assert text.count("<h3>Missed ") == 1


@pytest.mark.parametrize("part", ["volume_intervals", "missed_voxels"])
def test_shares_without_an_interval_are_shown_alone(tmp_path, part):
    """All held-out cases alike, or a single one: nothing says how others vary."""
    unknown = dict.fromkeys(("ci95", "method", "threshold", "low_factor"))
    one = {**unknown, "covered": 1, "tested": 1, "cases": 9, "high_factor": None}
    alike = {**unknown, "missed": 0.0, "tested": 12, "cases": 24, "max_missed": 0.1}
    rows = {"volume_intervals": one, "missed_voxels": [alike]}
    section = {"level": 0.9, "convention": {}, "targets": {"organ": rows[part]}}
    measured = {**metrics(), "calibration": trusted(), part: section}
    text, _ = report(tmp_path / "report.html", parts=parts(measured))
    shown = {"volume_intervals": "1 of 1", "missed_voxels": "0.000"}
    assert f"<td>{shown[part]}</td>" in text


def test_reliability_is_drawn_for_every_stage_that_was_measured():
    both, one = (picture(reliability_chart(trusted(after))) for after in (True, False))
    assert both.shape[1] == one.shape[1]
    blue = np.abs(both.astype(int) - (0xA6, 0xCD, 0xE3)).max(axis=2) < 8  # BLUE at 35 %
    assert blue[:, : both.shape[1] // 2].any()
    assert blue[:, both.shape[1] // 2 :].any()
    assert reliability_chart({}) is None
    assert reliability_chart({"reliability": {}}) is None
