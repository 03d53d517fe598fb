"""What a server was started with."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from trivox.memory import total_memory
from trivox.schema import Frozen

GIBI = 1 << 30
MEMORY_SHARE = 0.8
"""Of the memory that all jobs together may take."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class ServedModel(Frozen):
    """A model and where it lies."""

    name: Name
    path: Path


class JobLimits(Frozen):
    """What one job may take. memory: bytes beyond those of the warm models; seconds: by
    the clock on the wall; upload: bytes that are sent; unpacked: bytes that a zip becomes.
    """

    memory: int = Field(default=4 * GIBI, ge=1)
    seconds: float = Field(default=3600.0, gt=0)
    upload: int = Field(default=2 * GIBI, ge=1)
    unpacked: int = Field(default=8 * GIBI, ge=1)


class WorkSettings(Frozen):
    """What workers have to know.

    cores: that one job may keep busy; lease: seconds for which a worker vouches for a
    job; pause: seconds before a job that crashed is tried again, then twice as many; grace: seconds
    that a job may still take when the server is asked to stop; archives: file with the
    profiles of those that scans may be fetched from, None: there are none.
    """

    folder: Path
    models: tuple[ServedModel, ...]
    device: str = "auto"
    cores: int = Field(default=1, ge=1)
    limits: JobLimits = JobLimits()
    lease: float = Field(default=15.0, gt=0)
    pause: float = Field(default=0.5, ge=0)
    grace: float = Field(default=10.0, ge=0)
    archives: Path | None = None

    def model(self, name: str) -> ServedModel | None:
        """A model by name."""
        return next((each for each in self.models if each.name == name), None)


def usual_memory(workers: int) -> int:
    """Bytes that each of so many jobs may take on this machine, or in its container."""
    return max(int(total_memory() * MEMORY_SHARE / workers), 1)
