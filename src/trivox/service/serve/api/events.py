"""What happens to a job, as server-sent events.

event: job      each change, the present state first; data: as `GET /v1/jobs/ID`
event: end      the last one; the server closes the stream
"""

import asyncio
import time
from collections.abc import AsyncIterator

from anyio.to_thread import run_sync

from trivox.service.serve.api.desk import Desk
from trivox.service.serve.api.problems import ProblemError

LOOK = 0.2
"""Seconds between two looks at the job."""
KEEP_ALIVE = 10.0
"""Seconds after which a silent stream says that it lives."""
MEDIA_TYPE = "text/event-stream"


class Streams:
    """The streams of a server, so many at a time."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.open = 0

    async def of(self, id: str, client: str) -> AsyncIterator[str]:
        """The events of a job; raises `ProblemError` where no more can be followed."""
        if self.open >= self.desk.limits.streams:
            raise ProblemError("queue-full", "ask for the job itself now and then")
        return self._events(id, client)

    async def _events(self, id: str, client: str) -> AsyncIterator[str]:
        self.open += 1
        try:
            async for event in self._changes(id, client):
                yield event
        finally:
            self.open -= 1

    async def _changes(self, id: str, client: str) -> AsyncIterator[str]:
        change = -1
        spoken = time.monotonic()
        while not self.desk.stopping.is_set():
            job = await run_sync(self.desk.job, id, client)
            if job.change != change:
                change = job.change
                spoken = time.monotonic()
                view = await run_sync(self.desk.view, job)
                name = "end" if job.has_ended else "job"
                yield f"id: {change}\nevent: {name}\ndata: {view.model_dump_json()}\n\n"
            elif time.monotonic() > spoken + KEEP_ALIVE:
                spoken = time.monotonic()
                yield ": still here\n\n"
            if job.has_ended:
                return
            await asyncio.sleep(LOOK)
