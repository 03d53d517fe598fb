"""Volumes: an array and its place in the world, read from and written to the usual file formats.

DICOM has its own choices (series, gaps): see `trivox.volumes.dicom`.
"""

from trivox.volumes.formats import (
    SUFFIXES,
    Header,
    case_stem,
    read_header,
    read_labels,
    read_volume,
    write_volume,
)
from trivox.volumes.geometry import (
    Orientation,
    canonical_orientation,
    describe_mismatch,
    reorient,
    require_same_grid,
)
from trivox.volumes.volume import Array, Shape, Spacing, Volume, affine_from_spacing, spacing_of

__all__ = [
    "SUFFIXES",
    "Array",
    "Header",
    "Orientation",
    "Shape",
    "Spacing",
    "Volume",
    "affine_from_spacing",
    "canonical_orientation",
    "case_stem",
    "describe_mismatch",
    "read_header",
    "read_labels",
    "read_volume",
    "reorient",
    "require_same_grid",
    "spacing_of",
    "write_volume",
]
