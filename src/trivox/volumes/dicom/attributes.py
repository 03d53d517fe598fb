"""Looking up attributes of a frame: in its own functional group, in those of all
frames, at the top level.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivox.errors import FormatError


def find(sources: list[Any], group: str, keyword: str) -> Any:
    """The attribute in the functional group of the frame, else of all frames, else at
    the top level; None if blank.
    """
    for source in sources:
        items = source.get(group) if group else None
        for holder in (items[0] if items else source, source):
            value = holder.get(keyword)
            if value is not None and value != "":
                return value
    return None


def numbers(
    sources: list[Any], group: str, keyword: str, count: int
) -> NDArray[np.float64] | None:
    """`count` numbers of an attribute, None where it is blank; raises `FormatError` for
    another count and for what is not finite.
    """
    value = find(sources, group, keyword)
    if value is None or (not np.isscalar(value) and len(value) == 0):
        return None
    values = np.asarray(value, dtype=np.float64).ravel()
    if values.shape != (count,):
        raise FormatError(
            f"{keyword} holds {values.size} numbers instead of {count}; repair the file"
        )
    if not np.isfinite(values).all():
        raise FormatError(f"{keyword} is not finite; repair the file")
    return values


def number(sources: list[Any], group: str, keyword: str, default: float) -> float:
    """The number of an attribute, `default` where it is blank."""
    values = numbers(sources, group, keyword, 1)
    return default if values is None else float(values[0])


def text(dataset: Any, keyword: str) -> str:
    """A value for people and for grouping: one line of at most 64 characters, as the
    standard allows.
    """
    value = dataset.get(keyword)
    return "" if value is None else " ".join(str(value).split())[:64]
