"""trivox: from folders of 3D medical scans to trained, measured, deployable models.

Research use only, not a medical device. Names below load on first use, so that `import
trivox` stays instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trivox.errors import TrivoxError
from trivox.version import __version__

if TYPE_CHECKING:
    from trivox.config.recipe import Recipe, make_recipe
    from trivox.datasets.dataset import Dataset
    from trivox.datasets.layouts.choice import load_dataset
    from trivox.inference.predictor import Predictor
    from trivox.volumes.formats import read_labels, read_volume, write_volume
    from trivox.volumes.volume import Volume

_HOMES = {
    "Dataset": "trivox.datasets.dataset",
    "Predictor": "trivox.inference.predictor",
    "Recipe": "trivox.config.recipe",
    "Volume": "trivox.volumes.volume",
    "load_dataset": "trivox.datasets.layouts.choice",
    "make_recipe": "trivox.config.recipe",
    "read_labels": "trivox.volumes.formats",
    "read_volume": "trivox.volumes.formats",
    "write_volume": "trivox.volumes.formats",
}

__all__ = [
    "Dataset",
    "Predictor",
    "Recipe",
    "TrivoxError",
    "Volume",
    "__version__",
    "load_dataset",
    "make_recipe",
    "read_labels",
    "read_volume",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'trivox' has no attribute '{name}'")
