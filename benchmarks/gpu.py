"""What a GPU does with trivox: waits, kernels, steps, and nnU-Net beside it.

    python benchmarks/gpu.py --out DIR            everything, in under ten minutes
    python benchmarks/gpu.py --parts facts,step   some parts
    python benchmarks/gpu.py --pretend            all of it small, on a pretended GPU

Each part runs in a process of its own under a time limit, and writes `DIR/PART.json`
after every row: what was measured survives a machine that is lost. `DIR/gpu.md` holds
the tables. nnU-Net's parts need `benchmarks/setup.sh`, and run with the Python that it
made.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_parts.table import page

HERE = Path(__file__).resolve().parent
PEERS = HERE / ".venv" / "bin" / "python"
LIMITS = {
    **{"facts": 30, "sync": 70, "step": 170},
    **{"peer": 150, "kernels": 80, "inference": 90},
}
"""Seconds of each part, the most important first; 590 together."""
OF_PEERS = ("peer", "inference")
TRIES = 3
"""A part whose process dies goes on with the row after the one it died of."""


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    out: Path
    pretend: bool
    peers: Path
    expected: Path | None

    def command(self, part: str) -> list[str]:
        """The process of a part."""
        python = self.peers if part in OF_PEERS else Path(sys.executable)
        command = [str(python), "-m", "gpu_parts", part, "--out", str(self.file(part))]
        if self.pretend:
            command.append("--pretend")
        if self.expected is not None:
            command += ["--expected", str(self.expected)]
        return command

    def file(self, part: str) -> Path:
        """Where a part writes."""
        return self.out / f"{part}.json"


def run_part(part: str, options: Options) -> Mapping[str, Any]:
    """What a part measured, and how it ended."""
    options.file(part).unlink(missing_ok=True)
    began = time.monotonic()
    ended = ""
    for _ in range(TRIES):
        left = LIMITS[part] - (time.monotonic() - began)
        ended = _run(options.command(part), options.out / f"{part}.log", left)
        if not ended.startswith("died"):
            break
    seconds = time.monotonic() - began
    content = {"pretended": options.pretend, "rows": []}
    if options.file(part).exists():
        content = json.loads(options.file(part).read_text(encoding="utf-8"))
    rows = len(content["rows"])
    print(f"{part}: {ended}, {rows} rows in {seconds:.0f} s", flush=True)
    content["ended"] = ended
    options.file(part).write_text(json.dumps(content, indent=2), encoding="utf-8")
    return content


def _run(command: list[str], log: Path, seconds: float) -> str:
    """How a process ended that may take so many seconds; its children end with it."""
    if seconds <= 0:
        return "out of time"
    paths = [str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }
    with log.open("a", encoding="utf-8") as said:
        process = subprocess.Popen(
            command,
            cwd=HERE,
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return "out of time"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return "finished" if code == 0 else f"died with {code}, see {log}"


def why_not(*, pretend: bool) -> str | None:
    """Why nothing can be measured here; None if it can."""
    if pretend:
        sys.path.insert(0, str(HERE.parent / "tests"))
        from pretended_gpu.build import why_not as not_pretended

        reason = not_pretended()
        return None if reason is None else f"a pretended GPU {reason}"
    import torch

    if torch.cuda.is_available():
        return None
    return "torch sees no NVIDIA GPU here ('trivox doctor' says why); try --pretend"


def _options() -> tuple[Options, list[str]]:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument(
        "--parts", default=",".join(LIMITS), help="default: %(default)s"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gpu")
    parser.add_argument("--pretend", action="store_true", help="small, without a GPU")
    parser.add_argument(
        "--peers", type=Path, default=PEERS, help="a Python with nnU-Net (%(default)s)"
    )
    parser.add_argument(
        "--expected", type=Path, help="what scripts/waits --json gave, to put beside"
    )
    given = parser.parse_args()
    parts = [part for part in given.parts.split(",") if part]
    unknown = [part for part in parts if part not in LIMITS]
    if unknown or not parts:
        parser.error(f"parts are {', '.join(LIMITS)}; not {', '.join(unknown)}")
    peers = given.peers if given.peers.exists() else Path(sys.executable)
    expected = given.expected.resolve() if given.expected else None
    return Options(given.out.resolve(), given.pretend, peers, expected), parts


def main() -> None:
    """Measure part by part, then write the tables."""
    options, parts = _options()
    reason = why_not(pretend=options.pretend)
    if reason is not None:
        sys.exit(reason)
    options.out.mkdir(parents=True, exist_ok=True)
    measured = {part: run_part(part, options) for part in parts}
    text = page(measured)
    (options.out / "gpu.md").write_text(text, encoding="utf-8")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
