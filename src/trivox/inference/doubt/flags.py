"""By which of two scores cases are flagged: the entropy of the prediction, or how little
the votes overlap (1 - pairwise Dice; Zenk et al. 2025, arXiv:2406.03323).

Both are ranked on validation cases by the area under the risk-coverage curve; the votes
are what validation had of them, mirrored copies of one network.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from pydantic import Field

from trivox.inference.doubt.calibration import Abstention
from trivox.schema import Frozen

ScoreName = Literal["entropy", "agreement"]
Area = Annotated[float, Field(ge=0, le=1)]
RULE = (
    "flag 1 - pairwise Dice of the votes above the threshold that best separates "
    "validation cases with a Dice below poor_dice (lower quartile - 1.5 IQR) from the "
    "others; the largest validation score if none is so poor"
)


class Flag(Frozen):
    """Which score flags cases: the one whose area under the risk-coverage curve (risk
    1 - Dice) is smaller on validation cases, entropy where they are equal.

    aurc: of both; cases: that both scores are known of; votes: of a case; rule: for
    1 - pairwise Dice of so many votes.
    """

    chosen: ScoreName
    aurc: dict[ScoreName, Area]
    cases: int = Field(ge=1)
    votes: int = Field(ge=2)
    rule: Abstention


class Flagging(Protocol):
    """A model as far as flags are concerned."""

    @property
    def flag(self) -> Flag | None:
        """Which score flags, if that was asked."""


def flag_of(models: Sequence[Flagging], votes: int) -> Flag | None:
    """The flag of a prediction by votes; None where entropy flags: it ranks better, or
    the votes are others than those of validation.
    """
    flag = models[0].flag
    if len(models) > 1 or flag is None or flag.chosen != "agreement":
        return None
    return flag if flag.votes == votes else None
