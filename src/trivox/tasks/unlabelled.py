"""Images without labels that a trained model answers for, beside the cases of a dataset."""

from collections.abc import Sequence
from pathlib import Path

from trivox.config.options import DistillationOptions
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.layouts.choice import load_inputs
from trivox.errors import DataError
from trivox.tasks.console import Console


def with_unlabelled(
    dataset: Dataset, options: DistillationOptions, console: Console
) -> Dataset:
    """The dataset with the images that the options name, to be trained on in every fold.

    Labels that they have are left aside. Files of a case that has a label or a class are
    left out, so that no held-out case is learnt; a name that is taken gets a word in
    front. Raises `FormatError` where there are no images.
    """
    learnt = [case for case in dataset.cases if not case.taught]
    if options.unlabelled is None:
        return dataset.model_copy(update={"cases": tuple(learnt)})
    path = Path(options.unlabelled)
    there = load_inputs(path, channels=dataset.channels, say=console.say)
    known = {_files(case): case for case in learnt}
    labelled = {file for file, case in known.items() if _has_something(case)}
    new = [case for case in there if _files(case) not in labelled]
    if not new:
        raise DataError(
            f"{path}: all {len(there)} images have labels in {dataset.root}; name "
            "others, or leave --unlabelled out"
        )
    left_out = len(there) - len(new)
    note = f", {left_out} left out that have labels in the dataset" if left_out else ""
    console.say(f"{path}: {len(new)} images without labels{note}")
    replaced = {_files(case) for case in new}
    others = [case for case in learnt if _files(case) not in replaced]
    cases = (*others, *_named_apart(new, {case.name for case in others}))
    return dataset.model_copy(update={"cases": cases})


def _files(case: Case) -> tuple[Path, ...]:
    return tuple(file.resolve() for file in case.images)


def _has_something(case: Case) -> bool:
    return case.label is not None or case.class_name is not None


def _named_apart(cases: Sequence[Case], taken: set[str]) -> list[Case]:
    """Cases to be taught, each under a name of its own."""
    apart = []
    for case in cases:
        name = case.name
        while name in taken:
            name = f"unlabelled_{name}"
        taken.add(name)
        changes = {
            "name": name,
            "patient": name,
            "label": None,
            "labels": None,
            "class_name": None,
            "split": "train",
            "taught": True,
        }
        apart.append(case.model_copy(update=changes))
    return apart
