"""nnU-Net 2 raw data: `dataset.json` with `channel_names` and `file_ending`,
`imagesTr`, `labelsTr`, `imagesTs`.

Beside it, where there are classes, `classification_labels.csv`; and
`splits_final.json`, which declares the folds.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from trivox.datasets.channels import numbered_case, split_stem
from trivox.datasets.class_tables import class_order, read_class_table
from trivox.datasets.dataset import Case, Dataset, Fold, Side, listed_case
from trivox.datasets.declared_folds import SPLITS, read_splits
from trivox.datasets.label_parsing import parse_labels
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.msd import description_file, numbered_names
from trivox.datasets.listing import (
    ADVICE,
    CHANNEL_SUFFIX,
    entries,
    json_object,
    segmentation_files,
    unique_cases,
)
from trivox.datasets.region_order import KEY, require_paintable, working_order
from trivox.errors import DataError, FormatError, LabelError, few
from trivox.schema import Frozen, validated
from trivox.volumes.formats import SUFFIXES

ALL_CHANNELS = -1
"""In place of the number of a channel: a file that holds them all."""
FOLDERS: tuple[tuple[str, str, Side], ...] = (
    ("imagesTr", "labelsTr", "train"),
    ("imagesTs", "labelsTs", "test"),
)
CLASS_TABLE = "classification_labels.csv"
DESCRIBES = ("channel_names", "file_ending", "numTraining", "regions_class_order")
"""Keys of `dataset.json`, one of which is in every one of nnU-Net."""


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


class Listed(BaseModel):
    """An entry of `dataset`; what else it holds is not read."""

    images: tuple[str, ...] = Field(min_length=1)
    label: str | None = None


def matches(path: Path) -> bool:
    """Whether `path` is (or holds) a `dataset.json` of nnU-Net: one that names channels,
    or describes the folder `imagesTr` beside it.
    """
    file = description_file(path)
    content = json_object(file)
    if "channel_names" in content:
        return True
    if isinstance(content.get("training"), list):
        return False
    described = any(key in content for key in (*DESCRIBES, "labels"))
    return described and (file.parent / "imagesTr").is_dir()


def load(path: Path) -> Dataset:
    """Read the dataset; an image without label map becomes a case without label, which
    is not trained on.

    Raises `FormatError` naming the key of `dataset.json` that does not fit what lies
    there, `LabelError` for labels that contradict each other.
    """
    file = description_file(path).absolute()
    root = file.parent
    content = json_object(file)
    channels = _channel_names(content, file)
    listed = content.get("dataset")
    cases: list[Case] = []
    if isinstance(listed, dict):
        for name, entry in sorted(listed.items()):
            cases.append(_listed_case(name, entry, root))
    else:
        ending = _ending(content, file)
        for images, masks, side in FOLDERS:
            cases += _cases_in(root / images, root / masks, side, ending, channels)
    place = f"{file}, 'trivox'"
    additions = validated(
        Additions,
        content.get("trivox") or {},
        where=place,
        error=FormatError,
        advice=ADVICE,
    )
    cases = list(_with_additions(cases, additions, root))
    declared = read_splits(root / SPLITS, cases)
    labels = additions.naming(_labels(content, file), where=place)
    return Dataset(
        name=str(content.get("name") or root.name),
        root=root,
        layout="nnunet_listed" if isinstance(listed, dict) else "nnunet",
        channels=channels,
        labels=require_paintable(labels, where=file),
        classes=class_order((case.class_name for case in cases), where=root),
        folds=declared.folds,
        folds_from=declared.source,
        remarks=(*declared.remarks, *_disagreements(content, cases, root)),
        cases=unique_cases(_held_out(cases, declared.folds), where=file),
    )


def _held_out(cases: Sequence[Case], folds: Sequence[Fold]) -> Iterator[Case]:
    """`cases`, with those as a validation split that the only fold validates on."""
    names = set(folds[0].validation) if len(folds) == 1 else set[str]()
    for case in cases:
        side = "validation" if case.name in names else case.split
        yield case.model_copy(update={"split": side})


def _channel_names(content: Mapping[str, Any], file: Path) -> tuple[str, ...]:
    """Under `channel_names`, or `modality` as nnU-Net 1 calls them."""
    key = "modality" if "channel_names" not in content else "channel_names"
    if key not in content:
        raise FormatError(
            f"{file}: 'channel_names' is missing (and 'modality', as nnU-Net 1 calls "
            f'it; there are {few(content)}); add "channel_names": {{"0": "CT"}}'
        )
    return numbered_names(content[key], where=file, key=key)


def _labels(content: Mapping[str, Any], file: Path) -> LabelScheme:
    """Labels or regions; raises `LabelError` for regions without an order to paint."""
    raw = content.get("labels")
    if not raw:
        raise LabelError(
            f"{file}: 'labels' is missing or empty; add names and values, such as "
            '"labels": {"background": 0, "organ": 1}'
        )
    order = content.get(KEY) or ()
    regions = _several_values(raw)
    if regions and not order:
        better = working_order(regions)
        advice = ADVICE if better is None else f'add "{KEY}": {better[1]}'
        if better is not None and better[0] != [*regions]:
            advice = f"list them as {', '.join(better[0])} and {advice}"
        raise LabelError(
            f"{file}: 'labels' has regions ({few(regions)}) but '{KEY}' is missing; "
            f"{advice}"
        )
    if not regions and isinstance(raw, dict):
        # a list of one value is a label (nnU-Net's rule)
        raw = {
            name: value[0] if isinstance(value, list) and len(value) == 1 else value
            for name, value in raw.items()
        }
        order = ()
    return parse_labels(raw, where=file, order=order)


def _several_values(raw: Any) -> dict[str, list[int]]:
    """The regions among the labels, each with its values; none if all labels are single
    values.
    """
    if not isinstance(raw, dict):
        return {}
    if not any(isinstance(value, list) and len(value) > 1 for value in raw.values()):
        return {}
    regions = {}
    for name, value in raw.items():
        values = value if isinstance(value, list) else [value]
        whole = all(isinstance(number, int) for number in values)
        if whole and values and values != [0] and name not in ("background", "ignore"):
            regions[name] = values
    return regions


def _ending(content: Mapping[str, Any], file: Path) -> str:
    """How files end, in small letters with its dot; raises `FormatError` if no image
    does.
    """
    given = content.get("file_ending", ".nii.gz")
    if not isinstance(given, str) or not given.strip(". "):
        raise FormatError(
            f"{file}: 'file_ending' must be a text such as \".nii.gz\", found "
            f"{given!r:.40}; {ADVICE}"
        )
    ending = f".{given.strip().lstrip('.').lower()}"
    images = file.parent / FOLDERS[0][0]
    if not images.is_dir():
        return ending
    names = [path.name.lower() for path in entries(images) if path.name[0] != "."]
    if names and not any(name.endswith(ending) for name in names):
        others = Counter(_suffix_of(name) for name in names)
        counts = [f"{count} that end in {other}" for other, count in others.items()]
        raise FormatError(
            f"{file}: 'file_ending' is '{given}', but {images.name}/ holds "
            f"{few(counts)}; correct 'file_ending'"
        )
    return ending


def _suffix_of(name: str) -> str:
    known = (suffix for suffix in SUFFIXES if name.endswith(suffix))
    return next(known, Path(name).suffix or name)


def _disagreements(
    content: Mapping[str, Any], cases: Sequence[Case], root: Path
) -> Iterator[str]:
    """What `dataset.json` says beside the names, and is not so or not heeded."""
    count = sum(case.split != "test" for case in cases)
    said = content.get("numTraining")
    if said is not None and str(said) != str(count):
        yield (
            f"'numTraining' is {said!r:.20}, {root.name} has {count} training images; "
            "correct it, or look for missing files"
        )
    reader = content.get("overwrite_image_reader_writer")
    if reader not in (None, "None"):
        yield (
            f"'overwrite_image_reader_writer' ({reader!s:.40}) is not heeded: the names "
            "of files say how they are read; fine if the files are what they are called"
        )


def _with_additions(
    cases: Sequence[Case], additions: Additions, root: Path
) -> Iterator[Case]:
    """`cases` with their patients, classes and splits."""
    classes = _classes(cases, additions, root)
    for case in cases:
        yield case.model_copy(
            update={
                "patient": additions.patients.get(case.name, case.patient),
                "class_name": classes.get(case.name),
                "split": additions.splits.get(case.name, case.split),
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


def _listed_case(name: str, entry: object, root: Path) -> Case:
    where = f"{root / 'dataset.json'}, 'dataset', case {name[:60]!a}"
    listed = validated(Listed, entry, where=where, error=FormatError, advice=ADVICE)
    return Case(
        name=name,
        images=tuple(root / image for image in listed.images),
        label=root / listed.label if listed.label else None,
    )


def _cases_in(
    images: Path, labels: Path, side: Side, ending: str, channels: Sequence[str]
) -> Iterator[Case]:
    """Cases of an image folder; a channel without file is absent."""
    masks = segmentation_files(labels)
    masks |= {path.name[: -len(ending)]: path for path in _files_in(labels, ending)}
    groups = _by_channel(_files_in(images, ending), ending, channels)
    for name, files in sorted(groups.items()):
        whole = files.get(ALL_CHANNELS)
        if whole is None:
            case = numbered_case(name, files, channels)
        else:
            case = listed_case(name, images=(whole,))
        if whole is not None and len(files) > 1:
            complaint = f"has {whole.name} beside files of single channels; remove one"
            case = case.with_complaint(case.complaint or complaint)
        yield case.model_copy(update={"label": masks.get(name), "split": side})


def _files_in(folder: Path, ending: str) -> list[Path]:
    """Files of the ending, in small or large letters."""
    if not folder.is_dir():
        return []
    shown = (path for path in entries(folder) if not path.name.startswith("."))
    return [path for path in shown if path.name.lower().endswith(ending)]


def _by_channel(
    files: Iterable[Path], ending: str, channels: Sequence[str]
) -> dict[str, dict[int, Path]]:
    """The files of each case by the number of their channel, or `ALL_CHANNELS`."""
    groups: dict[str, dict[int, Path]] = {}
    for path in files:
        stem = path.name[: -len(ending)]
        parts = CHANNEL_SUFFIX.fullmatch(stem)
        named = split_stem(stem, channels) if len(channels) > 1 else None
        name, number = named or (stem, ALL_CHANNELS)
        if parts:
            name = parts["case"]
            number = int(parts["channel"])
        groups.setdefault(name, {})[number] = path
    return groups
