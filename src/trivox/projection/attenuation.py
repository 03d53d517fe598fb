"""From Hounsfield units to linear attenuation and back."""

from torch import Tensor

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
