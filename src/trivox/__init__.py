"""trivox: from folders of 3D medical scans to trained, measured, deployable models.

Research use only, not a medical device.

The verbs are those of the command line, with the same options: `trivox.train(...)` is
`trivox train ...`. The nouns are what they take and return. This page is all that is
public in Python; everything else may change without notice. Names load on first use, so
that `import trivox` stays instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trivox.errors import TrivoxError
from trivox.version import __version__

if TYPE_CHECKING:
    from trivox.config.recipe import Recipe, make_recipe
    from trivox.datasets.dataset import Case, Dataset
    from trivox.datasets.layouts.choice import load_dataset
    from trivox.inference.predictor import Predictor
    from trivox.inference.reconstructor import Reconstructor
    from trivox.verbs.check import check
    from trivox.verbs.clinic.deidentify import deidentify
    from trivox.verbs.clinic.pacs import pacs_echo, pacs_fetch, pacs_find, pacs_send
    from trivox.verbs.clinic.serve import serve
    from trivox.verbs.clinic.service import node, pacs_watch
    from trivox.verbs.drr import drr
    from trivox.verbs.evaluate import evaluate
    from trivox.verbs.explain import explain
    from trivox.verbs.info import info
    from trivox.verbs.plan import plan
    from trivox.verbs.predict import predict
    from trivox.verbs.preprocess import preprocess
    from trivox.verbs.pretrain import pretrain
    from trivox.verbs.rank import rank
    from trivox.verbs.release.distill import distill
    from trivox.verbs.release.export import export
    from trivox.verbs.release.models import models
    from trivox.verbs.release.verify import verify
    from trivox.verbs.report import report
    from trivox.verbs.train import train
    from trivox.volumes.choice import SeriesChoice
    from trivox.volumes.formats import read_labels, read_volume, write_volume
    from trivox.volumes.volume import Volume

VERBS = (
    "check",
    "plan",
    "preprocess",
    "train",
    "predict",
    "evaluate",
    "rank",
    "report",
    "explain",
    "pretrain",
    "drr",
    "models",
    "info",
    "export",
    "distill",
    "verify",
    "pacs_echo",
    "pacs_find",
    "pacs_fetch",
    "pacs_send",
    "pacs_watch",
    "node",
    "deidentify",
    "serve",
)
"""In the order in which a project needs them."""

_HOMES = {
    **{verb: f"trivox.verbs.{verb}" for verb in VERBS},
    "export": "trivox.verbs.release.export",
    "deidentify": "trivox.verbs.clinic.deidentify",
    "verify": "trivox.verbs.release.verify",
    "distill": "trivox.verbs.release.distill",
    "models": "trivox.verbs.release.models",
    "pacs_echo": "trivox.verbs.clinic.pacs",
    "pacs_find": "trivox.verbs.clinic.pacs",
    "pacs_fetch": "trivox.verbs.clinic.pacs",
    "pacs_send": "trivox.verbs.clinic.pacs",
    "pacs_watch": "trivox.verbs.clinic.service",
    "node": "trivox.verbs.clinic.service",
    "serve": "trivox.verbs.clinic.serve",
    "Case": "trivox.datasets.dataset",
    "Dataset": "trivox.datasets.dataset",
    "Predictor": "trivox.inference.predictor",
    "Recipe": "trivox.config.recipe",
    "Reconstructor": "trivox.inference.reconstructor",
    "SeriesChoice": "trivox.volumes.choice",
    "Volume": "trivox.volumes.volume",
    "load_dataset": "trivox.datasets.layouts.choice",
    "make_recipe": "trivox.config.recipe",
    "read_labels": "trivox.volumes.formats",
    "read_volume": "trivox.volumes.formats",
    "write_volume": "trivox.volumes.formats",
}

__all__ = [
    "VERBS",
    "Case",
    "Dataset",
    "Predictor",
    "Recipe",
    "Reconstructor",
    "SeriesChoice",
    "TrivoxError",
    "Volume",
    "__version__",
    "check",
    "deidentify",
    "distill",
    "drr",
    "evaluate",
    "explain",
    "export",
    "info",
    "load_dataset",
    "make_recipe",
    "models",
    "node",
    "pacs_echo",
    "pacs_fetch",
    "pacs_find",
    "pacs_send",
    "pacs_watch",
    "plan",
    "predict",
    "preprocess",
    "pretrain",
    "rank",
    "read_labels",
    "read_volume",
    "report",
    "serve",
    "train",
    "verify",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'trivox' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
