"""Checking a dataset before anything is computed from it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from trivox.datasets.checks.classes import class_findings
from trivox.datasets.checks.examine import Examination, examine
from trivox.datasets.checks.findings import Finding, Report, error, warning
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.layouts.choice import unpaired_files
from trivox.datasets.listing import image_stem
from trivox.errors import few

ShowExamined = Callable[[Iterable[Examination], int], Iterable[Examination]]
LEAST_CASES = 2
FEW_CASES = 5


def check_dataset(
    dataset: Dataset,
    *,
    workers: int = 2,
    progress: ShowExamined = lambda examined, total: examined,
) -> Report:
    """Read every file of `dataset` once and report what is wrong with it; never raises
    for a bad case.

    workers: threads (decompression and numpy release the GIL, and threads need no
    imports of their own); progress: is passed the cases as they are done, and how
    many they are.
    """
    cases = dataset.cases
    with ThreadPoolExecutor(max(1, workers)) as pool:
        examined = pool.map(_examiner(dataset), cases)
        examinations = list(progress(examined, len(cases)))
    findings: list[Finding] = []
    for examination in examinations:
        findings += examination.findings
    for look in (_declared, _unpaired, _count, _patients, class_findings):
        findings += look(dataset)
    for compare_with in (_unused_labels, _foreground):
        findings += compare_with(dataset, examinations)
    for compare in (_remarks, _duplicates, _orientations, _spacings):
        findings += compare(examinations)
    return Report(
        findings=tuple(sorted(findings, key=lambda f: f.severity != "error")),
        checked_cases=len(examinations),
    )


def _examiner(dataset: Dataset) -> Callable[[Case], Examination]:
    """How a case of the dataset is examined."""
    if dataset.holds_exams:
        # loads torch, which takes seconds, and only exams need
        from trivox.datasets.checks.exams import examine_exam

        look = examine_exam
    else:
        look = partial(examine, channels=dataset.channels, labels=dataset.labels)
    return lambda case: _unusable(case) if case.complaint else look(case)


def _unusable(case: Case) -> Examination:
    """What there is to say of a case that its layout found unusable."""
    what, _, fix = case.complaint.rpartition("; ")
    finding = error("unusable-case", case.name, what or case.complaint, fix)
    return Examination(case, findings=[finding])


def _declared(dataset: Dataset) -> Iterator[Finding]:
    """What the dataset says of itself that is not so."""
    for remark in dataset.remarks:
        what, _, fix = remark.rpartition("; ")
        yield warning("declaration", "", what, fix)


def _unpaired(dataset: Dataset) -> Iterator[Finding]:
    images, labels = unpaired_files(dataset)
    cases = {case.images[0]: case for case in dataset.cases if case.images}
    for file in images:
        case = cases[file]
        if case.class_name is None:
            yield error(
                "unpaired-image",
                case.name,
                f"{file} has no label map",
                "add or rename it, or move the image away",
            )
        else:
            yield warning(
                "unpaired-image",
                case.name,
                f"{file} has no label map, its class alone is learnt",
                "fine if there is none; else add or rename it",
            )
    for file in labels:
        yield error(
            "unpaired-label",
            image_stem(file),
            f"{file} has no image",
            "add or rename it, or move the label away",
        )


def _count(dataset: Dataset) -> Iterator[Finding]:
    """Exams without CT can still be predicted on, so that few of them are no error."""
    if dataset.holds_exams:
        count = len(dataset.training_cases)
        words = "cases with a CT"
        learnt = f"training {words}"
        fatal = False
    elif dataset.labels is not None:
        count = sum(case.label is not None for case in dataset.training_cases)
        words = "labelled cases"
        learnt = "labelled training cases"
        fatal = count < LEAST_CASES
    else:
        return
    if count < FEW_CASES:
        severity = error if fatal else warning
        yield severity(
            "too-few-cases",
            "",
            f"{count} {learnt}; cross-validation needs {LEAST_CASES}, sensible results "
            "many more",
            f"add {words}",
        )


def _patients(dataset: Dataset) -> Iterator[Finding]:
    cases = defaultdict(list)
    for case in dataset.cases:
        cases[case.patient].append(case)
    for patient, group in cases.items():
        sides = {case.split for case in group}
        # of patients on both sides of a declared fold the dataset's remarks tell
        if dataset.folds and sides == {"train", "validation"}:
            continue
        if len(sides) > 1:
            names = few((f"{case.name} ({case.split})" for case in group), shown=6)
            yield error(
                "patient-across-splits",
                group[0].name,
                f"patient '{patient}' is in {_sides(group)} data: {names}",
                "move all cases of a patient to one side",
            )


def _sides(cases: Iterable[Case]) -> str:
    """Where they are: `training and test`."""
    present = {case.split for case in cases}
    words = {"train": "training", "validation": "validation", "test": "test"}
    return " and ".join(word for side, word in words.items() if side in present)


def _unused_labels(
    dataset: Dataset, examinations: Sequence[Examination]
) -> Iterator[Finding]:
    present = frozenset[int]().union(*(case.values for case in examinations))
    if dataset.labels is None or not present:
        return
    for name, value in dataset.labels.labels.items():
        if value not in present:
            yield warning(
                "unused-label",
                "",
                f"label '{name}' (value {value}) occurs in no label map",
                "remove it from the dataset file, or correct its value",
            )


def _foreground(
    dataset: Dataset, examinations: Sequence[Examination]
) -> Iterator[Finding]:
    """Label maps that hold no label: all of them, or most."""
    if dataset.labels is None:
        return
    nothing = {dataset.labels.background, dataset.labels.ignore}
    read = [one for one in examinations if one.values and one.case.split != "test"]
    empty = [one.case.name for one in read if not one.values - nothing]
    if empty and len(empty) == len(read):
        yield error(
            "no-foreground",
            "",
            f"none of {len(read)} label maps holds any label, there is nothing to learn",
            "look at the label maps; were they exported empty, or in another folder?",
        )
    elif 2 * len(empty) > len(read):
        yield warning(
            "mostly-empty",
            "",
            f"{len(empty)} of {len(read)} label maps hold no label: {few(empty)}",
            "fine if so many cases show no structure; some folds may have none to learn",
        )


def _remarks(examinations: Sequence[Examination]) -> Iterator[Finding]:
    """What readers had to say: a line for each subject, with the first sentence as an
    example, however many files it is true of.
    """
    example: dict[str, str] = {}
    cases: dict[str, dict[str, None]] = defaultdict(dict)
    for one in examinations:
        for file, remark in one.remarks:
            subject, *_ = remark.split(":")
            example.setdefault(subject, f"{file}: {remark}")
            cases[subject][one.case.name] = None
    for subject, names in cases.items():
        count = f"{len(names)} of {len(examinations)} cases"
        yield warning(
            "file-remark",
            next(iter(names)),
            f"{example[subject]} (in {count}: {few(names)})",
            "look at an image and its label map; where this is wrong, correct the headers",
        )


def _duplicates(examinations: Sequence[Examination]) -> Iterator[Finding]:
    """Images with the same voxels: leakage if training and test share them,
    contradiction if labels differ.
    """
    groups = defaultdict(list)
    for one in examinations:
        if one.digest:
            groups[one.digest].append(one)
    for group in groups.values():
        if len(group) < 2:
            continue
        names = few((f"{one.case.name} ({one.case.split})" for one in group), shown=6)
        leak = len({one.case.split for one in group}) > 1
        contradiction = len({one.label_digest for one in group if one.label_digest}) > 1
        severity = error if leak or contradiction else warning
        why = ""
        if leak:
            why += f" (a leak between {_sides(one.case for one in group)} data)"
        if contradiction:
            why += " (with different labels)"
        yield severity(
            "duplicate-content",
            group[0].case.name,
            f"the same image content in {names}{why}",
            "keep one of them, or give them one patient name if that is meant",
        )


def _orientations(examinations: Sequence[Examination]) -> Iterator[Finding]:
    counts = Counter(one.orientation for one in examinations if one.orientation)
    if len(counts) > 1:
        common = counts.most_common(1)[0][0]
        rare = [
            one.case.name for one in examinations if one.orientation not in ("", common)
        ]
        listed = ", ".join(
            f"{count} x {orientation}" for orientation, count in counts.most_common()
        )
        yield warning(
            "mixed-orientation",
            rare[0],
            f"orientations differ: {listed}; others than {common}: {few(rare)}",
            "fine if the headers are right; look at one of them",
        )


def _spacings(examinations: Sequence[Examination]) -> Iterator[Finding]:
    """Spacings at least twice or half the median, unless the dataset varies as much
    anyway (5 MAD on a log scale).
    """
    measured = [one for one in examinations if one.spacing]
    if len(measured) < 3:
        return
    logs = np.log([one.spacing for one in measured if one.spacing])  # (case, axis)
    distance = np.abs(logs - np.median(logs, axis=0))
    limit = np.maximum(np.log(2) - 1e-6, 5 * np.median(distance, axis=0))
    median = np.exp(np.median(logs, axis=0)).round(3).tolist()
    for one, outlying in zip(measured, (distance > limit).any(axis=1), strict=True):
        if outlying and one.spacing:
            spacing = [round(s, 3) for s in one.spacing]
            yield warning(
                "spacing-outlier",
                one.case.name,
                f"spacing {spacing} mm (z y x), the median is {median}",
                "check the header's unit and voxel size",
            )
