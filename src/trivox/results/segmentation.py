"""`CASE.seg.dcm`: what was found as a DICOM segmentation on the source's own frames
(PS3.3 A.51, A.92, C.8.20), built by highdicom.

A segmentation holds at least one frame, so that of a case in which nothing was found
holds an empty one for each segment: it says what was looked for and not seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless

from trivox.errors import DataError
from trivox.optional import optional_package
from trivox.results.case import CaseResult
from trivox.results.codes import Concept, LabelCode, cielab_of, uncoded
from trivox.results.objects import (
    MANUFACTURER,
    algorithm_of,
    complete,
    dated,
    instance_uid,
    number_text,
    number_texts,
    reference,
    referenced_series,
    research_text,
    series_uid,
    short,
    tracking_id,
    tracking_uid,
    type_of,
    write_object,
)
from trivox.results.source_series import SourceSeries, required_source, uid_of
from trivox.volumes.dicom.files import quiet
from trivox.volumes.volume import Array

KIND = "dicom-seg"
SERIES_NUMBER = 9001
"""Of segmentations, far from those of scanners."""
_LEVELS = 255
"""Steps of a probability (PS3.3 C.8.20.2: MaximumFractionalValue)."""
_STAND_IN = "2.25."
"""Begins what planes are called while a segmentation is built."""


@dataclass(frozen=True)
class Segment:
    """One segment: its number in the object, its label and its code."""

    number: int
    label: str
    code: LabelCode


def write_segmentation(result: CaseResult, out: Path) -> tuple[str, ...]:
    """Write the segmentation of a case to `out`; returns what has to be said of it.

    Raises `DataError` for a case without a series to refer to, `ResourceError` where
    highdicom is missing.
    """
    highdicom = optional_package("highdicom", extra="dicom")
    source = required_source(result.source, KIND)
    segments = segments_of(result)
    array, planes = _pixels(result, source, len(segments))
    with quiet():
        dataset = _built(highdicom, result, source, segments, array, planes)
        _refer(dataset, source)
        complete(dataset, result, source)
    syntax = ExplicitVRLittleEndian if _is_binary(result) else RLELossless
    write_object(out, dataset, syntax)
    return _remarks(result, source, segments)


def segments_of(result: CaseResult) -> list[Segment]:
    """The segments of the object that is written of a result, numbered from 1: what the
    model was trained to find; of a label map, in which nothing overlaps, its labels.
    """
    names = list(result.segments)
    if result.options.seg_type == "labelmap":
        names = sorted(result.names, key=lambda name: result.names[name])
    codes = result.options.codes
    return [
        Segment(number, name, codes.of(name, number))
        for number, name in enumerate(names, start=1)
    ]


def _remarks(
    result: CaseResult, source: SourceSeries, segments: Sequence[Segment]
) -> tuple[str, ...]:
    private = [each.label for each in segments if each.code.is_private]
    return (*source.repairs, *uncoded(private))


def _is_binary(result: CaseResult) -> bool:
    return result.options.seg_type == "binary"


# -- pixels ----------------------------------------------------------------------------
def _pixels(
    result: CaseResult, source: SourceSeries, count: int
) -> tuple[Array, list[int]]:
    """What highdicom takes as pixels: segment numbers `(z, y, x)`, or masks or
    probabilities `(z, y, x, segment)`; and the planes that they lie on.
    """
    assert result.labels is not None
    if result.labels.shape != source.shape:
        raise DataError(
            f"{result.case.name}: the series holds {source.shape} voxels and the map "
            f"{result.labels.shape}; the series changed meanwhile, predict again"
        )
    if result.options.seg_type == "fractional":
        array = _fractions(result, count)
    else:
        array = _numbers(result)
    planes = np.flatnonzero(array.reshape(len(array), -1).any(axis=1)).tolist()
    if not planes:
        planes = [len(array) // 2]
    return array[planes], planes


def _numbers(result: CaseResult) -> Array:
    """Segment numbers where segments exclude each other, else masks."""
    assert result.labels is not None
    values = result.labels.array[0]
    sets: list[tuple[int, ...]] = list(result.segments.values())
    if result.options.seg_type == "labelmap":
        sets = [(value,) for value in sorted(result.names.values())]
    if _overlap(sets):
        masks = np.zeros((*values.shape, len(sets)), bool)
        for number, members in enumerate(sets):
            masks[..., number] = np.isin(values, members)
        return masks
    numbers = np.zeros(values.shape, np.min_scalar_type(len(sets)))
    for number, members in enumerate(sets, start=1):
        numbers[np.isin(values, members)] = number
    return numbers


def _overlap(sets: Sequence[Sequence[int]]) -> bool:
    """Whether a value belongs to several segments."""
    values = [value for members in sets for value in members]
    return len(set(values)) < len(values)


def _fractions(result: CaseResult, count: int) -> Array:
    """Probabilities `(z, y, x, segment)` in the steps that are stored."""
    if result.probabilities is None:
        raise DataError(
            f"{result.case.name}: a fractional segmentation needs probabilities, and "
            "this prediction has none; use --seg-type binary"
        )
    chances = result.probabilities.array[-count:]  # the background comes first
    steps = np.rint(chances.clip(0, 1) * _LEVELS) / _LEVELS
    return np.moveaxis(steps.astype(np.float32), 0, -1)


# -- the object ------------------------------------------------------------------------
def _built(
    highdicom: Any,
    result: CaseResult,
    source: SourceSeries,
    segments: Sequence[Segment],
    array: Array,
    planes: Sequence[int],
) -> Any:
    """The segmentation as highdicom makes it, of planes that stand in for the frames."""
    date, time = dated(source)
    model = result.model
    described = [_described(highdicom, result, source, each) for each in segments]
    words = f"{len(segments)} labels by {model.name}"
    return highdicom.seg.Segmentation(
        source_images=[_stand_in(source, z) for z in planes],
        pixel_array=array,
        segmentation_type=result.options.seg_type.upper(),
        segment_descriptions=described,
        series_instance_uid=series_uid(result, source, KIND),
        series_number=SERIES_NUMBER,
        sop_instance_uid=instance_uid(result, source, KIND),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=short(model.name),
        software_versions=model.version,
        device_serial_number=model.sha256,
        max_fractional_value=_LEVELS,
        content_label="SEGMENTATION",
        content_description=research_text(words),
        series_description=research_text("Segmentation"),
        transfer_syntax_uid=(
            ExplicitVRLittleEndian if _is_binary(result) else RLELossless
        ),
        omit_empty_frames=True,
        content_date=date,
        content_time=time,
    )


def _described(
    highdicom: Any, result: CaseResult, source: SourceSeries, segment: Segment
) -> Any:
    """The description of a segment (PS3.3 C.8.20.4), with the algorithm behind it."""
    model = result.model
    code = segment.code
    algorithm = algorithm_of(model)
    described = highdicom.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=short(segment.label),
        segmented_property_category=_concept(highdicom, code.category),
        segmented_property_type=_concept(highdicom, code.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=[algorithm],
        tracking_uid=tracking_uid(result, source, segment.label),
        tracking_id=tracking_id(result, segment.label),
    )
    described.SegmentedPropertyTypeCodeSequence = [type_of(code)]
    assert code.color is not None
    described.RecommendedDisplayCIELabValue = list(cielab_of(code.color))
    return described


def _concept(highdicom: Any, concept: Concept) -> Any:
    return highdicom.sr.CodedConcept(concept.value, concept.scheme, concept.meaning)


def _stand_in(source: SourceSeries, z: int) -> Dataset:
    """A plane as highdicom wants a source image; its UID is its number."""
    plane = Dataset()
    plane.SOPClassUID = CTImageStorage
    plane.SOPInstanceUID = f"{_STAND_IN}{z + 1}"
    plane.StudyInstanceUID = source.first.StudyInstanceUID
    plane.SeriesInstanceUID = source.first.SeriesInstanceUID
    plane.FrameOfReferenceUID = source.first.FrameOfReferenceUID
    plane.Modality = "CT"
    for keyword in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
        "StudyDate",
        "StudyTime",
    ):
        setattr(plane, keyword, "")
    plane.Rows, plane.Columns = source.shape[1:]
    plane.ImagePositionPatient = number_texts(source.positions[z])
    plane.ImageOrientationPatient = number_texts(source.orientation)
    plane.PixelSpacing = number_texts(source.spacing)
    plane.SliceThickness = number_text(source.thickness)
    if source.step:
        plane.SpacingBetweenSlices = number_text(source.step)
    return plane


def _refer(dataset: Any, source: SourceSeries) -> None:
    """Let the segmentation refer to the frames that planes stood in for, give its
    dimensions a UID of its own, and leave out when it was made.
    """
    for item in _sources_in(dataset):
        z = int(str(item.ReferencedSOPInstanceUID).removeprefix(_STAND_IN)) - 1
        item.update(reference(*source.image_of(z)))
    # readers that have it take its items frame by frame, and place segments by them
    dataset.pop("SourceImageSequence", None)
    dataset.ReferencedSeriesSequence = [referenced_series(source)]
    organisation = uid_of("dimensions", dataset.SOPInstanceUID)
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = organisation
    for index in dataset.DimensionIndexSequence:
        index.DimensionOrganizationUID = organisation
    for equipment in dataset.get("ContributingEquipmentSequence", []):
        equipment.pop("ContributionDateTime", None)


def _sources_in(dataset: Any) -> Iterator[Any]:
    """The references of all frames to their source images, each once: segments share
    them.
    """
    seen: set[int] = set()
    for group in (
        *dataset.SharedFunctionalGroupsSequence,
        *dataset.PerFrameFunctionalGroupsSequence,
    ):
        for derivation in group.get("DerivationImageSequence", []):
            for item in derivation.SourceImageSequence:
                if id(item) not in seen:
                    yield item
                seen.add(id(item))
