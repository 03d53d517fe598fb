"""Labels as descriptions of datasets write them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trivox.datasets.labels import LabelScheme
from trivox.datasets.listing import ADVICE
from trivox.errors import LabelError
from trivox.schema import validated

BACKGROUND = "background"
IGNORE = "ignore"
"""Labels that nnU-Net gives a meaning of their own."""


def parse_labels(
    raw: Mapping[str, Any],
    *,
    where: Path,
    regions: Mapping[str, Sequence[int]] | None = None,
    order: Sequence[int] = (),
    ignore: int | None = None,
) -> LabelScheme:
    """Labels as any layout writes them: name -> value, value -> name, or name -> list
    of values (regions).

    The entry `background` (or value 0) is the background and `ignore` the ignored
    value, as in nnU-Net. Raises `LabelError` naming `where` for values that are no
    integers or contradict each other.
    """
    if not isinstance(raw, Mapping):
        raise LabelError(
            f"{where}: labels must map names to whole numbers, found {raw!r:.60}; "
            f"{ADVICE}"
        )
    try:
        values = {name: _as_ints(value) for name, value in _by_name(raw).items()}
    except (TypeError, ValueError) as error:
        raise LabelError(
            f"{where}: labels must map names to whole numbers, found {dict(raw)}"
        ) from error
    background = _background(values)
    ignored = values.pop(IGNORE, () if ignore is None else (ignore,))
    labels = {name: each for name, each in values.items() if each != (background,)}
    if any(isinstance(raw.get(name), list | tuple) for name in labels):
        regions = labels
        labels = _labels_of(labels)
    content = {
        "labels": {name: each[0] for name, each in labels.items()},
        "regions": regions or {},
        "region_order": order,
        "background": background,
        "ignore": ignored[0] if ignored else None,
    }
    return validated(LabelScheme, content, where=where, error=LabelError, advice=ADVICE)


def _by_name(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Value -> name (MSD) turned round; a name given to two values gets the value
    appended.
    """
    if not all(
        str(key).lstrip("-").isdigit() and isinstance(value, str)
        for key, value in raw.items()
    ):
        return dict(raw)
    counts = Counter(raw.values())
    return {
        name if counts[name] == 1 else f"{name}_{value}": value
        for value, name in raw.items()
    }


def _background(labels: Mapping[str, tuple[int, ...]]) -> int:
    """The first value under the name of the background, else 0."""
    for name, values in labels.items():
        if name.lower() == BACKGROUND and values:
            return values[0]
    return 0


def _labels_of(regions: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """A label for each value of the regions, under the name of the first region that is
    this value alone, or its number.
    """
    names: dict[int, str] = {}
    for name, values in regions.items():
        if len(values) == 1:
            names.setdefault(values[0], name)
    present = sorted(set[int]().union(*regions.values()))
    return {names.get(value, f"label_{value}"): (value,) for value in present}


def _as_ints(value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if any(
        isinstance(v, bool) or (isinstance(v, float) and not v.is_integer())
        for v in values
    ):
        raise ValueError(value)
    return tuple(int(v) for v in values)
