"""Surfaces of a case in 3-D, on a page that a person can turn without a network: its
data, and the page itself.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from trivox.evaluation.report.case_view import CaseView, member_mask
from trivox.evaluation.report.drawing import PALETTE
from trivox.evaluation.report.pages import rendered
from trivox.evaluation.report.surface_meshes import Mesh, mask_surface
from trivox.files import write_text

PAGE_VERTICES = 100_000
EMBEDDED_VERTICES = 40_000
"""Of all surfaces together; a vertex and its two triangles take 24 characters, so pages
stay below 2.5 and 1 MB.
"""
MOST_VERTICES = 20_000
OPACITIES = (1.0, 0.5, 0.3)
"""Of a target that holds no other, one other, more others."""
OUTLINE_COLOUR = "#c8cdd4"


class DrawnRegion(TypedDict):
    """How a target is drawn; depth: in how many others it lies."""

    name: str
    colour: str
    opacity: float
    depth: int
    dice: float | None


class SurfaceScene(TypedDict):
    """What the viewer draws, ready for JSON.

    regions: the targets; meshes: the surfaces, outermost first: region, kind,
    positions, whole numbers from -32767 to 32767 in `(x, y, z)` RAS, as base64 of
    little-endian int16, triangles of uint16. position / 32767 * radius_mm + centre_mm
    is a place in mm; step_mm: edge of the coarsest voxels; outline: colour.
    """

    regions: list[DrawnRegion]
    meshes: list[dict[str, str]]
    outline: str
    radius_mm: float
    centre_mm: list[float]
    step_mm: float


@dataclass(frozen=True, eq=False)
class _Surface:
    """The surface of a region; kind: prediction, reference or outline."""

    region: str
    kind: str
    mesh: Mesh

    def packed(self, centre: NDArray[np.float32], radius: float) -> dict[str, str]:
        """As the viewer reads it: whole numbers for what lies in the scene's cube."""
        scaled = (self.mesh.vertices - centre) / radius * 32767
        return {
            "region": self.region,
            "kind": self.kind,
            "positions": _base64(np.round(scaled).astype("<i2")),
            "triangles": _base64(self.mesh.triangles.astype("<u2")),
        }


def surface_scene(
    view: CaseView, body: Mesh | None, *, vertices: int = PAGE_VERTICES
) -> SurfaceScene | None:
    """What the viewer draws; None if neither prediction nor reference
    holds any target.

    body: surface drawn as a faint outline round the targets; vertices: at most so many
    in all targets together.
    """
    view = view.labelled()
    surfaces = _surfaces(view, vertices)
    if not surfaces:
        return None
    step_mm = max(surface.mesh.step_mm for surface in surfaces)
    if body is not None:
        surfaces.insert(0, _Surface("", "outline", body))
    points = np.concatenate([surface.mesh.vertices for surface in surfaces])
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    radius = float(np.abs(points - centre).max())
    regions = [_region(view, number, name) for number, name in enumerate(view.targets)]
    return {
        "regions": regions,
        "meshes": [surface.packed(centre, radius) for surface in surfaces],
        "outline": OUTLINE_COLOUR,
        "radius_mm": radius,
        "centre_mm": [float(value) for value in centre],
        "step_mm": step_mm,
    }


def _surfaces(view: CaseView, vertices: int) -> list[_Surface]:
    """The surfaces of all targets, outermost first, with at most `vertices` together."""
    maps = {"prediction": view.prediction}
    if view.reference is not None:
        maps["reference"] = view.reference
    share = min(MOST_VERTICES, vertices // max(1, len(view.targets) * len(maps)))
    surfaces = []
    for name in sorted(view.targets, key=view.depth):
        for kind, labels in maps.items():
            mask = member_mask(labels, view.targets[name])
            mesh = mask_surface(mask, view.affine, limit=share)
            if mesh is not None:
                surfaces.append(_Surface(name, kind, mesh))
    return surfaces


def _region(view: CaseView, number: int, name: str) -> DrawnRegion:
    labels = set(view.targets[name])
    held = sum(set(indices) < labels for indices in view.targets.values())
    return {
        "name": name,
        "colour": PALETTE[number % len(PALETTE)],
        "opacity": OPACITIES[min(held, len(OPACITIES) - 1)],
        "depth": view.depth(name),
        "dice": view.dice.get(name),
    }


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode()


def write_viewer(out: Path, scene: SurfaceScene, *, title: str) -> None:
    """Write a page with one scene to `out` atomically; it loads nothing from anywhere."""
    write_text(out, rendered("viewer.html.j2", title=title, scene=scene))
