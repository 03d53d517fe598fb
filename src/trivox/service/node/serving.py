"""The node at work: what comes in is queued, predicted, and answered."""

import time

from trivox.service.jobs.work import Worker
from trivox.service.node.listener import Listener

IDLE = 0.5
"""Seconds between two looks into the queue."""
HOUR = 3600.0


def serve(listener: Listener, worker: Worker) -> None:
    """Listen and work until asked to stop."""
    worker.queue.free_dead()
    listener.intake.recover()
    tidied = -HOUR
    with listener.listening() as port:
        node = listener.node
        listener.say(f"{node.aet} listens at {node.bind} port {port}")
        while not worker.stop.is_set():
            if time.monotonic() - tidied > HOUR:
                worker.tidy()
                tidied = time.monotonic()
            if not worker.turn():
                worker.stop.wait(IDLE)
