"""Geometry as JSON beside the views, and from DICOM's positioner attributes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError, model_validator

from trivox.errors import FormatError, GeometryError
from trivox.files import read_json, write_json
from trivox.projection.attenuation import WATER_PER_MM
from trivox.projection.geometry import Geometry
from trivox.schema import Frozen, first_complaint

CONVENTION = (
    "RAS mm about the isocentre; primary 0 = AP (source anterior), "
    "90 = source on the patient's left, 180 = PA; "
    "secondary + = detector towards the head; "
    "images as seen from the source, rows downwards; "
    "line integrals of attenuation, no unit"
)
Kind = Literal["line integrals", "silhouettes", "uncalibrated"]
FARTHEST_MM = 1e5
"""No source, detector or patient is as far away."""
Length = Annotated[float, Field(gt=0, le=FARTHEST_MM)]
Place = Annotated[float, Field(ge=-FARTHEST_MM, le=FARTHEST_MM)]
Angle = Annotated[float, Field(ge=-3600, le=3600)]
Count = Annotated[int, Field(ge=1)]


class ViewRecord(Frozen):
    """One view of `geometry.json`; lengths in mm, pixel and offset as (rows, columns)."""

    primary_degrees: Angle
    secondary_degrees: Angle = 0.0
    source_isocentre_mm: Length
    source_detector_mm: Length
    pixel_mm: tuple[Length, Length]
    offset_mm: tuple[Place, Place] = (0.0, 0.0)

    @model_validator(mode="after")
    def _possible(self) -> "ViewRecord":
        if self.source_isocentre_mm >= self.source_detector_mm:
            raise ValueError(
                "the isocentre must lie between source and detector: "
                f"source_isocentre_mm {self.source_isocentre_mm:g} < "
                f"source_detector_mm {self.source_detector_mm:g}"
            )
        if not -90 < self.secondary_degrees < 90:
            raise ValueError(
                f"secondary_degrees {self.secondary_degrees:g} "
                "must lie between -90 and 90"
            )
        return self


class GeometryRecord(Frozen):
    """Content of `geometry.json`.

    kind: what the images hold: line integrals of attenuation; silhouettes (1 inside, or
    the length of the ray in the shape); or uncalibrated images, whose scale is not
    known. isocentre_mm: RAS place in the world of the CT. water_per_mm: attenuation of
    water that turns line integrals into HU.
    """

    task: str | None = None
    format_version: Literal[1] = 1
    convention: str = CONVENTION
    kind: Kind = "line integrals"
    detector: tuple[Count, Count]
    isocentre_mm: tuple[Place, Place, Place] = (0.0, 0.0, 0.0)
    water_per_mm: Length = WATER_PER_MM
    views: tuple[ViewRecord, ...]

    @property
    def geometry(self) -> Geometry:
        """The views as tensors `(v,)`."""
        return Geometry(
            primary=self._column("primary_degrees"),
            secondary=self._column("secondary_degrees"),
            sod=self._column("source_isocentre_mm"),
            sdd=self._column("source_detector_mm"),
            pixel_mm=self._column("pixel_mm").reshape(-1, 2),
            offset_mm=self._column("offset_mm").reshape(-1, 2),
            detector=self.detector,
        )

    def _column(self, name: str) -> torch.Tensor:
        values = [getattr(view, name) for view in self.views]
        return torch.tensor(values, dtype=torch.float32)


def record_of(
    geometry: Geometry,
    *,
    isocentre: Sequence[float] = (0.0, 0.0, 0.0),
    kind: Kind = "line integrals",
    water_per_mm: float = WATER_PER_MM,
) -> GeometryRecord:
    """`geometry` `(v,)` with what else `geometry.json` says; raises `GeometryError` for
    a batch or an impossible view.
    """
    if geometry.batched:
        raise GeometryError(
            "a geometry file describes one exam; "
            "give the geometry of one, not of a batch"
        )
    columns = {
        "primary_degrees": geometry.primary,
        "secondary_degrees": geometry.secondary,
        "source_isocentre_mm": geometry.sod,
        "source_detector_mm": geometry.sdd,
        "pixel_mm": geometry.pixel_mm,
        "offset_mm": geometry.offset_mm,
    }
    views: list[dict[str, object]] = [{} for _ in range(geometry.views)]
    for name, column in columns.items():
        for view, value in zip(views, column.tolist(), strict=True):
            view[name] = _short(value)
    content = {
        "kind": kind,
        "detector": geometry.detector,
        "isocentre_mm": tuple(isocentre),
        "views": views,
        "water_per_mm": water_per_mm,
    }
    return _validated(content, "the geometry", GeometryError)


def _short(value: float | list[float]) -> float | tuple[float, ...]:
    """The shortest decimals that are the same float32: 0.1, not 0.10000000149."""
    if isinstance(value, list):
        return tuple(float(str(np.float32(part))) for part in value)
    return float(str(np.float32(value)))


def read_record(path: Path) -> GeometryRecord:
    """Read `geometry.json`; raises `FormatError` in one line if it is missing,
    incomplete or impossible.
    """
    return parsed_record(read_json(path), where=path)


def parsed_record(content: object, *, where: Path) -> GeometryRecord:
    """What `geometry.json` holds, from its content; raises `FormatError` naming
    `where`.
    """
    return _validated(content, str(where), FormatError)


def _validated(
    content: object, where: str, error: type[FormatError] | type[GeometryError]
) -> GeometryRecord:
    try:
        return GeometryRecord.model_validate(content)
    except ValidationError as failure:
        complaint = first_complaint(failure)
        raise error(f"{where}: {complaint}; correct it there") from failure


def write_record(path: Path, record: GeometryRecord) -> None:
    """Write `geometry.json` atomically."""
    write_json(path, record.model_dump(mode="json"))


@dataclass(frozen=True)
class _Needed:
    name: str
    why: str


_DICOM = (
    _Needed("PositionerPrimaryAngle", "how far the tube is turned about the patient"),
    _Needed("DistanceSourceToDetector", "how far the detector is from the tube"),
    _Needed("DistanceSourceToPatient", "how far the isocentre is from the tube"),
    _Needed(
        "ImagerPixelSpacing",
        "the pixel size on the detector; PixelSpacing may be scaled to the patient",
    ),
    _Needed("Rows", "the detector"),
    _Needed("Columns", "the detector"),
)


def geometry_from_dicom(images: Sequence[Any]) -> Geometry:
    """Geometry `(v,)` of X-ray images from their DICOM headers (pydicom datasets), one
    a view, supine patient.

    DICOM counts the primary angle of the *detector* from the front, + to the patient's
    left (PS3.3 C.8.7.5): 0 has the source behind the patient. Hence primary =
    PositionerPrimaryAngle + 180, wrapped to (-180, 180]; the secondary angle (+
    cranial) is the same. Raises `GeometryError` naming the attribute that is missing or
    impossible.
    """
    views = [_dicom_view(image, number) for number, image in enumerate(images, start=1)]
    detectors = {(int(image.Rows), int(image.Columns)) for image in images}
    if len(detectors) != 1:
        raise GeometryError(
            f"{len(images)} X-ray images have {len(detectors)} sizes; "
            "resample them to one detector"
        )
    content = {"detector": detectors.pop(), "views": views}
    return _validated(content, "the DICOM geometry", GeometryError).geometry


def _dicom_view(image: Any, number: int) -> dict[str, object]:
    for needed in _DICOM:
        if getattr(image, needed.name, None) is None:
            raise GeometryError(
                f"X-ray image {number}: no {needed.name} in its DICOM header, "
                f"which says {needed.why}; write geometry.json by hand"
            )
    turned = float(image.PositionerPrimaryAngle) + 180
    if math.isfinite(turned):
        turned = 180 - (180 - turned) % 360
    tilted = getattr(image, "PositionerSecondaryAngle", None)
    return {
        "primary_degrees": turned,
        "secondary_degrees": float(tilted or 0.0),
        "source_isocentre_mm": float(image.DistanceSourceToPatient),
        "source_detector_mm": float(image.DistanceSourceToDetector),
        "pixel_mm": tuple(float(step) for step in image.ImagerPixelSpacing),
    }
