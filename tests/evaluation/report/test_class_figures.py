import re
from io import BytesIO

import numpy as np
import pytest

from class_predictions import SUBTYPES, drawn_predictions
from trivox.evaluation.folders.class_section import classification_section
from trivox.evaluation.report.class_figures import (
    class_curves,
    class_reliability,
    confusion_and_roc,
    predictions_of,
    true_class_probabilities,
)
from trivox.evaluation.report.page import write_report
from trivox.evaluation.report.parts.classes import class_part
from trivox.evaluation.report.parts.labels import label_part

FIGURES = (confusion_and_roc, true_class_probabilities, class_reliability)
MONITORED = ("class_share", "class_recall", "class_logit")


def epoch(i, monitored=MONITORED):
    """A line of metrics.jsonl with these figures of each class."""
    record = {
        "kind": "epoch",
        "epoch": i,
        "train_loss": 1.0,
        "validation_macro_f1": 0.1 * i,
        "validation_balanced_accuracy": 0.1 * i,
    }
    for what in monitored:
        record.update((f"{what}/{name}", 0.3) for name in SUBTYPES)
    return record


EPOCHS = [epoch(i) for i in range(6)]


def section(counts=(9, 15, 12), *, resamples=20, classes=SUBTYPES, **more):
    some = drawn_predictions(counts, sharpness=0.7, classes=classes, unknown=2)
    return classification_section(some, seed=0, resamples=resamples, **more)


def picture(png):
    from PIL import Image

    with Image.open(BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def has(shown, colour):
    return (np.abs(shown - colour).max(axis=2) < 12).sum() > 30


def test_predictions_come_back_from_the_section():
    some = drawn_predictions((9, 15, 12), classes=SUBTYPES, unknown=2)
    read = predictions_of(classification_section(some, seed=0, resamples=1))
    known = some.known()
    assert (read.names, read.classes) == (known.names, known.classes)
    assert np.array_equal(read.truth, known.truth)
    assert np.array_equal(read.probabilities, known.probabilities)


@pytest.mark.parametrize("counts", [(3, 0, 4), (2,) * 15, (1, 1)])
def test_figures_of_odd_counts_have_one_width(counts):
    some = section(
        counts, classes=[f"a rather long $name$ {i}" for i in range(len(counts))]
    )
    for draw in FIGURES:
        shown = picture(draw(some))
        assert shown.shape[1] == 1100
        assert shown.shape[0] < 1000


def test_equal_sections_have_equal_figures():
    assert [draw(section()) for draw in FIGURES[1:2]] == [
        draw(section()) for draw in FIGURES[1:2]
    ]


def test_figures_show_every_class_right_and_wrong_answers():
    shown = picture(confusion_and_roc(section()))
    for colour in ((0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9), (0x00, 0x9E, 0x73)):
        assert has(shown[:, 550:], colour)
    marks = picture(true_class_probabilities(section()))
    for colour in ((0x66, 0xAA, 0xD1), (0xE7, 0x9E, 0x66)):  # BLUE and ORANGE at 60 %
        assert has(marks, colour)


def test_nothing_to_draw():
    empty = {
        "classes": ["a", "b"],
        "cases": {"x": {"class": None, "probabilities": {"a": 0.5, "b": 0.5}}},
    }
    assert [draw(empty) for draw in FIGURES] == [None] * 3
    assert (
        class_curves([])
        is class_curves([{"kind": "epoch", "epoch": 0, "train_loss": 1.0}])
        is None
    )
    assert class_curves([{**EPOCHS[0], "kind": "step"}]) is None


def test_training_monitor_draws_what_the_records_hold():
    full = picture(class_curves(EPOCHS[:2]))
    without_logits = [epoch(i, MONITORED[:2]) for i in range(2)]
    short = picture(class_curves(without_logits))
    assert full.shape[0] > short.shape[0]
    assert full.shape[1] == 1100


def page(path, metrics, records=()):
    parts = [label_part(metrics, records), class_part(metrics, records)]
    write_report(path, title="A run", parts=parts)
    return path.read_text(encoding="utf-8")


def bare(text):
    """The words of a page."""
    without_pictures = re.sub(r"base64,[^\"]+", "", text)
    words = re.sub(r"<[^>]+>", " ", without_pictures)
    return re.sub(r"\s+", " ", words)


def metrics_of(classification):
    """A metrics.json with classes alone."""
    return {
        "convention": {},
        "cases": {},
        "summary": {},
        "warnings": [],
        "classification": classification,
    }


def test_report_shows_the_class_of_the_case(tmp_path):
    size = drawn_predictions((9, 15, 12), classes=SUBTYPES, unknown=2)
    some = section(
        rows={"best single hand-made feature (size)": size},
        resubstitution=drawn_predictions((9, 15, 12), sharpness=9, classes=SUBTYPES),
        classifier={"0": {"kind": "lda"}},
        flags={"quiz_001": ["no lesion"]},
    )
    some["cases"]["quiz_001"].update({"class": "subtype2", "answer": "subtype0"})
    text = page(tmp_path / "report.html", metrics_of(some), records=EPOCHS)
    words = bare(text)
    summary = some["summary"]
    for expected in (
        "Class of the case",
        "this model",
        "majority answer",
        "best single hand-made feature (size)",
        "learnt by heart",
        f"{summary['macro_f1']['value']:.3f}",
        f"{summary['auc']['ci95'][0]:.3f} to {summary['auc']['ci95'][1]:.3f}",
        f"{summary['brier']['value']:.3f}",
        f"{some['rows'][2]['difference']['auc']['value']:.3f}".replace("-", "\u2212"),
        f"a gap of {some['gap']['macro_f1']:.3f}",
        "no lesion",
        "1 answers are flagged",
        "2 more were answered",
        "lda",
        "classes: macro_f1",
        "Over 36 cases",
    ):
        assert expected in words, expected
    assert text.count("data:image/png") == 5  # three of answers, two of training
    table = words[words.index("Wrong answers") :]
    for name, case in some["cases"].items():
        assert case["class"] in (None, case["answer"]) or name in table


def test_report_without_classes_says_nothing_of_them(tmp_path):
    records = [{"kind": "epoch", "epoch": i, "train_loss": 1.0} for i in range(3)]
    text = page(tmp_path / "report.html", {"cases": {}, "summary": {}}, records=records)
    assert "Class of the case" not in text
    assert "Macro-F1" not in text
    assert text.count("data:image/png") == 1


def test_names_of_classes_and_cases_are_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    some = section(
        (3, 4),
        classes=[evil, "b"],
        flags={"quiz_000": [evil]},
        classifier={evil: evil},
        warnings=[evil],
    )
    text = page(
        tmp_path / "report.html", {"cases": {}, "summary": {}, "classification": some}
    )
    assert evil not in text
