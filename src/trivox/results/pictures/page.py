"""`CASE.png`: a case in three planes and a row of axial slices, with its structures,
their volumes and what there is to doubt; no name of a patient, only of the case.
"""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from trivox.evaluation.report.case_view import CaseView
from trivox.evaluation.report.drawing import (
    INK,
    PALETTE,
    PLANES,
    WIDTH,
    Plane,
    Size,
    Style,
    dark_figure,
    draw_cut,
    draw_grey_cut,
    escaped,
    frame_plane,
    heading,
    legend_below,
    name_above,
    outline_mask,
    panel,
    png,
    scale_bar,
    shown_planes,
)
from trivox.results.measuring.borders import DIRECTIONS
from trivox.results.measuring.rows import StructureRow
from trivox.results.pictures.preview import Preview
from trivox.version import RESEARCH_USE
from trivox.volumes.volume import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXIAL = PLANES[0]
SLICES = 5
"""In the row below the planes."""
FILL = 0.3
"""How opaque structures are."""

# inches
MARGIN = 0.42
TALLEST = 3.6
BELOW_PLANES = 0.55
"""For the lower marks and the scale bar."""
STRIP_ABOVE = 0.35
STRIP_TALLEST = 1.7
STRIP_GAP = 0.15
LEAST_ROOM = 1.5
LEAST_STRIP_ROOM = 0.7
"""For the name of a plane, however narrow that is."""
NOTICE_DOWN = 0.38
NOTES_DOWN = 0.66
LINE = 0.19
LEGEND_ROW = 0.195
FOOTER = 0.28
LETTER = 0.072
"""Of a letter in notes and legends, about."""

LONGEST_NAME = 32
LONGEST_LINE = 125
MOST_NAMES = 45


@dataclass(frozen=True, eq=False)
class _Page:
    """How a preview is laid out."""

    preview: Preview

    @cached_property
    def lines(self) -> list[tuple[str, str]]:
        """What is said above the planes, with its colour."""
        preview = self.preview
        coloured = dict.fromkeys((preview.caption, *preview.notes), INK)
        coloured |= dict.fromkeys(preview.doubts, PALETTE[-1])
        lines: list[tuple[str, str]] = []
        for words, colour in coloured.items():
            lines += [(line, colour) for line in _wrapped(words)]
        return lines

    @cached_property
    def planes(self) -> list[Plane]:
        """Those that show more than a line of voxels."""
        return shown_planes(self.preview.view.shape)

    @cached_property
    def sizes(self) -> list[Size]:
        """Of each plane in mm."""
        view = self.preview.view
        return [plane.size_mm(view.shape, view.spacing) for plane in self.planes]

    @cached_property
    def scale(self) -> float:
        """Inches per mm, the same for all planes."""
        across = sum(width for width, _ in self.sizes)
        tallest = max(height for _, height in self.sizes)
        room = WIDTH - 2 * MARGIN * len(self.sizes)
        return min(room / across, TALLEST / tallest)

    @cached_property
    def rooms(self) -> list[float]:
        """Inches from side to side that each plane and its name take."""
        return [
            max(width * self.scale + 2 * MARGIN, LEAST_ROOM) for width, _ in self.sizes
        ]

    @cached_property
    def tall(self) -> float:
        """Height of the planes in inches."""
        return max(height for _, height in self.sizes) * self.scale

    @cached_property
    def strip(self) -> CaseView | None:
        """What is shown in a row of axial slices: the surroundings of all structures;
        None where there are no structures or no slices.
        """
        view = self.preview.view
        if not self.preview.present or len(self.planes) == 1:
            return None
        return view.zoomed()

    @cached_property
    def strip_scale(self) -> float:
        """Inches per mm in that row."""
        if self.strip is None:
            return 0.0
        width, height = AXIAL.size_mm(self.strip.shape, self.strip.spacing)
        room = (WIDTH - (SLICES + 1) * STRIP_GAP) / SLICES
        return min(room / width, STRIP_TALLEST / height)

    @cached_property
    def strip_height(self) -> float:
        """Inches of that row and of what is above it."""
        if self.strip is None:
            return 0.0
        _, height = AXIAL.size_mm(self.strip.shape, self.strip.spacing)
        return height * self.strip_scale + STRIP_ABOVE

    @cached_property
    def entries(self) -> list[Any]:
        """Of the legend."""
        return _entries(self.preview)

    @cached_property
    def columns(self) -> int:
        """Of the legend: as many as the longest entry leaves room for."""
        longest = max((len(entry.get_label()) for entry in self.entries), default=0)
        room = WIDTH / (longest * LETTER + 0.6)
        return max(1, min(5, int(room)))

    @property
    def foot(self) -> float:
        """Inches of the legend."""
        rows = -(-len(self.entries) // self.columns)
        return FOOTER + rows * LEGEND_ROW

    @property
    def head(self) -> float:
        """Inches above the planes."""
        return NOTES_DOWN + len(self.lines) * LINE + MARGIN

    @property
    def height(self) -> float:
        """Inches of the whole."""
        below = self.foot + self.strip_height
        return self.head + self.tall + BELOW_PLANES + below


def preview_figure(preview: Preview) -> bytes:
    """PNG of a preview; equal previews have equal bytes."""
    page = _Page(preview)
    figure = dark_figure(page.height)
    _write_head(figure, page)
    _draw_planes(figure, page)
    if page.strip is not None:
        _draw_strip(figure, page, page.strip)
    if page.entries:
        legend_below(figure, page.entries, columns=page.columns)
    return png(figure)


def _write_head(figure: "Figure", page: _Page) -> None:
    heading(figure, _shortened(page.preview.title), down=0.12, fontsize=12)
    bold: Style = {"color": PALETTE[0], "weight": "bold"}
    heading(figure, RESEARCH_USE, down=NOTICE_DOWN, fontsize=10, **bold)
    for number, (line, colour) in enumerate(page.lines):
        down = NOTES_DOWN + number * LINE
        heading(figure, line, down=down, fontsize=9, color=colour)


def _draw_planes(figure: "Figure", page: _Page) -> None:
    """The planes through the centre, one beside the other, on one scale."""
    preview = page.preview
    scale = page.scale
    middle = page.height - page.head - page.tall / 2
    left = (WIDTH - sum(page.rooms)) / 2
    for plane, size, room in zip(page.planes, page.sizes, page.rooms, strict=True):
        width, height = (edge * scale for edge in size)
        inset = left + (room - width) / 2
        axes = panel(figure, (inset, middle - height / 2, width, height))
        index = preview.centre[plane.axis]
        _draw_plane(axes, preview, preview.view, plane, index)
        place = place_text(preview.view, plane, index)
        frame_plane(axes, plane, f"{plane.title}, {place}", size)
        left += room
        if plane is page.planes[0]:
            scale_bar(axes, size[0], scale)


def _draw_strip(figure: "Figure", page: _Page, strip: CaseView) -> None:
    """Axial slices from the lower to the upper end of all structures."""
    labelled = np.flatnonzero((strip.prediction > 0).any(axis=(1, 2)))
    places = np.linspace(0, len(labelled) - 1, min(SLICES, len(labelled)) * 2 + 1)
    slices = labelled[np.rint(places[1::2]).astype(int)].tolist()
    size = AXIAL.size_mm(strip.shape, strip.spacing)
    width, height = (edge * page.strip_scale for edge in size)
    room = max(width, LEAST_STRIP_ROOM) + STRIP_GAP
    left = (WIDTH - len(slices) * room) / 2 + (room - width) / 2
    for index in slices:
        axes = panel(figure, (left, page.foot, width, height))
        _draw_plane(axes, page.preview, strip, AXIAL, index)
        axes.set_xlim(0, size[0])
        axes.set_ylim(0, size[1])
        place = place_text(strip, AXIAL, index)
        name_above(axes, place, up=4, fontsize=8, alpha=0.8)
        left += room


def _draw_plane(
    axes: "Axes", preview: Preview, view: CaseView, plane: Plane, index: int
) -> None:
    """A slice in grey with its structures, the inner ones over the outer ones."""
    size = plane.size_mm(view.shape, view.spacing)
    cut = plane.cut(view.image[preview.channel], index)
    draw_grey_cut(axes, cut, size, preview.limits)
    masks = _masks(preview, view, plane.cut(view.prediction, index))
    colours = {name: preview.styles[name]["colour"] for name in masks}
    draw_cut(axes, _filled(masks, colours, cut.shape), size)
    steps = (view.spacing[plane.rows], view.spacing[plane.columns])
    for name, mask in masks.items():
        style = preview.styles[name]
        outline_mask(axes, mask, *steps, "black", width=2.2)
        line = style["line"]
        outline_mask(axes, mask, *steps, style["colour"], width=1.2, line=line)


def _masks(preview: Preview, view: CaseView, labels: Array) -> dict[str, Array]:
    """The structures that a slice shows, outer ones first."""
    masks = {}
    for name in preview.present:
        mask = np.isin(labels, view.targets[name])
        if mask.any():
            masks[name] = mask
    return masks


def _filled(
    masks: Mapping[str, Array], colours: Mapping[str, str], shape: tuple[int, ...]
) -> Array:
    """All structures as one translucent layer of bytes `(rows, columns, 4)`, later ones
    over earlier ones.
    """
    from matplotlib.colors import to_rgb

    colour = np.zeros((*shape, 3), np.float32)
    seen = np.zeros((*shape, 1), np.float32)  # opacity
    for name, mask in masks.items():
        below = seen[mask] * (1 - FILL)
        seen[mask] = FILL + below
        mixed = FILL * np.array(to_rgb(colours[name])) + below * colour[mask]
        colour[mask] = mixed / seen[mask]
    layer = np.concatenate([colour, seen], axis=-1)
    return np.asarray(np.rint(layer * 255), np.uint8)


# -- words -----------------------------------------------------------------------------
def _entries(preview: Preview) -> list[Any]:
    """The legend: each structure that was found, and how many others there are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[Any] = []
    names = [name for name in preview.rows if name in preview.present]
    for name in names[:MOST_NAMES]:
        style = preview.styles[name]
        text = f"{_shortened(name)}  {volume_text(preview.rows[name])}"
        entries.append(
            Patch(
                facecolor=(style["colour"], FILL),
                edgecolor=style["colour"],
                linestyle=style["line"],
                label=escaped(text),
            )
        )
    more = len(names) - len(entries)
    if more:
        entries.append(Line2D([], [], linestyle="none", label=f"and {more} more"))
    return entries


def place_text(view: CaseView, plane: Plane, index: int) -> str:
    """Where a slice lies in the world: "S 35 mm" is 35 mm from the origin upwards."""
    position = view.position_mm(plane.axis, index)
    downwards, upwards = DIRECTIONS[plane.axis]
    letter = upwards if position >= 0 else downwards
    return f"{letter} {abs(position):.0f} mm"


def volume_text(row: StructureRow) -> str:
    """The volume of a structure for people, with its interval."""
    volume = row["volume_ml"]
    if volume is None:
        return f"{number_text(row['seen_ml'])} ml seen, truncated"
    interval = row["volume_ci95_ml"]
    if interval is None:
        return f"{number_text(volume)} ml"
    low, high = map(number_text, interval)
    return f"{number_text(volume)} ml ({low} to {high})"


def number_text(number: float) -> str:
    """Three digits, and all before the point."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, LONGEST_LINE)


def _shortened(name: str) -> str:
    """A name that leaves room for others."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 1]}…"
