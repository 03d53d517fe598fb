"""What a person chooses where DICOM files can be read in several ways."""

from typing import Annotated

from pydantic import Field

from trivox.schema import Frozen


class SeriesChoice(Frozen):
    """Which DICOM series of a folder is meant, and how uneven its slices may be.

    series: SeriesInstanceUID, SeriesNumber, or rules of `SeriesRule` with commas
    between, each of which narrows the choice (`axial,thinnest`); None: the only one.
    slice_tolerance: mm by which the distance of two slices may differ from the usual
    one; they are then read as if they were evenly spaced. None: 1 % of the distance,
    the rounding of headers.
    """

    series: str | None = None
    slice_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


NO_CHOICE = SeriesChoice()
