"""Label maps from an exported model; needs numpy, scipy, nibabel and the model's
runtime (onnxruntime or openvino), no trivox and no torch.

    python run.py SCAN.nii.gz --out labels.nii.gz

Several channels: one file each, in the order of export.json. Research use only, not a
medical device. Arrays are (channel, z, y, x).
"""

import argparse
import itertools
import json
import math
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from grids import (
    Array,
    Axes,
    Flips,
    Shape,
    bell,
    cleaned,
    coarse_axis,
    foreground,
    linear,
    nonzero_box,
    normalised,
    orientation,
    oriented,
    resized,
    resized_labels,
    restored_labels,
    unoriented,
    window_starts,
)
from runtimes import OPENERS, Network
from scipy.special import expit, softmax

Edges = tuple[int, int]
Files = Path | str | Sequence[Path | str]
HERE = Path(__file__).resolve().parent
ENDINGS = (".nii", ".nii.gz")


class Way(NamedTuple):
    """From a source to the networks' grid: canonical axes, the box in them, and both
    spacings in the networks' order of axes.
    """

    axes: Axes
    flips: Flips
    canonical: Shape
    box: tuple[slice, ...]
    shape: Shape
    spacing: list[float]
    target: list[float]


class Answer(NamedTuple):
    """Label values (z, y, x); classes: class, probabilities and warnings, None for a
    model without classes.
    """

    labels: Array
    classes: dict[str, Any] | None


class Model:
    """The networks of an export and what has to be done around them."""

    def __init__(
        self,
        folder: Path | str = HERE,
        *,
        threads: int | None = None,
        networks: Sequence[Network] = (),
    ) -> None:
        """networks: computed elsewhere; none: those of the folder, on this machine."""
        self.folder = Path(folder)
        self.export = json.loads((self.folder / "export.json").read_text("utf-8"))
        self.rules = self.export["pipeline"]
        self.networks = list(networks) or self.opened(threads)
        self.classes = None
        if self.rules.get("classes"):
            from classes import CaseClasses

            self.classes = CaseClasses(
                self.folder, self.export, self.lesion_chance, threads
            )

    def opened(self, threads: int | None) -> list[Network]:
        """The networks of the folder."""
        open_network = OPENERS[self.export["runtime"]]
        files = [self.folder / name for name in self.rules["networks"]]
        return [open_network(file, self.export, threads) for file in files]

    def predict(self, files: Files, out: Path | str | None = None) -> Array:
        """Label values (z, y, x) on the grid of the first file, written to `out`."""
        return self.predict_case(files, out).labels

    def predict_case(self, files: Files, out: Path | str | None = None) -> Answer:
        """The same, and the class of the case of a model with classes."""
        image, source = self.read(files)
        answer = self.answer(image, source.affine)
        if out is not None:
            write_labels(out, answer.labels, source)
        return answer

    def read(self, files: Files) -> tuple[Array, Any]:
        """Channels (c, z, y, x) of one file each, and the first file."""
        files = [files] if isinstance(files, str | Path) else list(files)
        channels = self.rules["channels"]
        if len(files) != len(channels):
            raise ValueError(
                f"one file is needed for each of {channels}, {len(files)} are given"
            )
        return read_channels(files)

    def predict_array(self, image: Array, affine: Array) -> Array:
        """Label values of an array (c, z, y, x) and its affine (x, y, z to mm)."""
        return self.answer(image, affine).labels

    def answer(self, image: Array, affine: Array) -> Answer:
        """Label values, and the class if there is one, of an array and its affine."""
        prepared, way = self.prepare(image, affine)
        indices = self.decided(self.logits(prepared), way)
        case_class = None
        if self.classes is not None:
            seen = self.on_networks_grid(indices, prepared.shape[1:], way)
            case_class = self.classes.answer(prepared, seen)
        voxel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
        indices = cleaned(indices, self.rules, voxel_mm3)
        return Answer(self.on_source_grid(indices, way), case_class)

    def decided(self, logits: Array, way: Way) -> Array:
        """Label indices (z, y, x) of the cropped image from logits on the networks'
        grid.
        """
        across = coarse_axis(self.rules["grid"]["logits"], way.target, way.spacing)
        exclusive = not self.rules["labels"]["regions"]
        decide = (lambda rows: rows.argmax(0)) if exclusive else self.painted
        return restored_labels(logits, way.shape, across, decide)

    def on_source_grid(self, indices: Array, way: Way) -> Array:
        """Label values (z, y, x) of the source from indices of the cropped image."""
        whole = np.zeros(way.canonical, np.int16)
        whole[*way.box] = indices.transpose(np.argsort(self.rules["axis_order"]))
        restored = unoriented(whole[None], way.axes, way.flips)[0]
        values = self.rules["values"]
        kinds = [np.min_scalar_type(value) for value in values]
        table = np.array(values, np.result_type(*kinds))
        return table[restored]

    def on_networks_grid(self, indices: Array, shape: Shape, way: Way) -> Array:
        """Label indices (z, y, x) of the cropped image, resampled as labels are."""
        across = coarse_axis(self.rules["grid"]["labels"], way.spacing, way.target)
        return resized_labels(indices, shape, across)

    def prepare(self, image: Array, affine: Array) -> tuple[Array, Way]:
        """The image on the networks' grid (c, z, y, x), and the way back."""
        if not np.isfinite(image).all():
            raise ValueError("the image holds NaN or infinite values")
        rules = self.rules
        stored = rules["grid"]["axes"] == "stored"
        axes, flips = ((0, 1, 2), (False,) * 3) if stored else orientation(affine)
        canonical = oriented(image, axes, flips)
        box = nonzero_box(canonical)
        cropped = canonical[:, *box]
        order = rules["axis_order"]
        steps = np.linalg.norm(affine[:3, :3], axis=0)[::-1]  # z, y, x
        spacing = [float(steps[axes[axis]]) for axis in order]
        target = list(rules["spacing"])
        if rules["grid"]["slices"] == "kept":
            target[0] = spacing[0]
        values = normalised(cropped, rules["normalisations"])
        values = values.transpose(0, *(axis + 1 for axis in order))
        way = Way(
            axes, flips, canonical.shape[1:], box, values.shape[1:], spacing, target
        )
        resampled = self.on_grid(values, spacing, target)
        if rules["mask_channel"]:
            mask = foreground(cropped).transpose(order)
            across = coarse_axis(rules["grid"]["labels"], spacing, target)
            seen = linear(mask[None].astype(np.float32), resampled.shape[1:], across)
            seen = seen > 0.5
            resampled = np.concatenate([resampled, seen]).astype(np.float32)
        return resampled, way

    def on_grid(self, image: Array, spacing: list[float], target: list[float]) -> Array:
        """An image resampled to the network's grid."""
        how = self.rules["grid"]["image"]
        if how is None:
            return image
        sizes = zip(image.shape[1:], spacing, target, strict=True)
        shape = tuple(max(1, round(mm / new * size)) for size, mm, new in sizes)
        return resized(image, shape, how, coarse_axis(how, spacing, target))

    def logits(self, image: Array) -> Array:
        """Mean logits over windows, mirrored copies and networks."""
        return self.windowed(image, self.networks, self.flips(), self.rules["overlap"])

    def lesion_chance(self, number: int, image: Array) -> Array:
        """Probability of each voxel to be lesion by one network without mirroring."""
        logits = self.windowed(image, [self.networks[number]], [()], 0.5)
        outputs = self.rules["classes"]["outputs"]
        if self.rules["labels"]["regions"]:
            return expit(logits[outputs]).max(0)
        return softmax(logits, axis=0)[outputs].sum(0)

    def windowed(
        self,
        image: Array,
        networks: Sequence[Network],
        flips: Sequence[tuple[int, ...]],
        overlap: float,
    ) -> Array:
        """Mean logits of some networks over windows and mirrored copies."""
        patch = self.rules["patch_size"]
        padded, edges = padded_to(image, patch)
        size = padded.shape[1:]
        total = np.zeros((self.rules["outputs"], *size), np.float32)
        weights = [bell(p) for p in patch]
        weight = math.prod(np.ix_(*weights))
        summed = np.zeros(size, np.float32)
        axes = zip(size, patch, strict=True)
        starts = [window_starts(s, p, overlap) for s, p in axes]
        places = [
            tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
            for corner in itertools.product(*starts)
        ]
        streams = [
            network.stream(copies(padded, places, flips)) for network in networks
        ]
        for place in places:
            total[:, *place] += mean_of(streams, flips) * weight
            summed[*place] += weight
        total /= summed
        inside = [slice(a, s - b) for (a, b), s in zip(edges, size, strict=True)]
        return total[:, *inside]

    def flips(self) -> list[tuple[int, ...]]:
        """Axes of (c, z, y, x) along which each copy of a window is mirrored."""
        axes = [axis + 1 for axis in self.rules["mirror_axes"]]
        counts = range(len(axes) + 1)
        chosen = (itertools.combinations(axes, count) for count in counts)
        return list(itertools.chain.from_iterable(chosen))

    def painted(self, logits: Array) -> Array:
        """Label indices of overlapping regions: later ones over earlier ones."""
        result = np.zeros(logits.shape[1:], np.int16)
        for region, (value, holders) in enumerate(self.rules["paint"]):
            inside = logits[region] > 0
            for holder in holders:
                inside = inside & (logits[holder] > 0)
            result[inside] = value
        return result

    def volumes_ml(self, values: Array, affine: Array) -> dict[str, float]:
        """Volume of each label in ml."""
        voxel = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
        named = zip(self.rules["names"], self.rules["values"], strict=True)
        return {name: voxel * int((values == v).sum()) for name, v in list(named)[1:]}


def padded_to(image: Array, patch: Sequence[int]) -> tuple[Array, list[Edges]]:
    """(c, z, y, x) with zeros around it, at least as large as a patch, and how many
    voxels were added before and after along each axis.
    """
    edges = []
    for size, wanted in zip(image.shape[1:], patch, strict=True):
        missing = max(0, wanted - size)
        before = missing // 2
        edges.append((before, missing - before))
    return np.pad(image, [(0, 0), *edges]), edges


def copies(
    image: Array, places: Sequence[tuple[slice, ...]], flips: Sequence[tuple[int, ...]]
) -> Iterator[Array]:
    """Mirrored copies (1, c, z, y, x) of each window, one after the other."""
    for place in places:
        window = image[:, *place]
        for axes in flips:
            yield np.ascontiguousarray(np.flip(window, axes)[None])


def mean_of(
    streams: Sequence[Iterator[Array]], flips: Sequence[tuple[int, ...]]
) -> Array:
    """Mean logits (outputs, z, y, x) of the next window over copies and networks."""
    total = 0.0
    for axes in flips:
        for stream in streams:
            total = total + np.flip(next(stream)[0], axes)
    return total / (len(flips) * len(streams))


def read_channels(files: Sequence[Path | str]) -> tuple[Array, Any]:
    """Channels of NIfTI files as one float32 array, and the first file."""
    volumes = []
    sources = []
    for file in files:
        source, array = read_volume(file)
        if array.ndim < 3 or any(size > 1 for size in array.shape[3:]):
            raise ValueError(f"{file}: is not one volume in three dimensions")
        sources.append(source)
        volumes.append(array.reshape(array.shape[:3]).T)
        alike = volumes[0].shape == volumes[-1].shape
        if not alike or not np.allclose(source.affine, sources[0].affine, atol=0.05):
            raise ValueError(f"{file}: lies on another grid than {files[0]}")
    return np.stack(volumes).astype(np.float32), sources[0]


def read_volume(file: Path | str) -> tuple[Any, Array]:
    """A NIfTI file and its values; raises `ValueError` for a damaged one."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    damaged = (OSError, EOFError, zlib.error, ImageFileError, HeaderDataError)
    try:
        source = nibabel.load(file)
        return source, np.asanyarray(source.dataobj)
    except damaged as error:
        raise ValueError(f"{file}: cannot be read ({error})") from error


def write_labels(out: Path | str, values: Array, source: Any) -> None:
    """A label map on the grid of its source."""
    import nibabel

    labels = nibabel.Nifti1Image(values.T, source.affine)
    labels.header.set_xyzt_units("mm")
    nibabel.save(labels, out)


def require_places(files: Sequence[str], outs: Sequence[str | None]) -> None:
    """Raise `ValueError` before anything is computed for a place that nothing can be
    written to, or where a scan or another result lies.
    """
    taken = {Path(file).resolve() for file in files}
    for out in filter(None, outs):
        place = Path(out).resolve()
        if place in taken:
            raise ValueError(f"{out}: is a scan or another result; name another file")
        if not place.parent.is_dir() or place.is_dir():
            raise ValueError(f"{out}: is a folder, or in none; name a file in a folder")
        taken.add(place)
    if not str(outs[0]).endswith(ENDINGS):
        raise ValueError(f"{outs[0]}: is no NIfTI; name a file that ends in .nii.gz")


def main() -> None:
    """Predict one case from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", help="NIfTI files, one a channel")
    parser.add_argument("--out", required=True, help="label map to write, .nii.gz")
    parser.add_argument("--classes", help="file.json for the class of the case as well")
    parser.add_argument("--logits", help="file.npy for the networks' logits as well")
    given = parser.parse_args()
    try:
        predict(given)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def predict(given: argparse.Namespace) -> None:
    """Write what is asked for of one case, and say it."""
    require_places(given.files, [given.out, given.classes, given.logits])
    model = Model()
    if given.classes and model.classes is None:
        raise ValueError("--classes: the model has no classes")
    answer = model.predict_case(given.files, given.out)
    if answer.classes is not None:
        chance = max(answer.classes["probabilities"].values())
        print(f"class: {answer.classes['class']} (probability {chance:.3f})")
    if given.classes:
        content = json.dumps(answer.classes, indent=2) + "\n"
        Path(given.classes).write_text(content, "utf-8")
    print(f"computed by {model.networks[0].by}")
    if given.logits:
        image, source = model.read(given.files)
        prepared, _ = model.prepare(image, source.affine)
        np.save(given.logits, model.logits(prepared))


if __name__ == "__main__":
    main()
