"""`CASE.ct/`: valid images that say what they are, and hold what the NIfTI file holds."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trivox
from dicom_checks import errors_of
from result_cases import MODEL, PATIENT, write_series
from trivox.datasets.dataset import Case
from trivox.errors import UsageError
from trivox.results.case import CaseResult
from trivox.results.formats import result_files
from trivox.results.options import AS_USUAL
from trivox.results.source_series import series_of_case
from trivox.results.synthetic_ct import write_synthetic_ct
from trivox.volumes.formats import read_volume
from trivox.volumes.geometry import Orientation, canonical_orientation, reorient
from trivox.volumes.volume import Volume, affine_from_spacing


def made(folder, volume, name="case", views=b"views"):
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "views.npz"
    file.write_bytes(views)
    case = Case(name=name, images=(file,))
    return CaseResult(case, MODEL, (), volume=volume)


def hounsfield(shape=(5, 7, 6), spacing=(3.0, 1.25, 0.75), seed=0):
    values = np.random.default_rng(seed).integers(-1024, 3072, (1, *shape))
    return Volume(
        values.astype(np.int16), affine_from_spacing(spacing, (-7.5, 2.25, 90.0))
    )


@pytest.fixture
def written(tmp_path):
    result = made(tmp_path, hounsfield())
    assert write_synthetic_ct(result, tmp_path / "case.ct") == ()
    return tmp_path / "case.ct"


def in_ras(volume):
    return reorient(volume, canonical_orientation(volume.affine))


@settings(max_examples=8)
@given(
    st.permutations(range(3)),
    st.tuples(*[st.booleans()] * 3),
    st.tuples(*[st.integers(2, 6)] * 3),
    st.tuples(*[st.floats(0.1, 9)] * 3),
)
def test_the_series_reads_as_the_volume(tmp_path_factory, order, flips, shape, spacing):
    folder = tmp_path_factory.mktemp("ct")
    volume = reorient(hounsfield(shape, spacing), Orientation(tuple(order), flips))
    write_synthetic_ct(made(folder, volume), folder / "case.ct")
    read = in_ras(read_volume(folder / "case.ct"))
    there = in_ras(volume)
    np.testing.assert_array_equal(read.array, there.array)
    np.testing.assert_allclose(read.affine, there.affine, atol=1e-4)


def test_a_turned_volume_reads_as_it_is(tmp_path):
    volume = hounsfield()
    angle = np.radians(25)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turned = replace(volume, affine=turn @ volume.affine)
    write_synthetic_ct(made(tmp_path, turned), tmp_path / "case.ct")
    read = in_ras(read_volume(tmp_path / "case.ct"))
    np.testing.assert_array_equal(read.array, in_ras(turned).array)
    np.testing.assert_allclose(read.affine, in_ras(turned).affine, atol=1e-4)


def test_other_numbers_are_rounded_to_whole_hu(tmp_path):
    values = np.linspace(-1024.4, 40000, 210).reshape(1, 5, 7, 6).astype(np.float32)
    volume = replace(hounsfield(), array=values)
    write_synthetic_ct(made(tmp_path, volume), tmp_path / "case.ct")
    read = in_ras(read_volume(tmp_path / "case.ct")).array
    np.testing.assert_allclose(read, values.clip(max=32767), atol=0.5)


def test_images_are_valid_and_say_that_they_were_not_acquired(written):
    files = sorted(written.iterdir())
    assert [file.name for file in files] == [f"IM{n:04}.dcm" for n in range(1, 6)]
    for file in files:
        assert errors_of(file) == []
        image = pydicom.dcmread(file)
        assert list(image.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        for keyword in ("SeriesDescription", "ImageComments", "DerivationDescription"):
            assert image[keyword].value.startswith("SYNTHETIC CT - NOT ACQUIRED")
        assert "Research use only" in image.SeriesDescription
        assert MODEL.sha256 in image.DerivationDescription
        assert image.SyntheticData == "YES"


def test_nothing_is_of_a_scanner(written):
    image = pydicom.dcmread(written / "IM0001.dcm")
    assert image.Manufacturer == "trivox"
    assert image.KVP is None
    assert image.DeviceSerialNumber == MODEL.sha256
    of_scanners = ("StationName", "InstitutionName", "XRayTubeCurrent", "ExposureTime")
    assert not [keyword for keyword in of_scanners if keyword in image]


def test_slices_go_from_the_feet_up(written):
    positions = [
        pydicom.dcmread(f).ImagePositionPatient[2] for f in sorted(written.iterdir())
    ]
    assert positions == sorted(positions)
    assert pydicom.dcmread(written / "IM0001.dcm").ImageOrientationPatient == [
        1,
        0,
        0,
        0,
        1,
        0,
    ]


def series_of(folder):
    image = pydicom.dcmread(folder / "IM0001.dcm")
    keywords = (
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "FrameOfReferenceUID",
        "PatientID",
    )
    return [image[keyword].value for keyword in keywords]


def test_the_same_x_rays_and_model_give_the_same_series(tmp_path):
    results = {
        "a": made(tmp_path / "1", hounsfield()),
        "b": made(tmp_path / "2", hounsfield(), name="another name"),
        "c": made(tmp_path / "3", hounsfield(seed=1)),
        "d": made(tmp_path / "4", hounsfield(), views=b"others"),
    }
    for name, result in results.items():
        write_synthetic_ct(result, tmp_path / name)
    for one, other in zip(
        sorted((tmp_path / "a").iterdir()),
        sorted((tmp_path / "b").iterdir()),
        strict=True,
    ):
        assert one.read_bytes() == other.read_bytes()
    a, c, d = (series_of(tmp_path / name) for name in "acd")
    assert [x == y for x, y in zip(a, c, strict=True)] == [True, False, True, True]
    assert not set(a) & set(d)


def test_patient_and_study_are_those_of_dicom_x_rays(tmp_path):
    folder = write_series(tmp_path / "rays", Manufacturer="ACME")
    result = made(tmp_path, hounsfield())
    source = series_of_case(Case(name="rays", images=(folder,)))
    object.__setattr__(result, "source", source)
    write_synthetic_ct(result, tmp_path / "case.ct")
    for file in (tmp_path / "case.ct").iterdir():
        image = pydicom.dcmread(file)
        assert errors_of(file) == []
        assert image.PatientName == PATIENT["PatientName"]
        assert image.StudyInstanceUID == PATIENT["StudyInstanceUID"]
        assert image.Manufacturer == "trivox"


def test_only_models_of_volumes_make_them():
    files = result_files("dicom-ct", AS_USUAL, "labels")
    with pytest.raises(UsageError, match="this model gives labels"):
        files.possible([], say=print)
    for name in ("sr", "dicom-seg", "rtstruct"):
        files = result_files(name, AS_USUAL, "volumes")
        with pytest.raises(UsageError, match="this model gives volumes"):
            files.possible([], say=print)


def test_a_reconstruction_writes_a_series_and_a_figure(xray_run, xray_data, tmp_path):
    out = tmp_path / "out"
    exam = next((xray_data / "patients").iterdir())
    predicted = trivox.predict(xray_run, exam, out, format="nifti,dicom-ct,png")
    predicted.require_all()
    for name, record in predicted.records.items():
        read = in_ras(read_volume(out / f"{name}.ct"))
        nifti = in_ras(read_volume(out / f"{name}.nii.gz"))
        np.testing.assert_array_equal(read.array, nifti.array)
        np.testing.assert_allclose(read.affine, nifti.affine, atol=1e-4)
        assert (out / f"{name}.png").exists()
        assert record["formats"]["dicom-ct"]["file"] == f"{name}.ct"
    before = sorted(path.stat().st_mtime_ns for path in out.glob("*.ct/*"))
    trivox.predict(xray_run, exam, out, format="nifti,dicom-ct,png")
    assert sorted(path.stat().st_mtime_ns for path in out.glob("*.ct/*")) == before
