"""Whole folders: one bad file stops nothing, the record names nobody, the table is the
keeper's.
"""

import gzip
import json
import shutil

import nibabel
import numpy as np
import pytest
from pydicom import dcmread

import trivox
from dicom_checks import errors_of
from dicom_slices import save, slice_of
from trivox.errors import DataError, FormatError, UsageError
from trivox.privacy.folder import RECORD, table_of
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

SECRET = "CANARY"


@pytest.fixture
def exam(tmp_path):
    """A series, its scan as NIfTI, a damaged object, a text."""
    root = tmp_path / f"exam of {SECRET}"
    named = {"PatientName": SECRET, "PatientID": SECRET, "StudyInstanceUID": "1.2.99"}
    series = [
        slice_of(number, InstanceNumber=number + 1, **named) for number in range(4)
    ]
    save(root / "series", series)
    damaged = slice_of(9, **named)
    damaged.PixelData = damaged.PixelData[:64]
    save(root / "damaged", [damaged])
    (root / "notes.txt").write_text(SECRET)
    scan = Volume(
        np.arange(60, dtype=np.int16).reshape(1, 3, 4, 5),
        affine_from_spacing((3, 2, 1)),
    )
    write_scan(root / "imagesTr" / f"{SECRET}_0000.nii.gz", scan)
    write_scan(root / "labelsTr" / f"{SECRET}.nii.gz", scan)
    return root


def write_scan(file, volume):
    """With the patient's name wherever a header has room for text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    plain = file.with_name("plain.nii")
    write_volume(plain, volume)
    image = nibabel.load(plain)
    image.header["descrip"] = SECRET
    image.header["aux_file"] = SECRET
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, SECRET.encode()))
    with (
        file.open("wb") as raw,
        gzip.GzipFile(f"{SECRET}.nii", "wb", fileobj=raw) as named,
    ):
        named.write(image.to_bytes())
    plain.unlink()


def test_a_folder_is_cleaned_and_what_is_damaged_set_aside(exam, tmp_path):
    out, key = tmp_path / "out", tmp_path / "secrets" / "key"
    with pytest.raises(DataError, match="1 files cannot be read") as caught:
        trivox.deidentify(exam, out, key)
    assert SECRET not in str(caught.value).replace(str(exam), "")
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == 7
    for file in files:
        assert SECRET not in str(file.relative_to(out))
        content = file.read_bytes()
        assert SECRET.encode() not in content
        if file.suffix == ".gz":
            assert SECRET.encode() not in gzip.decompress(content)
    record = json.loads((out / RECORD).read_text())
    assert (record["task"], record["format_version"]) == (None, 1)
    assert record["set_aside"] == {
        "cannot be read": 1,
        "is no DICOM object and no scan": 1,
    }
    assert SECRET in table_of(key).read_text()
    assert table_of(key).stat().st_mode & 0o077 == 0


def test_images_are_the_same_as_before(exam, tmp_path):
    out = tmp_path / "out"
    trivox.deidentify([exam / "series", exam / "imagesTr"], out, tmp_path / "key")
    before = read_volume(exam / "series")
    (folder,) = {path.parent for path in out.rglob("*.dcm")}
    after = read_volume(folder)
    np.testing.assert_array_equal(after.array, before.array)
    np.testing.assert_allclose(after.affine, before.affine)
    (scan,) = out.rglob("*_0000.nii.gz")
    original = read_volume(exam / "imagesTr" / f"{SECRET}_0000.nii.gz")
    np.testing.assert_array_equal(read_volume(scan).array, original.array)
    np.testing.assert_array_equal(read_volume(scan).affine, original.affine)


def test_files_of_a_case_keep_one_name(exam, tmp_path):
    out = tmp_path / "out"
    shutil.rmtree(exam / "damaged")
    trivox.deidentify(exam, out, tmp_path / "key")
    (image,) = (out / "imagesTr").iterdir()
    (label,) = (out / "labelsTr").iterdir()
    assert image.name.replace("_0000", "") == label.name


def test_folders_of_scans_name_nobody(tmp_path):
    scan = Volume(np.zeros((1, 2, 3, 4), np.uint8), np.eye(4))
    write_scan(tmp_path / "all" / SECRET / "images" / "a.nii.gz", scan)
    trivox.deidentify(tmp_path / "all", tmp_path / "out", tmp_path / "key")
    (file,) = (tmp_path / "out").rglob("*.nii.gz")
    assert file.parent.name == "images"
    assert SECRET not in str(file.relative_to(tmp_path / "out"))
    assert file.parent.parent.parent == tmp_path / "out"


def test_of_two_objects_of_one_uid_the_other_is_set_aside(tmp_path):
    one, other = (slice_of(number, SOPInstanceUID="1.2.3.4") for number in range(2))
    save(tmp_path / "exam", [one, other, one])
    outcome = trivox.deidentify(tmp_path / "exam", tmp_path / "out", tmp_path / "key")
    assert len(outcome.written) == 1
    assert sum(map(len, outcome.aside.values())) in (1, 2)
    (written,) = (tmp_path / "out").rglob("*.dcm")
    (source,) = outcome.written.values()
    expected = dcmread(source).pixel_array
    np.testing.assert_array_equal(dcmread(written).pixel_array, expected)


def test_the_same_key_gives_the_same_files(exam, tmp_path):
    for out in ("a", "b"):
        trivox.deidentify(exam / "series", tmp_path / out, tmp_path / "key")
    first = sorted((tmp_path / "a").rglob("*.dcm"))
    second = sorted((tmp_path / "b").rglob("*.dcm"))
    assert [path.read_bytes() for path in first] == [
        path.read_bytes() for path in second
    ]
    assert [path.name for path in first] == [path.name for path in second]
    trivox.deidentify(exam / "series", tmp_path / "a", tmp_path / "key")
    with pytest.raises(DataError, match="another key"):
        trivox.deidentify(exam / "series", tmp_path / "a", tmp_path / "key2")


def test_folders_called_after_a_patient_get_another_name(tmp_path):
    scan = Volume(np.ones((1, 3, 4, 5), np.int16), np.eye(4))
    write_scan(tmp_path / "in" / SECRET / "scan.nii.gz", scan)
    trivox.deidentify(tmp_path / "in", tmp_path / "out", tmp_path / "key")
    (file,) = (tmp_path / "out").rglob("*.nii.gz")
    assert SECRET not in str(file.relative_to(tmp_path / "out"))
    assert file.parent.parent == tmp_path / "out"


def test_two_objects_of_one_uid_do_not_take_each_others_place(tmp_path):
    first = slice_of(1, InstanceNumber=1, PatientID="a")
    other = slice_of(2, InstanceNumber=1, PatientID="a", StudyInstanceUID="1.2.9")
    first.StudyInstanceUID = other.StudyInstanceUID
    other.SOPInstanceUID = first.SOPInstanceUID
    save(tmp_path / "in" / "a", [first])
    save(tmp_path / "in" / "b", [other])
    outcome = trivox.deidentify(tmp_path / "in", tmp_path / "out", tmp_path / "key")
    assert len(outcome.written) == 1
    assert list(outcome.aside) == ["has the name or UID of another file"]


def test_a_folder_is_of_one_rule_for_dates(exam, tmp_path):
    trivox.deidentify(exam / "series", tmp_path / "out", tmp_path / "key")
    with pytest.raises(DataError, match="another rule for dates"):
        trivox.deidentify(
            exam / "series", tmp_path / "out", tmp_path / "key", keep_dates=True
        )


def test_impossible_requests_are_refused_before_anything_is_written(exam, tmp_path):
    key = tmp_path / "key"
    with pytest.raises(DataError, match="handed on"):
        trivox.deidentify(exam, tmp_path / "out", tmp_path / "out" / "key")
    with pytest.raises(DataError, match="lies in"):
        trivox.deidentify(exam, exam / "out", key)
    with pytest.raises(DataError, match="not found"):
        trivox.deidentify(tmp_path / "nothing", tmp_path / "out", key)
    with pytest.raises(UsageError, match="do not go together"):
        trivox.deidentify(
            exam, tmp_path / "out", key, keep_dates=True, shift_dates=True
        )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        trivox.deidentify(exam, tmp_path / "full", key)
    (tmp_path / "bad").write_text("no key")
    with pytest.raises(FormatError, match="hexadecimal"):
        trivox.deidentify(exam, tmp_path / "out", tmp_path / "bad")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("series", ["ct-jpeg2000", "mr-study", "dcmqi/ct-3slice"])
def test_real_series_are_no_worse_dicom_than_before(data_root, tmp_path, series):
    source = data_root / "dicom" / series
    out = tmp_path / "out"
    trivox.deidentify(source, out, tmp_path / "key")
    texts = set()
    for file in source.rglob("*"):
        if file.is_file():
            texts |= names_in(file)
    assert texts
    cleaned = sorted(out.rglob("*.dcm"))
    assert len(cleaned) == sum(path.is_file() for path in source.rglob("*"))
    content = b"".join(file.read_bytes() for file in cleaned)
    assert [text for text in texts if text.encode() in content] == []
    sources = [path for path in sorted(source.rglob("*")) if path.is_file()]
    before = {e for file in sources[::25] for e in errors_of(file)}
    after = {e for file in cleaned[::25] for e in errors_of(file)}
    assert after <= before


def names_in(file):
    """Names, numbers and places in a real object that are long enough to be looked for."""
    dataset = dcmread(file, stop_before_pixels=True)
    keywords = "PatientName PatientID InstitutionName InstitutionAddress StationName "
    keywords += "DeviceSerialNumber StudyDescription SeriesDescription ProtocolName "
    keywords += "StudyInstanceUID SeriesInstanceUID SOPInstanceUID StudyDate"
    values = {str(dataset.get(keyword, "")) for keyword in keywords.split()}
    return {value for value in values if len(value) > 5}
