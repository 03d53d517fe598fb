"""Batches that are finished ahead on a GPU: the same ones, in the same order."""

import threading
from dataclasses import dataclass, field

import pytest
import torch

from training_toys import Toy
from trivox.preparation.stream import stream


@dataclass
class Noted:
    """Batches that say by which thread they were finished, and which of them were."""

    toy: Toy = field(default_factory=Toy)
    finished: list = field(default_factory=list)
    threads: set = field(default_factory=set)

    def read(self, step):
        batch = self.toy.read(step)
        return Noting(self, step, batch)


@dataclass
class Noting:
    source: Noted
    step: int
    batch: object

    def finish(self, device):
        if self.step == 7:
            raise ValueError("batch 7 is damaged")
        self.source.finished.append(self.step)
        self.source.threads.add(threading.current_thread().name)
        return self.batch.finish(device)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_a_cpu_in_their_order(gpu, workers):
    expected = stream(Toy(), range(5), device=torch.device("cpu"), workers=0)
    batches = stream(Noted(), range(5), device=gpu, workers=workers)
    for there, here in zip(batches, expected, strict=True):
        for result, wanted in zip(there, here, strict=True):
            assert result.device == gpu
            assert torch.equal(result.cpu(), wanted)


def test_the_next_batch_is_finished_while_one_is_used(gpu):
    source = Noted()
    batches = stream(source, range(5), device=gpu, workers=1)
    next(batches)
    next(batches)
    batches.close()
    assert source.finished[:3] == [0, 1, 2]
    assert len(source.finished) == 3
    assert threading.current_thread().name not in source.threads


def test_an_error_reaches_whoever_takes_the_batch(gpu):
    batches = stream(Noted(), range(5, 10), device=gpu, workers=2)
    next(batches)
    next(batches)
    with pytest.raises(ValueError, match="batch 7"):
        next(batches)


def test_a_batch_that_does_not_fit_beside_a_step_is_finished_after_it(gpu):
    """By the thread that finishes the others: two at a time would share what they
    read from.
    """
    source = Noted()
    real = Noting.finish
    failed = []

    def full_at_first(self, device):
        if self.step == 1 and not failed:
            failed.append(threading.current_thread().name)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Noting, "finish", full_at_first)
        batches = list(stream(source, range(4), device=gpu, workers=1))
    expected = stream(Toy(), range(4), device=torch.device("cpu"), workers=0)
    for there, here in zip(batches, expected, strict=True):
        assert torch.equal(there[0].cpu(), here[0])
    assert source.threads == set(failed)
