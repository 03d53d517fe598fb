"""Cases: dataset layouts, checks, splits and phantoms."""

from trivox.datasets.checks import check_dataset
from trivox.datasets.class_tables import with_classes
from trivox.datasets.dataset import Case, Dataset, Task
from trivox.datasets.findings import Finding, Report
from trivox.datasets.labels import IGNORED, LabelScheme
from trivox.datasets.layouts import LAYOUTS, load_dataset, load_inputs, read_saved_dataset, save_dataset
from trivox.datasets.phantoms import PhantomSettings, phantom_case, write_phantoms
from trivox.datasets.splits import Split, make_splits

__all__ = [
    "IGNORED",
    "LAYOUTS",
    "Case",
    "Dataset",
    "Finding",
    "LabelScheme",
    "PhantomSettings",
    "Report",
    "Split",
    "Task",
    "check_dataset",
    "load_dataset",
    "load_inputs",
    "make_splits",
    "phantom_case",
    "read_saved_dataset",
    "save_dataset",
    "with_classes",
    "write_phantoms",
]
