"""What is written about an X-ray: its angle, and which side of the patient lies on
which edge.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trivox.evaluation.report.figures import INK
from trivox.projection.geometry import Geometry

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


def view_name(geometry: Geometry, view: int) -> str:
    """The angle as people say it: `0° AP`, `45°, 10° cranial`."""
    primary, secondary = float(geometry.primary[view]), float(geometry.secondary[view])
    name = (
        f"{primary:g}° {NAMES.get(primary, '')}".rstrip()
        if primary in NAMES
        else f"{primary:g}°"
    )
    tilt = (
        f", {abs(secondary):g}° {'cranial' if secondary > 0 else 'caudal'}"
        if secondary
        else ""
    )
    return name + tilt


def mark_edges(axes: "Axes", geometry: Geometry, view: int) -> None:
    """Which side of the patient lies on which edge of an X-ray."""
    _, down, right = (axis[view].tolist() for axis in geometry.axes())
    edges = [
        ([-c for c in right], (0, 0.5), (-9, 0)),
        (right, (1, 0.5), (9, 0)),
        ([-c for c in down], (0.5, 1), (0, 9)),
        (down, (0.5, 0), (0, -9)),
    ]
    for direction, place, shift in edges:
        axes.annotate(
            letters(direction),
            place,
            xycoords="axes fraction",
            xytext=shift,
            textcoords="offset points",
            color=INK,
            fontsize=10,
            ha="center",
            va="center",
            annotation_clip=False,
        )


def letters(direction: Sequence[float]) -> str:
    """The side of the patient that a direction `(x, y, z)` points to, largest component
    first, as DICOM writes it: LA.
    """
    names = ("RL", "AP", "SI")
    order = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    kept = [
        axis for i, axis in enumerate(order) if i == 0 or abs(direction[axis]) > OBLIQUE
    ]
    return "".join(names[axis][direction[axis] < 0] for axis in kept)
