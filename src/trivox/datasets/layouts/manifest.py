"""trivox manifests: a CSV or JSON file that lists the cases.

Paths in it are relative to its folder, or absolute.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from trivox.datasets.class_tables import class_of, class_order
from trivox.datasets.dataset import Case, Dataset, Side
from trivox.datasets.declared_folds import folds_of_column
from trivox.datasets.label_parsing import parse_labels
from trivox.datasets.labels import LabelScheme
from trivox.datasets.listing import (
    ADVICE,
    channel_names,
    discover_labels,
    json_object,
    unique_cases,
)
from trivox.datasets.names import usable_name
from trivox.datasets.region_order import require_paintable
from trivox.datasets.tables import Table, read_table
from trivox.errors import FormatError, few
from trivox.schema import Frozen, validated

OPTIONAL = ("label", "patient", "split", "fold", "class")
"""Columns of a CSV besides the case and its images."""
NAMES = ("trivox.json", "manifest.json", "manifest.csv", "dataset.csv")


class ManifestCase(Frozen):
    """One entry of `cases`; `images` in the order of the channels, or by channel name.

    fold: the number of the fold that validates on it.
    """

    case: Annotated[str, AfterValidator(usable_name)]
    images: tuple[Path, ...] | dict[str, Path] = Field(min_length=1)
    label: Path | None = None
    patient: str = ""
    split: Side = "train"
    fold: int | None = None
    class_name: str | None = Field(None, alias="class")

    @field_validator("class_name", mode="before")
    @classmethod
    def _class_may_be_blank(cls, content: object) -> str | None:
        return class_of(content)


class Manifest(Frozen):
    """Content of a JSON manifest; without `cases` it gives the names that go with a CSV
    of the same stem.

    classes: those that cases may have, in the order of the classifier's outputs; left
    out: those that cases have, sorted.
    """

    name: str = ""
    channels: tuple[str, ...] = ()
    labels: dict[str, object] | None = None
    regions: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    region_order: tuple[int, ...] = ()
    nested: bool = False
    ignore: int | None = None
    classes: tuple[str, ...] = ()
    cases: tuple[ManifestCase, ...] = ()

    @field_validator("classes", mode="before")
    @classmethod
    def _classes_may_be_numbers(cls, content: object) -> object:
        if isinstance(content, list):
            return [class_of(name) for name in content]
        return content


def find_file(path: Path) -> Path | None:
    """The manifest: `path` itself, or one of `NAMES` in it."""
    candidates = [path] if path.is_file() else [path / name for name in NAMES]
    return next((file for file in candidates if _is_manifest(file)), None)


def _is_manifest(file: Path) -> bool:
    if not file.is_file():
        return False
    return _is_csv(file) or isinstance(json_object(file).get("cases"), list)


def _is_csv(file: Path) -> bool:
    return file.suffix.lower() == ".csv"


def matches(path: Path) -> bool:
    """Whether `path` is a manifest or a folder that holds one."""
    return find_file(path) is not None


def load(path: Path) -> Dataset:
    """Read a manifest; raises `FormatError` naming the file and the row or entry that
    is wrong.
    """
    file = find_file(path.absolute())
    assert file is not None  # `matches` was asked before
    content = _csv_content(file) if _is_csv(file) else json_object(file)
    manifest = validated(
        Manifest, content, where=file, error=FormatError, advice=ADVICE
    )
    channels = manifest.channels or _channels_by_name(manifest)
    entries = (_case(entry, channels, file) for entry in manifest.cases)
    cases = unique_cases(entries, where=file)
    numbers = {entry.case: entry.fold for entry in manifest.cases}
    declared = folds_of_column(cases, numbers, where=file)
    named_by_file = _is_csv(file) and file.name not in NAMES
    return Dataset(
        name=manifest.name or (file.stem if named_by_file else file.parent.name),
        root=file.parent,
        layout="manifest",
        channels=channels or channel_names(cases),
        labels=_labels(manifest, cases, file),
        classes=_classes(manifest, file),
        folds=declared.folds,
        folds_from=declared.source,
        remarks=declared.remarks,
        cases=cases,
    )


def _channels_by_name(manifest: Manifest) -> tuple[str, ...]:
    """The names of all channels that cases have, in the order of their appearance."""
    names: dict[str, None] = {}
    for entry in manifest.cases:
        if isinstance(entry.images, dict):
            names.update(dict.fromkeys(entry.images))
    return tuple(names)


def _case(entry: ManifestCase, channels: tuple[str, ...], file: Path) -> Case:
    """The case of an entry; a channel that it does not name is absent."""
    images = entry.images
    absent: tuple[int, ...] = ()
    complaint = ""
    if isinstance(images, dict):
        strange = [name for name in images if name not in channels]
        if strange:
            complaint = f"{file.name} gives images of {few(strange)}, the channels are "
            complaint += f"{few(channels)}; rename them there"
        absent = tuple(i for i, name in enumerate(channels) if name not in images)
        images = tuple(images[name] for name in channels if name in images)
    return Case(
        name=entry.case,
        images=tuple(file.parent / image for image in images),
        label=file.parent / entry.label if entry.label else None,
        patient=entry.patient,
        split=entry.split,
        absent=absent,
        class_name=entry.class_name,
        complaint=complaint,
    )


def _classes(manifest: Manifest, file: Path) -> tuple[str, ...]:
    """The classes listed, else those that cases have."""
    listed = manifest.classes
    present = class_order((entry.class_name for entry in manifest.cases), where=file)
    strange = set(present) - set(listed) if listed else set()
    if strange or len(set(listed)) < len(listed):
        examples = [
            f"case '{entry.case}' is '{entry.class_name}', "
            for entry in manifest.cases
            if entry.class_name in strange
        ]
        case = examples[0] if examples else ""
        raise FormatError(
            f"{file}: {case}'classes' lists {[*listed]}; list each class of the cases "
            "once"
        )
    return listed or present


def _labels(
    manifest: Manifest, cases: tuple[Case, ...], file: Path
) -> LabelScheme | None:
    if manifest.labels:
        scheme = parse_labels(
            manifest.labels,
            where=file,
            regions=manifest.regions,
            order=manifest.region_order,
            ignore=manifest.ignore,
        )
        content = scheme.model_dump() | {"nested": manifest.nested}
        return require_paintable(LabelScheme(**content), where=file)
    files = [case.label for case in cases if case.label]
    return discover_labels(files, where=file) if files else None


def _csv_content(file: Path) -> dict[str, object]:
    """Content of a manifest: the rows of the CSV, under the names that a JSON file of
    the same stem gives.
    """
    table = _with_known_titles(read_table(file))
    channels = {column: _channel(column) for column in table.columns}
    images = {column: channel for column, channel in channels.items() if channel}
    if "case" not in table.columns or not images:
        raise FormatError(
            f"{file}: needs the columns 'case' and 'image' (or 'image:<channel>'), "
            f"found {[*table.columns]}"
        )
    content = json_object(file.with_suffix(".json"))
    names = {key: content[key] for key in content if key in Manifest.model_fields}
    cases = [*_rows(table, images, file)]
    return {"channels": _csv_channels(images)} | names | {"cases": cases}


def _with_known_titles(table: Table) -> Table:
    """`table` with the titles that mean something here in small letters."""
    known = {"case", "image", *OPTIONAL}
    titles = [title.lower() for title in table.columns]
    columns = tuple(
        lower if lower in known and titles.count(lower) == 1 else title
        for lower, title in zip(titles, table.columns, strict=True)
    )
    return replace(table, columns=columns)


def _channel(column: str) -> str:
    """Channel name in a column title: `image` -> image, `image:T1` and `image_T1` ->
    T1, others -> nothing.
    """
    if column == "image":
        return column
    if column.startswith(("image:", "image_")):
        return column[len("image:") :].strip()
    return ""


def _csv_channels(images: Mapping[str, str]) -> tuple[str, ...]:
    """Several columns name the channels; a single `image` column may hold files with
    several, so it names none.
    """
    channels = tuple(images.values())
    return () if channels == ("image",) else channels


def _rows(
    table: Table, images: Mapping[str, str], file: Path
) -> Iterator[ManifestCase]:
    for line, cells in zip(table.lines, table.rows, strict=True):
        row = dict(zip(table.columns, cells, strict=True))
        yield _row(row, images, f"{file}, line {line}")


def _row(
    values: Mapping[str, str], images: Mapping[str, str], where: str
) -> ManifestCase:
    files = {channel: values[column] for column, channel in images.items()}
    present = {channel: name for channel, name in files.items() if name}
    if not present:
        raise FormatError(
            f"{where}: no image for channel {[*files]}; fill the cell or remove the row"
        )
    content = {
        "case": values["case"],
        "images": present if len(files) > 1 else tuple(present.values()),
        "label": values.get("label") or None,
        "patient": values.get("patient", ""),
        "split": values.get("split") or "train",
        "fold": values.get("fold") or None,
        "class": values.get("class"),
    }
    return validated(
        ManifestCase, content, where=where, error=FormatError, advice=ADVICE
    )
