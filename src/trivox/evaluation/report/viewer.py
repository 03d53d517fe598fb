"""Surfaces of a case in 3-D, on a page that a person can turn without a network: its
data, and the page itself.
"""

import base64
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivox.evaluation.report.case_view import CaseView, member_mask
from trivox.evaluation.report.figures import PALETTE
from trivox.evaluation.report.pages import page_environment
from trivox.evaluation.report.surface_meshes import Mesh, mask_surface
from trivox.files import write_text

PAGE_VERTICES, EMBEDDED_VERTICES = 100_000, 40_000
"""Of all surfaces together; a vertex and its two triangles take 24 characters, so pages
stay below 2.5 and 1 MB.
"""
MOST_VERTICES = 20_000
OPACITIES = (1.0, 0.5, 0.3)
"""Of a target that holds no other, one other, more others."""
OUTLINE_COLOUR = "#c8cdd4"

Scene = dict[str, Any]


def surface_scene(
    view: CaseView, body: Mesh | None, *, vertices: int = PAGE_VERTICES
) -> Scene | None:
    """What the viewer draws, ready for JSON; None if neither prediction nor reference
    holds any target.

    body: surface drawn as a faint outline round the targets; vertices: at most so many
    in all targets together.

    `regions`: name, colour, opacity, depth of nesting and Dice of each target.
    `meshes`: the surfaces, outermost first; `positions` are whole numbers from -32767
    to 32767 in `(x, y, z)` RAS, as base64 of little-endian int16, `triangles` of
    uint16; position / 32767 * `radius_mm` + `centre_mm` is a place in mm. `step_mm`:
    edge of the coarsest voxels.
    """
    view = view.labelled()
    maps = {"prediction": view.prediction} | (
        {} if view.reference is None else {"reference": view.reference}
    )
    share = min(MOST_VERTICES, vertices // max(1, len(view.targets) * len(maps)))
    found: list[tuple[str, str, Mesh]] = []
    for name in sorted(view.targets, key=view.depth):
        for kind, labels in maps.items():
            mesh = mask_surface(
                member_mask(labels, view.targets[name]), view.affine, limit=share
            )
            found += [] if mesh is None else [(name, kind, mesh)]
    if not found:
        return None
    shown = [*([] if body is None else [("", "outline", body)]), *found]
    points = np.concatenate([mesh.vertices for _, _, mesh in shown])
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    radius = float(np.abs(points - centre).max())
    return {
        "regions": [
            _region(view, number, name) for number, name in enumerate(view.targets)
        ],
        "meshes": [
            {"region": name, "kind": kind, **_packed(mesh, centre, radius)}
            for name, kind, mesh in shown
        ],
        "outline": OUTLINE_COLOUR,
        "radius_mm": radius,
        "centre_mm": [float(value) for value in centre],
        "step_mm": max(mesh.step_mm for _, _, mesh in found),
    }


def _region(view: CaseView, number: int, name: str) -> dict[str, Any]:
    own = set(view.targets[name])
    held = sum(set(indices) < own for indices in view.targets.values())
    return {
        "name": name,
        "colour": PALETTE[number % len(PALETTE)],
        "opacity": OPACITIES[min(held, len(OPACITIES) - 1)],
        "depth": view.depth(name),
        "dice": view.dice.get(name),
    }


def _packed(mesh: Mesh, centre: NDArray[np.float32], radius: float) -> dict[str, str]:
    positions = np.round((mesh.vertices - centre) / radius * 32767).astype("<i2")
    return {
        "positions": _base64(positions),
        "triangles": _base64(mesh.triangles.astype("<u2")),
    }


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode()


def write_viewer(out: Path, scene: Scene, *, title: str) -> None:
    """Write a page with one scene to `out` atomically; it loads nothing from anywhere."""
    page = (
        page_environment()
        .get_template("viewer.html.j2")
        .render(title=title, scene=scene)
    )
    write_text(out, page)
