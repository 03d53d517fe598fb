"""How a case comes to the network's grid, and its logits back to the source's voxels.

The rules as they are by default are trivox's own. A model that was made by another
program carries that program's rules in its plan.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from trivox.planning.spacing import ANISOTROPY
from trivox.schema import Frozen
from trivox.volumes.geometry import AS_STORED, Orientation
from trivox.volumes.volume import Order, Spacing, Ties


class Interpolation(Frozen):
    """How values are found on another grid.

    order: of the splines; order_across: along a single coarse axis, where slices are
    resampled one by one; slicewise: whether they are (None: where voxels are more than
    `threshold` times longer along that axis); looks_at: the grid whose voxels tell
    first, the `old` or the `new` one; clip: overshoot of splines is cut to the range of
    the `channel` or of each `slice`; ties: between labels of equal weight, see
    `trivox.volumes.volume.Ties`; half: the result is rounded to half precision.
    """

    order: Order = 3
    order_across: Order = 0
    slicewise: bool | None = None
    threshold: float = Field(ANISOTROPY, gt=0)
    looks_at: Literal["old", "new"] = "old"
    clip: Literal["channel", "slice"] = "channel"
    ties: Ties = "smallest"
    half: bool = False

    def coarse_axis(self, old: Spacing, new: Spacing) -> int | None:
        """The axis along which slices are resampled one by one, of grids of `old` and
        `new` spacing in mm.

        Two axes that share the largest spacing have no single coarse direction; then
        all three are interpolated.
        """
        if self.slicewise is False:
            return None
        grids = (old, new) if self.looks_at == "old" else (new, old)
        if self.slicewise:
            return _single_longest(grids[0])
        for edges in grids:
            if max(edges) / min(edges) > self.threshold:
                return _single_longest(edges)
        return None


def _single_longest(edges: Sequence[float]) -> int | None:
    longest = np.isclose(edges, max(edges))
    return int(np.argmax(longest)) if longest.sum() == 1 else None


class GridRules(Frozen):
    """The way from a source to the network's grid and back.

    axes: `canonical` ones, or the array as it is `stored`; slices: their distance
    becomes the plan's, or is `kept`; image, labels, logits: how each is resampled; None
    for an image: it is not, and the network's grid is the cropped source's; sums: the
    precision that logits of windows are summed in.
    """

    axes: Literal["canonical", "stored"] = "canonical"
    slices: Literal["resampled", "kept"] = "resampled"
    image: Interpolation | None = Interpolation()
    labels: Interpolation = Interpolation(order=1)
    # the slices that were taken one by one go back one by one
    logits: Interpolation = Interpolation(order=1, looks_at="new")
    sums: Literal["single", "half"] = "single"

    @property
    def orientation(self) -> Orientation | None:
        """How a source is turned; None: to canonical axes."""
        return AS_STORED if self.axes == "stored" else None

    def target(self, source: Spacing, planned: Spacing) -> Spacing:
        """Spacing of the network's grid for a `source`, along the network's axes."""
        if self.slices == "resampled":
            return planned
        return (source[0], *planned[1:])
