"""Points on closed ways, put in turn without a step for each of them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Loops:
    """Points on closed ways.

    sites: of each point, its plane, and its row and column doubled so that they are
    whole, `(n, 3)`; after: the number of the point that follows each.
    """

    sites: Numbers
    after: Numbers

    @cached_property
    def heads(self) -> Numbers:
        """The smallest number in the loop of each point; found by jumps twice as far
        each time.
        """
        heads = np.arange(len(self.after))
        jump = self.after
        while True:
            smaller = np.minimum(heads, heads[jump])
            if (smaller == heads).all():
                return heads
            heads = smaller
            jump = jump[jump]

    @cached_property
    def in_turn(self) -> tuple[Numbers, Numbers]:
        """The points of all loops, each loop in its order from its head on, and where
        each begins.
        """
        order = np.lexsort((-self._steps_left, self.heads))
        in_order = self.heads[order]
        starts = np.flatnonzero(np.diff(in_order, prepend=-1))
        return order, starts

    @property
    def _steps_left(self) -> Numbers:
        """How many points follow each until its loop comes back to its head, likewise."""
        numbers = np.arange(len(self.after))
        is_last = self.after == self.heads
        jump = np.where(is_last, numbers, self.after)
        left: Numbers = (~is_last).astype(np.int64)
        while (jump != jump[jump]).any():
            left = left + left[jump]
            jump = jump[jump]
        return left


def joined(begins: Numbers, ends: Numbers) -> Loops:
    """Lines joined to loops, since one begins where another ends; both as sites
    `(n, 3)`. The points are numbered along rows.
    """
    lowest = np.minimum(begins.min(axis=0), ends.min(axis=0))
    sizes = begins.max(axis=0) - lowest + 1
    _, rows, columns = sizes
    scale = np.array([rows * columns, columns, 1])
    begin_keys = (begins - lowest) @ scale
    end_keys = (ends - lowest) @ scale
    order = np.argsort(begin_keys)
    after = np.searchsorted(begin_keys[order], end_keys)
    return Loops(begins[order], after[order])
