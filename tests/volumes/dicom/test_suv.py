"""PET in SUV by body weight, against figures worked out by hand from QIBA's
vendor-neutral pseudo-code.
"""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_slices import pixels_of, save, slice_of
from trivox.volumes.formats import read_header, read_volume

HALF_LIFE = 6588.0
# 70 kg, 370 MBq of F-18, one half-life between injection and scan:
# 70000 g / (370e6 Bq / 2)
BY_WEIGHT = 70_000 / 185e6


def tracer(**attributes):
    item = Dataset()
    item.RadionuclideTotalDose = 370e6
    item.RadionuclideHalfLife = HALF_LIFE
    item.RadiopharmaceuticalStartTime = "100000"
    for name, value in attributes.items():
        setattr(item, name, value)
    return Sequence([item])


def pet(number, *, tracers=None, **attributes):
    described = {
        "Modality": "PT",
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["ATTN", "DECY", "SCAT"],
        "PatientWeight": 70,
        "SeriesDate": "20240229",
        "SeriesTime": "114948",
        "AcquisitionDate": "20240229",
        "AcquisitionTime": "114950",
        "RescaleSlope": 0.5 + number,
        "RescaleIntercept": 0,
        **attributes,
    }
    dataset = slice_of(number, **described)
    dataset.RadiopharmaceuticalInformationSequence = tracers or tracer()
    return dataset


def read(folder, **attributes):
    save(folder, [pet(i, **attributes) for i in range(2)])
    volume = read_volume(folder)
    assert read_header(folder).dtype == volume.array.dtype
    assert read_header(folder).remarks == volume.remarks
    (remark,) = volume.remarks
    stored = np.stack([pixels_of(i) * (0.5 + i) for i in range(2)])
    return volume.array[0] / np.maximum(stored, 1e-9), stored > 0, remark


@pytest.mark.parametrize(
    ("attributes", "factor"),
    [
        ({}, BY_WEIGHT),
        # corrected to the injection: the dose has not decayed
        ({"DecayCorrection": "ADMIN"}, 70_000 / 370e6),
        # injected before midnight, scanned two half-lives later
        (
            {
                "tracers": tracer(RadiopharmaceuticalStartTime="220000.5"),
                "SeriesTime": "013936.5",
                "AcquisitionTime": "013937",
            },
            70_000 / (370e6 / 4),
        ),
        (
            {
                "tracers": tracer(
                    RadiopharmaceuticalStartTime=None,
                    RadiopharmaceuticalStartDateTime="20240229100000.00+0100",
                )
            },
            BY_WEIGHT,
        ),
        # a series written later by a workstation: the time of the first image counts
        ({"SeriesTime": "180000", "AcquisitionTime": "114948"}, BY_WEIGHT),
        ({"Units": "GML"}, 1.0),
    ],
)
def test_becquerel_become_suv(tmp_path, attributes, factor):
    ratio, inside, remark = read(tmp_path, **attributes)
    np.testing.assert_allclose(ratio[inside], factor, rtol=2e-6)
    assert remark.startswith("PET: in SUV (body weight)")


def test_a_frame_is_corrected_to_its_mean_time(tmp_path):
    """T = 600 s, half-life 6588 s: rate = ln 2 / 6588 = 1.052136e-4; rate T = 0.0631282;
    mean = ln(0.0631282 / (1 - exp(-0.0631282))) / rate = 298.422 s after its start.
    With FrameReferenceTime 200 s the scan began 98.422 s after the image's time.
    """
    late = {"SeriesTime": "180000", "AcquisitionTime": "114948"}
    frame = {"FrameReferenceTime": 200_000, "ActualFrameDuration": 600_000}
    ratio, inside, _ = read(tmp_path, **late, **frame)
    dose = 370e6 * 2 ** (-(HALF_LIFE + 98.422) / HALF_LIFE)
    np.testing.assert_allclose(ratio[inside], 70_000 / dose, rtol=2e-6)


def test_philips_counts(tmp_path):
    slices = [pet(i, Units="CNTS") for i in range(2)]
    for dataset in slices:
        block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
        block.add_new(0x00, "DS", "0.000625")
        block.add_new(0x09, "DS", "2.5")
    volume = read_volume(save(tmp_path / "suv", slices))
    np.testing.assert_allclose(
        volume.array[0, 1], pixels_of(1) * 1.5 * 0.000625, rtol=1e-6
    )
    assert volume.remarks == ("PET: in SUV (body weight), by Philips' factor",)
    for dataset in slices:
        del dataset[0x7053, 0x1000]
    volume = read_volume(save(tmp_path / "bq", slices))
    np.testing.assert_allclose(
        volume.array[0, 1], pixels_of(1) * 1.5 * 2.5 * BY_WEIGHT, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("attributes", "missing"),
    [
        ({"PatientWeight": None}, "PatientWeight missing"),
        ({"PatientWeight": 0}, "PatientWeight missing or not positive"),
        ({"tracers": Sequence([Dataset()])}, "RadionuclideTotalDose, RadionuclideHalf"),
        ({"DecayCorrection": "NONE"}, "DecayCorrection is 'NONE'"),
        ({"CorrectedImage": ["ATTN"]}, "decay"),
        ({"CorrectedImage": ["DECY"]}, "attenuation"),
        ({"SeriesTime": "090000", "AcquisitionTime": "085959"}, "injection and scan"),
        ({"Units": "CNTS"}, "'CNTS'"),
        ({"Units": "PROPCNTS"}, "'PROPCNTS'"),
    ],
)
def test_without_what_suv_needs_the_values_stay_with_a_remark(
    tmp_path, attributes, missing
):
    if attributes.get("PatientWeight", 1) is None:
        attributes = {**attributes, "PatientWeight": ""}
    ratio, inside, remark = read(tmp_path, **attributes)
    np.testing.assert_allclose(ratio[inside], 1, rtol=1e-6)
    assert remark.startswith("PET: ")
    assert missing in remark


def test_other_modalities_are_never_divided_by_a_dose(tmp_path):
    volume = read_volume(save(tmp_path / "s", [pet(i, Modality="CT") for i in (0, 1)]))
    assert volume.remarks == ()
    np.testing.assert_allclose(volume.array[0, 1], pixels_of(1) * 1.5, rtol=1e-6)
