"""What verbs that use a model were asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivox.config.choices import EngineChoice, MissedKind, MissingChannels
from trivox.errors import UsageError
from trivox.inference.doubt.missed import step_of


@dataclass(frozen=True)
class PredictOptions:
    """How to predict; the first three hold for every model, the others for label maps.

    tta: average mirrored copies, None: as trained; uncertainty: kinds of doubt;
    mc_samples: passes with random dropout, drawn from `seed`; scales: sizes to average
    over; missing_channels: refuse a case without one, or take zeros; subtype_results:
    classes as numbers too; fractions: give probabilities without a map; detection:
    labels; clinical: a table; max_missed: share that a further map may miss, of voxels or
    lesions as `missed` says; weighted_intervals: of volumes, for cases that are asked
    together.
    """

    device: str = "auto"
    precision: str = "auto"
    engine: EngineChoice = "torch"
    seed: int = 0
    tta: bool | None = None
    probabilities: bool = False
    uncertainty: tuple[str, ...] = ()
    mc_samples: int = 0
    scales: tuple[float, ...] = (1.0,)
    missing_channels: MissingChannels = "refuse"
    subtype_results: bool = False
    fractions: bool = False
    detection: str | None = None
    clinical: Path | None = None
    max_missed: float | None = None
    missed: MissedKind = "voxels"
    weighted_intervals: bool = False

    def __post_init__(self) -> None:
        """Raise `UsageError` for a share that is none, and for half a question."""
        if self.max_missed is not None:
            step_of(self.max_missed)
        elif self.missed != "voxels":
            raise UsageError(
                f"--missed {self.missed} says of what at most a share may be missed; add "
                "the share, for example --max-missed 0.1"
            )


@dataclass(frozen=True)
class EvaluateOptions:
    """How to measure predictions.

    tolerance_mm: of the surface Dice, None: as the convention says, settings: of it;
    classes: a table of them; whole: name of all labels together; raters: other readers'.
    """

    convention: str = "trivox"
    tolerance_mm: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    classes: Path | None = None
    whole: str | None = None
    raters: tuple[Path, ...] = ()
