"""Which files a prediction is made from, and what they were then."""

from pathlib import Path

from pydantic import ValidationError

from trivox.datasets.dataset import Case
from trivox.errors import FormatError
from trivox.inference.writing import Record
from trivox.sources import Source, is_unchanged, source_of
from trivox.volumes.choice import NO_CHOICE


def inputs_of(case: Case) -> list[Path]:
    """The files that a prediction is made from."""
    return [*case.images] if case.geometry is None else [*case.images, case.geometry]


def input_names(case: Case) -> list[str]:
    """The same as records have them."""
    return [str(path) for path in inputs_of(case)]


def origin_of(case: Case) -> Record:
    """The part of a record that says what a prediction is made from; nothing of files
    that cannot be read, which whoever reads the case will name.
    """
    names: Record = {"inputs": input_names(case)}
    if case.choice != NO_CHOICE:
        names["choice"] = case.choice.model_dump()
    try:
        sources = [source_of(path) for path in inputs_of(case)]
    except FormatError:
        return names
    return names | {"sources": [source.model_dump() for source in sources]}


def is_from(record: Record, case: Case) -> bool:
    """Whether the inputs are what they were, and read as they were; 0.1.0 did not write
    that down.
    """
    if record.get("inputs") != input_names(case):
        return False
    if record.get("choice", NO_CHOICE.model_dump()) != case.choice.model_dump():
        return False
    sources = record.get("sources")
    if sources is None:
        return True
    try:
        recorded = [Source.model_validate(source) for source in sources]
    except (TypeError, ValidationError):
        return False
    pairs = zip(inputs_of(case), recorded, strict=False)
    same = all(is_unchanged(path, source) for path, source in pairs)
    return same and len(recorded) == len(inputs_of(case))
