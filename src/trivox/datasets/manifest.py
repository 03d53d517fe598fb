"""trivox manifests: a CSV or JSON file that lists the cases. Paths in it are relative to its folder, or absolute."""

import csv
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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
from trivox.errors import FormatError

NAMES = ("trivox.json", "manifest.json", "manifest.csv", "dataset.csv")


class ManifestCase(BaseModel):
    """One entry of `cases`; `images` in the order of the channels, or by channel name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str = Field(min_length=1)
    images: tuple[Path, ...] | dict[str, Path] = Field(min_length=1)
    label: Path | None = None
    patient: str = ""
    split: Literal["train", "test"] = "train"


class Manifest(BaseModel):
    """Content of a JSON manifest; without `cases` it gives the names that go with a CSV of the same stem."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    channels: tuple[str, ...] = ()
    labels: dict[str, Any] | None = None
    regions: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    region_order: tuple[int, ...] = ()
    nested: bool = False
    ignore: int | None = None
    cases: tuple[ManifestCase, ...] = ()


def find_file(path: Path) -> Path | None:
    """The manifest: `path` itself, or one of `NAMES` in it."""
    candidates = [path] if path.is_file() else [path / name for name in NAMES]
    return next((file for file in candidates if file.is_file() and _is_manifest(file)), None)


def _is_manifest(file: Path) -> bool:
    return file.suffix.lower() == ".csv" or isinstance(json_object(file).get("cases"), list)


def matches(path: Path) -> bool:
    """Whether `path` is a manifest or a folder that holds one."""
    return find_file(path) is not None


def load(path: Path) -> Dataset:
    """Read a manifest; raises `FormatError` naming the file and the row or entry that is wrong."""
    file = find_file(path.absolute())
    assert file is not None  # `matches` was asked before
    is_csv = file.suffix.lower() == ".csv"
    manifest = _read_csv(file) if is_csv else validated(Manifest, json_object(file), where=str(file))
    channels = manifest.channels or _channels_by_name(manifest)
    cases = unique_cases((_case(entry, channels, file) for entry in manifest.cases), where=file)
    return Dataset(
        name=manifest.name or (file.stem if is_csv and file.name not in NAMES else file.parent.name),
        root=file.parent,
        layout="manifest",
        channels=channels or channel_names(cases),
        labels=_labels(manifest, cases, file),
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
    )


def _labels(manifest: Manifest, cases: tuple[Case, ...], file: Path) -> LabelScheme | None:
    if manifest.labels:
        order, ignore = manifest.region_order, manifest.ignore
        scheme = parse_labels(manifest.labels, where=file, regions=manifest.regions, order=order, ignore=ignore)
        return LabelScheme(**{**scheme.model_dump(), "nested": manifest.nested})
    files = [case.label for case in cases if case.label]
    return discover_labels(files, where=file) if files else None


def _read_csv(file: Path) -> Manifest:
    """Rows of the CSV as a manifest, with the names that a JSON file of the same stem gives."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{file}: is not UTF-8 text; save it as CSV UTF-8") from error
    header = lines[0] if lines else ""
    rows = csv.DictReader(lines, delimiter=";" if header.count(";") > header.count(",") else ",")
    columns = {name: name.strip() for name in rows.fieldnames or ()}
    images = {name: _channel(column) for name, column in columns.items() if _channel(column)}
    if "case" not in columns.values() or not images:
        raise FormatError(f"{file}: needs the columns 'case' and 'image' (or 'image:<channel>'), found {[*columns]}")
    names = {k: v for k, v in json_object(file.with_suffix(".json")).items() if k in Manifest.model_fields}
    cases = [_row(row, columns, images, f"{file}, line {rows.line_num}") for row in rows]
    return validated(Manifest, {"channels": _csv_channels(images)} | names | {"cases": cases}, where=str(file))


def _channel(column: str) -> str:
    """Channel name in a column title: `image` -> image, `image:T1` and `image_T1` -> T1, others -> nothing."""
    if column == "image":
        return column
    return column[len("image:") :].strip() if column.startswith(("image:", "image_")) else ""


def _csv_channels(images: dict[str, str]) -> tuple[str, ...]:
    """Several columns name the channels; a single `image` column may hold files with several, so it names none."""
    return () if tuple(images.values()) == ("image",) else tuple(images.values())


def _row(row: dict[str, str], columns: dict[str, str], images: dict[str, str], where: str) -> ManifestCase:
    files = {channel: (row[name] or "").strip() for name, channel in images.items()}
    values = {column: (row[name] or "").strip() for name, column in columns.items()}
    missing = [channel for channel, name in files.items() if not name]
    if missing:
        raise FormatError(f"{where}: no image for channel {missing}; fill the cell or remove the row")
    content = {
        "case": values["case"],
        "images": tuple(files.values()),
        "label": values.get("label") or None,
        "patient": values.get("patient", ""),
        "split": values.get("split") or "train",
    }
    return validated(ManifestCase, content, where=where)
