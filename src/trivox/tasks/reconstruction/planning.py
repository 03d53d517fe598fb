"""What is decided before a reconstruction is learnt: the grid, and the X-rays that are
rendered to learn from.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch

from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.exams import Exam, read_exam
from trivox.errors import DataError, PlanError
from trivox.inference.reconstructor import volume_network
from trivox.networks.registry import XRAY_NETWORKS
from trivox.networks.xray2ct.views2d import PIXEL_STEP
from trivox.planning.volumes import VolumePlan
from trivox.preparation.exam_store import fitted_views
from trivox.projection.geometry import SDD_MM, SOD_MM
from trivox.volumes.formats import read_header
from trivox.volumes.volume import Shape, spacing_of

T = TypeVar("T")
TASK = "reconstruction"
"""Its name, as plans carry it."""
MARGIN = 1.05
"""On the radius that a rendered detector shows whole."""
LOOKED_AT = 20
"""Cases whose headers are read."""


def plan_reconstruction(dataset: Dataset, recipe: Recipe) -> VolumePlan:
    """A plan for the training cases of a dataset under a recipe; raises `PlanError` or
    `RecipeError` for one that cannot be.

    The grid is a cube that holds the largest CT looked at; rendered X-rays are taken at
    the distances of the stored ones.
    """
    options = recipe.reconstruction
    cases = dataset.training_cases
    shape = _grid_shape(recipe)
    looked_at = cases[:: max(1, len(cases) // LOOKED_AT)]
    extent = max(_each_readable(_extent, looked_at), default=0.0) or _extent(cases[0])
    step = options.spacing_mm or extent / max(shape)
    exam = next(_each_readable(read_exam, cases), None) or read_exam(cases[0])
    detector = _detector(exam, options.detector or 2 * max(shape))
    sod, sdd = _distances(exam)
    z, y, x = (size * options.render_factor for size in shape)
    plan = VolumePlan(
        dataset=dataset.name,
        task=TASK,
        shape=shape,
        spacing=(step, step, step),
        render_shape=(z, y, x),
        window=options.window,
        water_per_mm=exam.water_per_mm,
        detector=detector,
        pixel_mm=_pixel(recipe, exam, detector, MARGIN * max(shape) * step / 2),
        sod_mm=sod,
        sdd_mm=sdd,
        network=recipe.network,
        network_options=recipe.network_options,
        prior=options.prior,
        prior_iterations=options.prior_iterations,
        consistency_steps=options.consistency_steps,
        final_steps=options.final_steps,
        batch_size=recipe.batch_size or 4,
        reasons=_reasons(recipe, extent, exam),
    )
    _require_possible(plan, recipe, exam)
    return plan


def _each_readable(read: Callable[[Case], T], cases: Iterable[Case]) -> Iterator[T]:
    """What `read` makes of the cases that can be read."""
    for case in cases:
        try:
            yield read(case)
        except DataError:
            continue


def _require_possible(plan: VolumePlan, recipe: Recipe, exam: Exam) -> None:
    """Refuse grids, growth and detectors that the network cannot take, before hours of
    preparing.
    """
    with torch.device("meta"):
        network = volume_network(plan)
    for size in recipe.reconstruction.growth:
        network.run_at(size)
    detectors = [plan.detector]
    if exam.xrays.views:
        detectors.append(fitted_views(exam, plan).geometry.detector)
    for rows, columns in detectors:
        if rows % PIXEL_STEP or columns % PIXEL_STEP:
            raise PlanError(
                f"X-rays of {rows} x {columns} pixels: the network needs multiples of "
                f"{PIXEL_STEP}; pad or resample stored X-rays, or set "
                "reconstruction.detector to such a size that divides theirs"
            )


def _pixel(
    recipe: Recipe, exam: Exam, detector: tuple[int, int], radius: float
) -> float:
    """Edge of a detector's pixel, mm: as stored, or so that a sphere of that radius
    about the isocentre is shown whole.
    """
    sod, sdd = _distances(exam)
    if radius >= sod:
        raise PlanError(
            f"a field of view of {2 * radius:.0f} mm reaches the source at {sod:.0f} "
            "mm; set spacing_mm"
        )
    if recipe.reconstruction.views == "stored":
        return _stored_pixel(exam, detector)
    width: float = 2 * sdd * radius / (sod**2 - radius**2) ** 0.5
    return width / max(detector)


def _grid_shape(recipe: Recipe) -> Shape:
    if recipe.network not in XRAY_NETWORKS:
        raise PlanError(
            f"network '{recipe.network}' makes no volume of X-rays; choose one of "
            f"{', '.join(XRAY_NETWORKS)}"
        )
    if recipe.patch_size is None:
        size = XRAY_NETWORKS[recipe.network].native
        return size, size, size
    if len(recipe.patch_size) != 3:
        raise PlanError(
            f"patch_size {recipe.patch_size}: a reconstruction needs a grid of three "
            "sizes, z y x"
        )
    z, y, x = recipe.patch_size
    return z, y, x


def _extent(case: Case) -> float:
    """Longest edge of a case's CT, mm."""
    assert case.volume is not None
    header = read_header(case.volume, choice=case.choice)
    spacing = spacing_of(header.affine)
    return max(n * step for n, step in zip(header.shape, spacing, strict=True))


def _detector(exam: Exam, wanted: int) -> tuple[int, int]:
    """The stored detector with pixels joined until no edge is longer than `wanted`, as
    far as they divide it.
    """
    rows, columns = exam.xrays.geometry.detector
    if not exam.xrays.views or max(rows, columns) < wanted:
        return wanted, wanted
    factor = max(rows, columns) // wanted
    while rows % factor or columns % factor:
        factor -= 1
    return rows // factor, columns // factor


def _distances(exam: Exam) -> tuple[float, float]:
    """Source to isocentre and to detector, mm: the mean of an exam's views."""
    geometry = exam.xrays.geometry
    if not geometry.views:
        return SOD_MM, SDD_MM
    return float(geometry.sod.mean()), float(geometry.sdd.mean())


def _stored_pixel(exam: Exam, detector: Sequence[int]) -> float:
    pixel: torch.Tensor = exam.xrays.geometry.pixel_mm.mean()
    return float(pixel) * exam.xrays.geometry.detector[0] / detector[0]


def _reasons(recipe: Recipe, extent: float, exam: Exam) -> dict[str, str]:
    options = recipe.reconstruction
    spacing = f"the longest edge of the CTs looked at is {extent:.0f} mm"
    wanted = options.detector or "twice the grid"
    return {
        "spacing": "as set" if options.spacing_mm else spacing,
        "render_shape": f"{options.render_factor} times the grid: what it cannot "
        "resolve is in the X-rays",
        "window": "HU seen as 0 to 1; errors are measured in it",
        "detector": f"stored X-rays have {exam.xrays.geometry.detector}, {wanted} "
        "asked for",
    }
