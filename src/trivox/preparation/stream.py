"""Batches one after the other: read ahead by threads, and for a GPU finished ahead too,
while the step before is computed.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import torch

from trivox.preparation.batches import Source, Unfinished


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
    aside = torch.Stream(device)

    def finish(batch: Unfinished, free: torch.Event) -> tuple[Any, torch.Event]:
        with torch.no_grad(), aside:
            aside.wait_event(free)
            return batch.finish(device), aside.record_event()

    with ThreadPoolExecutor(1, thread_name_prefix="trivox-finisher") as pool:
        ahead: deque[Future[tuple[Any, torch.Event]]] = deque()
        for batch in batches:
            main = torch.accelerator.current_stream(device)
            ahead.append(pool.submit(finish, batch, main.record_event()))
            if len(ahead) > 1:
                yield _taken(ahead.popleft(), device)
        while ahead:
            yield _taken(ahead.popleft(), device)


def _taken(future: Future[tuple[Any, torch.Event]], device: torch.device) -> Any:
    """A finished batch, which what is asked of the device from now on waits for."""
    batch, ready = future.result()
    torch.accelerator.current_stream(device).wait_event(ready)
    return batch
