"""What waits for the GPU in a step of each task, by file and line.

On a real GPU torch's sync debug mode says it, on the pretended one the device; both are
taken through the same steps, so `scripts/waits --json` can be put beside
(`--expected`).
"""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from gpu_parts.flows import FLOWS, Flow, Watch
from gpu_parts.meters import Profile, Waits
from gpu_parts.record import Record, Row

SHOWN = 6
"""Places that a row names."""


def run(record: Record, expected: Path | None = None) -> None:
    """A row for each task and precision."""
    known = _known(expected)
    precisions = ("bf16",) if record.pretended else ("bf16", "fp16")
    with tempfile.TemporaryDirectory() as folder:
        for precision in precisions:
            for task, flow in FLOWS.items():
                name = f"{task}, a {flow.unit}, {precision}"
                at = Path(folder) / f"{task}-{precision}"
                work = partial(
                    _waits, flow, at, precision, known.get(task), record.pretended
                )
                record.measure(name, work)


def _known(file: Path | None) -> Mapping[str, float]:
    """Waits of each task on the pretended device."""
    if file is None:
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    return {each["task"]: each["waits"] for each in content}


def _waits(
    flow: Flow, folder: Path, precision: str, known: float | None, tiny: bool
) -> Row:
    waits = Waits()
    profile = Profile()
    steps = 1 if tiny else flow.steps
    warm = 1 if tiny else 3
    watch = Watch([(warm, nullcontext()), (steps, waits), (steps, profile)])
    flow.run(folder, "cuda:0", precision, watch, tiny)
    return {
        "waits": sum(waits.places.values()) / steps,
        "pretended_waits": known,
        **profile.row(steps),
        "where": _named(waits.places, steps),
    }


def _named(places: Counter[str], steps: int) -> str:
    rows = [f"{where} {count / steps:g}" for where, count in places.most_common(SHOWN)]
    return "; ".join(rows)
