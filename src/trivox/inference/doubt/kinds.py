"""What can stand beside a predicted label map, as `CASE_<extra>.nii.gz`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

KINDS = ("entropy", "mutual_information", "variance")
"""Maps of doubt; see `trivox.inference.doubt.uncertainty`."""
EXTRAS = ("probabilities", *KINDS)


@dataclass(frozen=True)
class Extras:
    """What every prediction of a predictor gives beside the label map.

    uncertainty: kinds of doubt (`trivox.inference.doubt.uncertainty.KINDS`);
    numbered_classes: `subtype_results.csv` (columns Names,Subtype) beside
    `classes.csv`, of models that give classes.
    """

    probabilities: bool = False
    uncertainty: tuple[str, ...] = ()
    numbered_classes: bool = False

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the maps that stand beside the label map."""
        first = ("probabilities",) if self.probabilities else ()
        return (*first, *dict.fromkeys(self.uncertainty))

    def also(self, *, probabilities: bool, uncertainty: Sequence[str]) -> "Extras":
        """These and more."""
        kinds = dict.fromkeys((*self.uncertainty, *uncertainty))
        return replace(
            self,
            probabilities=self.probabilities or probabilities,
            uncertainty=tuple(kinds),
        )


NOTHING_ELSE = Extras()
