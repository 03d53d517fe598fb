"""The report of a run: figures of its validation cases, and everything that was
decided, in one page.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trivox.config.recipe import read_recipe
from trivox.datasets.checks.findings import read_findings
from trivox.datasets.layouts.choice import read_saved_dataset
from trivox.errors import BundleError, FormatError
from trivox.evaluation.folders.labels import read_metrics
from trivox.evaluation.folders.measured import changed_since
from trivox.evaluation.metrics.content import MetricsFile, PostprocessingSection
from trivox.evaluation.report.charts import Records, epochs_of
from trivox.evaluation.report.page import write_report
from trivox.evaluation.report.pages import number
from trivox.files import read_json
from trivox.inference.rules.postprocess import Postprocessing
from trivox.learning.tracking import read_records
from trivox.planning.cost import CostFile
from trivox.tasks.console import Console, working
from trivox.tasks.cost.ledger import read_cost
from trivox.tasks.cost.table import cost_notes, cost_rows
from trivox.tasks.task import ModelTask, PlanDecision
from trivox.tasks.verification.record import verified_line
from trivox.version import __version__

FINDINGS_SHOWN = 20
RANKS = ("best", "median", "worst")


def report_run(
    task: ModelTask[Any, Any],
    run: Path,
    *,
    console: Console,
    log_folder: Path | None = None,
    out: Path | None = None,
) -> Path:
    """Write `report.html` of a finished run and pages of surfaces beside it; raises
    `BundleError` without validation.

    The report needs no other file: the median case can be turned on it, the pages hold
    this and others in finer detail.
    """
    metrics = run_metrics(run)
    records = _epochs(run, log_folder)
    recipe = read_recipe(read_json(run / "recipe.json")).model_dump(mode="json")
    target = out or run / "report.html"
    cost, spoilt = _cost_of(run)
    for line in spoilt:
        console.say(f"warning: {line}")
    plan = task.read_plan(run / "plan.json")
    with working(console, "drawing pictures"):
        pictures = task.pictures(run, plan, metrics, report=target, console=console)
    write_report(
        target,
        title=task.title(plan),
        parts=task.parts(metrics, records),
        plan=_as_facts(task.decisions(plan)),
        recipe=recipe,
        pictures=pictures.cases,
        surfaces=pictures.surfaces,
        warnings=[*_warnings(run, metrics, task.warnings(plan)), *spoilt],
        facts=_facts(run, recipe, records, metrics),
        costs=[] if cost is None else cost_rows(cost),
        cost_notes=[] if cost is None else cost_notes(cost),
    )
    console.say(f"report: {target}")
    return target


def _cost_of(run: Path) -> tuple[CostFile | None, list[str]]:
    """What a run has cost, and why that is not known where its record is damaged."""
    try:
        return read_cost(run), []
    except FormatError as error:
        return None, [str(error)]


def run_metrics(run: Path) -> MetricsFile:
    """What was measured in a finished run; raises `BundleError` without validation."""
    file = run / "validation" / "metrics.json"
    if not file.exists():
        raise BundleError(
            f"{run}: no validation/metrics.json; finish the training (--resume) first"
        )
    return read_metrics(file)


def report_metrics(task: ModelTask[Any, Any], file: Path, out: Path) -> None:
    """Write a report of a metrics.json alone: tables and box plots."""
    metrics = read_metrics(file)
    warnings = [str(warning) for warning in metrics.get("warnings", [])]
    write_report(
        out,
        title=file.stem,
        parts=task.parts(metrics, []),
        warnings=[*warnings, *changed_since(metrics)],
        facts={"trivox": __version__, "source": str(file)},
    )


def ranked_cases(scores: Mapping[str, float]) -> dict[str, list[str]]:
    """The best, the median and the worst case: name -> which of them it is.

    scores: by case, the higher the better; a case can be the best and the worst.
    """
    ordered = sorted(scores, key=lambda name: -scores[name])
    if not ordered:
        return {}
    ranked: dict[str, list[str]] = {}
    for rank, place in zip(RANKS, (0, len(ordered) // 2, -1), strict=True):
        ranked.setdefault(ordered[place], []).append(rank)
    return ranked


def _epochs(run: Path, log_folder: Path | None) -> Records:
    """Records of the epochs of a run's first fold."""
    candidates = [run, run / "fold0"] if log_folder is None else [log_folder]
    with_log = [f for f in candidates if (f / "metrics.jsonl").exists()]
    folder = with_log[0] if with_log else run
    return epochs_of(read_records(folder / "metrics.jsonl"))


def _as_facts(decisions: Sequence[PlanDecision]) -> dict[str, str]:
    return {
        what: f"{decision} ({reason})" if reason else decision
        for what, decision, reason in decisions
    }


def _facts(
    run: Path,
    recipe: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    metrics: MetricsFile,
) -> dict[str, str]:
    facts = {
        "trivox": __version__,
        "preset": str(recipe["preset"]),
        "network": str(recipe["network"]),
    }
    if records:
        last = records[-1]
        facts["training"] = (
            f"{number(last.get('seconds', math.nan) / 60, 1)} min, {last['step']} "
            f"steps, {number(last.get('seconds_per_step'), 2)} s a step"
        )
    facts["validation cases"] = str(len(metrics["cases"]))
    facts["figures"] = verified_line(run)
    return facts


def _warnings(
    run: Path, metrics: MetricsFile, plan_warnings: Sequence[str]
) -> list[str]:
    """What a reader of the report has to know, from data, measurement, plan
    and check.
    """
    warnings = []
    dataset = run / "dataset.json"
    if dataset.exists():
        warnings += [note for note in [read_saved_dataset(dataset).note] if note]
    warnings += [str(warning) for warning in metrics.get("warnings", [])]
    warnings += changed_since(metrics)
    warnings += _optimism(metrics.get("postprocessing") or {})
    warnings += plan_warnings
    check = run / "check.json"
    if check.exists():
        findings = read_findings(check)
        for finding in findings[:FINDINGS_SHOWN]:
            warnings.append(f"{finding.case or 'dataset'}: {finding.message}")
        if len(findings) > FINDINGS_SHOWN:
            more = len(findings) - FINDINGS_SHOWN
            warnings.append(f"and {more} more in check.json")
    return warnings


def _optimism(postprocessing: PostprocessingSection) -> list[str]:
    """A warning if rules were chosen on the very cases that they are measured on, with
    what they gain on others.
    """
    if not any(postprocessing.get(rule) for rule in Postprocessing.model_fields):
        return []
    gains = []
    for name, row in (postprocessing.get("gain") or {}).items():
        if row.get("on_the_same_cases"):
            here = number(row["on_the_same_cases"], 4)
            elsewhere = number(row["cross_fitted"], 4)
            gains.append(f"{name} {here} here, {elsewhere} on cases not chosen on")
    more = f"; gain of mean Dice: {', '.join(gains)}" if gains else ""
    return [
        "postprocessing was chosen on these validation cases; its gain here is "
        f"optimistic{more}"
    ]
