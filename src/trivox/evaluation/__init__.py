"""Evaluation: metrics of a case, of a folder, their statistics, figures and the report."""

from trivox.evaluation.cases import evaluate_case
from trivox.evaluation.evaluate import collect_metrics, evaluate_folders
from trivox.evaluation.figures import overlay_figure
from trivox.evaluation.report import write_report
from trivox.evaluation.statistics import bootstrap_interval, paired_difference
from trivox.evaluation.surfaces import surface_distances

__all__ = [
    "bootstrap_interval",
    "collect_metrics",
    "evaluate_case",
    "evaluate_folders",
    "overlay_figure",
    "paired_difference",
    "surface_distances",
    "write_report",
]
