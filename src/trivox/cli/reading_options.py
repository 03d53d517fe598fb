"""Options of the commands that read images: which DICOM series, how even its slices."""

from typing import Annotated

from trivox.cli.options import option

Series = Annotated[str | None, option("predict", "series")]
SliceTolerance = Annotated[float | None, option("predict", "slice_tolerance")]
