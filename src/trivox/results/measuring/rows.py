"""What statistics say of a structure, and how each number is meant."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]
Point = Annotated[list[float], Field(min_length=3, max_length=3)]
Voxel = Annotated[list[int], Field(min_length=3, max_length=3)]


class Intensity(TypedDict):
    """Of the voxels of a structure in one channel."""

    mean: float
    std: float
    min: float
    p05: float
    p25: float
    median: float
    p75: float
    p95: float
    max: float


class VoxelBox(TypedDict):
    """The first and the last voxel `[x, y, z]`, from 0, as stored in the label map."""

    first: Voxel
    last: Voxel


class StructureRow(TypedDict, total=False):
    """What is known of a structure; `CONVENTIONS` says how each number is meant."""

    present: bool
    truncated: bool
    touches: list[str]
    voxels: int
    seen_ml: float
    volume_ml: float | None
    volume_ci95_ml: Bounds | None
    volume_ml_low: float | None
    volume_ml_high: float | None
    longest_mm: float | None
    axial_long_mm: float | None
    axial_short_mm: float | None
    axial_slice: int | None
    components: int | None
    centroid_ras_mm: Point | None
    centroid_lps_mm: Point | None
    box_voxels: VoxelBox | None
    intensity: dict[str, Intensity | None]


class CaseStatistics(TypedDict):
    """Of a case: units of its channels, null where they are not known, size of a voxel
    of the label map, and its structures by label.
    """

    units: dict[str, Literal["HU"] | None]
    spacing_zyx_mm: Point
    structures: dict[str, StructureRow]


class StatisticsFile(TypedDict):
    """What statistics.json says beside its task and version; units, conventions: how the
    numbers are meant.
    """

    notice: str
    units: dict[str, str]
    conventions: dict[str, str]
    cases: dict[str, CaseStatistics]


CONVENTIONS = {
    "null": "not known: the structure was not found, or its number would lie since it "
    "is truncated",
    "present": "whether any voxel has the label; if not, its volume is 0",
    "truncated": "whether the structure touches the border of what the image shows: "
    "its sides, sides of slices that were added to it, or voxels that the scanner did "
    "not measure; an image of one slice shows no whole structure",
    "touches": "the sides that it touches, as the direction of the patient nearest to "
    "them: R, L, A, P, S, I",
    "voxels": "of the label in the label map",
    "seen_ml": "their volume, of truncated structures as well",
    "volume_ml": "volume in millilitres: voxels times the volume of one",
    "volume_ci95_ml": "95 % interval of the volume, where predictions.json has one",
    "volume_ml_low": "lower bound of the 90 % interval of the true volume (split "
    "conformal, of cases like those of validation), where the model knows one; not sure "
    "where predictions.json says `caution`",
    "volume_ml_high": "its upper bound",
    "longest_mm": "longest straight line between two faces of voxels of one connected "
    "piece (26 neighbours); maximum 3D diameter of IBSI, L0JK",
    "axial_long_mm": "longest line between two faces of one piece within a slice along "
    "the image axis nearest to head and foot (the slice itself, where there is one)",
    "axial_short_mm": "longest line at right angles to it within the convex hull of the "
    "same piece in the same slice",
    "axial_slice": "number of that slice, from 0, along its axis of the label map",
    "components": "connected pieces (26 neighbours)",
    "centroid_ras_mm": "mean of the voxels' centres [x, y, z], growing to right, "
    "anterior, superior as in NIfTI",
    "centroid_lps_mm": "the same point, growing to left, posterior, superior as in DICOM",
    "box_voxels": "first and last voxel [x, y, z], from 0, of the label map",
    "intensity": "of the image's voxels of the label, by channel, of truncated "
    "structures of what is seen; std with n; null where the case lacks the channel",
}

UNITS = {
    "*_ml": "millilitres",
    "volume_ml_*": "millilitres",
    "*_mm": "millimetres",
    "voxels": "number of voxels",
    "intensity": "as the image files store it; see `units` of each case",
}
