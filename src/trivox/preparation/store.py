"""Prepared cases on disk: one blosc2 array for the image and one for the label, read
patch by patch.

`NAME.image.b2nd` `(c, z, y, x)` float32, `NAME.label.b2nd` `(z, y, x)` int16,
`NAME.foreground.npz` with voxel positions for each index, and `NAME.json`, which is
written last: a case without it is not there.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NotRequired, cast

import numpy as np
from pydantic import Field, StrictInt, TypeAdapter
from typing_extensions import TypedDict

from trivox.array_files import opened_archive
from trivox.datasets.content import CaseContent, recorded_content
from trivox.errors import FormatError, TrivoxError
from trivox.files import atomic_path, read_object, write_json
from trivox.memory import memory_ran_out, no_memory
from trivox.preparation.arrays import open_array, write_array
from trivox.volumes.volume import Array, Shape

CONTENT = "content"
"""Where a case's JSON says what it was made of."""
FOREGROUND_VOXELS = 10_000
"""Positions a class that are noted, at least."""
SEED = 1234


Count = Annotated[StrictInt, Field(ge=1, le=2**48)]


class CaseFacts(TypedDict):
    """What `NAME.json` says; shape: `(z, y, x)`, source_spacing: of the source in the
    patient's `(z, y, x)`, mm; present: voxels of each label index that is noted.
    """

    channels: Count
    shape: Annotated[list[Count], Field(min_length=3, max_length=3)]
    source_spacing: NotRequired[
        Annotated[list[float], Field(min_length=3, max_length=3)]
    ]
    present: dict[Annotated[str, Field(pattern=r"^-?[0-9]{1,5}$")], Count]


FACTS = TypeAdapter(CaseFacts)


class Store:
    """A folder of prepared cases made under one preparation key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._facts = lru_cache(maxsize=4096)(self._read_facts)
        self._positions = lru_cache(maxsize=1024)(self._read_positions)

    @property
    def key_file(self) -> Path:
        """Where the preparation key is kept."""
        return self.folder / "preparation-key.json"

    def clear(self) -> None:
        """Remove all cases and the key, and nothing else that may lie in the folder."""
        self._facts.cache_clear()
        self._positions.cache_clear()
        self.key_file.unlink(missing_ok=True)
        for name in self.names():
            self.remove(name)

    def names(self) -> list[str]:
        """Names of the cases, whole or begun."""
        images = sorted(self.folder.glob("*.image.b2nd"))
        return [image.name.removesuffix(".image.b2nd") for image in images]

    def remove(self, name: str) -> None:
        """Remove a case; what says that it is complete goes first."""
        for suffix in (".json", ".foreground.npz", ".label.b2nd", ".image.b2nd"):
            (self.folder / f"{name}{suffix}").unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """Whether a case is complete."""
        return (self.folder / f"{name}.json").exists()

    def content(self, name: str) -> CaseContent | None:
        """What a complete case was made of, if that was recorded."""
        return recorded_content(read_object(self.folder / f"{name}.json").get(CONTENT))

    def shape(self, name: str) -> Shape:
        """Size of a case, `(z, y, x)`."""
        z, y, x = self._facts(name)["shape"]
        return z, y, x

    def channels(self, name: str) -> int:
        """Image channels of a case."""
        return self._facts(name)["channels"]

    def facts(self, name: str) -> CaseFacts:
        """Size, voxels a class, and whatever was recorded at preparation."""
        return self._facts(name).copy()

    def write(
        self, name: str, image: Array, label: Array, facts: Mapping[str, object]
    ) -> None:
        """Write a case atomically: arrays first, `NAME.json` last."""
        present, positions = foreground_positions(label)
        write_array(self.folder / f"{name}.image.b2nd", image)
        indices = label.astype(np.int16, copy=False)
        write_array(self.folder / f"{name}.label.b2nd", indices)
        arrays = {str(index): voxels for index, voxels in positions.items()}
        foreground = self.folder / f"{name}.foreground.npz"
        with atomic_path(foreground) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        recorded = {
            **facts,
            "channels": image.shape[0],
            "shape": list(label.shape),
            "present": present,
        }
        write_json(self.folder / f"{name}.json", recorded)

    def read_box(
        self, name: str, start: Sequence[int], size: Shape
    ) -> tuple[Array, Array]:
        """Image and label in a box that may reach over the border; outside is zero
        (background).
        """
        image, label = self._arrays(name)
        inside, paste = clipped(start, size, label.shape)
        whole = np.zeros((image.shape[0], *size), np.float32)
        indices = np.zeros(size, np.int16)
        if all(edge.stop > edge.start for edge in inside):
            with undamaged(self.folder, name):
                whole[(slice(None), *paste)] = image[(slice(None), *inside)]
                indices[paste] = label[inside]
        return whole, indices

    def read(self, name: str) -> tuple[Array, Array]:
        """The whole case."""
        return self.read_box(name, (0, 0, 0), self.shape(name))

    def foreground(self, name: str, index: int) -> Array:
        """Voxel positions `(n, 3)` of a class."""
        positions = self._positions(name).get(index)
        if positions is None:
            problem = ValueError(f"no positions of label {index}")
            raise damaged(self.folder, name, problem)
        return positions

    def _read_facts(self, name: str) -> CaseFacts:
        content = read_object(self.folder / f"{name}.json")
        with undamaged(self.folder, name):
            FACTS.validate_python(content)
        return cast(CaseFacts, content)

    def _read_positions(self, name: str) -> dict[int, Array]:
        file = self.folder / f"{name}.foreground.npz"
        with undamaged(self.folder, name), opened_archive(file) as archive:
            return {int(i): _checked_positions(archive[i]) for i in archive.files}

    def _arrays(self, name: str) -> tuple[Any, Any]:
        """Image and label, opened. They are opened for every reading: an open one takes
        a megabyte of buffers, opening it half a millisecond.
        """
        facts = self._facts(name)
        shape = tuple(facts["shape"])
        with undamaged(self.folder, name):
            image = self._open(name, "image", (facts["channels"], *shape), "float32")
            return image, self._open(name, "label", shape, "int16")

    def _open(self, name: str, kind: str, shape: Sequence[int], dtype: str) -> Any:
        array = open_array(self.folder / f"{name}.{kind}.b2nd")
        if tuple(array.shape) != shape or array.dtype != dtype:
            raise ValueError(f"{kind} is of size {array.shape}, {array.dtype}")
        return array

    def mean_voxels(self, names: Sequence[str], indices: int) -> Array:
        """Voxels of each label index `(indices,)` in a case, averaged over the named
        cases; from what `write` counted.
        """
        total = np.zeros(indices)
        for name in names:
            facts = self._facts(name)
            counts = {int(index): count for index, count in facts["present"].items()}
            if 0 not in counts:  # background is counted only in partly labelled cases
                counts[0] = int(np.prod(facts["shape"])) - sum(counts.values())
            if max(counts) >= indices:
                problem = ValueError(f"label {max(counts)} of {indices}")
                raise damaged(self.folder, name, problem)
            for index, count in counts.items():
                total[index] += count if index >= 0 else 0
        return total / max(1, len(names))


def damaged(folder: Path, name: str, error: Exception) -> FormatError:
    """What to say of a prepared case that cannot be read."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return FormatError(
        f"{folder}: prepared case {name} is damaged ({reason}); delete the folder"
    )


@contextmanager
def undamaged(folder: Path, name: str) -> Iterator[None]:
    """Reading a prepared case: whatever the readers of a damaged file raise becomes one
    line.
    """
    try:
        yield
    except TrivoxError:
        raise
    # readers of zip, numpy and blosc2 raise nearly everything
    except Exception as error:
        if memory_ran_out(error):
            raise no_memory(error) from error
        raise damaged(folder, name, error) from error


def _checked_positions(voxels: Array) -> Array:
    if voxels.ndim != 2 or voxels.shape[1] != 3 or voxels.dtype.kind not in "iu":
        raise ValueError(f"positions of size {voxels.shape}, {voxels.dtype}")
    if not len(voxels):
        raise ValueError("no positions")
    return voxels


def foreground_positions(label: Array) -> tuple[dict[str, int], dict[int, Array]]:
    """Voxels a class, and for each class max(10 000, 1 %) of its positions `(n, 3)`
    (all if fewer), seeded as nnU-Net.

    Background is listed only where part of the case is unlabelled (index -1), so that
    patches can keep to labelled voxels.
    """
    flat = label.reshape(-1)
    partly_labelled = flat.min() < 0
    counts: dict[str, int] = {}
    chosen: dict[int, Array] = {}
    rng = np.random.default_rng(SEED)
    for index in np.unique(flat):
        if index == 0 and not partly_labelled:
            continue
        voxels = np.flatnonzero(flat == index)
        counts[str(index)] = len(voxels)
        wanted = max(FOREGROUND_VOXELS, len(voxels) // 100)
        if len(voxels) > wanted:
            voxels = rng.choice(voxels, wanted, replace=False)
        positions = np.unravel_index(np.sort(voxels), label.shape)
        chosen[int(index)] = np.stack(positions, axis=1).astype(np.int16)
    return counts, chosen


def clipped(
    start: Sequence[int], size: Shape, shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of a box that lies inside an array of `shape`: where in the array, and
    where in the box.
    """
    inside: list[slice] = []
    paste: list[slice] = []
    for first, extent, limit in zip(start, size, shape, strict=True):
        low = max(first, 0)
        high = max(min(first + extent, limit), 0)
        inside.append(slice(low, high))
        paste.append(slice(low - first, high - first))
    return tuple(inside), tuple(paste)
