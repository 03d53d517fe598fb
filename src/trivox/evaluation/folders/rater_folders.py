"""The label maps of several raters: which of them belong together."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from trivox.datasets.labels import LabelScheme
from trivox.errors import DataError, few
from trivox.evaluation.folders.consensus import MOST_RATERS
from trivox.evaluation.folders.measured import against_themselves, finished
from trivox.evaluation.folders.pairs import (
    LabelPair,
    Reference,
    References,
    label_maps,
    labels_found,
    named_alike,
    pair_of,
    readable_pairs,
    references_of,
)
from trivox.evaluation.folders.rater_labels import (
    require_different,
    require_one_meaning,
    targets_of_all,
)


class Raters(NamedTuple):
    """The label maps of each rater by case, how they are written, and warnings.

    pairs: of each case, with each rater in turn; declared: by raters who do; targets:
    that all raters know.
    """

    pairs: dict[str, dict[str, LabelPair]]
    scheme: LabelScheme
    declared: dict[str, LabelScheme]
    targets: list[str]
    warnings: list[str]


def rater_names(references: Sequence[Path]) -> list[str]:
    """What raters are called: their folders or files, as short as tells them apart."""
    if not 2 <= len(references) <= MOST_RATERS:
        raise DataError(
            f"{len(references)} raters cannot be compared; give the label maps of 2 to "
            f"{MOST_RATERS}, each with --reference"
        )
    places = [path.absolute() for path in references]
    twice = {str(place) for place in places if places.count(place) > 1}
    if twice:
        raise DataError(f"{few(sorted(twice))}: is given twice; each rater counts once")
    short = [place.name for place in places]
    return short if len(set(short)) == len(short) else [str(path) for path in places]


def read_raters(predictions: Path, references: Mapping[str, Path]) -> Raters:
    """What belongs together, and what does not; raises what `compare_raters` does."""
    maps, _ = finished(predictions, label_maps(predictions))
    known: dict[str, References] = {}
    files: dict[str, Mapping[str, Reference]] = {}
    warnings = []
    for name, path in references.items():
        known[name] = references_of(path, maps)
        files[name] = named_alike(predictions, path, maps, known[name].files)
    rated = set(maps) & set(chain(*files.values()))
    common = set(maps).intersection(*files.values())
    for name, each in files.items():
        lacking = sorted(rated - each.keys())
        if lacking:
            warnings.append(
                f"{name} has no label map of {few(lacking)}: raters are not compared there"
            )
    if not common:
        raise DataError(
            f"{predictions}: no case has label maps of all raters ({few(files)}); give "
            "the maps of a case the same file name"
        )
    pairs: dict[str, dict[str, LabelPair]] = {case: {} for case in sorted(common)}
    for case, of_case in pairs.items():
        for name, each in files.items():
            of_case[name] = pair_of(case, maps[case], each[case])
    pairs, unread = _readable(pairs)
    warnings += unread
    require_different(pairs)
    for name in list(files)[1:]:  # the first has been measured against already
        both = {
            case: (each[name].prediction, each[name].reference)
            for case, each in pairs.items()
        }
        warnings += [f"{name}: {line}" for line in against_themselves(both)]
    declared = {
        name: each.labels for name, each in known.items() if each.labels is not None
    }
    require_one_meaning(declared)
    scheme = next(iter(declared.values()), None)
    if scheme is None:
        listed: list[LabelPair] = []
        for each_case in pairs.values():
            listed += each_case.values()
        scheme = labels_found(listed, predictions, next(iter(references.values())))
    targets, unknown = targets_of_all(scheme, declared)
    return Raters(pairs, scheme, declared, targets, [*warnings, *unknown])


def _readable(
    pairs: Mapping[str, dict[str, LabelPair]],
) -> tuple[dict[str, dict[str, LabelPair]], list[str]]:
    """The cases whose files can be opened, and warnings about the others; raises
    `DataError` where none is left.
    """
    readable = {}
    warnings = []
    for case, by_rater in pairs.items():
        _, complaints = readable_pairs(by_rater.values())
        if complaints:
            warnings.append(f"raters: {complaints[0]}")
        else:
            readable[case] = by_rater
    if not readable:
        raise DataError(f"no case of all raters can be read: {warnings[0]}")
    return readable, warnings
