"""X-rays of CTs: `trivox.drr`."""

from collections.abc import Sequence
from pathlib import Path

from trivox.config.choices import ViewFormat
from trivox.errors import UsageError
from trivox.projection.geometry import SDD_MM, SOD_MM
from trivox.tasks.console import Console, Quiet
from trivox.tasks.reconstruction.rendering import (
    DrrRequest,
    RenderedExams,
    render_exams,
)
from trivox.verbs.settings import series_choice
from trivox.verbs.texts import described

Angles = str | Sequence[float]
"""Degrees: numbers, or text with commas between."""


@described
def drr(
    ct: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    views: Angles = (0.0, 90.0),
    detector: int = 256,
    pixel: float | None = None,
    sod: float = SOD_MM,
    sdd: float = SDD_MM,
    secondary: Angles = (0.0,),
    noise: float | None = None,
    isocentre: tuple[float, float, float] | None = None,
    format: ViewFormat = "npz",
    seed: int = 0,
    series: str | None = None,
    slice_tolerance: float | None = None,
    console: Console | None = None,
) -> RenderedExams:
    """Render X-rays of CTs: line integrals, their geometry and a preview, as a dataset
    to train and predict on.

    A CT that cannot be rendered is named and passed over; then `DataError` is raised at
    the end. Wrong settings raise `RecipeError` or `GeometryError` before anything is
    written.
    """
    scans = [ct] if isinstance(ct, str | Path) else list(ct)
    request = DrrRequest(
        tuple(Path(scan) for scan in scans),
        Path(out),
        angles=_degrees(views, "views"),
        secondary=_degrees(secondary, "secondary"),
        detector=detector,
        pixel_mm=pixel,
        sod=sod,
        sdd=sdd,
        photons=noise,
        isocentre=isocentre,
        view_format=format,
        seed=seed,
        choice=series_choice(series, slice_tolerance),
    )
    return render_exams(request, console or Quiet())


def _degrees(angles: Angles, option: str) -> tuple[float, ...]:
    parts = angles.split(",") if isinstance(angles, str) else angles
    try:
        return tuple(float(part) for part in parts)
    except ValueError as error:
        raise UsageError(
            f"--{option} {angles}: give degrees with commas between, for example 0,90"
        ) from error
