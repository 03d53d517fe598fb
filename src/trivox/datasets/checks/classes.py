"""What may be wrong with the classes of a dataset, told from the cases alone."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from trivox.datasets.checks.findings import Finding, error, warning
from trivox.datasets.dataset import Dataset
from trivox.errors import few

FOLDS = 5
"""Those that `make_splits` makes where nothing else is asked for."""

WORST_RATIO = 10
"""Patients of the most common class for one of the rarest."""


def class_findings(dataset: Dataset) -> Iterator[Finding]:
    """Classes without or with few cases, imbalance, cases without class and patients
    with several; none without classes.
    """
    if dataset.classes:
        for look in (_absent, _few, _imbalanced, _unknown, _contradicting):
            yield from look(dataset)


def _counts(dataset: Dataset) -> dict[str, int]:
    """Patients of each class among the training cases."""
    pairs = {
        (case.patient, case.class_name)
        for case in dataset.training_cases
        if case.split == "train"
    }
    counts = Counter(class_name for _, class_name in pairs)
    return {name: counts[name] for name in dataset.classes}


def _absent(dataset: Dataset) -> Iterator[Finding]:
    for name, count in _counts(dataset).items():
        if not count:
            yield error(
                "class-without-cases",
                "",
                f"class '{name}' has no training case",
                "add cases of it, or remove the class",
            )
    if len(dataset.classes) == 1:
        yield warning(
            "single-class",
            "",
            f"all cases are of class '{dataset.classes[0]}'",
            "add cases of another class; a classifier has nothing to learn",
        )


def _few(dataset: Dataset) -> Iterator[Finding]:
    if any(case.split == "validation" for case in dataset.cases):
        return
    for name, count in _counts(dataset).items():
        if 0 < count < FOLDS:
            yield warning(
                "rare-class",
                "",
                f"class '{name}' has {count} patients, some of the {FOLDS} folds "
                "validate on none of it",
                "add cases of it; its figures will be uncertain",
            )


def _imbalanced(dataset: Dataset) -> Iterator[Finding]:
    counts = {name: count for name, count in _counts(dataset).items() if count}
    if len(counts) > 1 and max(counts.values()) > WORST_RATIO * min(counts.values()):
        listed = ", ".join(f"{count} of '{name}'" for name, count in counts.items())
        yield warning(
            "class-imbalance",
            "",
            f"patients by class: {listed}",
            "look at the recall of each class, accuracy says little here; keep class "
            "balancing on",
        )


def _unknown(dataset: Dataset) -> Iterator[Finding]:
    names = [case.name for case in dataset.training_cases if case.class_name is None]
    if names:
        yield warning(
            "class-unknown",
            names[0],
            f"{len(names)} of {len(dataset.training_cases)} cases have no class "
            f"({few(names)})",
            "fine if it is not known; they teach segmentation alone",
        )


def _contradicting(dataset: Dataset) -> Iterator[Finding]:
    cases = defaultdict(list)
    for case in dataset.cases:
        if case.class_name is not None:
            cases[case.patient].append(case)
    for patient, group in cases.items():
        if len({case.class_name for case in group}) > 1:
            listed = few(
                (f"{case.name} ({case.class_name})" for case in group), shown=6
            )
            yield warning(
                "patient-with-classes",
                group[0].name,
                f"patient '{patient}' has several classes: {listed}",
                "fine if the class belongs to the exam; else correct one",
            )
