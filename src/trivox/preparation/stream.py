"""Batches one after the other: read ahead by threads, and for a GPU finished ahead too,
while the step before is computed.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from typing import Any

import torch

from trivox.memory import memory_ran_out
from trivox.preparation.batches import Source, Unfinished

Finished = tuple[Any, torch.Event]
"""A batch, and when it is ready."""


def stream(
    source: Source, steps: Sequence[int], *, device: torch.device, workers: int
) -> Iterator[tuple[Any, Any]]:
    """The finished batches of `steps` in order, with up to `workers` + 1 of them read
    ahead; for a GPU the next one is finished ahead in a stream of its own.
    """
    with closing(_read(source, steps, workers)) as batches:
        if device.type == "cuda":
            yield from _finished_ahead(batches, device)
            return
        for batch in batches:
            yield batch.finish(device)


def _read(source: Source, steps: Sequence[int], workers: int) -> Generator[Unfinished]:
    """Batches as read, by so many threads."""
    if workers == 0:
        yield from map(source.read, steps)
        return
    with ThreadPoolExecutor(
        max_workers=workers, thread_name_prefix="trivox-reader"
    ) as pool:
        waiting: deque[Future[Unfinished]] = deque()
        try:
            for step in steps:
                waiting.append(pool.submit(source.read, step))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _finished_ahead(
    batches: Iterator[Unfinished], device: torch.device
) -> Iterator[tuple[Any, Any]]:
    """Finished batches, the next one on its way while one is used.

    A batch is begun only once the device has done what was asked of it before: so its
    memory may be that of a batch that was used up.
    """
    aside = _stream_aside(device)

    def finish(batch: Unfinished, free: torch.Event) -> Finished:
        with torch.no_grad(), aside:
            aside.wait_event(free)
            return batch.finish(device), aside.record_event()

    pool = ThreadPoolExecutor(1, thread_name_prefix="trivox-finisher")

    def taken(batch: Unfinished, future: Future[Finished]) -> Any:
        finished, ready = _result(future) or again(batch)
        torch.accelerator.current_stream(device).wait_event(ready)
        return finished

    def again(batch: Unfinished) -> Finished:
        """A batch that did not fit beside a step, after the step."""
        torch.cuda.empty_cache()
        return pool.submit(finish, batch, _now(device)).result()

    with pool:
        ahead: deque[tuple[Unfinished, Future[Finished]]] = deque()
        for batch in batches:
            ahead.append((batch, pool.submit(finish, batch, _now(device))))
            if len(ahead) > 1:
                yield taken(*ahead.popleft())
        while ahead:
            yield taken(*ahead.popleft())


@lru_cache
def _stream_aside(device: torch.device) -> torch.Stream:
    """The stream in which batches are finished: always the same, since memory that was
    taken in one stream is never used in another.
    """
    return torch.Stream(device)


def _now(device: torch.device) -> torch.Event:
    """When the device has done what was asked of it so far."""
    return torch.accelerator.current_stream(device).record_event()


def _result(future: Future[Finished]) -> Finished | None:
    """A finished batch; None if the memory of the device did not suffice for it."""
    try:
        return future.result()
    except RuntimeError as error:
        if not memory_ran_out(error):
            raise
        # it holds what was computed
        error.__traceback__ = None
    return None
