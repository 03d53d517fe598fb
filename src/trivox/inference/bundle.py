"""A bundle: the folder that inference needs.

JSON and safetensors, nothing that executes.

    bundle.json                 format version, plan, settings of inference, training
                                summary, sha256 of each weights file
    weights-fold0.safetensors   and so on, one a fold
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from trivox.errors import BundleError
from trivox.files import atomic_path, file_hash, read_json, write_json
from trivox.inference.descriptions import (
    BundleDescription,
    LabelDescription,
    VolumeDescription,
    Weights,
)
from trivox.inference.zoo.shelves import model_folder, same_name_hint
from trivox.schema import validated

FORMAT_VERSION = 1
PRETRAINED = "pretrained.safetensors"
"""What `trivox pretrain` leaves: weights to start from, no bundle."""

D = TypeVar("D", bound=BundleDescription)


@dataclass(frozen=True)
class Bundle(Generic[D]):
    """A bundle on disk."""

    folder: Path
    description: D

    @property
    def identity(self) -> str:
        """A short hash over the files: predictions name the model that made them."""
        return self.description.identity

    @property
    def run(self) -> Path | None:
        """The run that it lies in; None for a bundle alone."""
        run = self.folder.parent
        files = [run / name for name in ("dataset.json", "splits.json", "recipe.json")]
        return run if all(file.is_file() for file in files) else None

    def weight_files(self) -> list[Path]:
        """Paths of the weights after comparing their checksums; raises `BundleError`
        for a damaged one.
        """
        return self.checked(self.description.weights)

    def checked(self, listed: Sequence[Weights]) -> list[Path]:
        """Paths of listed files after comparing their checksums; raises `BundleError`
        for a damaged one.
        """
        files = []
        for entry in listed:
            path = self.folder / entry.file
            if not path.is_file():
                raise BundleError(
                    f"{path}: weights are missing; copy the whole bundle folder"
                )
            if file_hash(path) != entry.sha256:
                raise BundleError(
                    f"{path}: checksum differs from bundle.json; the file is damaged "
                    "or was exchanged"
                )
            files.append(path)
        return files


LabelBundle = Bundle[LabelDescription]
VolumeBundle = Bundle[VolumeDescription]


def write_bundle(
    folder: Path,
    description: D,
    weights: Mapping[str, Path],
    *,
    classifiers: Mapping[str, Path] | None = None,
) -> Bundle[D]:
    """Copy the weights and classifiers (fold name -> safetensors file) and write
    `bundle.json` last.

    description: its own lists of files are replaced.
    """
    networks = copy_weights(folder, "weights", weights)
    answering = copy_weights(folder, "classifier", classifiers or {})
    description = description.naming(networks, answering)
    write_json(folder / "bundle.json", description.model_dump(mode="json"))
    return Bundle(folder, description)


def copy_weights(folder: Path, what: str, files: Mapping[str, Path]) -> list[Weights]:
    """Copy files (fold name -> safetensors file) into a bundle, with their checksums."""
    entries = []
    for fold, source in files.items():
        name = f"{what}-fold{fold}.safetensors"
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(source.read_bytes())
        entries.append(Weights(file=name, fold=fold, sha256=file_hash(folder / name)))
    return entries


def model_paths(models: Path | str | Sequence[Path | str]) -> list[Path]:
    """The paths of one or several models, ready ones called by their names included;
    raises `BundleError` for none, and for names that are not known.
    """
    paths = [models] if isinstance(models, str | Path) else list(models)
    if not paths:
        raise BundleError("no model given; name a run, a bundle or a ready model")
    return [model_folder(Path(path)) for path in paths]


def read_bundle(path: Path) -> LabelBundle:
    """Read a bundle that gives label maps, from its folder, its `bundle.json`, or the
    run that holds it.
    """
    return _read(path, LabelDescription, lacks="gives no label maps")


def read_volume_bundle(path: Path) -> VolumeBundle:
    """Read a bundle that makes volumes, likewise."""
    return _read(path, VolumeDescription, lacks="makes no volumes")


def bundle_content(path: Path) -> tuple[Path, dict[str, object]]:
    """The `bundle.json` of a model (a bundle's folder, the file, a run, or the name of a
    ready model) and what it says, of a known version.
    """
    folder = model_folder(path)
    candidates = [folder / "bundle.json", folder / "bundle" / "bundle.json", folder]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None or file.suffix != ".json":
        raise BundleError(
            f"{path}: {_state(folder)}; give a run or a bundle folder that holds "
            f"bundle.json{same_name_hint(path)}"
        )
    content = read_json(file)
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{file}: bundle format {version} is not {FORMAT_VERSION}; use the trivox "
            "version that wrote it"
        )
    return file, content


def _state(path: Path) -> str:
    """What a folder without `bundle.json` is."""
    if (path / PRETRAINED).exists():
        return "holds pretrained weights and no model (train with --pretrained first)"
    if (path / "recipe.json").exists():
        return "training has not finished (continue it with --resume)"
    return "no model"


def read_any_bundle(path: Path) -> LabelBundle | VolumeBundle:
    """Read a bundle of either kind, likewise."""
    file, content = bundle_content(path)
    if _kind(content) is VolumeDescription:
        return _described(file, content, VolumeDescription)
    return _described(file, content, LabelDescription)


def _read(path: Path, kind: type[D], *, lacks: str) -> Bundle[D]:
    """A bundle of one kind; lacks: what to say of one of the other."""
    file, content = bundle_content(path)
    if _kind(content) is not kind:
        raise BundleError(
            f"{file}: a model of task {content.get('task')} {lacks}; choose another "
            "model"
        )
    return _described(file, content, kind)


def _kind(content: Mapping[str, object]) -> type[BundleDescription]:
    # only the bundles of volumes say of how many views they are made
    return VolumeDescription if "views" in content else LabelDescription


def _described(file: Path, content: object, kind: type[D]) -> Bundle[D]:
    advice = "the bundle was altered, export it again"
    description = validated(kind, content, where=file, error=BundleError, advice=advice)
    if not description.weights:
        raise BundleError(f"{file}: weights: there are none; {advice}")
    return Bundle(file.parent, description)
