"""Drawn pipelines and images for which Python's steps and the page's must give the same
labels, and a network that both know.
"""

from dataclasses import dataclass

import numpy as np
import torch

from trivox.datasets.reading import crop_volume
from trivox.exporting.card import Pipeline
from trivox.inference.decide import label_case
from trivox.inference.descriptions import AXES, LabelDescription
from trivox.inference.rules.postprocess import Postprocessing
from trivox.inference.windows import SlidingWindows
from trivox.planning.grid_rules import GridRules, Interpolation
from trivox.planning.plan import Normalisation
from trivox.preparation.grid import prepare
from trivox.volumes.volume import Volume
from untrained_models import plan_of

CPU = torch.device("cpu")
NNUNET = GridRules(
    axes="stored",
    image=Interpolation(clip="slice"),
    labels=Interpolation(order=1, ties="nearest"),
    logits=Interpolation(order=1, looks_at="new", half=True),
    sums="half",
)
"""Rules as imported nnU-Net models have them."""
KEPT = GridRules(slices="kept")
UNCHANGED = GridRules(image=None)


@dataclass(frozen=True)
class ToyEngine:
    """Each output is a weighted sum of the inputs and of what lies before them."""

    weights: np.ndarray
    steps: np.ndarray
    device: torch.device = CPU
    precision: str = "fp32"
    voxels_a_batch: int = 1

    def logits(self, windows):
        before = torch.cat([windows[..., :1], windows[..., :-1]], dim=-1)
        weights = torch.from_numpy(self.weights)
        steps = torch.from_numpy(self.steps)
        now = torch.einsum("oc,nczyx->nozyx", weights, windows)
        return now + steps[:, None, None, None] * before.sum(1, keepdim=True)

    def split(self):
        return None


@dataclass(frozen=True)
class Drawn:
    """A case: what goes into the page, and what Python makes of it."""

    volume: Volume
    plan: object
    mirror_axes: tuple
    overlap: float
    rules: Postprocessing
    engines: tuple

    @property
    def pipeline(self):
        axes = tuple(AXES[axis] for axis in self.mirror_axes)
        description = LabelDescription(
            task=self.plan.task,
            plan=self.plan,
            overlap=self.overlap,
            mirror_axes=axes,
            postprocessing=self.rules,
        )
        names = [f"network{number}.onnx" for number in range(len(self.engines))]
        card = Pipeline.of(description, names, ("windows", "logits"))
        return card.model_dump(mode="json")

    @property
    def toys(self):
        return [
            {"weights": each.weights.tolist(), "steps": each.steps.tolist()}
            for each in self.engines
        ]

    def prepared(self):
        cropped = crop_volume(
            self.volume, None, where="case", orientation=self.plan.grid.orientation
        )
        return prepare(cropped, self.plan)

    def labels(self):
        """The label map `(z, y, x)` in file values, on the source's grid."""
        case = self.prepared()
        windows = SlidingWindows(
            self.engines,
            self.plan.patch_size,
            self.plan.labels.output_channels,
            overlap=self.overlap,
            mirror_axes=self.mirror_axes,
            voxels_a_batch=1,
            half=self.plan.grid.sums == "half",
        )
        scheme = self.plan.labels
        indices = label_case(windows.slabs(case.image), case.record, scheme, None)
        clean = self.rules.apply(indices, scheme, voxel_mm3=self.volume.voxel_ml * 1000)
        values = scheme.decode(clean)
        return case.record.to_source(values, fill=scheme.background).array[0]


def drawn(seed):
    """A case: its kind goes by the seed, its axes, sizes and spacings by chance."""
    draw = np.random.default_rng(seed)
    channels = int(draw.integers(1, 4))
    regions = seed % 2 == 1
    grid = (GridRules(), NNUNET, KEPT, UNCHANGED)[seed // 2 % 4]
    spacing = draw.uniform(0.8, 2.2, 3)
    if draw.integers(3) == 0:
        spacing[0] *= 4
    plan = plan_of(patch=(16, 16, 16), regions=regions)
    patch = tuple(int(size) for size in draw.choice([16, 16, 32], 3))
    plan = plan.model_copy(
        update={
            "channels": tuple(f"channel {n}" for n in range(channels)),
            "normalisations": tuple(_normalisation(draw) for _ in range(channels)),
            "mask_channel": bool(draw.integers(2)) and grid is not NNUNET,
            "axis_order": tuple(int(axis) for axis in draw.permutation(3)),
            "spacing": tuple(float(mm) for mm in draw.uniform(1.0, 2.5, 3)),
            "grid": grid,
            "patch_size": patch,
        }
    )
    count = int(draw.integers(1, 3))
    engines = tuple(_engine(draw, plan) for _ in range(count))
    mirrors = tuple(axis for axis in range(3) if draw.integers(2))
    overlap = float(draw.choice([0.5, 0.25]))
    volume = _volume(draw, channels, spacing)
    return Drawn(
        volume, plan, mirrors, overlap, _rules(seed // 4 % 4, regions), engines
    )


def _normalisation(draw):
    scheme = str(draw.choice(["ct", "z-score", "none", "rescale-0-1", "rgb-0-1"]))
    return Normalisation(
        scheme=scheme, masked=bool(draw.integers(2)), mean=3, std=40, low=-60, high=90
    )


def _engine(draw, plan):
    inputs = len(plan.inputs)
    outputs = plan.labels.output_channels
    weights = draw.normal(size=(outputs, inputs)).astype(np.float32)
    steps = draw.normal(size=outputs).astype(np.float32)
    return ToyEngine(weights, steps)


def _rules(kind, regions):
    names = ("whole", "core", "middle") if regions else ("a", "b", "c")
    if kind == 0:
        return Postprocessing(largest_of_regions=names[:2], remove_small={names[2]: 20})
    if kind == 1:
        return Postprocessing(
            replace_small={names[1]: 900}, remove_small={names[0]: 30}
        )
    if kind == 2 and not regions:
        return Postprocessing(largest_foreground=True, largest_of=(1, 3))
    return Postprocessing()


def _volume(draw, channels, spacing):
    shape = tuple(int(size) for size in draw.integers(5, 24, 3))
    array = draw.normal(0, 50, (channels, *shape)).astype(np.float32)
    # smooth along x, so that components are larger than a voxel
    array = (array + np.roll(array, 1, 3) + np.roll(array, 2, 3)).round()
    first = [int(draw.integers(0, max(1, size // 3))) for size in shape]
    for axis, begin in enumerate(first):
        outside = [slice(None)] * 4
        outside[axis + 1] = slice(0, begin)
        array[tuple(outside)] = 0
    hole = tuple(slice(size // 2, size // 2 + 2) for size in shape)
    array[(slice(None), *hole)] = 0
    return Volume(array, affine_of(draw, spacing))


def affine_of(draw, spacing, *, sheared=False):
    """A turned, flipped affine with a spacing `(z, y, x)` in mm."""
    turn, _ = np.linalg.qr(draw.normal(size=(3, 3)))
    if sheared:
        turn = turn + draw.normal(0, 0.05, (3, 3))
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing[::-1]
    affine[:3, 3] = draw.uniform(-100, 100, 3)
    return affine
