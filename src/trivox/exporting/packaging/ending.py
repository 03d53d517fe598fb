"""How the entry point of a container ends."""

import sys
from collections.abc import Callable

from trivox.errors import TrivoxError


def run_entry(work: Callable[[], None]) -> None:
    """Do its work; a known problem becomes one line on stderr and exit code 1."""
    try:
        work()
    except (TrivoxError, OSError, MemoryError) as error:
        message = " ".join(str(error).split()) or "out of memory"
        print(f"error: {message}", file=sys.stderr, flush=True)
        sys.exit(1)
