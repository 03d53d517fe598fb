"""Decide: the logits of every network, mirrored copy, Monte Carlo pass and scale become
one label map at the source's resolution.

The label map is the same whether or not doubt is asked for. Networks and mirrored
copies of one bundle at one scale are a member: it decides by the mean of their logits
(nnU-Net's way, and the only one that the memory-lean path can go). Members (bundles,
scales) decide by the mean of their calibrated probabilities. Doubt is measured between
single votes.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from trivox.datasets.labels import LabelScheme
from trivox.inference.doubt.label_voxels import VoxelSample
from trivox.inference.doubt.sampling import BandSampler
from trivox.inference.doubt.uncertainty import Agreement, Sums, probabilities_of
from trivox.inference.engines.room import MEMORY, spared
from trivox.inference.logits.labels import indices_of, label_indices, winners
from trivox.inference.members import Member
from trivox.inference.restore import Sampler, restore, restored_logits
from trivox.inference.windows import BESIDE, Slab, SlidingWindows
from trivox.preparation.grid import GridRecord, PreparedCase
from trivox.volumes.volume import Array

FLOAT_BYTES = 4
COMPARED_BYTES = 2**30
"""Of memory that comparing votes may take where nothing else is wanted of them."""


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
    was needed than the labels; sample: voxels with logits, where they were drawn; votes,
    agreement: how many were compared, none where none were, and their pooled pairwise
    Dice.
    """

    raw: Array
    labels: Array
    poll: Poll | None
    sample: VoxelSample | None
    votes: int = 0
    agreement: float | None = None


@dataclass(frozen=True, eq=False)
class Pollster:
    """Polls members on one case.

    kinds: of doubt, see `trivox.inference.doubt.kinds`; spread: vote by vote, rather
    than each member as a whole; compared: whether the votes of a single member are
    compared though nothing else is wanted of them; clean: label indices as they are
    written.
    """

    members: Sequence[Member]
    scheme: LabelScheme
    kinds: Sequence[str]
    spread: bool
    seed: int
    clean: Callable[[Array], Array]
    compared: bool = False

    def decide(
        self,
        cases: Sequence[PreparedCase],
        *,
        detailed: bool,
        sampler: Callable[[], BandSampler | None],
    ) -> Decision:
        """Decide on a case, prepared for each member.

        detailed: whether probabilities are wanted as well; where neither they nor
        single votes are, a single member goes the memory-lean way. sampler: makes one.
        """

        def decided(lean: bool) -> Decision:
            members = [member.spared(lean) for member in self.members]
            spread = self.spread or (detailed and self.compares(cases[0].record))
            pollster = replace(self, members=members, spread=spread)
            return pollster.decide_once(cases, sampler(), detailed=detailed)

        return spared(decided, self.members[0].windows.device)

    def decide_once(
        self,
        cases: Sequence[PreparedCase],
        sampler: BandSampler | None,
        *,
        detailed: bool,
    ) -> Decision:
        """The same, or an error where the memory of a GPU does not suffice."""
        poll = None
        votes = 0
        agreement = None
        if len(self.members) > 1 or detailed or self.spread:
            poll = self.poll(cases, sampler)
            raw = poll.labels
            votes = len(poll.volumes)
            agreement = poll.agreement
        elif self.compares(cases[0].record):
            raw, agreement = self.compare(cases[0], sampler)
            votes = len(self.members[0].votes())
        else:
            slabs = self.members[0].windows.slabs(cases[0].image)
            raw = label_case(slabs, cases[0].record, self.scheme, sampler)
        sample = None if sampler is None else sampler.sample()
        return Decision(raw, self.clean(raw), poll, sample, votes, agreement)

    def compares(self, record: GridRecord) -> bool:
        """Whether the votes of a single member are compared: there are several, and what
        that takes beside the lean way is little memory.
        """
        if not self.compared or len(self.members[0].votes()) < 2:
            return False
        labels = len(self.scheme.values) - 1
        logits = FLOAT_BYTES * self.scheme.output_channels * math.prod(record.shape)
        return (
            logits + Agreement.bytes_of(labels, record.cropped_shape) <= COMPARED_BYTES
        )

    def compare(
        self, case: PreparedCase, sampler: Sampler | None = None
    ) -> tuple[Array, float | None]:
        """Label indices `(z, y, x)` of the only member, and the agreement of its votes,
        without any probabilities.
        """
        (member,) = self.members
        record = case.record
        image = member.windows.placed(case.image)
        logits = self._blank_logits(member, record)
        agreement = Agreement(len(self.scheme.values) - 1, record.cropped_shape)
        windows = member.votes()
        for number, each in enumerate(windows):
            with seeded(self.seed + number, each):
                slabs = _noted(each.slabs(image), logits, 1 / len(windows))
                agreement.add(label_case(slabs, record, self.scheme, None))
        decided = _decided(member, image, logits)
        return label_case(decided, record, self.scheme, sampler), agreement.dice()

    def poll(
        self, cases: Sequence[PreparedCase], sampler: Sampler | None = None
    ) -> Poll:
        """All votes; a sampler sees the logits only where a single member decides."""
        first = cases[0].record
        votes = self._tally(first, self.kinds)
        apart = self.spread and any(len(member.votes()) > 1 for member in self.members)
        decision = self._tally(first) if apart else votes
        agreement = None
        if self.spread:
            agreement = Agreement(len(self.scheme.values) - 1, first.cropped_shape)
        volumes: list[Array] = []
        for member, case in zip(self.members, cases, strict=True):
            image = member.windows.placed(case.image)
            logits = self._blank_logits(member, case.record)
            for labels in self._votes(member, image, case.record, votes, logits):
                if agreement is not None:
                    agreement.add(labels)
                volumes.append(target_voxels(self.clean(labels), self.scheme))
            if apart:
                decision.add([Slab(0, logits)], case.record, member.temperature)
        maps = votes.sums.maps()
        probabilities = decision.sums.mean().cpu()
        if len(self.members) == 1:
            slabs: Iterable[Slab] = [Slab(0, logits)]
            if self.spread:
                slabs = _decided(self.members[0], image, logits)
            labels = label_case(slabs, first, self.scheme, sampler)
        else:
            labels = label_indices(probabilities, self.scheme, above=0.5)
        dice = None if agreement is None else agreement.dice()
        return Poll(labels, probabilities, maps, np.stack(volumes), dice)

    def _tally(self, first: GridRecord, kinds: Sequence[str] = ()) -> "Tally":
        """An empty one, on the GPU if it fits there."""
        size = (self.scheme.output_channels, *first.cropped_shape)
        windows = self.members[0].windows
        place = windows.place_for(size, copies=BESIDE + len(kinds))
        return Tally(self.scheme, first, kinds, place)

    def _blank_logits(self, member: Member, record: GridRecord) -> Tensor:
        """Zeros for the logits of a member, on the GPU if they fit there."""
        size = (self.scheme.output_channels, *record.shape)
        return torch.zeros(size, device=member.windows.place_for(size, copies=BESIDE))

    def _votes(
        self,
        member: Member,
        image: Tensor,
        record: GridRecord,
        votes: "Tally",
        total: Tensor,
    ) -> Iterator[Array]:
        """Label indices of each vote of a member as it is counted; `total` becomes the
        mean of their logits.
        """
        windows = member.votes() if self.spread else [member.windows]
        for each in windows:
            with seeded(self.seed + votes.sums.votes, each):
                slabs = _noted(each.slabs(image), total, 1 / len(windows))
                labels = votes.add(slabs, record, member.temperature)
            yield labels


class Tally:
    """Counts votes on the ordered and cropped grid of the first member; place: where
    the sums lie.
    """

    def __init__(
        self,
        scheme: LabelScheme,
        first: GridRecord,
        kinds: Sequence[str] = (),
        place: torch.device = MEMORY,
    ) -> None:
        self.scheme = scheme
        self.place = place
        self.axis_order = first.axis_order
        self.sums = Sums(
            scheme.output_channels,
            first.cropped_shape,
            exclusive=scheme.exclusive,
            kinds=kinds,
            place=place,
        )

    def add(
        self, slabs: Iterable[Slab], record: GridRecord, temperature: float
    ) -> Array:
        """Add a vote that was cast on the grid of `record`; returns its label indices
        on the grid of the first member.
        """
        axes = [self.axis_order.index(axis) for axis in record.axis_order]
        rows = restored_logits(
            slabs, record.shape, record.cropped_shape, nearest_axis=record.logits_axis
        )
        parts = []
        for start, logits in rows:
            chance = probabilities_of(
                logits, exclusive=self.scheme.exclusive, temperature=temperature
            ).to(self.place)
            self.sums.add(start, chance, axes)
            parts.append(winners(chance, self.scheme, above=0.5))
        self.sums.votes += 1
        rows_axis = 0 if self.scheme.exclusive else 1
        won = torch.cat(parts, dim=rows_axis).cpu()
        labels = indices_of(won, self.scheme)
        return labels.transpose(np.argsort(axes))


def _decided(member: Member, image: Tensor, logits: Tensor) -> Iterable[Slab]:
    """What a member decides by, if the mean of its single votes is `logits`."""
    if member.windows.half:  # that mean is rounded otherwise
        return member.windows.slabs(image)
    return [Slab(0, logits)]


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
        nearest_axis=record.logits_axis,
        exclusive=scheme.exclusive,
        sampler=sampler,
        half=record.half_logits,
        paint=None if scheme.exclusive else scheme.paint_regions,
    )
    return np.asarray(restored.numpy())


def target_voxels(labels: Array, scheme: LabelScheme) -> Array:
    """Voxels of each target in label indices, `(target,)`."""
    counts = np.zeros(len(scheme.values), np.int64)
    for row in labels:  # counting turns what it counts into 64 bits
        counts += np.bincount(row.reshape(-1), minlength=len(counts))
    return np.asarray(scheme.region_table().astype(np.int64) @ counts)


@contextmanager
def seeded(seed: int, windows: SlidingWindows) -> Iterator[None]:
    """Seed what dropout draws from, so that a vote is the same in any order of cases;
    the state outside is kept.
    """
    device = windows.device
    if device.type != "cuda":
        with torch.random.fork_rng([]):
            torch.manual_seed(seed % 2**63)
            yield
        return
    # of this GPU alone: others compute other cases meanwhile
    generator = torch.cuda.default_generators[device.index or 0]
    state = generator.get_state()
    generator.manual_seed(seed % 2**63)
    try:
        yield
    finally:
        generator.set_state(state)


def _noted(slabs: Iterable[Slab], total: Tensor, share: float) -> Iterator[Slab]:
    """Pass slabs on and add `share` of them to the logits of the member."""
    for slab in slabs:
        place = total[:, slab.start : slab.start + slab.logits.shape[1]]
        place.add_(slab.logits.to(total.device), alpha=share)
        yield slab
