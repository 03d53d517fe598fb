"""What a run writes about itself: `metrics.jsonl`, `log.txt`, the console, and the
trackers that it was given.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trivox.config.recipe import Recipe
from trivox.errors import visible
from trivox.files import parse_json, write_text
from trivox.learning.progress import finite
from trivox.learning.runtime import rank
from trivox.learning.trackers import Tracker, open_trackers
from trivox.schema import LARGEST


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
        self.folder = folder
        self.say = say
        self.trackers = trackers
        self.active = active

    def line(self, text: str) -> None:
        """A line for people: console and `log.txt`."""
        if not self.active:
            return
        text = visible(text)
        self.say(text)
        with (self.folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def record(self, record: Mapping[str, Any]) -> None:
        """A record for programs: one JSON line, and its numbers to the trackers.

        NaN and infinity, which JSON does not know, are written as null.
        """
        if not self.active:
            return
        content = {name: _for_json(value) for name, value in record.items()}
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")
        figures = {
            name: value for name, value in content.items() if isinstance(value, float)
        }
        for tracker in self.trackers:
            tracker.record(int(record.get("step", 0)), figures)

    def forget_after(self, step: int) -> None:
        """Drop records of steps after `step`: a resumed run repeats them."""
        path = self.folder / "metrics.jsonl"
        if self.active and path.exists():
            records = [r for r in read_records(path) if r.get("step", 0) <= step]
            write_text(path, "".join(json.dumps(record) + "\n" for record in records))

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
    active = rank() == 0
    trackers: list[Tracker] = []
    if active:
        settings = recipe.model_dump(mode="json")
        trackers = open_trackers(
            recipe.track, folder, project=recipe.project, settings=settings
        )
    log = RunLog(folder, say=say, trackers=trackers, active=active)
    try:
        yield log
    finally:
        log.close()


@dataclass
class EpochSteps:
    """Losses and gradient norms of the steps of an epoch."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)

    def add(self, loss: float, norm: float) -> None:
        """Take note of a step."""
        self.losses.append(loss)
        self.norms.append(norm)

    @property
    def loss(self) -> float:
        """The mean loss; 0 without steps."""
        return sum(self.losses) / max(1, len(self.losses))

    @property
    def late_loss(self) -> float:
        """The mean loss of the second half; 0 without steps."""
        late = self.losses[len(self.losses) // 2 :]
        return sum(late) / max(1, len(late))

    @property
    def norm(self) -> float:
        """The mean gradient norm; 0 without steps."""
        return sum(self.norms) / max(1, len(self.norms))

    @property
    def skipped(self) -> int:
        """How many steps had gradients that are not finite."""
        return sum(not math.isfinite(norm) for norm in self.norms)

    def note(self) -> str:
        """The mean loss so far, for whoever waits."""
        return f"loss {self.loss:.3f}" if self.losses else ""


class Record(BaseModel):
    """A line of metrics.jsonl: where training stood, and any numbers beside it.

    kind: `epoch` at the end of one; seconds: of the training so far.
    """

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, strict=True)
    __pydantic_extra__: dict[str, int | float | str | None] = Field(init=False)

    kind: str = ""
    step: int = Field(0, ge=0, le=LARGEST)
    epoch: int | None = Field(None, ge=0, le=LARGEST)
    seconds: float = 0.0
    seconds_per_step: float = 0.0

    @model_validator(mode="after")
    def _says_where_an_epoch_ended(self) -> "Record":
        if self.kind == "epoch" and not self.model_fields_set >= {"epoch", "step"}:
            raise ValueError("an epoch without its number or step")
        return self

    @model_validator(mode="after")
    def _has_numbers_that_can_be_drawn(self) -> "Record":
        for value in (self.__pydantic_extra__ or {}).values():
            if isinstance(value, int) and abs(value) > LARGEST:
                raise ValueError("a number beyond 64 bits")
        return self


def epoch_line(record: Mapping[str, Any], summary: str) -> str:
    """The record of an epoch as a line for people; summary: of its scores, in a few
    words.
    """
    scores = f"{summary} " if summary else ""
    return (
        f"epoch {record['epoch']:4d}  step {record['step']:6d}"
        f"  loss {record['train_loss']:.3f}"
        f"  validation {scores}loss {record.get('validation_loss', math.nan):.3f}"
        f"  lr {record['lr']:.2e}  {record['seconds_per_step']:.2f} s/step"
        f"  {record['seconds'] / 60:.1f} min"
    )


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`; a line cut off by a crash, or that no training
    wrote, is left out.
    """
    records: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                content = parse_json(line)
                Record.model_validate(content)
            except ValueError:
                continue
            records.append(content)
    return records


def _for_json(value: Any) -> Any:
    return finite(value) if isinstance(value, float) else value
