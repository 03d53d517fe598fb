"""The formats that a prediction is written in, and what writes them beside its map.

A format is one entry of `WRITERS`: everything else (parsing, names, records, resumption)
follows from it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from trivox.config.choices import ResultFormat, SegType, require_choice
from trivox.datasets.dataset import Case
from trivox.errors import DataError, TrivoxError, UsageError
from trivox.inference.folder import Tables
from trivox.inference.writing import Record
from trivox.memory import memory_ran_out
from trivox.optional import optional_package
from trivox.results.case import CaseResult
from trivox.results.options import AS_USUAL, ResultOptions
from trivox.results.pictures.writing import write_preview
from trivox.results.reporting.report import write_report
from trivox.results.reporting.tables import (
    TABLES,
    is_measured,
    statistics_record,
    write_tables,
)
from trivox.results.segmentation import write_segmentation
from trivox.results.structures import write_structures
from trivox.results.synthetic_ct import write_synthetic_ct
from trivox.volumes.formats import is_dicom_image

MAP: ResultFormat = "nifti"
"""The map that the prediction itself writes."""
FORMATS: tuple[str, ...] = get_args(ResultFormat)
EXTRA = "dicom"
"""The extra of the packages that DICOM objects are written with."""
Gives = Literal["labels", "volumes"]
"""What a model makes of a case."""


@dataclass(frozen=True)
class Writer:
    """What writes one format.

    ending: of its file, or folder, after the name of the case; write: makes it of a
    result, returns what has to be said of it; of_series: whether it refers to the DICOM
    images that the case was read from; of: which models have it; packages: that have to
    be there; options: those of `ResultOptions` that decide it; needs: formats that it
    refers to, which are written as well.
    """

    ending: str
    write: Callable[[CaseResult, Path], Sequence[str]]
    of_series: bool = True
    of: tuple[Gives, ...] = ("labels",)
    packages: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


WRITERS: dict[str, Writer] = {
    "dicom-seg": Writer(
        ".seg.dcm",
        write_segmentation,
        packages=("highdicom",),
        options=("seg_type", "codes"),
    ),
    "rtstruct": Writer(".rtstruct.dcm", write_structures, options=("codes",)),
    "sr": Writer(
        ".sr.dcm",
        write_report,
        packages=("highdicom",),
        options=("seg_type", "codes"),
        needs=("dicom-seg",),
    ),
    "png": Writer(".png", write_preview, of_series=False, of=("labels", "volumes")),
    "dicom-ct": Writer(".ct", write_synthetic_ct, of_series=False, of=("volumes",)),
}
"""By format, in the order in which they are written."""
USUAL_OF_SERIES = "dicom-seg"
"""What a case of DICOM images is written as beside its map, unless told otherwise."""


def parse_formats(given: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """`"nifti,dicom-seg"` as names, each once; None: as suits each case.

    Raises `UsageError` for other names.
    """
    if given is None:
        return None
    parts = given.split(",") if isinstance(given, str) else list(given)
    names = tuple(dict.fromkeys(part.strip().lower() for part in parts))
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        wrong = ", ".join(repr(name) for name in unknown) or "nothing"
        raise UsageError(
            f"--format {wrong}: choose of {', '.join(FORMATS)}, with commas between"
        )
    return names


def is_of_dicom(case: Case) -> bool:
    """Whether a case was read from DICOM images."""
    return bool(case.images) and is_dicom_image(case.images[0])


@dataclass(frozen=True)
class ResultFiles:
    """The files that are written about each case beside its map.

    formats: those that were asked for; None: as suits each case, and what cannot be
    written is left out with a warning; gives: what the model makes; options: how they
    are written; statistics: whether structures are measured.
    """

    formats: tuple[str, ...] | None = None
    gives: Gives = "labels"
    options: ResultOptions = AS_USUAL
    statistics: bool = False

    @property
    def maps(self) -> bool:
        """Whether the map itself is written."""
        return self.formats is None or MAP in self.formats

    @property
    def fractions(self) -> bool:
        """Whether probabilities are needed."""
        is_fractional = self.options.seg_type == "fractional"
        return is_fractional and USUAL_OF_SERIES in self.beside

    @property
    def endings(self) -> tuple[str, ...]:
        """Of all files that may be written about a case."""
        return tuple(WRITERS[name].ending for name in self.beside)

    @property
    def _asked(self) -> tuple[str, ...]:
        """Formats that were asked for beside the map."""
        return tuple(name for name in self.formats or () if name in WRITERS)

    @property
    def beside(self) -> tuple[str, ...]:
        """Formats that a case may be written in beside its map."""
        if self.formats is not None:
            needed = chain.from_iterable(WRITERS[name].needs for name in self._asked)
            wanted = {*self.formats, *needed}
            return tuple(name for name in WRITERS if name in wanted)
        usual = WRITERS.get(USUAL_OF_SERIES)
        return (USUAL_OF_SERIES,) if usual and self._can_write(usual) else ()

    def _can_write(self, writer: Writer) -> bool:
        installed = all(find_spec(package) for package in writer.packages)
        return installed and self.gives in writer.of

    def of_case(self, case: Case) -> tuple[str, ...]:
        """The formats of a case beside its map."""
        if self.formats is None and not is_of_dicom(case):
            return ()
        return self.beside

    def possible(
        self, cases: Sequence[Case], *, say: Callable[[str], None]
    ) -> tuple[Case, ...]:
        """The cases; those that cannot be written as asked have a complaint.

        Raises `UsageError` for formats that the model does not have, or that no case
        can be written in, and `ResourceError` where a package is missing. Says what is
        left out for want of a package, if no format was asked for.
        """
        self._say_left_out(cases, say)
        # what was asked for is named before what that needs
        for name in dict.fromkeys((*self._asked, *self.beside)):
            writer = WRITERS[name]
            if self.gives not in writer.of:
                raise UsageError(f"--format {name}: this model gives {self.gives}")
            for package in writer.packages:
                optional_package(package, extra=EXTRA)
        of_series = [name for name in self.beside if WRITERS[name].of_series]
        if self.formats is None or not of_series:
            return tuple(cases)
        named = ", ".join(of_series)
        if not any(is_of_dicom(case) for case in cases):
            raise UsageError(
                f"--format {named} refers to DICOM images, and the input holds none; "
                f"choose {MAP}"
            )
        complaint = (
            f"{named} refers to DICOM images, and this is none; use --format {MAP}"
        )
        return tuple(
            case
            if is_of_dicom(case) or case.complaint
            else case.with_complaint(complaint)
            for case in cases
        )

    def _say_left_out(self, cases: Sequence[Case], say: Callable[[str], None]) -> None:
        usual = WRITERS.get(USUAL_OF_SERIES)
        if self.formats is not None or usual is None or self.gives not in usual.of:
            return
        if not self.beside and any(is_of_dicom(case) for case in cases):
            say(
                f"no {USUAL_OF_SERIES}: {', '.join(usual.packages)} is not installed; "
                f"run: pip install 'trivox[{EXTRA}]'"
            )

    def write(self, result: CaseResult, out: Path) -> Record:
        """Write all formats of a case into `out`; returns what joins its record.

        Raises `DataError` for a format that was asked for and cannot be written.
        """
        written: dict[str, Record] = {}
        warnings = [*result.warnings]
        for name in self.of_case(result.case):
            writer = WRITERS[name]
            file = f"{result.case.name}{writer.ending}"
            try:
                warnings += _written(name, writer, result, out / file)
            except DataError as error:
                if self.formats is not None:
                    raise
                reason = str(error)
                warnings.append(f"no {name}: {reason}")
                written[name] = {"reason": reason, **self._decided(writer)}
            else:
                written[name] = {"file": file, **self._decided(writer)}
        record: Record = statistics_record(result) if self.statistics else {}
        if not written:
            return record
        record |= {"formats": written, "warnings": [*dict.fromkeys(warnings)]}
        if not self.maps:
            record["output"] = next(iter(written.values()))["file"]
        return record

    def is_done(self, case: Case, record: Mapping[str, Any], out: Path) -> bool:
        """Whether all formats of a case were written before, as they would be now."""
        written = record.get("formats")
        known = written if isinstance(written, Mapping) else {}
        if self.statistics and not is_measured(record):
            return False
        for name in self.of_case(case):
            entry = known.get(name)
            if not isinstance(entry, Mapping):
                return False
            decided = self._decided(WRITERS[name])
            same = all(entry.get(key) == value for key, value in decided.items())
            file = entry.get("file")
            if not same or (file is not None and not (out / file).exists()):
                return False
        return True

    def tables(self, task: str) -> Tables:
        """What is written about all cases together."""
        names = TABLES if self.statistics else ()
        return Tables(names, partial(write_tables, task=task))

    def _decided(self, writer: Writer) -> Record:
        """The options that decide a file of a format, for its record."""
        said = self.options.record()
        return {name: said[name] for name in writer.options}


def _written(
    name: str, writer: Writer, result: CaseResult, file: Path
) -> Sequence[str]:
    """Write one format; whatever a package raises becomes one line, without the values
    of headers that its message may hold.
    """
    try:
        return writer.write(result, file)
    except (TrivoxError, OSError):
        raise
    except Exception as error:
        if memory_ran_out(error):
            raise
        raise DataError(
            f"{result.case.name}: {name} cannot be made of its headers "
            f"({type(error).__name__}); use --format nifti, and run with --debug to see "
            "why"
        ) from error


def result_files(
    wanted: str | Sequence[str] | None,
    options: ResultOptions,
    gives: Gives,
    *,
    statistics: bool = False,
) -> ResultFiles:
    """What `--format` and its options ask for; raises `UsageError` and `RecipeError`
    for what does not exist or go together.
    """
    if statistics and gives != "labels":
        raise UsageError(f"--statistics measures labels, and this model gives {gives}")
    formats = parse_formats(wanted)
    require_choice("seg_type", options.seg_type, SegType)
    files = ResultFiles(formats, gives, options, statistics)
    without_seg = formats is not None and USUAL_OF_SERIES not in files.beside
    if without_seg and options.seg_type != "binary":
        raise UsageError(
            f"--seg-type {options.seg_type} is of {USUAL_OF_SERIES}; add it to --format"
        )
    return files
