"""nnU-Net 2 raw data: `dataset.json` with `channel_names` and `file_ending`,
`imagesTr`, `labelsTr`, `imagesTs`.

Beside it, where there are classes, `classification_labels.csv`; and
`splits_final.json`, which declares a validation split if it holds one fold. Several
folds there are nnU-Net's: trivox makes its own, see `trivox.datasets.splits`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trivox.datasets.class_tables import class_order, read_class_table
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.msd import description_file, numbered_names
from trivox.datasets.listing import (
    CHANNEL_SUFFIX,
    json_object,
    parse_labels,
    unique_cases,
    validated,
)
from trivox.errors import DataError, FormatError, LabelError
from trivox.files import read_json

FOLDERS: tuple[tuple[str, str, Literal["train", "test"]], ...] = (
    ("imagesTr", "labelsTr", "train"),
    ("imagesTs", "labelsTs", "test"),
)
CLASS_TABLE = "classification_labels.csv"
SPLITS = "splits_final.json"


class Additions(BaseModel):
    """What trivox writes into `dataset.json` beside what nnU-Net knows.

    label_names: by value; patients, classes: by case; splits: of cases without label
    map, which nnU-Net wants in `imagesTs` although there is a class to learn from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label_names: dict[int, str] = Field(default_factory=dict)
    nested: bool = False
    patients: dict[str, str] = Field(default_factory=dict)
    classes: dict[str, str] = Field(default_factory=dict)
    splits: dict[str, Literal["train", "validation", "test"]] = Field(
        default_factory=dict
    )

    def naming(self, labels: LabelScheme, *, where: str) -> LabelScheme:
        """`labels` under these names; nnU-Net names regions only."""
        named = {
            self.label_names.get(value, name): value
            for name, value in labels.labels.items()
        }
        content = labels.model_dump() | {"labels": named, "nested": self.nested}
        return validated(LabelScheme, content, where=where, error=LabelError)


def matches(path: Path) -> bool:
    """Whether `path` is (or holds) a `dataset.json` with channel names."""
    return "channel_names" in json_object(description_file(path))


def load(path: Path) -> Dataset:
    """Read the dataset; an image without label map becomes a case without label, which
    is not trained on.
    """
    file = description_file(path).absolute()
    content, root = json_object(file), file.parent
    channels = numbered_names(content["channel_names"], where=file, key="channel_names")
    listed = content.get("dataset")
    if isinstance(listed, dict):
        cases = [
            _listed_case(name, entry, root) for name, entry in sorted(listed.items())
        ]
    else:
        ending = str(content.get("file_ending", ".nii.gz"))
        cases = [
            case
            for names in FOLDERS
            for case in _cases_in(root, names, ending, len(channels))
        ]
    own = f"{file}, 'trivox'"
    additions = validated(Additions, content.get("trivox") or {}, where=own)
    labels = parse_labels(
        content.get("labels") or {},
        where=file,
        order=content.get("regions_class_order") or (),
    )
    cases = list(unique_cases(_with_additions(cases, additions, root), where=file))
    return Dataset(
        name=str(content.get("name") or root.name),
        root=root,
        layout="nnunet_listed" if isinstance(listed, dict) else "nnunet",
        channels=channels,
        labels=additions.naming(labels, where=own),
        classes=class_order((case.class_name for case in cases), where=root),
        cases=tuple(cases),
    )


def _with_additions(
    cases: Sequence[Case], additions: Additions, root: Path
) -> Iterator[Case]:
    """`cases` with their patients, classes and splits."""
    classes = _classes(cases, additions, root)
    declared = {**_declared_validation(cases, root / SPLITS), **additions.splits}
    for case in cases:
        yield case.model_copy(
            update={
                "patient": additions.patients.get(case.name, case.patient),
                "class_name": classes.get(case.name),
                "split": declared.get(case.name, case.split),
            }
        )


def _classes(cases: Sequence[Case], additions: Additions, root: Path) -> dict[str, str]:
    """Classes by case, from `dataset.json` and the table beside it."""
    file = root / CLASS_TABLE
    table = read_class_table(file, cases).classes if file.is_file() and cases else {}
    told = {name: found for name, found in table.items() if found is not None}
    wrong = next(
        (
            name
            for name in told
            if additions.classes.get(name, told[name]) != told[name]
        ),
        None,
    )
    if wrong is not None:
        there = additions.classes[wrong]
        raise DataError(
            f"{file}: {wrong} is {told[wrong]}, in dataset.json it is {there}; correct one of them"
        )
    return additions.classes | told


def _declared_validation(
    cases: Sequence[Case], file: Path
) -> dict[str, Literal["validation"]]:
    """The cases that the only fold in `splits_final.json` validates on."""
    folds = read_json(file) if file.is_file() else []
    if not isinstance(folds, list) or not all(
        isinstance(fold, dict) and {"train", "val"} <= set(fold) for fold in folds
    ):
        raise FormatError(
            f'{file}: must list folds such as {{"train": [...], "val": [...]}}; correct or remove it'
        )
    if len(folds) != 1:
        return {}
    train, validation = (list(folds[0][side]) for side in ("train", "val"))
    known = {case.name for case in cases if case.split != "test"}
    strange = [name for name in (*train, *validation) if name not in known]
    both = sorted(set(train) & set(validation))
    if strange or both:
        what = (
            f"'{both[0]}' is in train and val"
            if both
            else f"'{strange[0]}' is no case of imagesTr"
        )
        raise FormatError(f"{file}: {what}; correct or remove the file")
    return dict.fromkeys(validation, "validation")


def _listed_case(name: str, entry: dict[str, Any], root: Path) -> Case:
    label = entry.get("label")
    return Case(
        name=name,
        images=tuple(root / p for p in entry["images"]),
        label=root / label if label else None,
    )


def _cases_in(
    root: Path,
    names: tuple[str, str, Literal["train", "test"]],
    ending: str,
    channels: int,
) -> list[Case]:
    images, labels, split = root / names[0], root / names[1], names[2]
    found = _channels_found(images, ending)
    cases = []
    for name in sorted(found):
        label = labels / f"{name}{ending}"
        files = _case_files(images, name, ending, channels, found[name])
        cases.append(
            Case(
                name=name,
                images=files,
                label=label if label.exists() else None,
                split=split,
            )
        )
    return cases


def _channels_found(folder: Path, ending: str) -> dict[str, set[int]]:
    """Case names in `folder` and the channel numbers each has; none for a file without
    number (it holds them all).
    """
    found: dict[str, set[int]] = {}
    for path in folder.glob(f"*{ending}"):
        if path.name.startswith("."):
            continue
        stem = path.name.removesuffix(ending)
        parts = CHANNEL_SUFFIX.fullmatch(stem)
        found.setdefault(parts["case"] if parts else stem, set()).update(
            {int(parts["channel"])} if parts else ()
        )
    return found


def _case_files(
    folder: Path, name: str, ending: str, channels: int, found: set[int]
) -> tuple[Path, ...]:
    """The files that the case should have (missing ones included, for the check to
    name) and superfluous ones.
    """
    if not found:
        return (folder / f"{name}{ending}",)
    return tuple(
        folder / f"{name}_{i:04d}{ending}" for i in sorted(found | set(range(channels)))
    )
