"""A bundle made ready: images in, label maps on the image's own grid out. In-process, no files in between."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.datasets.reading import crop_volume, read_channels
from trivox.errors import BundleError, DataError
from trivox.inference.bundle import Bundle, read_bundle
from trivox.inference.restore import restore, restore_probabilities
from trivox.inference.windows import SlidingWindows
from trivox.learning.checkpoints import load_weights
from trivox.learning.runtime import Runtime, make_runtime
from trivox.networks import build_network
from trivox.planning.plan import Plan
from trivox.preparation.grid import GridRecord, PreparedCase, prepare
from trivox.volumes import Array, Spacing, Volume, affine_from_spacing, case_stem, write_volume

AXES = {"z": 0, "y": 1, "x": 2}


@dataclass(frozen=True, eq=False)
class Prediction:
    """labels: file values `(1, z, y, x)` on the source grid; probabilities: `(c, z, y, x)` float32 if asked for."""

    labels: Volume
    probabilities: Volume | None
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Member:
    """Networks of one plan, run together."""

    plan: Plan
    windows: SlidingWindows


@dataclass(frozen=True, eq=False)
class Predictor:
    """Ready to predict; build it with `Predictor.load`."""

    bundles: tuple[Bundle, ...]
    members: tuple[_Member, ...] = field(repr=False)

    @classmethod
    def load(
        cls,
        models: Path | str | Sequence[Path | str],
        *,
        device: str = "auto",
        precision: str = "auto",
        mirror: bool | None = None,
        overlap: float | None = None,
    ) -> "Predictor":
        """Load a run or bundle, or several for an ensemble.

        mirror: average over mirrored copies (None: as the bundle says); overlap: of windows, likewise.
        Raises `BundleError` for a damaged model or models that do not fit together.
        """
        paths = [models] if isinstance(models, str | Path) else list(models)
        if not paths:
            raise BundleError("no model given; name a run or bundle folder")
        bundles = tuple(read_bundle(Path(path)) for path in paths)
        first = bundles[0].description.plan
        for bundle in bundles[1:]:
            plan = bundle.description.plan
            if (plan.labels, plan.channels) != (first.labels, first.channels):
                raise BundleError(
                    f"{bundle.folder}: labels or channels differ from {bundles[0].folder}; they cannot vote together"
                )
        runtime = make_runtime(device, precision)
        members = tuple(_member(bundle, runtime, mirror, overlap) for bundle in bundles)
        return cls(bundles, members)

    @property
    def labels(self) -> LabelScheme:
        """What the values in the predicted label maps mean."""
        return self.members[0].plan.labels

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the input channels, in order."""
        return self.members[0].plan.channels

    @property
    def identity(self) -> str:
        """Hash of all weights."""
        return "+".join(bundle.identity for bundle in self.bundles)

    @property
    def settings(self) -> dict[str, object]:
        """What besides the weights decides a prediction, ready for JSON."""
        windows = [member.windows for member in self.members]
        return {
            "overlap": [w.overlap for w in windows],
            "mirror_axes": [list(w.mirror_axes) for w in windows],
            "precision": windows[0].runtime.precision,
            "postprocessing": [b.description.postprocessing.model_dump(mode="json") for b in self.bundles],
        }

    def predict_array(self, image: Array, spacing: Spacing) -> Array:
        """Labels `(z, y, x)` for an image `(c, z, y, x)` or `(z, y, x)` in RAS orientation with `spacing` in mm."""
        volume = Volume(image if image.ndim == 4 else image[None], affine_from_spacing(spacing))
        return np.asarray(self.predict_volume(volume).labels.array[0])

    def predict_file(self, images: Path | str | Sequence[Path | str], out: Path | str | None = None) -> Prediction:
        """Predict from one image file or DICOM folder (or one for each channel); writes the label map to `out` if given."""
        paths = [images] if isinstance(images, str | Path) else list(images)
        first = Path(paths[0])
        prediction = self.predict_case(Case(name=case_stem(first), images=tuple(Path(path) for path in paths)))
        if out is not None:
            write_volume(Path(out), prediction.labels)
        return prediction

    def predict_case(self, case: Case, *, probabilities: bool = False) -> Prediction:
        """Predict from files; errors name the case."""
        volume = read_channels(case, channels=len(self.channels))
        return self.predict_volume(volume, probabilities=probabilities, where=case.name)

    def predict_volume(self, volume: Volume, *, probabilities: bool = False, where: str = "image") -> Prediction:
        """Predict one image; the result lies on its grid."""
        started = time.monotonic()
        if volume.channels != len(self.channels):
            raise DataError(
                f"{where}: {volume.channels} channels found, the model needs {len(self.channels)}: {self.channels}"
            )
        cropped = crop_volume(volume, None, where=where)
        prepared = [prepare(cropped, member.plan) for member in self.members]
        record = prepared[0].record
        if len(self.members) > 1 or probabilities:
            chance = self._mean_probabilities(prepared)
            indices = self._decide(chance)
        else:
            chance, indices = None, self._labels(self.members[0], prepared[0])
        for bundle in self.bundles:
            indices = bundle.description.postprocessing.apply(indices)
        values = record.to_source(self.labels.decode(indices), fill=self.labels.background)
        return Prediction(
            labels=values,
            probabilities=None if chance is None or not probabilities else self._to_source(chance, record),
            seconds=time.monotonic() - started,
            warnings=tuple(_warnings(prepared[0], self.members[0].plan)),
        )

    def _labels(self, member: _Member, case: PreparedCase) -> Array:
        """Indices at source resolution, the memory-lean way: slabs in, labels out."""
        record = case.record
        restored = restore(
            member.windows.slabs(case.image), record.shape, record.cropped_shape, nearest_axis=record.nearest_axis,
            exclusive=self.labels.exclusive,
        ).numpy()  # fmt: skip
        return restored if self.labels.exclusive else self.labels.paint_regions(restored)

    def _mean_probabilities(self, prepared: Sequence[PreparedCase]) -> Array:
        """Mean probabilities over the members, on the first one's ordered source grid."""
        first = prepared[0].record
        total: Array | None = None
        for member, case in zip(self.members, prepared, strict=True):
            record = case.record
            chance = restore_probabilities(
                member.windows.slabs(case.image), record.shape, record.cropped_shape,
                nearest_axis=record.nearest_axis, exclusive=self.labels.exclusive,
            ).numpy()  # fmt: skip
            if record.axis_order != first.axis_order:
                back = np.argsort(record.axis_order)
                chance = chance.transpose(0, *(back[axis] + 1 for axis in first.axis_order))
            total = chance if total is None else total + chance
        assert total is not None
        return np.asarray(total / np.float32(len(self.members)))

    def _decide(self, chance: Array) -> Array:
        if self.labels.exclusive:
            return np.asarray(chance.argmax(0), dtype=np.int16)
        return self.labels.paint_regions(chance > 0.5)

    def _to_source(self, chance: Array, record: GridRecord) -> Volume:
        """Probabilities on the source grid; outside the cropped box the background is certain."""
        whole = record.to_source(chance)
        if self.labels.exclusive:
            outside = record.to_source(np.ones(chance.shape[1:], bool)).array[0] == 0
            whole.array[0][outside] = 1
        return whole


def _member(bundle: Bundle, runtime: Runtime, mirror: bool | None, overlap: float | None) -> _Member:
    description = bundle.description
    plan = description.plan
    axes = description.mirror_axes if mirror is None else ("z", "y", "x") if mirror else ()
    networks: list[nn.Module] = []
    for path in bundle.weight_files():
        network = build_network(
            plan.network, plan.topology, channels=len(plan.channels), outputs=plan.labels.output_channels,
            options=plan.network_options,
        )  # fmt: skip
        try:
            network.load_state_dict(load_weights(path))
        except RuntimeError as error:
            raise BundleError(f"{path}: weights do not fit the plan of the bundle; export it again") from error
        networks.append(network.to(runtime.device).eval())
    windows = SlidingWindows(
        networks, plan.patch_size, plan.labels.output_channels, runtime,
        overlap=description.overlap if overlap is None else overlap,
        mirror_axes=tuple(AXES[a] for a in axes if plan.patch_size[AXES[a]] > 1),
    )  # fmt: skip
    return _Member(plan, windows)


def _warnings(case: PreparedCase, plan: Plan) -> list[str]:
    """What makes a prediction doubtful."""
    found = []
    if min(case.record.shape) < 4:
        found.append(f"only {case.record.shape} voxels (z, y, x) at the plan's spacing of {plan.spacing} mm")
    if not bool(torch.any(case.image != 0)):
        found.append("the image is constant")
    return found
