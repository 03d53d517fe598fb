"""A held-out case as far as promises are learnt from it, and which cases are asked of
what was learnt on which others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trivox.inference.doubt.label_voxels import VoxelSample, first_of_each
from trivox.volumes.volume import Array

NOTHING: Mapping[str, Any] = {}
VOXELS_A_CASE = 10_000
FLOATS_IN_ALL = 50_000_000
"""Logits held over all cases: 200 MB."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A validation case: its fold, a sample of its voxels, its mean Dice, whether its
    reference is empty, how many votes were compared, and their agreement.
    """

    fold: str
    sample: VoxelSample
    dice: float
    empty: bool
    votes: int = 1
    agreement: float | None = None


def held_out(
    fold: str,
    sample: VoxelSample,
    dice: Array,
    reference: Array,
    *,
    cases: int,
    trust: Mapping[str, Any] = NOTHING,
) -> HeldOut:
    """Keep what calibration needs of a case.

    dice: of each label; reference: indices; cases: how many share the memory; trust: of
    the prediction.
    """
    known = dice[~np.isnan(dice)]
    share = max(1000, FLOATS_IN_ALL // (cases * sample.logits.shape[1]))
    first = slice(min(VOXELS_A_CASE, share))  # the order of a sample is random
    assert sample.reference is not None
    thinned = VoxelSample(
        sample.logits[first].clone(),
        sample.reference[first].clone(),
        None if sample.labels is None else _thinned(sample.labels, cases),
        sample.lesions,
    )
    mean = float(known.mean()) if known.size else float("nan")
    return HeldOut(
        fold,
        thinned,
        mean,
        empty=not bool((reference > 0).any()),
        votes=trust.get("votes", 1),
        agreement=trust.get("agreement"),
    )


def _thinned(sample: VoxelSample, cases: int) -> VoxelSample:
    """As many voxels of each label as memory has room for."""
    assert sample.reference is not None
    labels = sample.reference.unique()
    share = FLOATS_IN_ALL // (cases * sample.logits.shape[1] * max(1, len(labels)))
    rows = first_of_each(sample.reference, max(1, share))
    return VoxelSample(sample.logits[rows].clone(), sample.reference[rows].clone())


def groups_of(folds: Mapping[str, str], seed: int) -> dict[str, str]:
    """The fold of each case, or with a single fold two random halves."""
    if len(set(folds.values())) > 1:
        return dict(folds)
    order = np.random.default_rng(seed).permutation(len(folds))
    return {
        name: str(position % 2) for name, position in zip(folds, order, strict=True)
    }
