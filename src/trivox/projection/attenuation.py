"""From Hounsfield units to linear attenuation and back."""

import torch
from torch import Tensor

from trivox.uploads import constant

WATER_PER_MM = 0.02
"""Attenuation of water for a chest tube's spectrum, rounded (0.0192 / mm at 70 keV,
NIST XCOM).
"""


def attenuation_of(hounsfield: Tensor, *, water: float = WATER_PER_MM) -> Tensor:
    """Attenuation in 1/mm of HU, any shape: `water * max(0, 1 + HU / 1000)`."""
    return (hounsfield / 1000 + 1).clamp(min=0) * water


def hounsfield_of(attenuation: Tensor, *, water: float = WATER_PER_MM) -> Tensor:
    """HU of attenuation in 1/mm; the inverse of `attenuation_of` above -1000 HU."""
    return (attenuation / water - 1) * 1000


class HounsfieldWindow:
    """Between normalised HU (0 to 1 within the window, not clamped) and attenuation in
    1/mm.
    """

    def __init__(self, window: tuple[float, float], water_per_mm: float) -> None:
        low, high = window
        self.water = water_per_mm
        self.width = (high - low) / 1000 * water_per_mm
        """Of the window, 1/mm."""
        self.low = (1 + low / 1000) * water_per_mm

    def attenuation(self, normalised: Tensor) -> Tensor:
        """1/mm; below 0 for what is thinner than air."""
        low = constant((self.low,), normalised.device)
        return torch.add(low, normalised, alpha=self.width)

    def normalised(self, attenuation: Tensor) -> Tensor:
        """The inverse of `attenuation`."""
        low = constant((-self.low / self.width,), attenuation.device)
        return torch.add(low, attenuation, alpha=1 / self.width)
