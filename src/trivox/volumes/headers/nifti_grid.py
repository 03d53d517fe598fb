"""Where a NIfTI header puts its voxels: its unit, sform and qform, and what about them
is doubtful (nifti1.h, "3D image orientation and location in space").
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from nibabel.quaternions import quat2mat
from numpy.typing import NDArray

from trivox.errors import GeometryError
from trivox.volumes.volume import spacing_of

Affine = NDArray[np.float64]

MM_OF_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
"""Metre, millimetre and micron, by the code in the lowest three bits of xyzt_units."""
SPACING_ROUNDING = 1e-3
"""Share of a spacing that rounding explains."""
QUATERNION_ROUNDING = 3.6e-7
"""Of the sum of squares of a quaternion."""
PLACE_ROUNDING = 1e-2
"""Share of a voxel, at the corners of the image, that rounding explains."""


@dataclass(frozen=True, eq=False)
class Placement:
    """affine: voxel index `(x, y, z, 1)` to RAS mm; unit_mm: of the header's numbers;
    remarks: what a person should know of them.
    """

    affine: Affine
    unit_mm: float
    remarks: tuple[str, ...]


def placement_of(raw: Any) -> Placement:
    """Where a nibabel NIfTI header puts its voxels; an unknown unit is taken for mm.

    The sform is taken before the qform, as nibabel and ITK do. Raises `GeometryError`
    where the only one that there is cannot be used.
    """
    code = int(raw["xyzt_units"]) % 8
    unit_mm = MM_OF_UNIT.get(code, 1.0)
    with np.errstate(invalid="ignore", over="ignore"):  # of damaged numbers
        affine, remarks = _chosen(raw, unit_mm)
    if code > max(MM_OF_UNIT):
        remarks.append(f"unknown unit: xyzt_units holds {code}; taken for mm")
    affine[:3] *= unit_mm
    return Placement(affine, unit_mm, tuple(remarks))


def _chosen(raw: Any, unit_mm: float) -> tuple[Affine, list[str]]:
    """The affine in the header's unit, and remarks on what contradicts it."""
    has_qform = int(raw["qform_code"]) != 0
    if int(raw["sform_code"]) != 0:
        sform = np.asarray(raw.get_sform(), dtype=np.float64)
        return sform, _doubts(raw, sform, has_qform, unit_mm)
    if has_qform:
        return _qform(raw), []
    _require_sizes(_voxel_sizes(raw))
    base = np.asarray(raw.get_base_affine(), dtype=np.float64)
    remark = (
        "no sform and no qform: the header does not say where right and left are; "
        "read as Analyze files are, x from right to left"
    )
    return base, [remark]


def _doubts(raw: Any, sform: Affine, has_qform: bool, unit_mm: float) -> list[str]:
    """What contradicts the sform."""
    sizes = _voxel_sizes(raw)
    if not np.isfinite(sform).all():
        return []  # refused by whoever makes a volume of it
    if not has_qform:
        given = np.isfinite(sizes) & (sizes > 0)
        taken = np.array(spacing_of(sform)[::-1])
        if given.all() and not _same_spacing(sizes, taken):
            return [
                f"sform and pixdim disagree: {_spacings(taken, sizes, unit_mm)}; the "
                "sform was taken"
            ]
        return []
    try:
        qform = _qform(raw)
    except GeometryError as error:
        return [f"qform cannot be used: {error}; the sform was taken"]
    return _disagreement(raw, sform, qform, unit_mm)


def _disagreement(raw: Any, sform: Affine, qform: Affine, unit_mm: float) -> list[str]:
    """Where sform and qform differ by more than rounding explains."""
    taken = np.array(spacing_of(sform)[::-1])
    other = np.array(spacing_of(qform)[::-1])
    size = [int(n) for n in raw.get_data_shape()[:3]]
    ends = np.maximum([*size, 1, 1][:3], 1) - 1
    corners = np.array(list(product((0, 1), repeat=3))) * ends
    corners = np.column_stack((corners, np.ones(8)))
    apart = _farthest(corners, sform - qform)
    turned = qform.copy()
    turned[:3, :3] *= taken / np.maximum(other, 1e-30)
    misplaced = _farthest(corners, sform - turned)
    reach = float(np.linalg.norm(ends * taken))
    rounding = PLACE_ROUNDING * taken.min() + _turn_rounding(raw) * reach
    if _same_spacing(taken, other) and misplaced <= rounding:
        return []
    return [
        f"sform and qform disagree: {_spacings(taken, other, unit_mm)}, voxels up to "
        f"{apart * unit_mm:.3g} mm apart; the sform was taken"
    ]


def _farthest(corners: Affine, difference: Affine) -> float:
    """The longest way that a difference of affines moves one of the corners."""
    ways = corners @ difference.T
    return float(np.linalg.norm(ways[:, :3], axis=1).max())


def _turn_rounding(raw: Any) -> float:
    """Radians by which the rotation may be off, since the first number of its
    quaternion is only known from the others, which are in single precision.
    """
    smallest = np.sqrt(QUATERNION_ROUNDING)
    return float(QUATERNION_ROUNDING / max(raw.get_qform_quaternion()[0], smallest))


def _same_spacing(first: Affine, second: Affine) -> bool:
    return bool(np.allclose(first, second, rtol=SPACING_ROUNDING, atol=0))


def _spacings(taken: Affine, other: Affine, unit_mm: float) -> str:
    """Two spacings `(x, y, z)` in words, `(z, y, x)`."""
    texts = []
    for spacing in (taken, other):
        steps = (spacing[::-1] * unit_mm).tolist()
        texts.append(" x ".join(f"{step:.4g}" for step in steps))
    return f"spacing {texts[0]} mm (z y x) and {texts[1]} mm"


def _voxel_sizes(raw: Any) -> NDArray[np.float64]:
    """`pixdim` of x, y, z; axes that the image does not have are 1 where nothing is
    said.
    """
    sizes = np.asarray(raw["pixdim"][1:4], dtype=np.float64).copy()
    axes = int(raw["dim"][0])
    missing = np.arange(3) >= axes
    sizes[missing & (sizes == 0)] = 1
    return sizes


def _require_sizes(sizes: NDArray[np.float64]) -> None:
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        shown = " x ".join(f"{size:g}" for size in sizes.tolist())
        raise GeometryError(
            f"pixdim holds {shown} (x y z), which are no voxel sizes; repair the header"
        )


def _qform(raw: Any) -> Affine:
    """The affine of offset, quaternion and voxel sizes (nifti1.h, method 2)."""
    sizes = _voxel_sizes(raw)
    _require_sizes(sizes)
    try:
        rotation = quat2mat(raw.get_qform_quaternion())
    except ValueError:
        rotation = np.full((3, 3), np.nan)
    if not np.isfinite(rotation).all():
        b, c, d = (float(raw[f"quatern_{letter}"]) for letter in "bcd")
        raise GeometryError(
            f"the quaternion ({b:g}, {c:g}, {d:g}) is no rotation; repair the qform"
        )
    if float(raw["pixdim"][0]) == -1:
        sizes[2] = -sizes[2]  # any other value is taken for 1, as the standard says
    affine = np.eye(4)
    affine[:3, :3] = rotation * sizes
    affine[:3, 3] = [float(raw[f"qoffset_{axis}"]) for axis in "xyz"]
    return affine
