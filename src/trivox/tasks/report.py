"""The report of a run: figures of its validation cases, and everything that was
decided, in one page.
"""

from pathlib import Path
from typing import Any

from trivox.config.recipe import read_recipe
from trivox.errors import BundleError
from trivox.evaluation.folders.labels import read_metrics
from trivox.evaluation.report.class_part import class_part
from trivox.evaluation.report.label_part import (
    label_headline,
    label_part,
    trust_part,
)
from trivox.evaluation.report.page import write_report
from trivox.evaluation.report.pages import Part, number
from trivox.evaluation.report.volume_part import volume_headline, volume_part
from trivox.files import read_json
from trivox.inference.rules.postprocess import Postprocessing
from trivox.learning.tracking import read_records
from trivox.planning.plan import read_plan
from trivox.planning.planner import describe_plan
from trivox.planning.volumes import (
    describe_reconstruction_plan,
    read_reconstruction_plan,
)
from trivox.tasks.console import Console
from trivox.tasks.labels.pictures import picture_cases
from trivox.tasks.reconstruction.pictures import picture_exams
from trivox.version import __version__


def report_run(
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
    metrics_file = run / "validation" / "metrics.json"
    if not metrics_file.exists():
        raise BundleError(
            f"{run}: no validation/metrics.json; finish the training (--resume) first"
        )
    metrics = read_metrics(metrics_file)
    folder = log_folder or next(
        (f for f in (run, run / "fold0") if (f / "metrics.jsonl").exists()), run
    )
    records = [
        r for r in read_records(folder / "metrics.jsonl") if r.get("kind") == "epoch"
    ]
    recipe = read_recipe(read_json(run / "recipe.json")).model_dump(mode="json")
    target = out or run / "report.html"
    if _is_of_volumes(metrics):
        return _report_volumes(run, metrics, recipe, records, target, console)
    plan = read_plan(run / "plan.json")
    pictures = picture_cases(run, plan, metrics, report=target, console=console)
    write_report(
        target,
        title=f"{plan.dataset}: {plan.task}",
        parts=_parts(metrics, records),
        plan=_facts_of(describe_plan(plan)),
        recipe=recipe,
        pictures=pictures.cases,
        surfaces=pictures.surfaces,
        warnings=_warnings(run, metrics),
        facts=_facts(recipe, records, metrics),
    )
    console.say(f"report: {target}")
    return target


def _report_volumes(
    run: Path,
    metrics: dict[str, Any],
    recipe: dict[str, Any],
    records: list[dict[str, Any]],
    target: Path,
    console: Console,
) -> Path:
    """The report of a run whose answers are volumes."""
    plan = read_reconstruction_plan(run / "plan.json")
    write_report(
        target,
        title=f"{plan.dataset}: {plan.task} (synthetic CT, not acquired)",
        parts=_parts(metrics, records),
        plan=_facts_of(describe_reconstruction_plan(plan)),
        recipe=recipe,
        pictures=picture_exams(run, metrics, console=console),
        warnings=_warnings(run, metrics),
        facts=_facts(recipe, records, metrics),
    )
    console.say(f"report: {target}")
    return target


def report_metrics(metrics_file: Path, out: Path) -> Path:
    """A report of a metrics.json alone: tables and box plots."""
    metrics = read_metrics(metrics_file)
    write_report(
        out,
        title=metrics_file.stem,
        parts=_parts(metrics, []),
        warnings=[str(w) for w in metrics.get("warnings", [])],
        facts={"trivox": __version__, "source": str(metrics_file)},
    )
    return out


def _facts_of(decisions: list[tuple[str, str, str]]) -> dict[str, Any]:
    return {
        what: f"{decision} ({reason})" if reason else decision
        for what, decision, reason in decisions
    }


def _facts(
    recipe: dict[str, Any], records: list[dict[str, Any]], metrics: dict[str, Any]
) -> dict[str, str]:
    facts = {
        "trivox": __version__,
        "preset": str(recipe["preset"]),
        "network": str(recipe["network"]),
    }
    if records:
        last = records[-1]
        facts["training"] = (
            f"{last['seconds'] / 60:.1f} min, {last['step']} steps, {last['seconds_per_step']:.2f} s a step"
        )
    facts["validation cases"] = str(len(metrics["cases"]))
    return facts


def _warnings(run: Path, metrics: dict[str, Any]) -> list[str]:
    note = (
        read_json(run / "dataset.json").get("note")
        if (run / "dataset.json").exists()
        else None
    )
    found = [
        *([str(note)] if note else []),
        *(str(warning) for warning in metrics.get("warnings", [])),
    ]
    found += _optimism(metrics.get("postprocessing") or {})
    check = run / "check.json"
    if check.exists():
        findings = read_json(check).get("findings", [])
        found += [f"{f['case'] or 'dataset'}: {f['message']}" for f in findings[:20]]
        if len(findings) > 20:
            found.append(f"and {len(findings) - 20} more in check.json")
    return found


def _optimism(postprocessing: dict[str, Any]) -> list[str]:
    """A warning if rules were chosen on the very cases that they are measured on, with
    what they gain on others.
    """
    if not any(postprocessing.get(rule) for rule in Postprocessing.model_fields):
        return []
    gain = postprocessing.get("gain") or {}
    pairs = [
        f"{name} {number(row['on_the_same_cases'], 4)} here, {number(row['cross_fitted'], 4)} on cases not chosen on"
        for name, row in gain.items()
        if row.get("on_the_same_cases")
    ]
    more = f"; gain of mean Dice: {', '.join(pairs)}" if pairs else ""
    return [
        f"postprocessing was chosen on these validation cases; its gain here is optimistic{more}"
    ]


def headline(metrics: dict[str, Any]) -> str:
    """One line with the main figures and their 95 % intervals."""
    if _is_of_volumes(metrics):
        return volume_headline(metrics)
    return label_headline(metrics)


def _is_of_volumes(metrics: dict[str, Any]) -> bool:
    return metrics.get("task") == "reconstruction"


def _parts(metrics: dict[str, Any], records: list[dict[str, Any]]) -> list[Part]:
    """What is shown of a metrics.json."""
    if _is_of_volumes(metrics):
        return [volume_part(metrics, records)]
    labels = label_part(metrics, records)
    return [labels, class_part(metrics, records), trust_part(metrics)]
