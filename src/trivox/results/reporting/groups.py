"""The groups of a measurement report: one a segment (PS3.16 TID 1411), and one about the
whole case (TID 1501) with its class, its doubt and what has to be said of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from trivox.errors import visible
from trivox.results.case import CaseResult
from trivox.results.codes import Concept, private_concept
from trivox.results.measuring.rows import StructureRow
from trivox.results.objects import FAMILY, MANUFACTURER, tracking_id, tracking_uid
from trivox.results.segmentation import Segment
from trivox.results.source_series import SourceSeries, uid_of
from trivox.version import RESEARCH_USE

LINES = {
    "longest_mm": codes.IBSI.Maximum3DDiameterOfAMesh,
    "axial_long_mm": codes.SCT.LongAxis,
    "axial_short_mm": codes.SCT.ShortAxis,
}
"""What lengths are called (PS3.16 CID 7470)."""
CASE = "case"
"""What the group about the whole case is tracked as."""
DOUBT = {"score": "score of doubt", "agreement": "agreement of votes"}
MILLILITRE = Concept(value="mL", scheme="UCUM", meaning="milliliter")
DIGITS = 6
"""Of numbers, significant ones: voxels say no more."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Makes the groups of a report.

    segmentation: what groups of segments refer to.
    """

    highdicom: Any
    result: CaseResult
    source: SourceSeries
    segmentation: Dataset

    # -- segments ----------------------------------------------------------------------
    def of_segment(self, segment: Segment, row: StructureRow) -> Any:
        """What was measured of a segment."""
        sr = self.highdicom.sr
        code = segment.code
        kind = self._coded(code.type)
        uid = tracking_uid(self.result, self.source, segment.label)
        sites = []
        if code.modifier is not None:
            sites = [sr.FindingSite(kind, laterality=self._coded(code.modifier))]
        group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=self._tracking(segment.label, uid),
            referenced_segment=self._segment(segment),
            finding_type=kind,
            finding_category=self._coded(code.category),
            finding_sites=sites or None,
            algorithm_id=self._algorithm(),
            measurements=self._measurements(row) or None,
        )
        self._comment(group, _about_segment(row))
        return group

    def _segment(self, segment: Segment) -> Any:
        sr = self.highdicom.sr
        series = sr.SourceSeriesForSegmentation(self.source.first.SeriesInstanceUID)
        return sr.ReferencedSegment(
            sop_class_uid=self.segmentation.SOPClassUID,
            sop_instance_uid=self.segmentation.SOPInstanceUID,
            segment_number=segment.number,
            source_series=series,
        )

    def _measurements(self, row: StructureRow) -> list[Any]:
        """Volume, lengths and the mean in HU, as far as they are known."""
        measurements = []
        if row["volume_ml"] is not None:
            measurements.append(self._volume(row["volume_ml"], row["volume_ci95_ml"]))
        for name, code in LINES.items():
            length = row.get(name)
            if isinstance(length, float):
                measurements.append(self._number(code, length, codes.UCUM.Millimeter))
        mean = _mean_hounsfield(self.result, row)
        if mean is not None:
            mean_of = {"derivation": codes.SCT.Mean}
            unit = codes.UCUM.HounsfieldUnit
            density = self._number(
                codes.DCM.AttenuationCoefficient, mean, unit, **mean_of
            )
            measurements.append(density)
        return measurements

    def _volume(self, volume: float, interval: Sequence[float] | None) -> Any:
        """A volume, and how far the bounds of its interval are from it (TID 310)."""
        unit = self._coded(MILLILITRE)
        by_voxels = codes.cid7474.SumOfSegmentedVoxelMethodForVolume
        measurement = self._number(codes.SCT.Volume, volume, unit, method=by_voxels)
        if interval is None or not interval[0] <= volume <= interval[1]:
            return measurement
        bounds = {
            codes.SCT.RangeOfUpperMeasurementUncertainty: interval[1] - volume,
            codes.SCT.RangeOfLowerMeasurementUncertainty: volume - interval[0],
        }
        for code, apart in bounds.items():
            bound = self.highdicom.sr.NumContentItem(
                name=code,
                value=_rounded(apart),
                unit=unit,
                relationship_type="HAS PROPERTIES",
            )
            measurement[0].ContentSequence.append(bound)
        return measurement

    # -- the case ----------------------------------------------------------------------
    def of_case(self) -> Any:
        """Class, doubt and warnings of the whole case."""
        sr = self.highdicom.sr
        series = self.source.first.SeriesInstanceUID
        uid = uid_of("tracking of a case", series, self.result.model.sha256)
        group = sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=self._tracking(CASE, uid),
            algorithm_id=self._algorithm(),
            measurements=[*self._chances(), *self._doubts()] or None,
            qualitative_evaluations=self._evaluations() or None,
        )
        self._comment(group, [RESEARCH_USE, *_about_case(self.result)])
        return group

    def _chances(self) -> list[Any]:
        """The probability of each class."""
        answer = self.result.classification
        if answer is None:
            return []
        measurements = []
        for name, chance in answer.probabilities.items():
            measurement = self._number(
                codes.DCM.Probability, chance, codes.UCUM.NoUnits
            )
            of_class = self.highdicom.sr.CodeContentItem(
                name=self._own("class"),
                value=self._own(name),
                relationship_type="HAS CONCEPT MOD",
            )
            content = self.highdicom.sr.ContentSequence([of_class])
            measurement[0].ContentSequence = content
            measurements.append(measurement)
        return measurements

    def _doubts(self) -> list[Any]:
        """Score of doubt and agreement of votes, where there are such."""
        named = {name: self.result.trust.get(name) for name in ("score", "agreement")}
        return [
            self._number(self._own(DOUBT[name]), value, codes.UCUM.NoUnits)
            for name, value in named.items()
            if value is not None
        ]

    def _evaluations(self) -> list[Any]:
        """The most probable class, and whether the model abstains."""
        evaluations = []
        if self.result.classification is not None:
            answer = self._own(self.result.classification.answer)
            evaluations.append(self._evaluation("class", answer))
        abstain = self.result.trust.get("abstain")
        if abstain is not None:
            answer = codes.SCT.Yes if abstain else codes.SCT.No
            evaluations.append(self._evaluation("model abstains", answer))
        return evaluations

    def _evaluation(self, name: str, value: Any) -> Any:
        return self.highdicom.sr.QualitativeEvaluation(
            name=self._own(name), value=value
        )

    # -- what groups are made of -------------------------------------------------------
    def _number(self, name: Any, value: float, unit: Any, **more: Any) -> Any:
        return self.highdicom.sr.Measurement(
            name=name, value=_rounded(value), unit=unit, **more
        )

    def _comment(self, group: Any, sentences: Sequence[str]) -> None:
        """Add sentences to a group, each as a comment."""
        for sentence in sentences:
            comment = self.highdicom.sr.TextContentItem(
                name=codes.DCM.Comment,
                value=visible(sentence),
                relationship_type="CONTAINS",
            )
            group[0].ContentSequence.append(comment)

    def _tracking(self, label: str, uid: str) -> Any:
        name = tracking_id(self.result, label)
        return self.highdicom.sr.TrackingIdentifier(uid=uid, identifier=name)

    def _algorithm(self) -> Any:
        model = self.result.model
        return self.highdicom.sr.AlgorithmIdentification(
            name=visible(model.name),
            version=model.version,
            parameters=[f"model_sha256={model.sha256}"],
            family=self._coded(FAMILY),
            manufacturer=MANUFACTURER,
        )

    def _coded(self, concept: Concept) -> Any:
        return self.highdicom.sr.CodedConcept(
            concept.value, concept.scheme, concept.meaning
        )

    def _own(self, name: str) -> Any:
        """A private code for what no terminology names."""
        return self._coded(private_concept(name))


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _mean_hounsfield(result: CaseResult, row: StructureRow) -> float | None:
    """Mean of the first channel in HU, None where there is none."""
    for channel, is_hounsfield in zip(result.channels, result.hounsfield, strict=True):
        intensity = row["intensity"][channel]
        if is_hounsfield and intensity is not None:
            return intensity["mean"]
    return None


def _about_segment(row: StructureRow) -> list[str]:
    """What numbers cannot say of a segment."""
    if not row["present"]:
        return ["not found"]
    if row["truncated"]:
        sides = " ".join(row["touches"]) or "field of view"
        return [
            f"truncated: touches the border of the image ({sides}), so that volume and "
            f"diameters are not known; {row['seen_ml']:.{DIGITS}g} ml are seen"
        ]
    interval = row["volume_ci95_ml"]
    if interval is None:
        return []
    low, high = interval
    return [f"95 % interval of the volume: {low:.{DIGITS}g} to {high:.{DIGITS}g} ml"]


def _about_case(result: CaseResult) -> list[str]:
    """What is to be said of the whole case."""
    sentences = []
    reason = result.trust.get("reason")
    if reason:
        sentences.append(f"look at this case: {reason}")
    if result.classification is not None:
        flags = result.classification.flags
        sentences += [f"class in doubt: {flag}" for flag in flags]
    return [*sentences, *result.warnings]
