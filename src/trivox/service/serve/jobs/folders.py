"""Where the files of jobs lie.

STATE/jobs.sqlite  lock
STATE/uploads/     what is being sent
STATE/jobs/ID/     input/0000.nii.gz  work-LEASE/  results-LEASE/
"""

import errno
import os
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

PRIVATE = 0o700
NO_SPACE = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
"""What the system says of a full disk, and of limits on files."""
YOUNG = 600.0
"""Seconds for which a folder that no job knows of is left alone: it may be on its way."""


class Folders:
    """The folders of a service, which nobody else may look into."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uploads = root / "uploads"
        self.jobs = root / "jobs"

    def make(self) -> None:
        """Make what is missing."""
        for folder in (self.root, self.uploads, self.jobs):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(PRIVATE)

    def of(self, id: str) -> Path:
        """The folder of a job."""
        return self.jobs / id

    def parts(self, id: str) -> list[Path]:
        """What was sent for a job, in order."""
        return sorted((self.of(id) / "input").iterdir())

    def work(self, id: str, lease: str) -> Path:
        """Where a job is computed."""
        return self.of(id) / f"work-{lease}"

    def results(self, id: str, lease: str) -> Path:
        """Where its results lie."""
        return self.of(id) / f"results-{lease}"

    def remove(self, id: str) -> None:
        """Remove all files of a job."""
        shutil.rmtree(self.of(id), ignore_errors=True)

    def clear_work(self, id: str, keep: Collection[str] = ()) -> None:
        """Remove what tries left, but for some results."""
        with suppress(OSError):
            for folder in self.of(id).iterdir():
                if folder.name != "input" and folder.name not in keep:
                    shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, known: Collection[str], *, young: float = YOUNG) -> None:
        """Remove folders that no job knows of, and uploads that nobody sends any more."""
        for folder in (*self.jobs.iterdir(), *self.uploads.iterdir()):
            if folder.name not in known and _age(folder) >= young:
                shutil.rmtree(folder, ignore_errors=True)

    def free(self) -> int:
        """Bytes left on the disk."""
        return shutil.disk_usage(self.root).free


def _age(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except OSError:
        return 0.0


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
