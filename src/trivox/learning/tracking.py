"""What a run writes about itself: `metrics.jsonl`, `log.txt`, the console, and TensorBoard if asked."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trivox.errors import ResourceError
from trivox.files import write_text


class RunLog:
    """Appends records and lines; a silent one (`active=False`) serves the other ranks."""

    def __init__(
        self, folder: Path, *, say: Callable[[str], None] = print, tensorboard: bool = False, active: bool = True
    ) -> None:
        self.folder, self.say, self.active = folder, say, active
        self._board: Any = _summary_writer(folder) if tensorboard and active else None

    def line(self, text: str) -> None:
        """A line for people: console and `log.txt`."""
        if not self.active:
            return
        self.say(text)
        with (self.folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def record(self, record: Mapping[str, Any]) -> None:
        """A record for programs: one JSON line, and the numbers to TensorBoard."""
        if not self.active:
            return
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(record)) + "\n")
        if self._board is not None:
            for name, value in record.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, record.get("step", 0))
            self._board.flush()

    def forget_after(self, step: int) -> None:
        """Drop records of steps after `step`: a resumed run repeats them."""
        path = self.folder / "metrics.jsonl"
        if self.active and path.exists():
            kept = [line for line in read_records(path) if line.get("step", 0) <= step]
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


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


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ResourceError("tensorboard is not installed; run: pip install 'trivox[track]'") from error
    return SummaryWriter(str(folder / "tensorboard"))
