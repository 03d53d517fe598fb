"""The report of a run: figures of its validation cases, and everything that was decided, in one page."""

from pathlib import Path
from typing import Any

import numpy as np

from trivox.config import read_recipe
from trivox.datasets import read_saved_dataset
from trivox.datasets.dataset import Case
from trivox.errors import BundleError, TrivoxError
from trivox.evaluation import overlay_figure, write_report
from trivox.evaluation.evaluate import mean_row
from trivox.files import read_json
from trivox.learning.tracking import read_records
from trivox.planning.plan import Plan, read_plan
from trivox.planning.planner import describe_plan
from trivox.tasks.console import Console
from trivox.version import __version__
from trivox.volumes import read_labels, read_volume, reorient
from trivox.volumes.geometry import canonical_orientation

RANKS = ("best", "median", "worst")


def report_run(run: Path, *, console: Console, log_folder: Path | None = None, out: Path | None = None) -> Path:
    """Write `report.html` of a finished run; raises `BundleError` if it has no validation yet."""
    metrics_file = run / "validation" / "metrics.json"
    if not metrics_file.exists():
        raise BundleError(f"{run}: no validation/metrics.json; finish the training (--resume) first")
    metrics, plan = _read_metrics(metrics_file), read_plan(run / "plan.json")
    folder = log_folder or next((f for f in (run, run / "fold0") if (f / "metrics.jsonl").exists()), run)
    records = [r for r in read_records(folder / "metrics.jsonl") if r.get("kind") == "epoch"]
    recipe = read_recipe(read_json(run / "recipe.json")).model_dump(mode="json")
    target = out or run / "report.html"
    write_report(
        target, title=f"{plan.dataset}: {plan.task}", metrics=metrics, plan=_plan_facts(plan), recipe=recipe,
        records=records, overlays=_overlays(run, plan, metrics, console), warnings=_warnings(run, metrics),
        facts=_facts(recipe, records, metrics),
    )  # fmt: skip
    console.say(f"report: {target}")
    return target


def report_metrics(metrics_file: Path, out: Path) -> Path:
    """A report of a metrics.json alone: tables and box plots."""
    metrics = _read_metrics(metrics_file)
    write_report(
        out, title=metrics_file.stem, metrics=metrics, plan=None, recipe=None, records=[], overlays=[],
        warnings=[str(w) for w in metrics.get("warnings", [])], facts={"trivox": __version__, "source": str(metrics_file)},
    )  # fmt: skip
    return out


def _read_metrics(file: Path) -> dict[str, Any]:
    content = read_json(file)
    parts = [content.get(key) for key in ("summary", "cases", "convention")] if isinstance(content, dict) else [None]
    if not all(isinstance(part, dict) for part in parts):
        raise BundleError(f"{file}: is no metrics.json; give a run or what 'trivox evaluate' wrote")
    return dict(content)


def _plan_facts(plan: Plan) -> dict[str, Any]:
    return {what: f"{decision} ({reason})" if reason else decision for what, decision, reason in describe_plan(plan)}


def _facts(recipe: dict[str, Any], records: list[dict[str, Any]], metrics: dict[str, Any]) -> dict[str, str]:
    facts = {"trivox": __version__, "preset": str(recipe["preset"]), "network": str(recipe["network"])}
    if records:
        last = records[-1]
        facts["training"] = (
            f"{last['seconds'] / 60:.1f} min, {last['step']} steps, {last['seconds_per_step']:.2f} s a step"
        )
    facts["validation cases"] = str(len(metrics["cases"]))
    return facts


def _warnings(run: Path, metrics: dict[str, Any]) -> list[str]:
    found = [str(warning) for warning in metrics.get("warnings", [])]
    if metrics.get("postprocessing", {}).get("largest_foreground") or metrics.get("postprocessing", {}).get(
        "largest_of"
    ):
        found.append("postprocessing was chosen on these validation cases; its gain here is optimistic")
    check = run / "check.json"
    if check.exists():
        findings = read_json(check).get("findings", [])
        found += [f"{f['case'] or 'dataset'}: {f['message']}" for f in findings[:20]]
        if len(findings) > 20:
            found.append(f"and {len(findings) - 20} more in check.json")
    return found


def _overlays(run: Path, plan: Plan, metrics: dict[str, Any], console: Console) -> list[tuple[str, bytes]]:
    """Best, median and worst case by mean Dice; a case whose files are gone is left out with a line."""
    cases = {case.name: case for case in read_saved_dataset(run / "dataset.json").cases}
    scores = {name: _mean_dice(values) for name, values in metrics["cases"].items()}
    ordered = sorted((name for name in scores if scores[name] is not None), key=lambda name: -float(scores[name] or 0))
    if not ordered:
        return []
    chosen = dict(zip(RANKS, (ordered[0], ordered[len(ordered) // 2], ordered[-1]), strict=True))
    figures = []
    for what, name in chosen.items():
        try:
            figure = _overlay(run, plan, cases[name], f"{what}: {name}, mean Dice {scores[name]:.3f}")
            figures.append((f"{what} case: {name}", figure))
        except (TrivoxError, KeyError) as error:
            console.say(f"{name}: no picture ({error})")
    return figures


def _overlay(run: Path, plan: Plan, case: Case, title: str) -> bytes:
    assert case.label is not None
    image = read_volume(case.images[0])
    orientation = canonical_orientation(image.affine)
    prediction = read_labels(run / "validation" / "predictions" / f"{case.name}.nii.gz")
    reference = read_labels(case.label)
    arrays = [orientation.apply(volume.array)[0] for volume in (image, prediction, reference)]
    indices = [plan.labels.encode(np.ascontiguousarray(array), where=case.name) for array in arrays[1:]]
    names = sorted(plan.labels.labels, key=lambda name: plan.labels.labels[name])
    return overlay_figure(
        arrays[0], indices[0], indices[1], spacing=reorient(image, orientation).spacing, names=names, title=title
    )


def _mean_dice(case: dict[str, dict[str, Any]]) -> float | None:
    values = [row["dice"] for row in case.values() if row.get("dice") is not None]
    return sum(values) / len(values) if values else None


def headline(metrics: dict[str, Any]) -> str:
    """One line with the mean Dice of each label and over all, with 95 % intervals."""
    summary = metrics["summary"]
    parts = []
    for name, row in summary.items():
        dice = row["dice"]
        if dice["mean"] is not None:
            interval = f" [{dice['ci95'][0]:.3f}, {dice['ci95'][1]:.3f}]" if dice["ci95"] else ""
            shown = "mean over labels" if name == mean_row([n for n in summary if n != name]) else name
            parts.append(f"{shown} {dice['mean']:.4f}{interval}")
    return "Dice: " + ", ".join(parts) + f" (95 % CI over {len(metrics['cases'])} cases)"
