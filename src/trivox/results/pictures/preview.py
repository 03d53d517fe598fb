"""What a preview shows of a case, and where it looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trivox.evaluation.report.case_view import CaseView, clearest_channel, member_mask
from trivox.evaluation.report.drawing import LINES, PALETTE, Style, grey_range
from trivox.results.measuring.borders import Mask
from trivox.results.measuring.rows import StructureRow
from trivox.volumes.volume import Shape

ENOUGH = 10**6
"""Voxels of a structure that its centroid is taken from."""
WINDOWS = ((-160.0, 240.0), (-1350.0, 150.0), (-450.0, 1050.0))
"""Of soft tissue, lung and bone in HU: the first that holds the largest structure."""


@dataclass(frozen=True, eq=False)
class Preview:
    """What a preview shows.

    title: name of the case; view: the case, its prediction as label indices; rows: what
    was measured of each target; hounsfield: whether each channel is in HU; notes: what else
    is to be said; doubts: why not to rely on it.
    """

    title: str
    view: CaseView
    rows: Mapping[str, StructureRow]
    hounsfield: Sequence[bool] = ()
    notes: Sequence[str] = ()
    doubts: Sequence[str] = ()

    @cached_property
    def present(self) -> list[str]:
        """Names of targets that were found, the outer ones first."""
        names = [name for name, row in self.rows.items() if row["present"]]
        return sorted(names, key=self.view.depth)

    @cached_property
    def largest(self) -> str | None:
        """The target of most voxels; the first of equals."""
        if not self.present:
            return None
        return max(self.present, key=lambda name: self.rows[name]["voxels"])

    def mask(self, name: str) -> Mask:
        """Where a target was found, `(z, y, x)`."""
        return member_mask(self.view.prediction, self.view.targets[name])

    @cached_property
    def centre(self) -> Shape:
        """The voxel of the largest target that is nearest to its centroid; the middle of
        the image where nothing was found.
        """
        if self.largest is None:
            z, y, x = self.view.shape
            return z // 2, y // 2, x // 2
        mask = self.mask(self.largest)
        inside = np.flatnonzero(mask)
        some = inside[:: len(inside) // ENOUGH + 1]
        places = np.stack(np.unravel_index(some, mask.shape), axis=1)
        apart = (places - places.mean(axis=0)) * self.view.spacing
        nearest = (apart**2).sum(axis=1).argmin()
        z, y, x = places[nearest].tolist()
        return z, y, x

    @cached_property
    def channel(self) -> int:
        """The channel that shows the largest target most clearly."""
        if self.largest is None:
            return 0
        return clearest_channel(self.view.image, self.mask(self.largest))

    @property
    def is_hounsfield(self) -> bool:
        """Whether the channel that is shown is in HU."""
        return any(self.hounsfield[self.channel : self.channel + 1])

    @cached_property
    def limits(self) -> tuple[float, float]:
        """Values shown as black and white."""
        image = self.view.image[self.channel]
        if not self.is_hounsfield:
            z, y, x = self.centre
            return grey_range([image[z], image[:, y], image[:, :, x]])
        if self.largest is None:
            return WINDOWS[0]
        middle = float(np.median(image[self.mask(self.largest)]))
        inside = [window for window in WINDOWS if window[0] <= middle <= window[1]]
        return inside[0] if inside else WINDOWS[-1]

    @cached_property
    def styles(self) -> dict[str, Style]:
        """Colour and line of each target."""
        styles: dict[str, Style] = {}
        for number, name in enumerate(self.rows):
            colour = PALETTE[number % len(PALETTE)]
            line = LINES[number // len(PALETTE) % len(LINES)]
            styles[name] = {"colour": colour, "line": line}
        return styles

    @cached_property
    def caption(self) -> str:
        """What the grey values are."""
        low, high = self.limits
        unit = " HU" if self.is_hounsfield else ""
        name = self.view.channels[self.channel]
        return f"{name}, black to white {low:.4g} to {high:.4g}{unit}"
