"""What a server takes before it refuses."""

import math
import shutil
from pathlib import Path

from pydantic import Field

from trivox.schema import Frozen
from trivox.service.serve.api.problems import ProblemError
from trivox.service.serve.settings import GIBI

DISK_SHARE = 0.05
RESERVE = GIBI
HOUR = 3600.0


class ServerLimits(Frozen):
    """queue, per_client: open jobs; uploads: at a time; reserve: bytes of the disk that
    stay free; keep: seconds for which results are kept; silence: seconds after which an
    upload that brings nothing is given up; streams: of events at a time.
    """

    queue: int = Field(default=256, ge=1)
    per_client: int = Field(default=128, ge=1)
    uploads: int = Field(default=16, ge=1)
    upload: int = Field(default=2 * GIBI, ge=1)
    reserve: int = Field(default=RESERVE, ge=0)
    keep: float = Field(default=24 * HOUR, gt=0)
    silence: float = Field(default=60.0, gt=0)
    streams: int = Field(default=64, ge=1)


def usual_reserve(folder: Path) -> int:
    """Bytes of a disk that stay free: 1 GiB, of a small one a twentieth."""
    total = shutil.disk_usage(folder).total
    return min(RESERVE, math.ceil(total * DISK_SHARE))


def require_space(folder: Path, reserve: int, more: int = 0) -> None:
    """Raise `ProblemError` where `more` bytes would fill the disk."""
    if shutil.disk_usage(folder).free - more < reserve:
        raise no_space()


def no_space() -> ProblemError:
    """What is said where the disk is full."""
    return ProblemError(
        "no-space", "try again later, or ask the operator to make room on the disk"
    )
