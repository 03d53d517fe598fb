"""What the report and the terminal show of label maps in metrics.json: tables, box
plots, how far probabilities can be trusted.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict

from trivox.evaluation.folders.labels import mean_row, names_in
from trivox.evaluation.report.charts import (
    Records,
    box_plots,
    measured_metrics,
    reliability_chart,
    training_curves,
)
from trivox.evaluation.report.pages import (
    Column,
    Curves,
    Metrics,
    Part,
    headlines_of,
    methods_text,
    number,
    rendered,
    titled,
)

COLUMNS = (
    Column("dice", "Dice"),
    Column("hd95_mm", "HD95", "mm", 2),
    Column("nsd", "NSD"),
    Column("assd_mm", "ASSD", "mm", 2),
    Column("sensitivity", "Sensitivity"),
    Column("precision", "Precision"),
    Column("specificity", "Specificity", digits=4),
    Column("instance_dice", "Dice of lesions"),
    Column("instance_hd95_mm", "HD95 of lesions", "mm", 2),
    Column("instance_nsd", "NSD of lesions"),
    Column("rq", "F1 of lesions"),
    Column("pq", "PQ"),
    Column("lesions_found", "Lesions found", digits=1),
    Column("lesions_missed", "Lesions missed", digits=1),
    Column("lesions_spurious", "Spurious lesions", digits=1),
    Column("whole_dice", "Dice of the region"),
    Column("whole_hd95_mm", "HD95 of the region", "mm", 2),
    Column("volume_error_percent", "Volume error", "%", 1),
)
HEADLINES = COLUMNS[:3]
NOTES = {
    "both": "empty in both",
    "prediction": "missed",
    "reference": "not in the reference",
}
CALIBRATION = {
    "ece": "ECE",
    "adaptive_ece": "Adaptive ECE",
    "classwise_ece": "Class-wise ECE",
    "mce": "Largest gap (MCE)",
    "brier": "Brier score",
    "nll": "Negative log-likelihood",
}


class SummaryLine(TypedDict):
    """A row of the table of labels."""

    name: str
    overall: bool
    statistics: Metrics


class CaseLine(TypedDict):
    """A row of the table of cases."""

    case: str
    label: str
    values: Metrics
    note: str


class CalibrationLine(TypedDict):
    """A measure before and after temperature scaling."""

    name: str
    before: float | None
    after: float | None


def label_part(metrics: Metrics, records: Records = ()) -> Part:
    """Figures of each label over cases and case by case; records: lines of
    metrics.jsonl.
    """
    columns = _columns(metrics)
    summary = _summary_rows(metrics)
    statistics: list[Metrics] = []
    for row in summary:
        statistics += [_statistic(row, column.metric) for column in columns]
    body = rendered(
        "label_part.html.j2",
        columns=columns,
        summary=summary,
        methods=methods_text(statistics),
        boxes=box_plots(metrics),
    )
    details = rendered("label_cases.html.j2", columns=columns, rows=_case_rows(metrics))
    curves = training_curves(records)
    training = []
    if curves is not None:
        training.append(Curves(curves, "Loss and validation figures by epoch"))
    return Part(
        body=body,
        details=details,
        headlines=headlines_of(HEADLINES, _mean_of_labels(metrics)),
        training=training,
        cases=len(metrics.get("cases", {})),
        warnings=metrics.get("warnings", []),
        convention=metrics.get("convention", {}),
    )


def trust_part(metrics: Metrics) -> Part:
    """How far the probabilities of voxels can be trusted; empty without the section
    `calibration`.
    """
    calibration = metrics.get("calibration") or {}
    volumes = metrics.get("volume_intervals") or {}
    voxels = metrics.get("missed_voxels") or {}
    lesions = metrics.get("missed_lesions") or {}
    if not calibration:
        return Part()
    body = rendered(
        "trust_part.html.j2",
        rows=_calibration_rows(calibration),
        reliability=reliability_chart(calibration),
        sentences=list(_trust_sentences(calibration)),
        volumes=volumes.get("targets") or {},
        missed={
            "voxels": voxels.get("targets") or {},
            "lesions": lesions.get("targets") or {},
        },
    )
    convention = {
        **titled("calibration", calibration.get("convention")),
        **titled("volumes", volumes.get("convention")),
        **titled("missed voxels", voxels.get("convention")),
        **titled("missed lesions", lesions.get("convention")),
    }
    return Part(body=body, convention=convention)


def label_headline(metrics: Metrics) -> str:
    """One line with the mean Dice of each label and over all, macro-F1 and AUC of the
    classes, average precision of lesions and AUROC of cases, with 95 % intervals.
    """
    parts = []
    if metrics["cases"]:
        parts.append(_dice_headline(metrics))
    classes = (metrics.get("classification") or {}).get("summary")
    if classes:
        cases = sum(classes["support"].values())
        shown = {"macro-F1": classes["macro_f1"], "AUC": classes["auc"]}
        parts.append(_scores_headline("classes", shown, cases))
    lesions = (metrics.get("detection") or {}).get("summary")
    if lesions:
        shown = {"AP": lesions["ap"], "AUROC of cases": lesions["auroc"]}
        parts.append(_scores_headline("lesions", shown, lesions["cases"]))
    return "; ".join(parts)


def _scores_headline(title: str, shown: Mapping[str, Metrics], cases: int) -> str:
    """The scores that are known, and what they are of."""
    known = {name: score for name, score in shown.items() if score["value"] is not None}
    texts = [
        f"{name} {_with_interval(score['value'], score['ci95'], digits=3)}"
        for name, score in known.items()
    ]
    values = ", ".join(texts) or "no score is known"
    return f"{title}: {values} ({_basis(list(shown.values()), cases)})"


def _dice_headline(metrics: Metrics) -> str:
    summary = metrics["summary"]
    scores = []
    measured: list[Metrics] = []
    for name, row in summary.items():
        dice = row.get("dice") or {}
        if dice.get("mean") is not None:
            others = [other for other in summary if other != name]
            title = "mean over labels" if name == mean_row(others) else name
            text = _with_interval(dice["mean"], dice["ci95"], digits=4)
            scores.append(f"{title} {text}")
            measured.append(dice)
    return f"Dice: {', '.join(scores)} ({_basis(measured, len(metrics['cases']))})"


def _basis(rows: Sequence[Metrics], cases: int) -> str:
    """What intervals are of, and how they were found."""
    methods = methods_text(rows)
    how = f", {methods}" if methods else ""
    return f"95 % CI over {cases} cases{how}"


def _with_interval(
    value: float, interval: Sequence[float] | None, *, digits: int
) -> str:
    text = f"{value:.{digits}f}"
    return f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else text


def _columns(metrics: Metrics) -> list[Column]:
    """What this metrics.json holds; conventions differ in it."""
    measured = measured_metrics(metrics.get("cases", {}))
    return [column for column in COLUMNS if column.metric in measured]


def _labels(metrics: Metrics) -> list[str]:
    return names_in(metrics.get("cases", {}).values())


def _mean_of_labels(metrics: Metrics) -> Metrics:
    row: Metrics = metrics.get("summary", {}).get(mean_row(_labels(metrics)), {})
    return row


def _summary_rows(metrics: Metrics) -> list[SummaryLine]:
    """One row a label, then the mean of labels, each with the statistics of all
    columns.
    """
    summary = metrics.get("summary", {})
    rows: list[SummaryLine] = [
        {"name": name, "overall": False, "statistics": summary[name]}
        for name in _labels(metrics)
        if name in summary
    ]
    if len(rows) > 1:
        mean = _mean_of_labels(metrics)
        rows.append({"name": "all labels", "overall": True, "statistics": mean})
    return rows


def _statistic(row: SummaryLine, metric: str) -> Metrics:
    statistic: Metrics = row["statistics"].get(metric) or {}
    return statistic


def _case_rows(metrics: Metrics) -> list[CaseLine]:
    """One row a case and label, the worst Dice first, those without Dice last."""
    rows: list[CaseLine] = []
    for case, labels in metrics.get("cases", {}).items():
        for label, values in labels.items():
            note = NOTES.get(values.get("empty") or "", "")
            rows.append({"case": case, "label": label, "values": values, "note": note})
    return sorted(rows, key=_dice_or_last)


def _dice_or_last(row: CaseLine) -> float:
    dice = row["values"].get("dice")
    return 2.0 if dice is None else float(dice)


def _calibration_rows(calibration: Metrics) -> list[CalibrationLine]:
    """One row a measure, with its value before and after temperature scaling."""
    before = calibration.get("before") or {}
    after = calibration.get("after") or {}
    return [
        {"name": name, "before": before.get(key), "after": after.get(key)}
        for key, name in CALIBRATION.items()
        if before.get(key) is not None
    ]


def _trust_sentences(calibration: Metrics) -> Iterator[str]:
    """What else was learnt about trust."""
    temperature = number(calibration.get("temperature"), 3)
    yield f"Temperature {temperature}: logits are divided by it."
    area = calibration.get("error_ranking_auroc")
    if area is not None:
        ranks = "Entropy ranks wrong voxels above right ones with an AUROC of"
        yield f"{ranks} {number(area, 3)}."
    doubt = calibration.get("doubt") or {}
    if doubt.get("spearman_with_dice") is not None:
        yield (
            "Mean entropy in the predicted foreground and Dice of a case: Spearman "
            f"{number(doubt['spearman_with_dice'], 2)} over {doubt['cases']} cases."
        )
    flag = calibration.get("flag") or {}
    if flag:
        yield _flag_sentence(flag)
    rule = calibration.get("abstention")
    if flag.get("chosen") == "agreement":
        overlap = number(1 - flag["rule"]["threshold"], 3)
        yield f"A case is flagged where they overlap less than {overlap}: " + _flagged(
            flag["rule"]
        )
    elif rule is None:
        yield "Too few validation cases to choose when a case is flagged."
    else:
        nats = number(rule["threshold"], 3)
        yield f"A case is flagged above {nats} nats: {_flagged(rule)}"


def _flag_sentence(flag: Metrics) -> str:
    """Which score flags cases, and why."""
    areas = {name: number(area, 4) for name, area in flag["aurc"].items()}
    known = (
        f"area under the risk-coverage curve over {flag['cases']} cases "
        f"{areas['entropy']} for entropy, {areas['agreement']} for 1 - pairwise Dice of "
        f"{flag['votes']} votes, {number(flag['best'], 4)} at best, "
        f"{number(flag['random'], 4)} at random"
    )
    if flag["chosen"] == "agreement":
        return f"How little votes overlap points better at poor cases: {known}."
    return f"Entropy points at least as well at poor cases as votes do: {known}."


def _flagged(rule: Metrics) -> str:
    """How many validation cases a rule flags."""
    return (
        f"{rule['flagged']} of {rule['cases']} validation cases, "
        f"{rule['flagged_poor']} of the {rule['poor']} with a Dice below "
        f"{number(rule['poor_dice'], 3)}."
    )
