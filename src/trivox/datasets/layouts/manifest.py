"""trivox manifests: a CSV or JSON file that lists the cases.

Paths in it are relative to its folder, or absolute.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from trivox.datasets.class_tables import class_of, class_order
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import LabelScheme
from trivox.datasets.listing import (
    channel_names,
    discover_labels,
    json_object,
    parse_labels,
    unique_cases,
    validated,
)
from trivox.datasets.tables import read_table
from trivox.errors import FormatError

NAMES = ("trivox.json", "manifest.json", "manifest.csv", "dataset.csv")


class ManifestCase(BaseModel):
    """One entry of `cases`; `images` in the order of the channels, or by channel name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str = Field(min_length=1)
    images: tuple[Path, ...] | dict[str, Path] = Field(min_length=1)
    label: Path | None = None
    patient: str = ""
    split: Literal["train", "validation", "test"] = "train"
    class_name: str | None = Field(None, alias="class")

    @field_validator("class_name", mode="before")
    @classmethod
    def _class_may_be_blank(cls, content: object) -> str | None:
        return class_of(content)


class Manifest(BaseModel):
    """Content of a JSON manifest; without `cases` it gives the names that go with a CSV
    of the same stem.

    classes: those that cases may have, in the order of the classifier's outputs; left
    out: those that cases have, sorted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    channels: tuple[str, ...] = ()
    labels: dict[str, Any] | None = None
    regions: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    region_order: tuple[int, ...] = ()
    nested: bool = False
    ignore: int | None = None
    classes: tuple[str, ...] = ()
    cases: tuple[ManifestCase, ...] = ()

    @field_validator("classes", mode="before")
    @classmethod
    def _classes_may_be_numbers(cls, content: object) -> object:
        return (
            [class_of(name) for name in content]
            if isinstance(content, list)
            else content
        )


def find_file(path: Path) -> Path | None:
    """The manifest: `path` itself, or one of `NAMES` in it."""
    candidates = [path] if path.is_file() else [path / name for name in NAMES]
    return next(
        (file for file in candidates if file.is_file() and _is_manifest(file)), None
    )


def _is_manifest(file: Path) -> bool:
    return file.suffix.lower() == ".csv" or isinstance(
        json_object(file).get("cases"), list
    )


def matches(path: Path) -> bool:
    """Whether `path` is a manifest or a folder that holds one."""
    return find_file(path) is not None


def load(path: Path) -> Dataset:
    """Read a manifest; raises `FormatError` naming the file and the row or entry that
    is wrong.
    """
    file = find_file(path.absolute())
    assert file is not None  # `matches` was asked before
    is_csv = file.suffix.lower() == ".csv"
    manifest = (
        _read_csv(file)
        if is_csv
        else validated(Manifest, json_object(file), where=str(file))
    )
    channels = manifest.channels or _channels_by_name(manifest)
    cases = unique_cases(
        (_case(entry, channels, file) for entry in manifest.cases), where=file
    )
    return Dataset(
        name=manifest.name
        or (file.stem if is_csv and file.name not in NAMES else file.parent.name),
        root=file.parent,
        layout="manifest",
        channels=channels or channel_names(cases),
        labels=_labels(manifest, cases, file),
        classes=_classes(manifest, file),
        cases=cases,
    )


def _channels_by_name(manifest: Manifest) -> tuple[str, ...]:
    images = manifest.cases[0].images if manifest.cases else ()
    return tuple(images) if isinstance(images, dict) else ()


def _case(entry: ManifestCase, channels: tuple[str, ...], file: Path) -> Case:
    images = entry.images
    if isinstance(images, dict):
        if set(images) != set(channels):
            raise FormatError(
                f"{file}: case '{entry.case}' has images {list(images)}, the channels are {list(channels)}"
            )
        images = tuple(images[channel] for channel in channels)
    return Case(
        name=entry.case,
        images=tuple(file.parent / image for image in images),
        label=file.parent / entry.label if entry.label else None,
        patient=entry.patient,
        split=entry.split,
        class_name=entry.class_name,
    )


def _classes(manifest: Manifest, file: Path) -> tuple[str, ...]:
    found = class_order((entry.class_name for entry in manifest.cases), where=file)
    strange = set(found) - set(manifest.classes) if manifest.classes else set()
    if strange or len(set(manifest.classes)) < len(manifest.classes):
        case = next(
            (
                f"case '{entry.case}' is '{entry.class_name}', "
                for entry in manifest.cases
                if entry.class_name in strange
            ),
            "",
        )
        raise FormatError(
            f"{file}: {case}'classes' lists {[*manifest.classes]}; list each class of the cases once"
        )
    return manifest.classes or found


def _labels(
    manifest: Manifest, cases: tuple[Case, ...], file: Path
) -> LabelScheme | None:
    if manifest.labels:
        order, ignore = manifest.region_order, manifest.ignore
        scheme = parse_labels(
            manifest.labels,
            where=file,
            regions=manifest.regions,
            order=order,
            ignore=ignore,
        )
        return LabelScheme(**{**scheme.model_dump(), "nested": manifest.nested})
    files = [case.label for case in cases if case.label]
    return discover_labels(files, where=file) if files else None


def _read_csv(file: Path) -> Manifest:
    """Rows of the CSV as a manifest, with the names that a JSON file of the same stem
    gives.
    """
    table = read_table(file)
    images = {column: _channel(column) for column in table.columns if _channel(column)}
    if "case" not in table.columns or not images:
        raise FormatError(
            f"{file}: needs the columns 'case' and 'image' (or 'image:<channel>'), found {[*table.columns]}"
        )
    names = {
        k: v
        for k, v in json_object(file.with_suffix(".json")).items()
        if k in Manifest.model_fields
    }
    cases = [
        _row(
            dict(zip(table.columns, cells, strict=True)), images, f"{file}, line {line}"
        )
        for line, cells in zip(table.lines, table.rows, strict=True)
    ]
    return validated(
        Manifest,
        {"channels": _csv_channels(images)} | names | {"cases": cases},
        where=str(file),
    )


def _channel(column: str) -> str:
    """Channel name in a column title: `image` -> image, `image:T1` and `image_T1` ->
    T1, others -> nothing.
    """
    if column == "image":
        return column
    return (
        column[len("image:") :].strip()
        if column.startswith(("image:", "image_"))
        else ""
    )


def _csv_channels(images: dict[str, str]) -> tuple[str, ...]:
    """Several columns name the channels; a single `image` column may hold files with
    several, so it names none.
    """
    return () if tuple(images.values()) == ("image",) else tuple(images.values())


def _row(values: dict[str, str], images: dict[str, str], where: str) -> ManifestCase:
    files = {channel: values[column] for column, channel in images.items()}
    missing = [channel for channel, name in files.items() if not name]
    if missing:
        raise FormatError(
            f"{where}: no image for channel {missing}; fill the cell or remove the row"
        )
    content = {
        "case": values["case"],
        "images": tuple(files.values()),
        "label": values.get("label") or None,
        "patient": values.get("patient", ""),
        "split": values.get("split") or "train",
        "class": values.get("class"),
    }
    return validated(ManifestCase, content, where=where)
