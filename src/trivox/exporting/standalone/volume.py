"""What the modules that measure lesions call their types."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Spacing = tuple[float, float, float]
