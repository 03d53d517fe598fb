"""What can stand beside a predicted label map, as `CASE_<extra>.nii.gz`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trivox.config.choices import MissedKind
from trivox.datasets.clinical.tables import ClinicalTable
from trivox.datasets.dataset import Case
from trivox.inference.doubt.shift import CaseVolumes, Cohort

KINDS = ("entropy", "mutual_information", "variance")
"""Maps of doubt; see `trivox.inference.doubt.uncertainty`."""
SENSITIVE = "sensitive"
"""A map in which few voxels or lesions are missed; see `trivox.inference.doubt.missed`."""
EXTRAS = ("probabilities", "detection", *KINDS, SENSITIVE)


@dataclass(frozen=True)
class Sensitive:
    """From what probability on a voxel counts so that at most a share of `max_missed`
    of each target is missed in the mean of cases; None: of too few validation cases.

    cases: with each target, that its threshold was learnt on; missed: of what the share
    is.
    """

    max_missed: float
    thresholds: Mapping[str, float | None]
    cases: Mapping[str, int]
    missed: MissedKind = "voxels"


@dataclass(frozen=True)
class Extras:
    """What every prediction of a predictor gives beside the label map.

    uncertainty: kinds of doubt (`trivox.inference.doubt.uncertainty.KINDS`);
    fractions: whether probabilities are given of which no map is written, since files
    of another format are made of them; numbered_classes: `subtype_results.csv` (columns
    Names,Subtype) beside `classes.csv`, of models that give classes; detection: labels
    that lesions are made of, whose candidates are wanted (`trivox.inference.detection`);
    clinical: what is known of the cases beside their images; sensitive: for a
    map in which few voxels or lesions are missed; cohort: for intervals of volumes from
    validation cases that are weighed; compared: whether the votes of a model are
    compared though no doubt is asked for.
    """

    probabilities: bool = False
    uncertainty: tuple[str, ...] = ()
    fractions: bool = False
    numbered_classes: bool = False
    detection: tuple[str, ...] = ()
    clinical: ClinicalTable | None = None
    sensitive: Sensitive | None = None
    cohort: Cohort | None = None
    compared: bool = False

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the maps that stand beside the label map."""
        first = ("probabilities",) if self.probabilities else ()
        second = ("detection",) if self.detection else ()
        last = () if self.sensitive is None else (SENSITIVE,)
        return (*first, *second, *dict.fromkeys(self.uncertainty), *last)

    @property
    def given(self) -> bool:
        """Whether probabilities are given."""
        return self.probabilities or self.fractions

    @property
    def detailed(self) -> bool:
        """Whether more is given than the label map."""
        more = bool(self.detection) or self.sensitive is not None
        return self.given or bool(self.uncertainty) or more

    @property
    def settings(self) -> dict[str, object]:
        """What of it decides what stands in a map, ready for JSON."""
        said: dict[str, object] = {}
        if self.detection:
            said["detection"] = list(self.detection)
        if self.clinical is not None:
            said["clinical"] = self.clinical.identity
        if self.sensitive is not None:
            said["max_missed"] = self.sensitive.max_missed
            if self.sensitive.missed != "voxels":
                said["missed"] = self.sensitive.missed
        if self.cohort is not None:
            said["weighted_intervals"] = self.cohort.settings
        return said

    def cells(self, case: Case) -> Mapping[str, str]:
        """What clinical columns say of a case: those of the table, if there is one."""
        return case.clinical if self.clinical is None else self.clinical.of(case)

    def volumes_of(self, case: Case) -> CaseVolumes | None:
        """What is known of the volumes of a case by weights, where they are wanted."""
        return None if self.cohort is None else self.cohort.cases.get(case.name)

    def also(self, *, probabilities: bool, uncertainty: Sequence[str]) -> "Extras":
        """These and more."""
        kinds = dict.fromkeys((*self.uncertainty, *uncertainty))
        return replace(
            self,
            probabilities=self.probabilities or probabilities,
            uncertainty=tuple(kinds),
        )


NOTHING_ELSE = Extras()
