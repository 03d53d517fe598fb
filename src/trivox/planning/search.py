"""Patch, topology and batch size that fit the memory aimed at (nnU-Net, Isensee et al.
2021): a patch is shrunk until its feature maps fit, then the batch is filled.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trivox.errors import PlanError
from trivox.planning.blueprint import Blueprint
from trivox.planning.topology import (
    Sizes,
    Topology,
    feature_map_elements,
    fitted_topology,
)

LOW_RESOLUTION_SHARE = 0.25
"""Below this share of the median case in a patch, a low-resolution configuration is
worth having.
"""
SPACING_STEP = 1.03


class Candidate(NamedTuple):
    """A padded patch, its topology, and the elements of one sample's feature maps."""

    patch: Sizes
    topology: Topology
    cost: int


class PatchChoice(NamedTuple):
    """What a search gives, and why."""

    patch: Sizes
    topology: Topology
    batch: int
    reasons: dict[str, str]


class Search:
    """Shrinks a patch until its feature maps fit the family's reference, then fills the
    batch.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        outputs: int,
        *,
        memory_gb: float | None,
        cases: int,
    ) -> None:
        self.blueprint = blueprint
        self.outputs = outputs
        self.cases = cases
        self.memory_gb = memory_gb or blueprint.target_gb
        # A step is tried before it is taken.
        self._candidates: dict[tuple[float, ...], Candidate] = {}

    def run(
        self,
        spacing: Sequence[float],
        median: Sequence[float],
        *,
        patch_size: Sequence[int] | None = None,
        voxels: float | None = None,
    ) -> PatchChoice:
        """Patch, topology and batch size for a grid of two or three axes; `voxels` are
        those of all training cases.
        """
        if voxels is None:
            voxels = self.cases * math.prod(median)
        flat = len(spacing) == 2
        base_batch = 12 if flat else 2
        reference = self._reference(flat=flat)
        if patch_size is None:
            per_sample = self.blueprint.per_sample
            limit = reference if per_sample else reference * base_batch / 2
            candidate = self._shrink(spacing, median, limit)
            patch_reason = (
                f"largest that fits the aim of {self.memory_gb:g} GB, at most the "
                "median case"
            )
        else:
            candidate = self._fixed(spacing, patch_size)
            patch_reason = _by_hand(patch_size, candidate.patch)
        fitting = reference / candidate.cost * base_batch
        batch, batch_reason = self._batch(candidate.patch, voxels, fitting)
        reasons = {"patch_size": patch_reason, "batch_size": batch_reason}
        return PatchChoice(candidate.patch, candidate.topology, batch, reasons)

    def _reference(self, *, flat: bool) -> float:
        scale = self.memory_gb / self.blueprint.target_gb
        blueprint = self.blueprint
        return scale * (blueprint.reference_2d if flat else blueprint.reference_3d)

    def _shrink(
        self, spacing: Sequence[float], median: Sequence[float], limit: float
    ) -> Candidate:
        candidate = self._candidate(spacing, _initial_patch(spacing, median))
        while candidate.cost > limit:
            smaller = self._one_step_smaller(spacing, median, candidate)
            if smaller is None:
                raise PlanError(
                    f"no patch fits {self.memory_gb:g} GB; raise --memory-gb or choose "
                    "a smaller network"
                )
            candidate = self._candidate(spacing, smaller)
        return candidate

    def _one_step_smaller(
        self, spacing: Sequence[float], median: Sequence[float], current: Candidate
    ) -> list[int] | None:
        """Shorten the axis that covers most of the median case, or the next one if it
        is as short as it can be.
        """
        patch = current.patch
        shares = np.array([p / m for p, m in zip(patch, median, strict=True)])
        for axis in np.argsort(shares)[::-1].tolist():
            step = current.topology.reduction[axis]
            trial = list(patch)
            trial[axis] -= step
            # The divisor AFTER a trial step counts, so that 256 -> 224 can be reached.
            if min(trial) > 0:
                step = self._candidate(spacing, trial).topology.reduction[axis]
            trial[axis] = (patch[axis] - 1) // step * step
            if trial[axis] > 0:
                return trial
        return None

    def _candidate(self, spacing: Sequence[float], patch: Sequence[int]) -> Candidate:
        key = (*spacing, *patch)
        if key not in self._candidates:
            topology, padded = fitted_topology(self.blueprint, patch, spacing)
            cost = feature_map_elements(topology, padded, self.outputs)
            self._candidates[key] = Candidate(padded, topology, cost)
        return self._candidates[key]

    def _fixed(self, spacing: Sequence[float], patch: Sequence[int]) -> Candidate:
        if len(patch) == 3 and len(spacing) == 2:
            patch = patch[1:]
        if len(patch) != len(spacing) or min(patch) < 1:
            raise PlanError(
                f"patch size {tuple(patch)} needs {len(spacing)} positive numbers"
            )
        return self._candidate(spacing, patch)

    def _batch(self, patch: Sizes, voxels: float, fitting: float) -> tuple[int, str]:
        coverage = self.blueprint.coverage
        most = self.blueprint.max_batch
        bounds = {
            "fills the memory aim": round(fitting),
            f"at most {coverage:.0%} of all training voxels": round(
                voxels * coverage / math.prod(patch)
            ),
            f"never above {most}: larger batches cost steps and gain nothing": most,
        }
        reason = min(bounds, key=lambda key: bounds[key])
        batch = bounds[reason]
        return (batch, reason) if batch > 2 else (2, "never below 2")


def _by_hand(asked: Sequence[int], padded: Sizes) -> str:
    if tuple(asked) == padded:
        return "as set in the recipe"
    return f"set in the recipe as {tuple(asked)}, padded to the network's strides"


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
    low = np.array(spacing)
    size = np.array(median)
    patch = search.run(spacing, median).patch
    if math.prod(patch) / math.prod(median) >= LOW_RESOLUTION_SHARE:
        return None
    while math.prod(patch) / math.prod(size) < LOW_RESOLUTION_SHARE:
        # The finer axes come within a factor of two first, then all are coarsened.
        finer = low.max() / low > 2
        if not finer.any():
            finer[:] = True
        low = np.where(finer, low * SPACING_STEP, low)
        size = np.array(spacing) / low * np.array(median)
        patch = search.run(low.tolist(), [round(s) for s in size]).patch
    if math.prod(median) / math.prod(size) < 2:
        return None
    return [float(edge) for edge in low]
