"""nnU-Net 2 raw data: `dataset.json` with `channel_names` and `file_ending`,
`imagesTr`, `labelsTr`, `imagesTs`.

Beside it, where there are classes, `classification_labels.csv`; and
`splits_final.json`, which declares a validation split if it holds one fold. Several
folds there are nnU-Net's: trivox makes its own, see `trivox.datasets.splits`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from trivox.datasets.class_tables import class_order, read_class_table
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.msd import description_file, numbered_names
from trivox.datasets.listing import (
    ADVICE,
    CHANNEL_SUFFIX,
    json_object,
    parse_labels,
    unique_cases,
)
from trivox.errors import DataError, FormatError, LabelError
from trivox.files import read_json
from trivox.schema import Frozen, validated

Side = Literal["train", "test"]
FOLDERS: tuple[tuple[str, str, Side], ...] = (
    ("imagesTr", "labelsTr", "train"),
    ("imagesTs", "labelsTs", "test"),
)
CLASS_TABLE = "classification_labels.csv"
SPLITS = "splits_final.json"


class Additions(Frozen):
    """What trivox writes into `dataset.json` beside what nnU-Net knows.

    label_names: by value; patients, classes: by case; splits: of cases without label
    map, which nnU-Net wants in `imagesTs` although there is a class to learn from.
    """

    label_names: dict[int, str] = Field(default_factory=dict)
    nested: bool = False
    patients: dict[str, str] = Field(default_factory=dict)
    classes: dict[str, str] = Field(default_factory=dict)
    splits: dict[str, Literal["train", "validation", "test"]] = Field(
        default_factory=dict
    )

    def naming(self, labels: LabelScheme, *, where: str) -> LabelScheme:
        """`labels` under these names; nnU-Net names regions only."""
        renamed = {
            self.label_names.get(value, name): value
            for name, value in labels.labels.items()
        }
        content = labels.model_dump() | {"labels": renamed, "nested": self.nested}
        return validated(
            LabelScheme, content, where=where, error=LabelError, advice=ADVICE
        )


def matches(path: Path) -> bool:
    """Whether `path` is (or holds) a `dataset.json` with channel names."""
    return "channel_names" in json_object(description_file(path))


def load(path: Path) -> Dataset:
    """Read the dataset; an image without label map becomes a case without label, which
    is not trained on.
    """
    file = description_file(path).absolute()
    root = file.parent
    content = json_object(file)
    channels = numbered_names(content["channel_names"], where=file, key="channel_names")
    listed = content.get("dataset")
    cases: list[Case] = []
    if isinstance(listed, dict):
        for name, entry in sorted(listed.items()):
            cases.append(_listed_case(name, entry, root))
    else:
        ending = str(content.get("file_ending", ".nii.gz"))
        for images, masks, side in FOLDERS:
            cases += _cases_in(root / images, root / masks, side, ending, len(channels))
    place = f"{file}, 'trivox'"
    additions = validated(
        Additions,
        content.get("trivox") or {},
        where=place,
        error=FormatError,
        advice=ADVICE,
    )
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
        labels=additions.naming(labels, where=place),
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
    classes = dict(additions.classes)
    file = root / CLASS_TABLE
    if not file.is_file() or not cases:
        return classes
    for name, class_name in read_class_table(file, cases).classes.items():
        if class_name is None:
            continue
        elsewhere = additions.classes.get(name, class_name)
        if elsewhere != class_name:
            raise DataError(
                f"{file}: {name} is {class_name}, in dataset.json it is {elsewhere}; "
                "correct one of them"
            )
        classes[name] = class_name
    return classes


def _declared_validation(
    cases: Sequence[Case], file: Path
) -> dict[str, Literal["validation"]]:
    """The cases that the only fold in `splits_final.json` validates on."""
    folds = read_json(file) if file.is_file() else []
    if not isinstance(folds, list) or not all(_is_fold(fold) for fold in folds):
        raise FormatError(
            f'{file}: must list folds such as {{"train": [...], "val": [...]}}; '
            "correct or remove it"
        )
    if len(folds) != 1:
        return {}
    train = list(folds[0]["train"])
    validation = list(folds[0]["val"])
    known = {case.name for case in cases if case.split != "test"}
    strange = [name for name in (*train, *validation) if name not in known]
    both = sorted(set(train) & set(validation))
    complaint = ""
    if both:
        complaint = f"'{both[0]}' is in train and val"
    elif strange:
        complaint = f"'{strange[0]}' is no case of imagesTr"
    if complaint:
        raise FormatError(f"{file}: {complaint}; correct or remove the file")
    return dict.fromkeys(validation, "validation")


def _is_fold(content: object) -> bool:
    return isinstance(content, dict) and {"train", "val"} <= set(content)


def _listed_case(name: str, entry: dict[str, Any], root: Path) -> Case:
    label = entry.get("label")
    return Case(
        name=name,
        images=tuple(root / p for p in entry["images"]),
        label=root / label if label else None,
    )


def _cases_in(
    images: Path, labels: Path, side: Side, ending: str, channels: int
) -> Iterator[Case]:
    """Cases of an image folder, with the files that each should have (missing ones
    included, for the check to name) and superfluous ones.
    """
    expected = set(range(channels))
    for name, present in sorted(_channels_present(images, ending).items()):
        files = [f"{name}_{i:04d}{ending}" for i in sorted(present | expected)]
        if not present:
            files = [f"{name}{ending}"]
        label = labels / f"{name}{ending}"
        yield Case(
            name=name,
            images=tuple(images / file for file in files),
            label=label if label.exists() else None,
            split=side,
        )


def _channels_present(folder: Path, ending: str) -> dict[str, set[int]]:
    """Case names in `folder` and the channel numbers each has; none for a file without
    number (it holds them all).
    """
    channels: dict[str, set[int]] = {}
    for path in folder.glob(f"*{ending}"):
        if path.name.startswith("."):
            continue
        stem = path.name.removesuffix(ending)
        parts = CHANNEL_SUFFIX.fullmatch(stem)
        if parts:
            channels.setdefault(parts["case"], set()).add(int(parts["channel"]))
        else:
            channels.setdefault(stem, set())
    return channels
