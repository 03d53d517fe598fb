"""Fingerprint -> plan: nnU-Net's heuristics (Isensee et al.

2021) as arithmetic, with a reason for each decision.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from trivox.datasets.dataset import Dataset
from trivox.errors import PlanError
from trivox.planning.families import Family, family_of
from trivox.planning.fingerprint import Fingerprint
from trivox.planning.memory import forecast_memory
from trivox.planning.plan import Normalisation, Plan
from trivox.planning.topology import (
    Sizes,
    Topology,
    feature_map_elements,
    require_halving,
)
from trivox.volumes.volume import Spacing

ANISOTROPY = 3
"""An axis this many times coarser than the others, with as many times fewer voxels,
counts as coarse.
"""
LOW_RESOLUTION_SHARE = 0.25
"""Below this share of the median case in a patch, a low-resolution configuration is
worth having.
"""
SPACING_STEP = 1.03


def make_plan(
    fingerprint: Fingerprint,
    dataset: Dataset,
    *,
    network: str = "resenc-m",
    dimension: int = 3,
    memory_gb: float | None = None,
    patch_size: Sequence[int] | None = None,
    batch_size: int | None = None,
    optimizer: str = "sgd",
    activation_bytes: int = 4,
    low_resolution: bool = False,
    network_options: Mapping[str, bool | int | float | str] | None = None,
    mask_channel: bool = False,
    masked: bool | None = None,
) -> Plan:
    """Decide spacing, topology, patch, batch and normalisation; no network is built (<
    0.1 s).

    memory_gb, patch_size and batch_size are the dials. mask_channel: the network also
    sees where the image is not zero; masked: z-scores are taken there only (None:
    decided from the data). Raises `PlanError` for an impossible patch.
    """
    if dataset.labels is None:
        raise PlanError(
            f"{dataset.root}: a plan needs labels; 'trivox check' shows what was found"
        )
    family, reasons = family_of(network), {}
    spacing, reasons["spacing"] = target_spacing(fingerprint)
    order, reasons["axis_order"] = axis_order(spacing)
    grid, median = _grid(fingerprint, spacing, order)
    outputs = dataset.labels.output_channels
    search = Search(family, outputs, memory_gb=memory_gb, cases=len(fingerprint.cases))
    low_grid = None if dimension == 2 else low_resolution_spacing(search, grid, median)
    if low_resolution and low_grid is None:
        raise PlanError(
            "a low-resolution plan is pointless here: the full-resolution patch already covers a quarter of a case"
        )
    if low_resolution and low_grid is not None:
        median, grid = (
            [g / low * m for g, low, m in zip(grid, low_grid, median, strict=True)],
            low_grid,
        )
        reasons["spacing"] += (
            f"; coarsened until a patch covers {LOW_RESOLUTION_SHARE:.0%} of the median case"
        )
    patch, topology, batch = search.run(
        grid[3 - dimension :],
        median[3 - dimension :],
        patch_size=patch_size,
        voxels=len(fingerprint.cases) * math.prod(median),
    )
    require_halving(topology, patch)
    batch = batch_size or batch
    reasons |= search.reasons | _topology_reasons(topology)
    if batch_size:
        reasons["batch_size"] = "set by hand"
    reasons["low_resolution"] = (
        "not needed" if low_grid is None else f"would help: spacing {_mm(low_grid)} mm"
    )
    normalisations = tuple(
        normalisation(name, fingerprint, masked=masked) for name in dataset.channels
    )
    reasons["normalisation"] = (
        "by channel name: CT uses the foreground's statistics, anything else z-scores each image"
    )
    reasons["inputs"] = "the channels" + (
        " and, as asked, the mask of what is not zero" if mask_channel else ""
    )
    if dimension == 2:
        patch, topology = (1, *patch), _as_slices(topology)
    memory = forecast_memory(
        topology,
        patch,
        batch=batch,
        channels=len(dataset.channels) + mask_channel,
        outputs=outputs,
        optimizer=optimizer,
        activation_bytes=activation_bytes,
    )
    reasons["memory"] = (
        f"forecast of one {optimizer} step with {activation_bytes * 8}-bit activations"
    )
    return Plan(
        dataset=dataset.name,
        dimension=2 if dimension == 2 else 3,
        channels=dataset.channels,
        labels=dataset.labels,
        normalisations=normalisations,
        mask_channel=mask_channel,
        axis_order=order,
        spacing=_three(grid),
        median_shape=_three([round(size) for size in median]),
        patch_size=_three(patch),
        batch_size=batch,
        batch_dice=dimension == 2 or (low_grid is not None and not low_resolution),
        network=network,
        topology=topology,
        network_options=dict(network_options or {}),
        memory=memory,
        reasons=reasons,
    )


def target_spacing(fingerprint: Fingerprint) -> tuple[Spacing, str]:
    """Median spacing an axis; a coarse axis takes its 10th percentile, so that fine
    scans keep some of their detail.
    """
    spacings = np.array([case.spacing for case in fingerprint.cases])
    sizes = np.median([case.shape for case in fingerprint.cases], axis=0)
    target = np.median(spacings, axis=0)
    coarse = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarse]
    reason = "median of the training cases"
    if (
        target[coarse] > ANISOTROPY * target[others].max()
        and sizes[coarse] * ANISOTROPY < sizes[others].min()
    ):
        tenth = np.percentile(spacings[:, coarse], 10)
        target[coarse] = (
            tenth if tenth >= target[others].max() else target[others].max() + 1e-5
        )
        reason = f"median; the coarse axis ({'zyx'[coarse]}) takes the 10th percentile"
    return _three(target), reason


def axis_order(spacing: Spacing) -> tuple[tuple[int, int, int], str]:
    """The coarsest axis first, the others in their order."""
    coarse = int(np.argmax(spacing))
    rest = [axis for axis in range(3) if axis != coarse]
    why = (
        "all axes are alike"
        if max(spacing) == min(spacing)
        else f"{'zyx'[coarse]} has the coarsest spacing"
    )
    return (coarse, rest[0], rest[1]), why


def _grid(
    fingerprint: Fingerprint, spacing: Spacing, order: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Spacing and median size in the network's grid."""
    shapes = [
        [
            round(old / new * size)
            for old, new, size in zip(case.spacing, spacing, case.shape, strict=True)
        ]
        for case in fingerprint.cases
    ]
    median = np.median(shapes, axis=0)
    return [float(spacing[axis]) for axis in order], [
        float(median[axis]) for axis in order
    ]


class Search:
    """Shrinks a patch until its feature maps fit the family's reference, then fills the
    batch.
    """

    def __init__(
        self, family: Family, outputs: int, *, memory_gb: float | None, cases: int
    ) -> None:
        self.family, self.outputs, self.cases = family, outputs, cases
        self.scale = (memory_gb or family.target_gb) / family.target_gb
        self.memory_gb = memory_gb or family.target_gb
        self.reasons: dict[str, str] = {}
        self._known: dict[
            tuple[float, ...], tuple[Sizes, Topology, int]
        ] = {}  # a step is tried before it is taken

    def run(
        self,
        spacing: Sequence[float],
        median: Sequence[float],
        *,
        patch_size: Sequence[int] | None = None,
        voxels: float | None = None,
    ) -> tuple[Sizes, Topology, int]:
        """Patch, topology and batch size for a grid of two or three axes; `voxels` are
        those of all training cases.
        """
        voxels = self.cases * math.prod(median) if voxels is None else voxels
        reference = self.scale * (
            self.family.reference_2d if len(spacing) == 2 else self.family.reference_3d
        )
        base_batch = 12 if len(spacing) == 2 else 2
        if patch_size is None:
            limit = reference if self.family.per_sample else reference * base_batch / 2
            patch, topology, cost = self._shrink(spacing, median, limit)
            self.reasons["patch_size"] = (
                f"largest that fits the aim of {self.memory_gb:g} GB, at most the median case"
            )
        else:
            patch, topology, cost = self._fixed(spacing, patch_size)
            self.reasons["patch_size"] = "set by hand" + (
                ""
                if tuple(patch_size) == patch
                else f" as {tuple(patch_size)}, padded to the network's strides"
            )
        return (
            patch,
            topology,
            self._batch(patch, voxels, reference / cost * base_batch),
        )

    def _shrink(
        self, spacing: Sequence[float], median: Sequence[float], limit: float
    ) -> tuple[Sizes, Topology, int]:
        patch, topology, cost = self._candidate(
            spacing, _initial_patch(spacing, median)
        )
        while cost > limit:
            smaller = self._one_step_smaller(spacing, median, patch, topology)
            if smaller is None:
                raise PlanError(
                    f"no patch fits {self.memory_gb:g} GB; raise --memory-gb or choose a smaller network"
                )
            patch, topology, cost = self._candidate(spacing, smaller)
        return patch, topology, cost

    def _one_step_smaller(
        self,
        spacing: Sequence[float],
        median: Sequence[float],
        patch: Sizes,
        topology: Topology,
    ) -> list[int] | None:
        """Shorten the axis that covers most of the median case, or the next one if it
        is as short as it can be.
        """
        shares = np.array([p / m for p, m in zip(patch, median, strict=True)])
        for axis in np.argsort(shares)[::-1].tolist():
            trial = list(patch)
            trial[axis] -= topology.reduction[axis]
            # the divisor AFTER a trial step counts, so that 256 -> 224 can be reached
            step = (
                self._candidate(spacing, trial)[1].reduction[axis]
                if min(trial) > 0
                else topology.reduction[axis]
            )
            trial[axis] = (patch[axis] - 1) // step * step
            if trial[axis] > 0:
                return trial
        return None

    def _candidate(
        self, spacing: Sequence[float], patch: Sequence[int]
    ) -> tuple[Sizes, Topology, int]:
        key = (*spacing, *patch)
        if key not in self._known:
            topology, padded = self.family.shape(patch, spacing)
            self._known[key] = (
                padded,
                topology,
                feature_map_elements(topology, padded, self.outputs),
            )
        return self._known[key]

    def _fixed(
        self, spacing: Sequence[float], patch: Sequence[int]
    ) -> tuple[Sizes, Topology, int]:
        if len(patch) == 3 and len(spacing) == 2:
            patch = patch[1:]
        if len(patch) != len(spacing) or min(patch) < 1:
            raise PlanError(
                f"patch size {tuple(patch)} needs {len(spacing)} positive numbers"
            )
        return self._candidate(spacing, patch)

    def _batch(self, patch: Sizes, voxels: float, fitting: float) -> int:
        covering = round(voxels * self.family.coverage / math.prod(patch))
        bounds = {
            "fills the memory aim": round(fitting),
            f"at most {self.family.coverage:.0%} of all training voxels": covering,
            f"never above {self.family.max_batch}: larger batches cost steps and gain nothing": self.family.max_batch,
        }
        reason = min(bounds, key=lambda key: bounds[key])
        self.reasons["batch_size"] = reason if bounds[reason] > 2 else "never below 2"
        return max(bounds[reason], 2)


def _initial_patch(spacing: Sequence[float], median: Sequence[float]) -> list[int]:
    """256^3 (2048^2) voxels shaped like a cube in millimetres, clipped to the median
    case.
    """
    inverse = [1 / edge for edge in spacing]
    volume = 2048**2 if len(spacing) == 2 else 256**3
    scale = (volume / math.prod(inverse)) ** (1 / len(spacing))
    return [
        int(min(round(along * scale), size))
        for along, size in zip(inverse, median, strict=True)
    ]


def low_resolution_spacing(
    search: Search, spacing: list[float], median: list[float]
) -> list[float] | None:
    """The spacing at which a patch covers a quarter of the median case; None if full
    resolution does, or gains < 2x.
    """
    quiet = Search(
        search.family, search.outputs, memory_gb=search.memory_gb, cases=search.cases
    )
    low, size = np.array(spacing), np.array(median)
    patch, _, _ = quiet.run(spacing, median)
    if math.prod(patch) / math.prod(median) >= LOW_RESOLUTION_SHARE:
        return None
    while math.prod(patch) / math.prod(size) < LOW_RESOLUTION_SHARE:
        finer = (
            low.max() / low > 2
        )  # bring the finer axes within a factor of two first, then coarsen all
        low = (
            np.where(finer, low * SPACING_STEP, low)
            if finer.any()
            else low * SPACING_STEP
        )
        size = np.array(spacing) / low * np.array(median)
        patch, _, _ = quiet.run(low.tolist(), [round(s) for s in size])
    return (
        None
        if math.prod(median) / math.prod(size) < 2
        else [float(edge) for edge in low]
    )


def normalisation(
    channel: str, fingerprint: Fingerprint, *, masked: bool | None = None
) -> Normalisation:
    """The scheme for a channel name, as nnU-Net chooses it: 'ct', 'nonorm',
    'rescale_0_1', 'rgb_to_0_1', else z-score.

    masked: z-score inside the non-zero mask; None: where cropping took away more than a
    quarter.
    """
    name = channel.casefold().replace("-", "_").replace("_to_", "_")
    if name == "ct":
        values = fingerprint.intensities[channel]
        return Normalisation(
            scheme="ct",
            mean=values.mean,
            std=max(values.std, 1e-8),
            low=values.percentile_00_5,
            high=values.percentile_99_5,
        )
    if name in {"nonorm", "none"}:
        return Normalisation(scheme="none")
    if name == "rescale_0_1":
        return Normalisation(scheme="rescale-0-1")
    if name == "rgb_0_1":
        return Normalisation(scheme="rgb-0-1")
    return Normalisation(
        scheme="z-score",
        masked=fingerprint.relative_size < 3 / 4 if masked is None else masked,
    )


def describe_plan(plan: Plan) -> list[tuple[str, str, str]]:
    """Rows (what, decision, reason) for the table that `trivox plan` and the report
    show.
    """
    topology, why = plan.topology, plan.reasons
    gigabytes = plan.memory.total / 1e9
    return [
        ("spacing (mm, z y x)", _mm(plan.spacing), why.get("spacing", "")),
        (
            "axis order",
            " ".join("zyx"[axis] for axis in plan.axis_order),
            why.get("axis_order", ""),
        ),
        (
            "median size (voxels)",
            " x ".join(map(str, plan.median_shape)),
            "of the training cases at that spacing",
        ),
        (
            "patch (voxels)",
            " x ".join(map(str, plan.patch_size)),
            why.get("patch_size", ""),
        ),
        ("batch", str(plan.batch_size), why.get("batch_size", "")),
        ("network", plan.network, why.get("topology", "")),
        ("features", " ".join(map(str, topology.features)), why.get("features", "")),
        (
            "strides",
            " ".join("".join(map(str, stride)) for stride in topology.strides),
            why.get("strides", ""),
        ),
        ("inputs", ", ".join(plan.inputs), why.get("inputs", "")),
        (
            "normalisation",
            ", ".join(_scheme(n) for n in plan.normalisations),
            why.get("normalisation", ""),
        ),
        (
            "low resolution",
            why.get("low_resolution", ""),
            "a second configuration for cases much larger than a patch",
        ),
        ("memory (GB)", f"{gigabytes:.2f}", why.get("memory", "")),
    ]


def _scheme(how: Normalisation) -> str:
    return f"{how.scheme} in the mask" if how.masked else how.scheme


def _topology_reasons(topology: Topology) -> dict[str, str]:
    return {
        "topology": f"{topology.stages} resolutions: an axis is halved while it keeps 4 voxels",
        "features": "doubled at each resolution up to the family's limit",
        "strides": "an axis is halved while its voxels are less than twice the finest",
    }


def _as_slices(topology: Topology) -> Topology:
    """A 2-D topology as 3-D kernels of size 1 along z: slices are volumes one voxel
    thick.
    """
    return topology.model_copy(
        update={
            "kernels": tuple((1, *kernel) for kernel in topology.kernels),
            "strides": tuple((1, *stride) for stride in topology.strides),
        }
    )


def _three(
    values: Sequence[float] | np.ndarray,
) -> tuple[int, int, int]:  # also used for spacings
    first, second, third = (
        v.item() if isinstance(v, np.generic) else v for v in values
    )
    return first, second, third  # type: ignore[return-value]


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{edge:.3g}" for edge in spacing)
