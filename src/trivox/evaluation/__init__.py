"""Evaluation: metrics of a case, of a folder, their statistics, figures and the report."""

from trivox.evaluation.cases import evaluate_case
from trivox.evaluation.conventions import CONVENTIONS, choose_convention
from trivox.evaluation.evaluate import collect_metrics, evaluate_folders
from trivox.evaluation.figures import overlay_figure
from trivox.evaluation.ranking import rank_models
from trivox.evaluation.reconstruction import evaluate_reconstruction
from trivox.evaluation.reconstruction_summary import collect_reconstructions
from trivox.evaluation.report import write_report
from trivox.evaluation.statistics import bootstrap_interval, paired_difference
from trivox.evaluation.surfaces import surface_distances

__all__ = [
    "CONVENTIONS",
    "bootstrap_interval",
    "choose_convention",
    "collect_metrics",
    "collect_reconstructions",
    "evaluate_case",
    "evaluate_folders",
    "evaluate_reconstruction",
    "overlay_figure",
    "paired_difference",
    "rank_models",
    "surface_distances",
    "write_report",
]
