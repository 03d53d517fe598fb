"""Votes: every network, mirrored copy, Monte Carlo pass and scale, polled one after the
other.

The label map is the same whether or not doubt is asked for. Networks and mirrored
copies of one bundle at one scale are a member: it decides by the mean of their logits
(nnU-Net's way, and the only one that the memory-lean path can go). Members (bundles,
scales) decide by the mean of their calibrated probabilities. Doubt is measured between
single votes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trivox.datasets.labels import LabelScheme
from trivox.inference.classes.reader import ClassReader
from trivox.inference.doubt.uncertainty import Agreement, Sums, probabilities_of
from trivox.inference.restore import Sampler, restore, restored_logits
from trivox.inference.windows import Slab, SlidingWindows
from trivox.planning.plan import Plan
from trivox.preparation.grid import GridRecord, PreparedCase
from trivox.volumes.volume import Array, Spacing


@dataclass(frozen=True, eq=False)
class Member:
    """Networks of one plan at one scale, run together.

    passes: Monte Carlo dropout passes of each; 0: no dropout.

    readers: of the networks that also know the class of a case.
    """

    plan: Plan
    windows: SlidingWindows
    temperature: float = 1.0
    passes: int = 0
    readers: tuple[ClassReader, ...] = ()

    def votes(self) -> list[SlidingWindows]:
        """What votes alone: a network with a mirrored copy, as often as there are
        passes.
        """
        return self.windows.votes() * max(1, self.passes)


@dataclass(frozen=True, eq=False)
class Poll:
    """What the votes say, on the first member's ordered and cropped grid.

    labels: indices `(z, y, x)`; probabilities: of the decision `(c, z, y, x)`; maps:
    kind of doubt -> `(z, y, x)`; volumes: voxels of each target by vote `(vote,
    target)`; agreement: pooled pairwise Dice of the votes.
    """

    labels: Array
    probabilities: Tensor
    maps: dict[str, Array]
    volumes: Array
    agreement: float | None


def scaled_spacing(plan: Plan, scale: float) -> Spacing:
    """The spacing at which structures look `scale` times as large; axes that the
    network sees in slices keep theirs.
    """
    z, y, x = (
        s / scale if p > 1 else s
        for s, p in zip(plan.spacing, plan.patch_size, strict=True)
    )
    return z, y, x


@dataclass(frozen=True, eq=False)
class Pollster:
    """Polls members on one case.

    spread: vote by vote, rather than each member as a whole.
    """

    members: Sequence[Member]
    scheme: LabelScheme
    kinds: Sequence[str]
    spread: bool
    seed: int
    clean: Callable[[Array], Array]

    def poll(
        self, prepared: Sequence[PreparedCase], sampler: Sampler | None = None
    ) -> Poll:
        """Poll on a case, prepared for each member; a sampler sees the logits only
        where a single member decides.
        """
        first, scheme = prepared[0].record, self.scheme
        channels, exclusive = scheme.output_channels, scheme.exclusive
        sums = Sums(
            channels, first.cropped_shape, exclusive=exclusive, kinds=self.kinds
        )
        apart = self.spread and any(len(member.votes()) > 1 for member in self.members)
        decision = (
            Sums(channels, first.cropped_shape, exclusive=exclusive) if apart else sums
        )
        agreement = (
            Agreement(len(scheme.values) - 1, first.cropped_shape)
            if self.spread
            else None
        )
        volumes: list[Array] = []
        for member, case in zip(self.members, prepared, strict=True):
            axes = [first.axis_order.index(axis) for axis in case.record.axis_order]
            logits = torch.zeros(channels, *case.record.shape)
            votes = member.votes() if self.spread else [member.windows]
            for windows in votes:
                with seeded(self.seed + sums.votes, windows):
                    slabs = _noted(windows.slabs(case.image), logits, 1 / len(votes))
                    labels = self._count(slabs, case.record, member, sums, axes)
                if agreement is not None:
                    agreement.add(labels)
                volumes.append(target_voxels(self.clean(labels), scheme))
            if apart:
                self._count([Slab(0, logits)], case.record, member, decision, axes)
        maps, chance = sums.maps(), decision.mean()
        alone = len(self.members) == 1
        labels = (
            label_case([Slab(0, logits)], first, scheme, sampler)
            if alone
            else self._decide(chance)
        )
        return Poll(
            labels,
            chance,
            maps,
            np.stack(volumes),
            agreement.dice() if agreement else None,
        )

    def _count(
        self,
        slabs: Iterable[Slab],
        record: GridRecord,
        member: Member,
        sums: Sums,
        axes: Sequence[int],
    ) -> Array:
        """Add a vote to the sums; returns its label indices in the order of their axes."""
        shape = [record.cropped_shape[axes.index(axis)] for axis in range(3)]
        labels = np.empty(shape, np.int16)
        ordered = labels.transpose(axes)
        for start, logits in restored_logits(
            slabs, record.shape, record.cropped_shape, nearest_axis=record.nearest_axis
        ):
            chance = probabilities_of(
                logits, exclusive=self.scheme.exclusive, temperature=member.temperature
            ).cpu()
            sums.add(start, chance, axes)
            ordered[start : start + chance.shape[1]] = self._decide(chance)
        sums.votes += 1
        return labels

    def _decide(self, chance: Tensor) -> Array:
        if self.scheme.exclusive:
            return chance.max(0).indices.to(torch.int16).numpy()
        return self.scheme.paint_regions((chance > 0.5).numpy())


def label_case(
    slabs: Iterable[Slab],
    record: GridRecord,
    scheme: LabelScheme,
    sampler: Sampler | None,
) -> Array:
    """Label indices `(z, y, x)` at source resolution, the memory-lean way: slabs in,
    labels out.
    """
    restored = restore(
        slabs,
        record.shape,
        record.cropped_shape,
        nearest_axis=record.nearest_axis,
        exclusive=scheme.exclusive,
        sampler=sampler,
    ).numpy()
    return restored if scheme.exclusive else scheme.paint_regions(restored)


def target_voxels(labels: Array, scheme: LabelScheme) -> Array:
    """Voxels of each target in label indices, `(target,)`."""
    counts = np.bincount(labels.reshape(-1), minlength=len(scheme.values))
    return np.asarray(scheme.region_table().astype(np.int64) @ counts)


@contextmanager
def seeded(seed: int, windows: SlidingWindows) -> Iterator[None]:
    """Seed what dropout draws from, so that a vote is the same in any order of cases;
    the state outside is kept.
    """
    device = windows.runtime.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _noted(slabs: Iterable[Slab], total: Tensor, share: float) -> Iterator[Slab]:
    """Pass slabs on and add `share` of them to the logits of the member."""
    for slab in slabs:
        total[:, slab.start : slab.start + slab.logits.shape[1]].add_(
            slab.logits.cpu(), alpha=share
        )
        yield slab
