"""trivox: from folders of 3D medical scans to trained, measured, deployable models.

Research use only, not a medical device. Names below load on first use, so that `import trivox` stays instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trivox.errors import TrivoxError
from trivox.version import __version__

if TYPE_CHECKING:
    from trivox.config import Recipe, make_recipe
    from trivox.datasets import Dataset, load_dataset
    from trivox.inference.predictor import Predictor
    from trivox.volumes import Volume, read_labels, read_volume, write_volume

_HOMES = {
    "Dataset": "trivox.datasets",
    "Predictor": "trivox.inference.predictor",
    "Recipe": "trivox.config",
    "Volume": "trivox.volumes",
    "load_dataset": "trivox.datasets",
    "make_recipe": "trivox.config",
    "read_labels": "trivox.volumes",
    "read_volume": "trivox.volumes",
    "write_volume": "trivox.volumes",
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
