"""From images without labels to weights to start from: `trivox.pretrain`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivox.config.choices import PresetName
from trivox.inference.bundle import PRETRAINED
from trivox.tasks.choice import PRETRAINING
from trivox.tasks.console import Console
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest
from trivox.verbs.folders import require_run
from trivox.verbs.settings import Settings, overrides, series_choice
from trivox.verbs.texts import described


@dataclass(frozen=True)
class Pretraining:
    """A finished pretraining.

    facts: content of `pretraining.json`; empty on the other ranks of torchrun.
    """

    folder: Path
    facts: Mapping[str, Any] = field(repr=False)

    @property
    def task(self) -> str:
        """What was learnt."""
        return PRETRAINING.name

    @property
    def weights(self) -> Path:
        """What `trivox train --pretrained` takes."""
        return self.folder / PRETRAINED


@described
def pretrain(
    images: Path | str,
    out: Path | str,
    *,
    preset: PresetName | None = None,
    network: str | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    patch_size: tuple[int, ...] | None = None,
    memory_gb: float | None = None,
    device: str = "auto",
    seed: int | None = None,
    resume: bool = False,
    set: Settings = None,
    series: str | None = None,
    slice_tolerance: float | None = None,
    console: Console | None = None,
) -> Pretraining:
    """Learn from images without labels, by restoring hidden blocks; 'train
    --pretrained' starts from the result.

    Cases are held out by patient to measure on; declared test cases take no part.
    Raises `FormatError` if there are no images, `DataError` if files and channels do
    not match.
    """
    require_run(Path(out), Path(images))
    settings = overrides(
        None,
        set,
        network=network,
        epochs=epochs,
        minutes=minutes,
        patch_size=patch_size,
        memory_gb=memory_gb,
        seed=seed,
    )
    request = RunRequest(
        dataset=Path(images),
        out=Path(out),
        preset=preset,
        overrides=settings,
        task=PRETRAINING.name,
        device=device,
        resume=resume,
        choice=series_choice(series, slice_tolerance),
    )
    return Pretraining(request.out, run_request(request, console=console))
