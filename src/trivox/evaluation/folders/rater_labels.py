"""Whether raters are different ones, and mean the same by their labels."""

from collections.abc import Mapping
from itertools import chain, combinations

from trivox.datasets.labels import LabelScheme
from trivox.errors import DataError, LabelError, few
from trivox.evaluation.folders.pairs import LabelPair


def require_different(pairs: Mapping[str, Mapping[str, LabelPair]]) -> None:
    """Raise `DataError` where two raters of a case have one file, by whatever path."""
    for case, by_rater in pairs.items():
        for one, other in combinations(by_rater, 2):
            file = by_rater[one].reference
            if file.samefile(by_rater[other].reference):
                raise DataError(
                    f"{file}: is given twice, as {case} of {one} and of {other}; each "
                    "rater counts once"
                )


def require_one_meaning(declared: Mapping[str, LabelScheme]) -> None:
    """Raise `LabelError` where datasets of two raters contradict each other: what one
    calls a label would be measured against something else.
    """
    for one, other in combinations(declared, 2):
        first = declared[one].labels
        second = declared[other].labels
        by_value = {value: name for name, value in second.items()}
        clashes = [
            f"{name} is {value} of {one} and {second.get(name, 'nothing')} of {other}, "
            f"where {value} is {by_value.get(value, 'nothing')}"
            for name, value in first.items()
            if second.get(name, value) != value or by_value.get(value, name) != name
        ]
        if clashes:
            raise LabelError(
                f"raters do not call labels alike: {few(clashes, separator='; ')}; "
                "correct the declaration of one dataset, or give its folder of label "
                "maps alone, if the values mean the same"
            )


def targets_of_all(
    scheme: LabelScheme, declared: Mapping[str, LabelScheme]
) -> tuple[list[str], list[str]]:
    """Targets that the datasets of all raters declare by the same values, and warnings
    about others: who does not look for a structure has not left it out. Raises
    `LabelError` where there is none.
    """
    known = [_values_of(each) for each in declared.values()]
    common = [
        target
        for target, values in _values_of(scheme).items()
        if all(values == each.get(target) for each in known)
    ]
    if not common:
        raise LabelError(
            f"no label or region is declared alike by {few(declared)}; give folders of "
            "label maps alone, if their values mean the same"
        )
    names = chain(*(each.targets for each in declared.values()))
    others = [name for name in dict.fromkeys(names) if name not in common]
    if not others:
        return common, []
    return common, [f"not declared alike by all raters, not compared: {few(others)}"]


def _values_of(scheme: LabelScheme) -> dict[str, set[int]]:
    """The values of each target in files."""
    values = {}
    for target, indices in scheme.targets.items():
        values[target] = {scheme.values[index] for index in indices}
    return values
