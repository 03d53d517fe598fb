"""Reading and writing X-ray exams; `trivox.datasets.layouts.exams` says which files
they are.
"""

import csv
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from trivox.array_files import opened_archive
from trivox.config.choices import ViewFormat, require_choice
from trivox.datasets.dataset import Case
from trivox.datasets.layouts.exams import GEOMETRY, TABLE, VIEWS, VOLUME
from trivox.errors import FormatError, GeometryError, ResourceError
from trivox.files import whole_folder, write_text
from trivox.projection.attenuation import WATER_PER_MM
from trivox.projection.geometry import Geometry
from trivox.projection.geometry_files import (
    GeometryRecord,
    Kind,
    read_record,
    record_of,
    write_record,
)
from trivox.projection.grids import Point
from trivox.projection.xrays import Xrays
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Array, Volume

PREVIEW = "preview.png"
EXAM_FILES = (GEOMETRY, *VIEWS, VOLUME, PREVIEW)
"""What `write_exam` leaves."""
ADVICE = "render or export the views again"
"""What to do about views that cannot be read."""


@dataclass(frozen=True, eq=False)
class Exam:
    """X-rays of one patient (b = 1) and where they stand in the world of the CT.

    isocentre: RAS mm; kind: what the images hold; water_per_mm: attenuation of water,
    1/mm.
    """

    xrays: Xrays
    isocentre: Point
    kind: Kind
    water_per_mm: float


# -- reading ---------------------------------------------------------------------------
def read_exam(case: Case) -> Exam:
    """Views and geometry of a case; the CT is not opened.

    Raises `FormatError` for files that are missing, damaged or incomplete,
    `GeometryError` for views that the geometry file does not describe; both name the
    file.
    """
    case.require_usable()
    if case.geometry is None:
        raise GeometryError(
            f"{case.name}: no geometry.json; X-rays without geometry cannot be "
            "reconstructed"
        )
    record = read_record(case.geometry)
    images = read_views(case.images[0])
    expected = (len(record.views), *record.detector)
    if images.shape != expected:
        raise GeometryError(
            f"{case.images[0]}: views of shape {images.shape}, {case.geometry.name} "
            f"describes {expected} (views, rows, columns); correct one of them"
        )
    if not np.isfinite(images).all():
        raise GeometryError(f"{case.images[0]}: holds NaN or infinite values; {ADVICE}")
    return exam_of(images, record)


def exam_of(images: Array, record: GeometryRecord) -> Exam:
    """Views `(v, rows, columns)` float32 with their record, as a batch of one."""
    xrays = Xrays.of(torch.from_numpy(images)[None], record.geometry)
    return Exam(xrays, record.isocentre_mm, record.kind, record.water_per_mm)


def read_views(path: Path) -> Array:
    """`views.npz` or `views.nii.gz` as float32 `(v, rows, columns)`; raises
    `FormatError` naming the file.
    """
    if path.suffix != ".npz":
        return np.ascontiguousarray(read_volume(path).array[0], dtype=np.float32)
    try:
        with opened_archive(path) as archive:
            views = archive["views"] if "views" in archive.files else None
    except FileNotFoundError as error:
        raise FormatError(f"{path}: file not found; {ADVICE}") from error
    # memory is missing where the file promises more than it holds
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path}: cannot be read ({error}); {ADVICE}") from error
    if views is None or views.ndim != 3 or views.dtype.kind not in "iuf":
        raise FormatError(
            f"{path}: needs an array 'views' of numbers, (views, rows, columns)"
        )
    return np.ascontiguousarray(views, dtype=np.float32)


# -- writing ---------------------------------------------------------------------------
def write_exam(
    folder: Path,
    images: Array,
    geometry: Geometry,
    *,
    isocentre: Point,
    kind: Kind = "line integrals",
    volume: Volume | None = None,
    water_per_mm: float = WATER_PER_MM,
    view_format: ViewFormat = "npz",
    preview: bytes | None = None,
) -> None:
    """Write an exam: views `(v, rows, columns)`, geometry, the CT as it is, and
    `preview.png`; all of it or nothing.

    An exam that stands there is replaced. Raises `GeometryError` for views that
    `geometry` does not describe.
    """
    require_choice("view format", view_format, ViewFormat)
    record = record_of(
        geometry, isocentre=isocentre, kind=kind, water_per_mm=water_per_mm
    )
    expected = (geometry.views, *geometry.detector)
    if images.shape != expected:
        raise GeometryError(
            f"views of shape {images.shape}, the geometry describes {expected}"
        )
    try:
        with whole_folder(folder) as temporary:
            write_record(temporary / GEOMETRY, record)
            _write_views(temporary, images, record, view_format)
            if volume is not None:
                write_volume(temporary / VOLUME, volume)
            if preview is not None:
                (temporary / PREVIEW).write_bytes(preview)
    except OSError as error:
        raise ResourceError(
            f"{folder}: cannot be written ({error.strerror or error}); check the disk "
            "and its rights"
        ) from error


def _write_views(
    folder: Path, images: Array, record: GeometryRecord, view_format: ViewFormat
) -> None:
    if view_format == "npz":
        views = images.astype(np.float32, copy=False)
        np.savez_compressed(folder / VIEWS[0], views=views)
    else:
        write_volume(folder / VIEWS[1], views_volume(images, record))


def views_volume(images: Array, record: GeometryRecord) -> Volume:
    """Views as a stack of slices whose in-plane spacing is the detector's; rows run
    downwards in viewers.
    """
    row, column = record.views[0].pixel_mm if record.views else (1.0, 1.0)
    affine = np.diag([column, -row, 1.0, 1.0])
    return Volume(images.astype(np.float32, copy=False)[None], affine)


def write_patients(root: Path, rows: Sequence[tuple[str, str, str]]) -> None:
    """Write `patients.csv` with (case, patient, split) a row, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("case", "patient", "split"), *rows])
    write_text(root / TABLE, text.getvalue())
