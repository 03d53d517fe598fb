"""Numbers as metrics.json holds them: null is what cannot be known, and nothing is
larger than 64 bits hold.
"""

import math
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt

from trivox.schema import LARGEST


def read_number(value: object) -> float:
    """A number as it is read from a file; NaN for null."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("is no number")
    if abs(value) > LARGEST:
        raise ValueError("is a number beyond all measure")
    return float(value)


def number_if_known(value: object) -> float | None:
    """A number as it is read from a file; None for null."""
    number = read_number(value)  # NaN, which some programs write, is null as well
    return None if math.isnan(number) else number


def in_order(edges: list[float]) -> list[float]:
    """Two edges of which the first is not above the second; NaN is neither."""
    low, high = edges
    if low > high:
        raise ValueError("ends before it begins")
    return edges


Number = Annotated[float, BeforeValidator(read_number)]
"""A number; NaN, which the file calls null, where it is not known."""
MaybeNumber = Annotated[float | None, BeforeValidator(number_if_known)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
MaybeShare = Annotated[
    Annotated[float, Field(ge=0, le=1)] | None, BeforeValidator(number_if_known)
]
Interval = Annotated[
    list[Number], Field(min_length=2, max_length=2), AfterValidator(in_order)
]
ShareInterval = Annotated[
    list[Share], Field(min_length=2, max_length=2), AfterValidator(in_order)
]
Count = Annotated[StrictInt, Field(ge=0)]
