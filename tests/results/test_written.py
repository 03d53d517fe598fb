"""`trivox predict --format` on a DICOM series: everything together, again and again."""

import json

import pydicom
import pytest

import trivox
from dicom_checks import errors_of
from result_cases import write_series
from trivox.errors import UsageError
from trivox.inference.records import RECORDS
from untrained_models import write_untrained

ALL = "nifti,dicom-seg,sr,png"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_untrained(tmp_path_factory.mktemp("model"), balanced=True)


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "case", count=16, shape=(20, 22))


def names_in(out):
    return {path.name for path in out.iterdir()}


def test_all_formats_of_a_series_fit_together(model, series, tmp_path):
    out = tmp_path / "out"
    trivox.predict(model, series, out, format=ALL, statistics=True)
    written = {f"case{ending}" for ending in (".nii.gz", ".seg.dcm", ".sr.dcm", ".png")}
    tables = {RECORDS, "statistics.json", "statistics.csv"}
    assert written | tables <= names_in(out)
    for name in ("case.seg.dcm", "case.sr.dcm"):
        assert errors_of(out / name) == []
    record = json.loads((out / RECORDS).read_text(encoding="utf-8"))["cases"]["case"]
    assert set(record["formats"]) == {"dicom-seg", "sr", "png"}
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.suffix}
    trivox.predict(model, series, out, format=ALL, statistics=True, overwrite=True)
    for name in written | (tables - {RECORDS}):
        assert (out / name).read_bytes() == before[name], name


def test_a_report_brings_its_segmentation_along(model, series, tmp_path):
    out = tmp_path / "out"
    trivox.predict(model, series, out, format="sr")
    assert {"case.seg.dcm", "case.sr.dcm"} <= names_in(out)
    assert "case.nii.gz" not in names_in(out)
    segmentation = pydicom.dcmread(out / "case.seg.dcm")
    assert segmentation.SOPInstanceUID.encode() in (out / "case.sr.dcm").read_bytes()


def test_the_kind_of_the_segmentation_may_be_chosen_with_a_report(
    model, series, tmp_path
):
    out = tmp_path / "out"
    trivox.predict(model, series, out, format="sr", seg_type="labelmap")
    assert pydicom.dcmread(out / "case.seg.dcm").SegmentationType == "LABELMAP"
    with pytest.raises(UsageError, match="--seg-type"):
        trivox.predict(model, series, out, format="png", seg_type="labelmap")


def test_previews_are_of_files_of_every_kind(model, series, tmp_path):
    volume = tmp_path / "volume"
    trivox.predict(model, series, volume)
    with pytest.raises(
        UsageError, match="--format dicom-seg, sr refers to DICOM images"
    ):
        trivox.predict(model, volume / "case.nii.gz", tmp_path / "no", format="sr")
    trivox.predict(model, volume / "case.nii.gz", tmp_path / "out", format="nifti,png")
    assert {"case.nii.gz", "case.png"} <= names_in(tmp_path / "out")
