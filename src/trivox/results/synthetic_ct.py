"""`CASE.ct/`: a volume that a model made of X-rays as a derived CT series (PS3.3 A.3).

Every image says that it was not acquired. Nothing in it is of a scanner: no tube, no
voltage, no manufacturer but trivox. Values are those of the NIfTI file: whole HU, stored
as such. Of whom the X-rays are is only known where they are DICOM images; else patient
and study are stand-ins.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from trivox.files import file_hash, whole_folder
from trivox.results.case import CaseResult
from trivox.results.objects import (
    MANUFACTURER,
    UNICODE,
    complete,
    number_text,
    number_texts,
    short,
    write_object,
)
from trivox.results.source_series import uid_of
from trivox.version import NOTICE, SYNTHETIC_CT
from trivox.volumes.dicom.files import quiet
from trivox.volumes.geometry import Orientation, canonical_orientation, reorient
from trivox.volumes.volume import Array, Volume

KIND = "dicom-ct"
SERIES_NUMBER = 9004
"""Of synthetic CTs, far from those of scanners."""
PATIENT_NAME = "Synthetic^CT"
DARKEST = -32768
BRIGHTEST = 32767
"""HU that 16 bits hold."""
TO_LPS = np.diag([-1.0, -1.0, 1.0])
LEFT_POSTERIOR = Orientation((0, 1, 2), (False, True, True))
"""From canonical (RAS) axes to columns that run to the left and rows to the back."""


def write_synthetic_ct(result: CaseResult, out: Path) -> Sequence[str]:
    """Write the images of a volume into the folder `out`, one a slice from the feet up,
    all or none.
    """
    assert result.volume is not None
    volume = _as_axial(result.volume)
    with quiet(), whole_folder(out) as folder:
        shared = _shared(result)
        for number, plane in enumerate(_stored(volume.array[0]), start=1):
            image = _image(shared, volume, plane, number)
            write_object(folder / f"IM{number:04}.dcm", image, ExplicitVRLittleEndian)
    return ()


def _as_axial(volume: Volume) -> Volume:
    """With its axes along head, back and left, as CTs are stored."""
    canonical = reorient(volume, canonical_orientation(volume.affine))
    return reorient(canonical, LEFT_POSTERIOR)


def _stored(array: Array) -> Array:
    """HU as 16-bit numbers `(z, y, x)`."""
    whole = np.rint(array).clip(DARKEST, BRIGHTEST)
    return np.ascontiguousarray(whole, dtype="<i2")


def _shared(result: CaseResult) -> Dataset:
    """What all images of the series say."""
    exam = file_hash(result.case.images[0])
    dataset = Dataset()
    dataset.SpecificCharacterSet = UNICODE
    dataset.SOPClassUID = CTImageStorage
    dataset.Modality = "CT"
    _add_patient(dataset, result, exam)
    _add_equipment(dataset, result)
    assert result.volume is not None
    place = result.volume.affine.round(6).tolist()
    dataset.SeriesInstanceUID = uid_of("series", KIND, exam, result.digest, place)
    dataset.SeriesNumber = SERIES_NUMBER
    _add_words(dataset, result)
    _add_pixels(dataset)
    return dataset


def _add_patient(dataset: Dataset, result: CaseResult, exam: str) -> None:
    """Of whom it is: as the source says, or a stand-in; exam: a hash of the X-rays."""
    dataset.PatientBirthDate = ""
    dataset.PatientSex = ""
    dataset.PatientName = PATIENT_NAME
    dataset.PatientID = f"{MANUFACTURER}-{exam[:12]}"
    dataset.StudyInstanceUID = uid_of("study", exam)
    dataset.FrameOfReferenceUID = uid_of("frame", exam)
    for keyword in ("StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
        setattr(dataset, keyword, "")
    dataset.ReferringPhysicianName = ""
    dataset.PositionReferenceIndicator = ""
    dataset.PatientPosition = ""
    dataset.Laterality = ""
    if result.source is not None:
        complete(dataset, result, result.source)


def _add_equipment(dataset: Dataset, result: CaseResult) -> None:
    """What made it: a model, no scanner."""
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = short(result.model.name)
    dataset.DeviceSerialNumber = result.model.sha256
    dataset.SoftwareVersions = result.model.version
    dataset.KVP = None


def _add_words(dataset: Dataset, result: CaseResult) -> None:
    """That it was not acquired, in every field that a viewer shows."""
    model = result.model
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    dataset.SyntheticData = "YES"
    dataset.SeriesDescription = short(f"{SYNTHETIC_CT}. {NOTICE}")
    dataset.ImageComments = f"{SYNTHETIC_CT}. {NOTICE}"
    dataset.DerivationDescription = (
        f"{SYNTHETIC_CT}. Made of X-rays by {short(model.name)}, {MANUFACTURER} "
        f"{model.version}, model_sha256={model.sha256}"
    )
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"


def _add_pixels(dataset: Dataset) -> None:
    """How values are stored: HU as they are."""
    dataset.AcquisitionNumber = None
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.RescaleIntercept = "0"
    dataset.RescaleSlope = "1"
    dataset.RescaleType = "HU"
    dataset.WindowCenter = "40"
    dataset.WindowWidth = "400"


def _image(shared: Dataset, volume: Volume, plane: Array, number: int) -> Dataset:
    """One image, numbered from 1."""
    image = Dataset()
    image.update(shared)
    image.InstanceNumber = number
    image.SOPInstanceUID = uid_of("object", KIND, shared.SeriesInstanceUID, number)
    image.Rows, image.Columns = plane.shape
    for keyword, value in _place(volume, number - 1).items():
        setattr(image, keyword, value)
    image.PixelData = plane.tobytes()
    return image


def _place(volume: Volume, index: int) -> dict[str, Any]:
    """Where a plane lies, in LPS mm (PS3.3 C.7.6.2)."""
    depth, row_mm, column_mm = volume.spacing
    corner = volume.affine @ (0, 0, index, 1)
    across, down = (TO_LPS @ volume.affine[:3, :2]).T / ((column_mm,), (row_mm,))
    return {
        "ImagePositionPatient": number_texts(TO_LPS @ corner[:3]),
        "ImageOrientationPatient": number_texts([*across, *down]),
        "PixelSpacing": number_texts([row_mm, column_mm]),
        "SliceThickness": number_text(depth),
        "SpacingBetweenSlices": number_text(depth),
    }
