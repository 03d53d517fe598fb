"""What a run writes about itself: `metrics.jsonl`, `log.txt`, the console, and the
trackers that it was given.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trivox.config.recipe import Recipe
from trivox.files import write_text
from trivox.learning.runtime import rank
from trivox.learning.trackers import Tracker, open_trackers


class RunLog:
    """Appends records and lines; a silent one (`active=False`) serves the other ranks."""

    def __init__(
        self,
        folder: Path,
        *,
        say: Callable[[str], None] = print,
        trackers: Sequence[Tracker] = (),
        active: bool = True,
    ) -> None:
        self.folder, self.say, self.trackers, self.active = (
            folder,
            say,
            trackers,
            active,
        )

    def line(self, text: str) -> None:
        """A line for people: console and `log.txt`."""
        if not self.active:
            return
        self.say(text)
        with (self.folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def record(self, record: Mapping[str, Any]) -> None:
        """A record for programs: one JSON line, and its numbers to the trackers."""
        if not self.active:
            return
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(record)) + "\n")
        figures = {
            name: value for name, value in record.items() if isinstance(value, float)
        }
        for tracker in self.trackers:
            tracker.record(int(record.get("step", 0)), figures)

    def forget_after(self, step: int) -> None:
        """Drop records of steps after `step`: a resumed run repeats them."""
        path = self.folder / "metrics.jsonl"
        if self.active and path.exists():
            kept = [line for line in read_records(path) if line.get("step", 0) <= step]
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def close(self) -> None:
        """Let the trackers finish their files."""
        for tracker in self.trackers:
            tracker.close()


@contextmanager
def run_log(
    folder: Path, recipe: Recipe, *, say: Callable[[str], None]
) -> Iterator[RunLog]:
    """The log of a run with the trackers of its recipe, closed at the end; only rank 0
    writes.
    """
    active, settings = rank() == 0, recipe.model_dump(mode="json")
    trackers = (
        open_trackers(recipe.track, folder, project=recipe.project, settings=settings)
        if active
        else []
    )
    log = RunLog(folder, say=say, trackers=trackers, active=active)
    try:
        yield log
    finally:
        log.close()


def epoch_line(record: Mapping[str, Any]) -> str:
    """The record of an epoch as a line for people."""
    score = (
        f" dice {record['validation_dice']:.3f}" if "validation_dice" in record else ""
    )
    if "validation_psnr" in record:
        score = f" PSNR {record['validation_psnr']:.2f} dB SSIM {record['validation_ssim']:.3f}"
    return (
        f"epoch {record['epoch']:4d}  step {record['step']:6d}  loss {record['train_loss']:.3f}"
        f"  validation{score} loss {record.get('validation_loss', math.nan):.3f}"
        f"  lr {record['lr']:.2e}  {record['seconds_per_step']:.2f} s/step  {record['seconds'] / 60:.1f} min"
    )


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`; a line cut off by a crash is left out."""
    records: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return records
