"""Prepared cases kept on a GPU, which patches are cut from without an upload.

Where they do not all fit, they wait in pinned memory of the host, and the least recently
used one on the GPU makes room for the next.
"""

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from trivox.memory import HOLDERS, memory_ran_out
from trivox.preparation.parcels import Parcel, Patches, compact
from trivox.preparation.store import Store, clipped
from trivox.preparation.together import Changes
from trivox.volumes.volume import Shape

Corner = tuple[str, tuple[int, int, int]]
"""A case, and the first voxel of a box in it, which may lie outside."""


@dataclass(frozen=True, eq=False)
class Cuts:
    """Boxes of one size, of cases with so many channels."""

    corners: Sequence[Corner]
    channels: int
    size: Shape


@dataclass(eq=False)
class Resident:
    """A case on the device.

    stream: where its memory was taken; ready: when it is there; used: when it was last
    read.
    """

    parcel: Parcel
    stream: torch.Stream
    ready: torch.Event
    used: torch.Event

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return self.parcel.memory.nbytes


@dataclass(eq=False)
class CaseCache:
    """Cases of a store on a GPU: up to `capacity` bytes of them, the last of which may
    reach beyond.

    half: images in half precision, where that keeps them (see `halved`); backed: the
    host keeps what was sent, so that it can be sent again. Readers call `prepare`, who
    finishes a batch calls `boxes`.
    """

    store: Store
    device: torch.device
    capacity: int
    half: bool
    backed: bool
    held: int = 0
    """Bytes on the device."""
    _residents: OrderedDict[str, Resident] = field(default_factory=OrderedDict)
    _parcels: dict[str, Parcel] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _readers: dict[str, threading.Lock] = field(
        default_factory=lambda: defaultdict(threading.Lock)
    )

    def __post_init__(self) -> None:
        HOLDERS.add(self)

    def prepare(self, name: str) -> None:
        """See to it that a case is on the device, or read and ready to be sent."""
        with self._guard:
            reader = self._readers[name]
        with reader:
            # in this order: a case that is sent leaves the parcels last
            if name in self._parcels or name in self._residents:
                return
            image, label = self.store.read(name)
            patches = (torch.from_numpy(image), torch.from_numpy(label))
            image_part, label_part = compact(patches, half=self.half)
            parts = {"image": image_part, "label": label_part}
            self._parcels[name] = Parcel.of(parts)

    def boxes(self, cuts: Cuts) -> Patches:
        """What `Store.read_box` gives for each box: images `(n, c, z, y, x)` float32 and
        label indices `(n, z, y, x)` int16 on the device.
        """
        places = [
            clipped(start, cuts.size, self.store.shape(name))
            for name, start in cuts.corners
        ]
        filled = all(_extent(paste) == tuple(cuts.size) for _, paste in places)
        new = torch.empty if filled else torch.zeros
        shape = (len(places), cuts.channels, *cuts.size)
        images = new(shape, device=self.device)
        labels = new((len(places), *cuts.size), dtype=torch.int16, device=self.device)
        stream = torch.accelerator.current_stream(self.device)
        with self._turn:
            for number, (inside, paste) in enumerate(places):
                if not all(_extent(inside)):
                    continue
                case = self._resident(cuts.corners[number][0], stream)
                parts = case.parcel.tensors()
                voxels = parts["image"][(slice(None), *inside)]
                images[number][(slice(None), *paste)].copy_(voxels)
                labels[number][paste].copy_(parts["label"][inside])
                case.used = stream.record_event()
        return images, labels

    def give_way(self) -> bool:
        """Hold no more than half of what is held now; False if that is nothing."""
        with self._turn:
            if not self._residents:
                return False
            self.capacity = self.held // 2
            self._make_room(0)
            return True

    def _resident(self, name: str, stream: torch.Stream) -> Resident:
        """A case that `stream` may read."""
        if name not in self._residents:
            self._send(name, stream)
        self._residents.move_to_end(name)
        case = self._residents[name]
        stream.wait_event(case.ready)
        return case

    def _send(self, name: str, stream: torch.Stream) -> None:
        self.prepare(name)
        parcel = self._parcels[name]
        self._make_room(parcel.memory.nbytes)
        there = self._sent(parcel)
        ready = stream.record_event()
        self._residents[name] = Resident(there, stream, ready, ready)
        self.held += parcel.memory.nbytes
        if not self.backed:
            del self._parcels[name]

    def _sent(self, parcel: Parcel) -> Parcel:
        """A case on the device; if memory ran out, the cache makes do with half of what
        it holds.
        """
        try:
            return parcel.to(self.device)
        except RuntimeError as error:
            if not memory_ran_out(error):
                raise
            self.capacity = self.held // 2
        self._make_room(parcel.memory.nbytes)
        torch.cuda.empty_cache()
        return parcel.to(self.device)

    def _make_room(self, needed: int) -> None:
        while self._residents and self.held + needed > self.capacity:
            _, oldest = self._residents.popitem(last=False)
            # whoever gets the memory next takes it in that stream
            oldest.stream.wait_event(oldest.used)
            self.held -= oldest.bytes


@dataclass(frozen=True, eq=False)
class ForGpu:
    """How patches are read for a GPU: images in half precision, where that keeps them
    (see `halved`); from cases that lie on it, or from files.
    """

    half: bool
    cache: CaseCache | None = None


class GpuStore(Store):
    """A store that a GPU's patches are read from."""

    def __init__(self, folder: Path, gpu: ForGpu) -> None:
        super().__init__(folder)
        self.gpu = gpu


@dataclass(frozen=True, eq=False)
class ResidentBatch:
    """A batch whose patches are cut on the GPU: where from, and the numbers that its
    changes take.
    """

    cache: CaseCache
    plain: Cuts
    boxed: Cuts
    parcel: Parcel | None
    changes: Changes | None
    cases: Sequence[str]

    @classmethod
    def of(
        cls,
        cache: CaseCache,
        plain: Cuts,
        boxed: Cuts,
        changes: Changes | None,
        cases: Sequence[str],
    ) -> "ResidentBatch":
        """Read what is not at hand of the cases."""
        for name in cases:
            cache.prepare(name)
        parcel = None if changes is None else Parcel.of(changes.tensors)
        return cls(cache, plain, boxed, parcel, changes, cases)

    def finish(self, device: torch.device) -> Patches:
        """Cut and augment; `device` is that of the cache."""
        plain = self.cache.boxes(self.plain)
        if self.changes is None or self.parcel is None:
            return plain
        tensors = self.parcel.to(device).tensors()
        boxed = self.cache.boxes(self.boxed) if self.boxed.corners else None
        return self.changes.apply(tensors, plain, boxed)


def _extent(box: Sequence[slice]) -> Shape:
    z, y, x = (max(0, edge.stop - edge.start) for edge in box)
    return z, y, x
