"""Which of the processes that torchrun started a command runs in."""

import os
import time

PATIENCE = 15.0
"""Seconds; torchrun looks after its processes ten times a second, and a process takes
some to end.
"""


def is_first_rank() -> bool:
    """Whether this process is the only one, or the first that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def let_the_first_rank_speak() -> None:
    """Wait before a failure is said on another rank: torchrun ends this process
    meanwhile if the first one failed as well, and has said why.
    """
    if not is_first_rank():
        time.sleep(PATIENCE)
