"""X-rays as they are drawn everywhere: the image, its angle above it, and which side of
the patient lies on which edge.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trivox.evaluation.report.drawing import Style, draw_cut, mark_sides, name_above
from trivox.projection.geometry import Geometry
from trivox.volumes.volume import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {
    0.0: "AP",
    180.0: "PA",
    -180.0: "PA",
    90.0: "lateral, source left",
    -90.0: "lateral, source right",
}
OBLIQUE = 0.38
"""Component (the sine of 22.5 degrees) from which a direction has a second letter."""
LETTER = 0.078
"""Inches of a letter of a view's name."""
LINE = 0.15
"""Inches of a line of it."""


def draw_view(
    axes: "Axes",
    image: Array,
    geometry: Geometry,
    view: int,
    *,
    brightest: float,
    room: float,
) -> Any:
    """Draw a view `(rows, columns)` as seen from the source, to scale in mm.

    brightest: value drawn white; 0 is black. room: inches that the name above may take
    from side to side. Returns the image as matplotlib's colour bar needs it.
    """
    row_mm, column_mm = geometry.pixel_mm[view].tolist()
    width = image.shape[1] * column_mm
    height = image.shape[0] * row_mm
    style: Style = {"cmap": "gray", "vmin": 0, "vmax": brightest, "aspect": "equal"}
    drawn = draw_cut(axes, image[::-1], (width, height), **style)
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    mark_sides(axes, side_letters(geometry, view), fontsize=10)
    name = "\n".join(name_lines(view_name(geometry, view), room))
    name_above(axes, name, up=16, fontsize=9, alpha=0.8, va="bottom")
    return drawn


def view_name(geometry: Geometry, view: int) -> str:
    """The angle as people say it: `0° AP`, `45°, 10° cranial`."""
    primary = float(geometry.primary[view])
    secondary = float(geometry.secondary[view])
    name = f"{primary:g}° {NAMES.get(primary, '')}".rstrip()
    if not secondary:
        return name
    side = "cranial" if secondary > 0 else "caudal"
    return f"{name}, {abs(secondary):g}° {side}"


def name_lines(name: str, room: float) -> list[str]:
    """A view's name in lines of at most `room` inches, broken at commas where that
    suffices.
    """
    letters = max(1, int(room / LETTER))
    parts = name.split(", ")
    if max(len(part) for part in parts) < letters:
        name = ", ".join(part.replace(" ", "\u00a0") for part in parts)
    return textwrap.wrap(name, letters, break_long_words=False)


def side_letters(geometry: Geometry, view: int) -> tuple[str, str, str, str]:
    """Sides of the patient at the left, right, upper and lower edge of a view."""
    _, down, right = (axis[view] for axis in geometry.axes())
    left = letters((-right).tolist())
    up = letters((-down).tolist())
    return left, letters(right.tolist()), up, letters(down.tolist())


def letters(direction: Sequence[float]) -> str:
    """The side of the patient that a direction `(x, y, z)` points to, largest component
    first, as DICOM writes it: LA.
    """
    first, *others = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    axes = [first, *(axis for axis in others if abs(direction[axis]) > OBLIQUE)]
    return "".join(_letter(axis, direction[axis]) for axis in axes)


def _letter(axis: int, component: float) -> str:
    positive, negative = ("RL", "AP", "SI")[axis]
    return negative if component < 0 else positive
