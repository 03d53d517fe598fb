"""Which engine is fastest for a model on this machine, of those that agree with torch."""

import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from trivox.caches import cache_folder
from trivox.config.choices import EngineName
from trivox.errors import TrivoxError
from trivox.files import read_object, write_json
from trivox.inference.engines.engine import Engine
from trivox.inference.engines.kept import Source
from trivox.inference.engines.making import made_engine
from trivox.inference.engines.runtimes import PACKAGES, best_precision, is_installed
from trivox.inference.engines.torch import TorchEngine
from trivox.learning.runtime import Runtime

ROUNDS = 3
"""Times that each engine computes the window; the fastest counts."""
MOST_APART = {"fp32": 1e-3, "bf16": 0.05}
"""Root mean square of the difference to torch in fp32, as a share of that of the logits."""
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Trial:
    """What an engine took for a window, and how far its logits lie from torch's in fp32."""

    engine: EngineName
    precision: str
    seconds: float
    apart: float

    @property
    def agrees(self) -> bool:
        """Whether its rounding is that of its precision, and no more."""
        return self.apart <= MOST_APART[self.precision]


def fastest_engine(source: Source, runtime: Runtime, *, precision: str) -> EngineName:
    """The engine that computes a network fastest here, measured once and kept.

    runtime: that torch would use; precision: as it was asked for. On a GPU that is
    torch.
    """
    others = [name for name in PACKAGES if is_installed(name)]
    if runtime.device.type != "cpu" or not others:
        return "torch"
    folder = cache_folder("engines")
    if folder is None:
        return _best(tried(source, runtime, precision=precision))
    file = folder / f"{source.key(precision, _machine())}.json"
    known = _known(file)
    if known is not None:
        return known
    trials = tried(source, runtime, precision=precision)
    engine = _best(trials)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, _record(engine, trials))
    return engine


def _best(trials: Sequence[Trial]) -> EngineName:
    """The fastest that agrees; torch, which computes what it was trained to, where even
    its own rounding is large.
    """
    agreeing = [each for each in trials if each.agrees]
    fastest = min(agreeing, key=lambda each: each.seconds, default=trials[0])
    return fastest.engine


def tried(source: Source, runtime: Runtime, *, precision: str) -> list[Trial]:
    """All engines that are installed, torch first; those that cannot compute the
    network are left out. Of a network that comes apart they compute the first part.
    """
    parts = source.apart()
    if parts is not None:
        source, _ = parts
    window = example_window(source.shape)
    exact = TorchEngine(source.network, Runtime(runtime.device, "fp32"))
    with torch.inference_mode():
        expected = exact.logits(window).float()
    trials = [_trial(TorchEngine(source.network, runtime), window, expected)]
    for name in get_args(EngineName):
        if name == "torch" or not is_installed(name):
            continue
        chosen = best_precision(name) if precision == "auto" else precision
        if name == "onnx" and chosen != "fp32":
            continue
        with suppress(TrivoxError):
            engine = made_engine(name, source, Runtime(runtime.device, chosen))
            trials.append(_trial(engine, window, expected))
    return trials


def example_window(shape: Sequence[int]) -> Tensor:
    """A window `(1, c, z, y, x)` of smooth structures with noise, mean 0, variance 1."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, (0, 0, 2, 2, 2))
    image = smooth / max(smooth.std(), 1e-8) + 0.3 * noise
    return torch.from_numpy(((image - image.mean()) / image.std()).astype(np.float32))


def _trial(engine: Engine, window: Tensor, expected: Tensor) -> Trial:
    seconds = []
    with torch.inference_mode():
        for _ in range(ROUNDS):
            started = time.perf_counter()
            logits = engine.logits(window)
            seconds.append(time.perf_counter() - started)
    difference = (logits.float() - expected).square().mean().sqrt()
    size = expected.square().mean().sqrt()
    apart = float(difference / size.clamp(min=1e-12))
    name: EngineName = engine.name  # type: ignore[assignment]
    return Trial(name, engine.precision, min(seconds), apart)


def _known(file: Path) -> EngineName | None:
    """The engine that was chosen before."""
    with suppress(TrivoxError, OSError):
        said = read_object(file).get("engine")
        names: tuple[EngineName, ...] = get_args(EngineName)
        here = (name for name in names if name == "torch" or is_installed(name))
        return next((name for name in here if name == said), None)
    return None


def _record(engine: EngineName, trials: Sequence[Trial]) -> dict[str, object]:
    return {
        "format_version": FORMAT_VERSION,
        "engine": engine,
        "machine": _machine(),
        "trials": [vars(each) for each in trials],
    }


def _machine() -> dict[str, str]:
    """What decides how fast engines are."""
    facts = {
        "cpu": _processor(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }
    for package in PACKAGES.values():
        with suppress(PackageNotFoundError):
            facts[package] = version(package)
    return facts


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
