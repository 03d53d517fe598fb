"""PET in standardised uptake values by body weight (SUVbw, g/ml).

Source: QIBA, Standardized Uptake Value: vendor-neutral pseudo-code for SUV calculation
(https://qibawiki.rsna.org/index.php/Standardized_Uptake_Value_(SUV)).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydicom.valuerep import DT

from trivox.volumes.dicom.attributes import text

PET = "PT"
_PHILIPS_SUV = (0x7053, 0x1000)
_PHILIPS_BQ_ML = (0x7053, 0x1009)
_GRAMS = 1000.0
_HALF_LIVES = 10
"""After which no tracer is scanned: the times of injection and scan are wrong then."""


@dataclass(frozen=True)
class Injection:
    """What a PET image says about its unit and its tracer; None and blank where it does
    not.

    units: BQML, CNTS or GML; decay: START, ADMIN or NONE; corrected: what was corrected
    for; weight: kg; dose: Bq; half_life, reference, duration: s; start: of the
    injection; suv_per_count, bq_ml_per_count: factors of Philips.
    """

    units: str
    decay: str
    corrected: str
    weight: float | None
    dose: float | None
    half_life: float | None
    start: datetime | None
    series: datetime | None
    acquisition: datetime | None
    reference: float | None
    duration: float | None
    suv_per_count: float | None
    bq_ml_per_count: float | None


def injection_of(dataset: Any) -> Injection | None:
    """What a PET image says; None of other modalities."""
    if dataset.get("Modality") != PET:
        return None
    tracers = dataset.get("RadiopharmaceuticalInformationSequence") or [{}]
    tracer = tracers[0]
    series = _moment(dataset, "SeriesDate", "SeriesTime")
    return Injection(
        units=text(dataset, "Units").upper(),
        decay=text(dataset, "DecayCorrection").upper(),
        corrected=str(dataset.get("CorrectedImage") or "").upper(),
        weight=_positive(dataset.get("PatientWeight")),
        dose=_positive(tracer.get("RadionuclideTotalDose")),
        half_life=_positive(tracer.get("RadionuclideHalfLife")),
        start=_start(tracer, series),
        series=series,
        acquisition=_moment(dataset, "AcquisitionDate", "AcquisitionTime"),
        reference=_milliseconds(dataset, "FrameReferenceTime"),
        duration=_milliseconds(dataset, "ActualFrameDuration"),
        suv_per_count=_private(dataset, _PHILIPS_SUV),
        bq_ml_per_count=_private(dataset, _PHILIPS_BQ_ML),
    )


def suv_factor(images: Sequence[Injection]) -> tuple[float, str]:
    """What the rescaled values of a PET series are multiplied by, and what has to be
    said of the result.

    1.0 where SUV cannot be computed; the sentence then says what is missing.
    """
    units = {image.units for image in images}
    first = images[0]
    if len(units) > 1:
        return 1.0, "PET: images of several units are left as they are"
    if first.units == "GML":
        return 1.0, "PET: in SUV (body weight), as stored"
    if first.units == "CNTS" and first.suv_per_count is not None:
        return first.suv_per_count, "PET: in SUV (body weight), by Philips' factor"
    if first.units == "CNTS" and first.bq_ml_per_count is not None:
        return _from_becquerel(images, first.bq_ml_per_count)
    if first.units == "BQML":
        return _from_becquerel(images, 1.0)
    return 1.0, f"PET: in '{first.units or 'no unit'}', from which no SUV follows"


def _from_becquerel(images: Sequence[Injection], factor: float) -> tuple[float, str]:
    """The factor and the sentence for values that `factor` brings to Bq/ml."""
    first = images[0]
    missing = _missing(first)
    if missing:
        return factor, f"PET: in Bq/ml, not in SUV: {missing}"
    dose = _decayed_dose(images)
    if dose is None:
        return factor, (
            "PET: in Bq/ml, not in SUV: the times of injection and scan are missing or "
            "do not go together"
        )
    assert first.weight is not None
    return factor * first.weight * _GRAMS / dose, "PET: in SUV (body weight)"


def _missing(image: Injection) -> str:
    """Why no SUV can be computed from Bq/ml; blank if it can."""
    needed = {
        "PatientWeight": image.weight,
        "RadionuclideTotalDose": image.dose,
        "RadionuclideHalfLife": image.half_life,
        "RadiopharmaceuticalStartTime": image.start,
    }
    if image.decay == "ADMIN":
        needed = {name: needed[name] for name in list(needed)[:2]}
    absent = [name for name, value in needed.items() if value is None]
    if absent:
        return f"{', '.join(absent)} missing or not positive"
    if image.decay not in ("START", "ADMIN"):
        return f"DecayCorrection is '{image.decay or 'missing'}', not START or ADMIN"
    if "DECY" not in image.corrected:
        return "CorrectedImage does not name the decay (DECY)"
    if "ATTN" not in image.corrected:
        return "CorrectedImage does not name the attenuation (ATTN)"
    return ""


def _decayed_dose(images: Sequence[Injection]) -> float | None:
    """Activity at the time that the images are corrected to, Bq."""
    first = images[0]
    assert first.dose is not None
    if first.decay == "ADMIN":
        return first.dose
    assert first.half_life is not None
    assert first.start is not None
    scan = _scan_start(images, first.half_life)
    if scan is None:
        return None
    seconds = (scan - first.start).total_seconds()
    if not 0 <= seconds <= _HALF_LIVES * first.half_life:
        return None
    return first.dose * 2 ** (-seconds / first.half_life)


def _scan_start(images: Sequence[Injection], half_life: float) -> datetime | None:
    """The time of the series where it is not after its images (as it is where a later
    program set it), else from the earliest image and its mean time in the frame.
    """
    series = images[0].series
    taken = [image for image in images if image.acquisition is not None]
    if not taken:
        return series
    earliest = min(taken, key=lambda image: image.acquisition or datetime.max)
    assert earliest.acquisition is not None
    if series is not None and series <= earliest.acquisition:
        return series
    if not earliest.reference or not earliest.duration:
        return earliest.acquisition
    rate = math.log(2) / half_life
    decayed = rate * earliest.duration
    mean = math.log(decayed / -math.expm1(-decayed)) / rate
    return earliest.acquisition + timedelta(seconds=mean - earliest.reference)


def _start(tracer: Any, series: datetime | None) -> datetime | None:
    """When the tracer was injected: by date and time, or by time on the day of the
    series, or the day before where that would be after the series.
    """
    moment = _parsed(str(tracer.get("RadiopharmaceuticalStartDateTime") or ""))
    if moment is not None or series is None:
        return moment
    time = str(tracer.get("RadiopharmaceuticalStartTime") or "")
    start = _parsed(f"{series:%Y%m%d}{time}") if time else None
    if start is not None and start > series:
        return start - timedelta(days=1)
    return start


def _moment(dataset: Any, date: str, time: str) -> datetime | None:
    day = str(dataset.get(date) or "")
    hour = str(dataset.get(time) or "")
    return _parsed(day + hour) if day and hour else None


def _parsed(value: str) -> datetime | None:
    """A moment without its time zone, None where it is none."""
    try:
        moment = DT(value) if value else None
    except (ValueError, TypeError, OverflowError):
        return None
    if not isinstance(moment, datetime):
        return None
    return datetime.combine(moment.date(), moment.time())


def _milliseconds(dataset: Any, keyword: str) -> float | None:
    """A duration, in seconds."""
    value = _positive(dataset.get(keyword))
    return None if value is None else value / 1000


def _private(dataset: Any, tag: tuple[int, int]) -> float | None:
    return _positive(dataset[tag].value) if tag in dataset else None


def _positive(value: Any) -> float | None:
    """A number above 0, None for all else."""
    try:
        positive = float(value)
    except (TypeError, ValueError):
        return None
    return positive if 0 < positive < math.inf else None
