"""What the report shows of the section `classification` of metrics.json."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from trivox.evaluation.metrics.class_content import Score
from trivox.evaluation.report.charts import Records
from trivox.evaluation.report.class_figures import (
    Section,
    class_curves,
    class_reliability,
    confusion_and_roc,
    true_class_probabilities,
)
from trivox.evaluation.report.pages import (
    MISSING,
    Column,
    Curves,
    Headline,
    Metrics,
    Part,
    methods_text,
    number,
    rendered,
    titled,
)

COLUMNS = (
    Column("macro_f1", "Macro-F1"),
    Column("auc", "AUC"),
    Column("balanced_accuracy", "Balanced accuracy"),
    Column("accuracy", "Accuracy"),
    Column("mcc", "MCC"),
)
HEADLINES = COLUMNS[:2]
TRUST = (
    Column("ece", "ECE"),
    Column("brier", "Brier score"),
    Column("log_loss", "Log loss (nats)"),
)
MOST_COLUMNS = 8

FIGURES = (
    (
        confusion_and_roc,
        "Answers by true class, and recall against false alarms at every threshold.",
    ),
    (
        true_class_probabilities,
        "How probable the true class was held, a mark a case; further right is better.",
    ),
    (
        class_reliability,
        "Bars below the diagonal: the classifier is too sure of itself; above: not "
        "sure enough.",
    ),
)
CURVES = "Answers, recall and mean logit of each class, and macro-F1 by epoch"
CURVES_CAPTION = (
    "What the head answers for patches of validation cases. A class whose share of "
    "answers stays at 0 is not learnt."
)


class ClassLine(TypedDict):
    """A row of the table of classes; answers: how often each class was answered."""

    name: str
    cases: int
    recall: Score
    precision: Score
    answers: list[int]


class WrongAnswer(TypedDict):
    """A case answered wrongly; chance: of its true class."""

    name: str
    truth: str
    answer: str
    probabilities: list[float]
    chance: float
    fold: str
    flags: str


def class_part(metrics: Metrics, records: Records = ()) -> Part:
    """Figures of the classes of cases; only the training where metrics.json has no
    section `classification`. records: lines of metrics.jsonl.
    """
    curves = class_curves(records)
    training = []
    if curves is not None:
        training.append(Curves(curves, CURVES, CURVES_CAPTION))
    section = metrics.get("classification")
    if not section:
        return Part(training=training)
    return Part(
        body=rendered("class_part.html.j2", classes=_view(section)),
        headlines=_headlines(section),
        training=training,
        cases=len(section["cases"]),
        warnings=[f"classes: {warning}" for warning in section.get("warnings", [])],
        convention=titled("classes", section.get("convention")),
    )


def _headlines(section: Section) -> list[Headline]:
    """Macro-F1 and AUC, as far as they are known."""
    headlines = []
    for metric, heading, unit, digits in HEADLINES:
        score = section["summary"][metric]
        if score["value"] is not None:
            method = methods_text([score])
            headlines.append(
                Headline(heading, score["value"], score["ci95"], method, unit, digits)
            )
    return headlines


def _view(section: Section) -> Mapping[str, object]:
    """Tables and figures for the template."""
    classes = section["classes"]
    shown = classes if len(classes) <= MOST_COLUMNS else None
    figures = []
    for draw, caption in FIGURES:
        image = draw(section)
        if image is not None:
            figures.append((caption, image))
    return {
        "columns": COLUMNS,
        "trust": TRUST,
        "rows": [{"difference": {}, **row} for row in section["rows"]],
        "compared": any(row.get("difference") for row in section["rows"]),
        "note": _note(section),
        "answered": shown or [],
        "by_class": _class_rows(section, with_answers=shown is not None),
        "shown": shown or ["the class", "the answer"],
        "wrong": _wrong(section, shown),
        "figures": figures,
        "classifier": section.get("classifier") or {},
    }


def _class_rows(section: Section, *, with_answers: bool) -> list[ClassLine]:
    """One row a class: cases, recall, precision and how often each class was
    answered.
    """
    summary = section["summary"]
    return [
        {
            "name": name,
            "cases": summary["support"][name],
            "recall": summary["recall"][name],
            "precision": summary["precision"][name],
            "answers": counts if with_answers else [],
        }
        for name, counts in zip(section["classes"], summary["confusion"], strict=True)
    ]


def _note(section: Section) -> str:
    """What the tables are about, in sentences."""
    cases = len(section["cases"])
    known = sum(section["summary"]["support"].values())
    scores = [section["summary"][column.metric] for column in (*COLUMNS, *TRUST)]
    methods = methods_text(scores)
    sentences = [
        f"Over {known} cases whose class is known; below each score its 95 % interval "
        f"({methods})."
    ]
    if len(section["rows"]) > 1:
        sentences.append(
            "Gained: this model minus the row, on the same cases; P(false claim): the "
            "probability that it is not better."
        )
    if cases > known:
        sentences.append(f"{cases - known} more were answered.")
    if section.get("resubstitution"):
        fitted = section["resubstitution"]
        gap = section["gap"]
        sentences.append(
            "On the cases that it was fitted on: macro-F1 "
            f"{number(fitted['macro_f1'])} and AUC {number(fitted['auc'])}, "
            f"a gap of {number(gap['macro_f1'])} and {number(gap['auc'])}."
        )
    flagged = sum(bool(case["flags"]) for case in section["cases"].values())
    if flagged:
        sentences.append(f"{flagged} answers are flagged.")
    return " ".join(sentences)


def _wrong(section: Section, classes: Sequence[str] | None) -> list[WrongAnswer]:
    """Cases answered wrongly; probabilities of `classes`, or of the true class and the
    answer.
    """
    rows: list[WrongAnswer] = []
    for name, case in section["cases"].items():
        truth = case["class"]
        answer = case["answer"]
        chance = case["probabilities"]
        if truth is not None and truth != answer:
            row: WrongAnswer = {
                "name": name,
                "truth": truth,
                "answer": answer,
                "probabilities": [chance[one] for one in classes or (truth, answer)],
                "chance": chance[truth],
                "fold": case.get("fold") or MISSING,
                "flags": "; ".join(case["flags"]),
            }
            rows.append(row)
    return sorted(rows, key=lambda row: row["chance"])
