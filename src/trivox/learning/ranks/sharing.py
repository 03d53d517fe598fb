"""Work that is shared by the ranks, or done by the first for all.

Without torchrun everything here is a plain call.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any, TypeVar, cast

from trivox import errors
from trivox.errors import ResourceError, TrivoxError
from trivox.learning.ranks.group import FIRST, receive, send
from trivox.learning.ranks.parcels import Kinds, packed, unpacked
from trivox.learning.runtime import rank, world_size

T = TypeVar("T")
R = TypeVar("R")
MISSING = object()


def shared(
    items: Sequence[T], compute: Callable[[Sequence[T]], Iterable[R]], kinds: Kinds
) -> list[R]:
    """Results of all items in their order, on the first rank; the others compute every
    so manieth of them and get none.

    compute: gives a result for each item that it is given, in order; kinds: classes that
    are part of the results. An error of any rank is raised by the first as well.
    """
    part = items[rank() :: world_size()]
    if rank() != FIRST:
        _deliver(lambda: list(compute(part)))
        return []
    mine = list(compute(part))
    others = [_fetched(other, kinds) for other in range(1, world_size())]
    rows = zip_longest(mine, *others, fillvalue=MISSING)
    return [cast(R, each) for each in chain(*rows) if each is not MISSING]


def from_first(compute: Callable[[], R], kinds: Kinds) -> R:
    """What the first rank computes, while the others wait for it."""
    if rank() != FIRST:
        return cast(R, unpacked(receive(FIRST), kinds))
    result = compute()
    if world_size() > 1:
        content = packed(result)
        for other in range(1, world_size()):
            send(content, other)
    return result


def _deliver(compute: Callable[[], list[Any]]) -> None:
    """Send what is computed to the first rank, or the error that ends this one."""
    try:
        result = compute()
    except (TrivoxError, OSError, MemoryError) as error:
        send(packed((type(error).__name__, str(error))), FIRST)
        raise
    send(packed(result), FIRST)


def _fetched(other: int, kinds: Kinds) -> list[Any]:
    """What another rank computed; raises the error that ended it."""
    result = unpacked(receive(other), kinds)
    if isinstance(result, list):
        return result
    kind, reason = result
    raise getattr(errors, kind, ResourceError)(reason)
