"""What cases are made of: their files, and how these are read."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.schema import Frozen
from trivox.sources import Source, are_unchanged, sources_of
from trivox.volumes.choice import NO_CHOICE
from trivox.volumes.segmentations.signature import is_segmentation


class CaseContent(Frozen):
    """Files of a case by what they are in it, and a hash of how they are read: which
    channels are absent, in which order they are meant, what the values of the label map
    mean.
    """

    files: dict[str, Source]
    read_as: str


def case_files(case: Case, labels: LabelScheme | None) -> dict[str, Path]:
    """The files of a case that are read, by what they are: `image 0`, `label`...

    labels: what label maps mean; None: none is read.
    """
    files = {f"image {number}": image for number, image in enumerate(case.images)}
    known = {"geometry": case.geometry, "volume": case.volume}
    if labels is not None:
        known["label"] = case.label
    return files | {what: file for what, file in known.items() if file is not None}


def content_of(
    case: Case, labels: LabelScheme | None, recorded: CaseContent | None = None
) -> CaseContent:
    """What a case is made of now; raises `FormatError` naming a file that cannot be
    read.

    labels: what label maps mean, None: none is read; recorded: what it was made of
    before: files that still look so are not read again.
    """
    before = {} if recorded is None else recorded.files
    files = sources_of(case_files(case, labels), before)
    return CaseContent(files=files, read_as=_reading(case, labels))


def is_made_of(case: Case, labels: LabelScheme | None, recorded: CaseContent) -> bool:
    """Whether a case is still made of what was recorded."""
    if recorded.read_as != _reading(case, labels):
        return False
    return are_unchanged(case_files(case, labels), recorded.files)


def changed_cases(
    cases: Iterable[Case],
    labels: LabelScheme | None,
    recorded: Mapping[str, CaseContent],
) -> list[str]:
    """Names of the cases, of those recorded, that are made of something else now, are
    new, or are gone.
    """
    changed = []
    names = set()
    for case in cases:
        names.add(case.name)
        before = recorded.get(case.name)
        if before is None or not is_made_of(case, labels, before):
            changed.append(case.name)
    return changed + sorted(recorded.keys() - names)


def recorded_content(record: object) -> CaseContent | None:
    """What a JSON record says of a case; None where it says nothing."""
    try:
        return CaseContent.model_validate(record)
    except ValidationError:
        return None


def _reading(case: Case, labels: LabelScheme | None) -> str:
    said: dict[str, object] = {"absent": case.absent}
    if case.order:
        said["order"] = case.order
    if case.choice != NO_CHOICE:
        said["choice"] = case.choice.model_dump()
    if labels is not None:
        said |= {"values": labels.values, "ignore": labels.ignore}
        if case.label is not None and is_segmentation(case.label):
            said["names"] = labels.labels
            said["regions"] = labels.regions
    text = json.dumps(said, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
