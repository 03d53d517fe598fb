"""Decide: the logits of every network, mirrored copy, Monte Carlo pass and scale become
one label map at the source's resolution.

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
from trivox.inference.doubt.sampling import BandSampler, VoxelSample
from trivox.inference.doubt.uncertainty import Agreement, Sums, probabilities_of
from trivox.inference.members import Member
from trivox.inference.restore import (
    Sampler,
    label_indices,
    restore,
    restored_logits,
)
from trivox.inference.windows import Slab, SlidingWindows
from trivox.preparation.grid import GridRecord, PreparedCase
from trivox.volumes.volume import Array


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


@dataclass(frozen=True, eq=False)
class Decision:
    """What was decided on a case, on the first member's ordered and cropped grid.

    raw: label indices `(z, y, x)` before cleaning, labels: after it; poll: where more
    was needed than the labels; sample: voxels with logits, where they were drawn.
    """

    raw: Array
    labels: Array
    poll: Poll | None
    sample: VoxelSample | None


@dataclass(frozen=True, eq=False)
class Pollster:
    """Polls members on one case.

    kinds: of doubt, see `trivox.inference.doubt.kinds`; spread: vote by vote, rather
    than each member as a whole; clean: label indices as they are written.
    """

    members: Sequence[Member]
    scheme: LabelScheme
    kinds: Sequence[str]
    spread: bool
    seed: int
    clean: Callable[[Array], Array]

    def decide(
        self,
        cases: Sequence[PreparedCase],
        *,
        detailed: bool,
        sampler: BandSampler | None,
    ) -> Decision:
        """Decide on a case, prepared for each member.

        detailed: whether probabilities are wanted as well; where neither they nor
        single votes are, a single member goes the memory-lean way.
        """
        poll = None
        if len(self.members) == 1 and not (detailed or self.spread):
            slabs = self.members[0].windows.slabs(cases[0].image)
            raw = label_case(slabs, cases[0].record, self.scheme, sampler)
        else:
            poll = self.poll(cases, sampler)
            raw = poll.labels
        sample = None if sampler is None else sampler.sample()
        return Decision(raw, self.clean(raw), poll, sample)

    def poll(
        self, cases: Sequence[PreparedCase], sampler: Sampler | None = None
    ) -> Poll:
        """All votes; a sampler sees the logits only where a single member decides."""
        first = cases[0].record
        votes = Tally(self.scheme, first, self.kinds)
        apart = self.spread and any(len(member.votes()) > 1 for member in self.members)
        decision = Tally(self.scheme, first) if apart else votes
        agreement = None
        if self.spread:
            agreement = Agreement(len(self.scheme.values) - 1, first.cropped_shape)
        volumes: list[Array] = []
        for member, case in zip(self.members, cases, strict=True):
            logits = torch.zeros(self.scheme.output_channels, *case.record.shape)
            for labels in self._votes(member, case, votes, logits):
                if agreement is not None:
                    agreement.add(labels)
                volumes.append(target_voxels(self.clean(labels), self.scheme))
            if apart:
                decision.add([Slab(0, logits)], case.record, member.temperature)
        maps = votes.sums.maps()
        probabilities = decision.sums.mean()
        if len(self.members) == 1:
            labels = label_case([Slab(0, logits)], first, self.scheme, sampler)
        else:
            labels = label_indices(probabilities, self.scheme, above=0.5)
        dice = None if agreement is None else agreement.dice()
        return Poll(labels, probabilities, maps, np.stack(volumes), dice)

    def _votes(
        self, member: Member, case: PreparedCase, votes: "Tally", total: Tensor
    ) -> Iterator[Array]:
        """Label indices of each vote of a member as it is counted; `total` becomes the
        mean of their logits.
        """
        windows = member.votes() if self.spread else [member.windows]
        for each in windows:
            with seeded(self.seed + votes.sums.votes, each):
                slabs = _noted(each.slabs(case.image), total, 1 / len(windows))
                labels = votes.add(slabs, case.record, member.temperature)
            yield labels


class Tally:
    """Counts votes on the ordered and cropped grid of the first member."""

    def __init__(
        self, scheme: LabelScheme, first: GridRecord, kinds: Sequence[str] = ()
    ) -> None:
        self.scheme = scheme
        self.axis_order = first.axis_order
        self.sums = Sums(
            scheme.output_channels,
            first.cropped_shape,
            exclusive=scheme.exclusive,
            kinds=kinds,
        )

    def add(
        self, slabs: Iterable[Slab], record: GridRecord, temperature: float
    ) -> Array:
        """Add a vote that was cast on the grid of `record`; returns its label indices
        on the grid of the first member.
        """
        axes = [self.axis_order.index(axis) for axis in record.axis_order]
        shape = [record.cropped_shape[axes.index(axis)] for axis in range(3)]
        labels = np.empty(shape, np.int16)
        ordered = labels.transpose(axes)
        rows = restored_logits(
            slabs, record.shape, record.cropped_shape, nearest_axis=record.nearest_axis
        )
        for start, logits in rows:
            chance = probabilities_of(
                logits, exclusive=self.scheme.exclusive, temperature=temperature
            ).cpu()
            self.sums.add(start, chance, axes)
            decided = label_indices(chance, self.scheme, above=0.5)
            ordered[start : start + chance.shape[1]] = decided
        self.sums.votes += 1
        return labels


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
    device = windows.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed % 2**63)
        yield


def _noted(slabs: Iterable[Slab], total: Tensor, share: float) -> Iterator[Slab]:
    """Pass slabs on and add `share` of them to the logits of the member."""
    for slab in slabs:
        place = total[:, slab.start : slab.start + slab.logits.shape[1]]
        place.add_(slab.logits.cpu(), alpha=share)
        yield slab
