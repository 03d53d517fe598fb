"""How close a synthetic CT comes to the acquired one: pure functions of two arrays in
HU, and all of them for a case.

What each number means stands in `convention`, which goes into every metrics.json: a
PSNR without its range and window means nothing (the same volume scores 24 dB or 6 dB).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, binary_fill_holes, label

from trivox.datasets.exams import Exam
from trivox.errors import GeometryError
from trivox.evaluation.metrics.content import VolumeMetrics
from trivox.evaluation.metrics.overlap import confusion, dice
from trivox.evaluation.metrics.statistics import CONVENTION as INTERVALS
from trivox.learning.losses.similarity import psnr, ssim3d
from trivox.projection.attenuation import attenuation_of
from trivox.projection.geometry import Grid
from trivox.projection.grids import Point, middle_of, on_grid, placed
from trivox.projection.projector import Projector
from trivox.volumes.geometry import canonical_orientation, reorient
from trivox.volumes.volume import Array, Volume

NOTICE = "synthetic CT, not acquired"
WINDOW = (-1024.0, 1476.0)
X2CT_WINDOW = (-1024.0, 1476.0)
X2CT_PEAK = 4095.0
X2CT_EQUAL_DB = 100.0
AIR_HU = -950.0
LUNG_HU = -400.0
BONE_HU = 200.0
FINEST = 256
"""Voxels along an edge up to which the ceiling of a grid is measured; a chest CT of 512
is averaged to that.
"""

Mask = NDArray[np.bool_]
HuWindow = tuple[float, float]


def convention(window: HuWindow) -> dict[str, str]:
    """What every number means, in words for metrics.json; window: HU."""
    low, high = window
    return {
        "notice": NOTICE,
        "window": f"[{low:g}, {high:g}] HU; prediction and reference are clipped to it "
        "for every HU figure but Dice",
        "grid": "of the prediction; a reference on another grid is averaged onto it "
        "(interpolated linearly if coarser)",
        "psnr_db": "10 log10(R^2 / MSE), one MSE over the whole volume, "
        f"R = {high - low:g} HU, the window; at most 100",
        "psnr_reference_grid_db": "psnr_db on the reference's own grid (at most "
        f"{FINEST} voxels along an edge), the prediction interpolated onto it; null if "
        "both have one grid",
        "psnr_ceiling_db": "psnr_reference_grid_db of the reference itself, brought to "
        "the prediction's grid: what this grid allows, to compare with "
        "psnr_reference_grid_db and not with psnr_db; null if both have one grid",
        "ssim": "3-D structural similarity, Gaussian sigma 1.5 voxels, 11 taps (fewer "
        "along shorter axes), K 0.01 and 0.03, data range 1 for the window, population "
        "covariance, valid region only",
        "mae_hu": "mean absolute difference over the whole volume",
        "mae_body_hu": "the same over the body of the reference: "
        f"HU > {AIR_HU:g}, closed by a voxel, largest 6-connected component, holes "
        "filled in each axial slice",
        "psnr_slice4095_x2ct_db": "only to compare with literature (X2CT-GAN and its "
        "followers): window [-1024, 1476], peak 4095, mean over the slices of each "
        "axis, then over axes; at most 100 dB a slice. Air alone scores about 20",
        "lung_dice": f"Dice of HU < {LUNG_HU:g} inside the body, each volume with its "
        "own body; null if empty in both",
        "bone_dice": f"Dice of HU > {BONE_HU:g} (contrast medium too); null if empty "
        "in both",
        "projection_rmse": "root mean square of measured minus re-projected line "
        "integrals over the views given; a perfect volume does not score 0, since its "
        "voxels are coarser than what was X-rayed; null without calibrated views",
        "ci95": INTERVALS,
    }


NO_METRICS = ("notice", "window", "grid", "ci95")
METRICS = tuple(name for name in convention(WINDOW) if name not in NO_METRICS)


@dataclass(frozen=True, eq=False)
class Pair:
    """Prediction and reference `(z, y, x)` HU on one grid about `isocentre`;
    fine: the reference on its own voxels, None if both had that grid.
    """

    prediction: Array
    reference: Array
    grid: Grid
    fine: "OwnVoxels | None"


def measure_volume(
    prediction: Volume,
    reference: Volume,
    *,
    window: HuWindow,
    projections: Exam | None = None,
) -> VolumeMetrics:
    """Every metric of `METRICS` for one case; both volumes in HU, one channel, any
    orientation.

    projections: the X-rays that the prediction was made from. Raises `GeometryError`
    where the prediction's axes do not run along the patient's, or its channels are not
    one.
    """
    isocentre = (0.0, 0.0, 0.0) if projections is None else projections.isocentre
    pair = on_one_grid(prediction, reference, window=window, isocentre=isocentre)
    metrics = measure_arrays(pair.prediction, pair.reference, window=window)
    metrics["psnr_reference_grid_db"] = None
    metrics["psnr_ceiling_db"] = None
    if pair.fine is not None:
        metrics["psnr_reference_grid_db"] = pair.fine.score(pair.prediction)
        metrics["psnr_ceiling_db"] = pair.fine.score(pair.reference)
    metrics["projection_rmse"] = None
    if projections is not None:
        misfit = projection_rmse(pair.prediction, pair.grid, projections)
        metrics["projection_rmse"] = misfit
    return metrics


def measure_arrays(
    prediction: Array, reference: Array, *, window: HuWindow
) -> VolumeMetrics:
    """Every metric that needs no geometry, of HU `(z, y, x)` on one grid; raises
    `GeometryError` if shapes differ.
    """
    if prediction.shape != reference.shape:
        raise GeometryError(
            f"prediction {prediction.shape} and reference {reference.shape} need one "
            "grid"
        )
    predicted = normalised(prediction, window)
    expected = normalised(reference, window)
    clipped = np.clip(prediction, *window) - np.clip(reference, *window)
    error = np.abs(clipped).astype(np.float64)
    body = body_mask(reference)
    lungs = body & (reference < LUNG_HU)
    predicted_lungs = body_mask(prediction) & (prediction < LUNG_HU)
    return {
        "psnr_db": float(psnr(predicted, expected)),
        "ssim": float(ssim3d(predicted, expected)),
        "mae_hu": float(error.mean()),
        "mae_body_hu": float(error[body].mean()) if body.any() else None,
        "psnr_slice4095_x2ct_db": psnr_slices_x2ct(prediction, reference),
        "lung_dice": dice(confusion(predicted_lungs, lungs)),
        "bone_dice": dice(confusion(prediction > BONE_HU, reference > BONE_HU)),
    }


def normalised(hounsfield: Array, window: HuWindow) -> torch.Tensor:
    """HU clipped to the window as 0..1, `(1, 1, z, y, x)` fp32."""
    low, high = window
    share = (np.clip(hounsfield, low, high) - low) / (high - low)
    return torch.from_numpy(share).float()[None, None]


def psnr_slices_x2ct(prediction: Array, reference: Array) -> float:
    """The PSNR of the X2CT literature, dB: see `convention`.

    Written from the metric's published definition.
    """
    clipped = np.clip(prediction, *X2CT_WINDOW).astype(np.float64)
    error = np.square(clipped - np.clip(reference, *X2CT_WINDOW))
    peak = 20 * np.log10(X2CT_PEAK)
    means = []
    for in_slice in ((1, 2), (0, 2), (0, 1)):
        squares = np.maximum(error.mean(axis=in_slice), np.finfo(float).tiny)
        decibels = peak - 10 * np.log10(squares)
        means.append(np.minimum(decibels, X2CT_EQUAL_DB).mean())
    return float(np.mean(means))


def body_mask(hounsfield: Array) -> Mask:
    """The patient in a CT `(z, y, x)`: see `mae_body_hu` in `convention`.

    Empty where everything is air.
    """
    # Closing must not open what touches the border.
    padded = np.pad(hounsfield > AIR_HU, 1, mode="edge")
    dense = binary_closing(padded)[1:-1, 1:-1, 1:-1]
    parts, count = label(dense)
    if not count:
        return np.zeros(hounsfield.shape, bool)
    largest = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return np.stack([binary_fill_holes(plane) for plane in largest])


def projection_rmse(hounsfield: Array, grid: Grid, exam: Exam) -> float | None:
    """How far re-projected line integrals of HU `(z, y, x)` on `grid` are from the
    measured ones, root mean square.

    None unless the exam has views of line integrals.
    """
    present = exam.xrays.present[0]
    if exam.kind != "line integrals" or not bool(present.any()):
        return None
    volume = torch.from_numpy(np.ascontiguousarray(hounsfield)).float()
    attenuation = attenuation_of(volume, water=exam.water_per_mm)
    projector = Projector(exam.xrays.geometry, grid)
    misfit = projector.project(attenuation[None]) - exam.xrays.images
    return float(misfit[0, present].double().square().mean().sqrt())


# -- grids -----------------------------------------------------------------------------
def on_one_grid(
    prediction: Volume,
    reference: Volume,
    *,
    window: HuWindow,
    isocentre: Point = (0.0, 0.0, 0.0),
) -> Pair:
    """Both on the prediction's grid; see `measure_volume`."""
    grid = grid_of(prediction, isocentre=isocentre)
    straight = reorient(prediction, canonical_orientation(prediction.affine))
    fine = None
    if not _same_grid(reference, grid, isocentre):
        fine = OwnVoxels.of(reference, grid, window, isocentre=isocentre)
    return Pair(
        prediction=straight.array[0].astype(np.float32, copy=False),
        reference=on_grid(reference, grid, isocentre=isocentre),
        grid=grid,
        fine=fine,
    )


def grid_of(volume: Volume, *, isocentre: Point) -> Grid:
    """The grid of a volume whose axes run along the patient's; raises `GeometryError`
    for any other.
    """
    if volume.channels != 1:
        raise GeometryError(
            f"a CT has one channel, this volume has {volume.channels}; give one of them"
        )
    straight = reorient(volume, canonical_orientation(volume.affine))
    linear = straight.affine[:3, :3]
    oblique = linear - np.diag(np.diag(linear))
    steps = np.array(straight.shape[::-1]) - 1.0
    off_mm = np.abs(oblique @ steps).max()
    if off_mm > 0.1 * min(straight.spacing):
        raise GeometryError(
            "the axes of this volume are oblique; give a reconstruction as 'trivox "
            "predict' writes it"
        )
    x, y, z = np.subtract(middle_of(straight), isocentre).tolist()
    return Grid(straight.shape, straight.spacing, (x, y, z))


@dataclass(frozen=True, eq=False)
class OwnVoxels:
    """A reference on voxels of its own size inside a coarser grid's field of view.

    fine: these voxels; truth: the reference on them, as `normalised`.
    """

    grid: Grid
    fine: Grid
    truth: torch.Tensor
    window: HuWindow

    @classmethod
    def of(
        cls, reference: Volume, grid: Grid, window: HuWindow, *, isocentre: Point
    ) -> "OwnVoxels":
        """Of a reference that a prediction on `grid` is compared with."""
        spacing = reorient(reference, canonical_orientation(reference.affine)).spacing
        voxels = np.rint(np.divide(grid.extent_mm, spacing)).clip(1, FINEST)
        z, y, x = voxels.astype(int).tolist()
        fine = grid.resized((z, y, x))
        truth = normalised(on_grid(reference, fine, isocentre=isocentre), window)
        return cls(grid, fine, truth, window)

    def score(self, hounsfield: Array) -> float:
        """PSNR on these voxels of HU `(z, y, x)` on the coarser grid, dB."""
        origin = (0.0, 0.0, 0.0)
        coarse = placed(hounsfield, self.grid, isocentre=origin)
        brought = on_grid(coarse, self.fine, isocentre=origin)
        return float(psnr(normalised(brought, self.window), self.truth))


def _same_grid(volume: Volume, grid: Grid, isocentre: Point) -> bool:
    """Whether the voxels of a volume are those of the grid, to 0.01 mm."""
    try:
        other = grid_of(volume, isocentre=isocentre)
    except GeometryError:
        return False
    if other.shape != grid.shape:
        return False
    same_spacing = np.allclose(other.spacing, grid.spacing, atol=1e-2)
    return same_spacing and np.allclose(other.centre_mm, grid.centre_mm, atol=1e-2)
