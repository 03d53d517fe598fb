"""`trivox predict --format`: what is written, kept, refused, and said of it."""

import json
import shutil

import numpy as np
import pydicom
import pytest

import trivox
from dicom_checks import assert_same_places, errors_of
from dicom_slices import save, slice_of
from result_cases import PATIENT, write_series
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.errors import DataError, ResourceError, UsageError
from trivox.inference.predictor import Predictor
from trivox.results import formats, segmentation
from trivox.results.case import label_result
from trivox.results.options import ResultOptions
from trivox.results.source_series import series_of_case
from trivox.volumes.formats import read_labels
from untrained_models import write_scans, write_untrained


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_untrained(tmp_path_factory.mktemp("model"), balanced=True)


@pytest.fixture(scope="module")
def regional(tmp_path_factory):
    return write_untrained(tmp_path_factory.mktemp("regions"), regions=True)


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "scan", count=12, shape=(16, 16))


def files_in(out):
    return sorted(path.name for path in out.iterdir() if path.suffix != ".json")


def record_of(out, case="scan"):
    return json.loads((out / "predictions.json").read_text())["cases"][case]


def predict(model, source, out, **options):
    return trivox.predict(model, source, out, device="cpu", **options)


def test_dicom_comes_back_as_dicom_and_nifti(model, series, tmp_path):
    out = tmp_path / "out"
    predict(model, series, out)
    assert files_in(out) == ["scan.nii.gz", "scan.seg.dcm"]
    record = record_of(out)
    assert record["formats"]["dicom-seg"]["file"] == "scan.seg.dcm"
    assert set(record["written"]) == {"scan.nii.gz", "scan.seg.dcm"}
    assert errors_of(out / "scan.seg.dcm") == []


def test_files_come_back_as_files(model, tmp_path):
    write_scans(tmp_path / "in", (12, 16, 16))
    predict(model, tmp_path / "in", tmp_path / "out")
    assert files_in(tmp_path / "out") == ["scan_0.nii.gz"]


def test_what_is_not_asked_for_is_not_written(model, series, tmp_path):
    out = tmp_path / "out"
    predict(model, series, out, format="dicom-seg")
    assert files_in(out) == ["scan.seg.dcm"]
    assert record_of(out)["output"] == "scan.seg.dcm"


@pytest.mark.parametrize("seg_type", ["binary", "labelmap", "fractional"])
def test_every_kind_of_segmentation_holds_the_label_map(
    seg_type, model, series, tmp_path
):
    out = tmp_path / "out"
    predict(model, series, out, format="nifti,dicom-seg", seg_type=seg_type)
    assert files_in(out) == ["scan.nii.gz", "scan.seg.dcm"]
    seg = pydicom.dcmread(out / "scan.seg.dcm")
    assert seg.SegmentationType == seg_type.upper()
    assert [each.SegmentLabel for each in seg.SegmentSequence][-3:] == ["a", "b", "c"]
    assert errors_of(out / "scan.seg.dcm") == []
    if seg_type != "fractional":
        labels = read_labels(out / "scan.nii.gz")
        assert_same_places(out / "scan.seg.dcm", labels, [1, 2, 3])


def test_objects_beside_maps_are_no_maps_to_be_measured(model, series, tmp_path):
    out = tmp_path / "out"
    predict(model, series, out, format="nifti,dicom-seg,rtstruct")
    references = tmp_path / "references"
    references.mkdir()
    shutil.copy(out / "scan.nii.gz", references)
    evaluation = trivox.evaluate(out, references, tmp_path / "metrics.json")
    assert evaluation.warnings == []


def test_regions_are_segments(regional, series, tmp_path):
    out = tmp_path / "out"
    predict(regional, series, out, format="dicom-seg,rtstruct")
    seg = pydicom.dcmread(out / "scan.seg.dcm")
    regions = ["whole", "core", "middle"]
    assert [each.SegmentLabel for each in seg.SegmentSequence] == regions
    structures = pydicom.dcmread(out / "scan.rtstruct.dcm")
    assert [each.ROIName for each in structures.StructureSetROISequence] == regions


def changed_at(out):
    return {path.name: path.stat().st_mtime_ns for path in out.glob("scan*")}


def test_a_case_that_is_there_as_asked_is_kept(model, series, tmp_path):
    out = tmp_path / "out"
    predict(model, series, out, format="nifti,dicom-seg,rtstruct")
    before = changed_at(out)
    predict(model, series, out, format="nifti,dicom-seg,rtstruct")
    predict(model, series, out, format="rtstruct")
    predict(model, series, out)
    assert changed_at(out) == before


def test_a_case_that_is_there_otherwise_is_predicted_again(model, series, tmp_path):
    out = tmp_path / "out"
    predict(model, series, out, format="nifti")
    predict(model, series, out, format="dicom-seg")
    assert files_in(out) == ["scan.seg.dcm"]
    predict(model, series, out, format="dicom-seg", seg_type="labelmap")
    assert pydicom.dcmread(out / "scan.seg.dcm").SegmentationType == "LABELMAP"
    (out / "scan.seg.dcm").unlink()
    predict(model, series, out, format="dicom-seg", seg_type="labelmap")
    assert files_in(out) == ["scan.seg.dcm"]


def test_a_segmentation_that_somebody_corrected_is_not_lost(model, series, tmp_path):
    out = tmp_path / "out"
    predict(model, series, out, format="dicom-seg")
    (out / "scan.seg.dcm").write_bytes(b"by hand")
    with pytest.raises(DataError, match="changed since they were predicted"):
        predict(model, series, out, format="dicom-seg", seg_type="labelmap")
    assert (out / "scan.seg.dcm").read_bytes() == b"by hand"


def test_files_of_others_are_not_written_over(model, series, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "scan.rtstruct.dcm").write_bytes(b"a plan")
    with pytest.raises(DataError, match="no prediction wrote"):
        predict(model, series, out, format="rtstruct")
    assert files_in(out) == ["scan.rtstruct.dcm"]


def test_codes_beside_the_input_are_used(model, series, tmp_path):
    concept = {"value": "10200004", "scheme": "SCT", "meaning": "Liver"}
    code = {"category": concept, "type": concept, "color": [1, 2, 3]}
    (series / "codes.json").write_text(json.dumps({"A": code}))
    out = tmp_path / "out"
    predict(model, series, out, format="dicom-seg")
    first, *_ = pydicom.dcmread(out / "scan.seg.dcm").SegmentSequence
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    (warning,) = record_of(out)["warnings"]
    assert warning.startswith("codes: b, c has no code")
    before = changed_at(out)
    (series / "codes.json").unlink()
    predict(model, series, out, format="dicom-seg")
    assert changed_at(out) != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "dicom"}, "choose of nifti"),
        ({"format": "rtstruct"}, "holds none; choose nifti"),
        ({"format": "nifti,dicom-seg"}, "holds none; choose nifti"),
        ({"format": "nifti", "seg_type": "labelmap"}, "add it to --format"),
    ],
)
def test_formats_that_make_no_sense_are_refused_before_any_work(
    options, message, model, tmp_path
):
    write_scans(tmp_path / "in", (12, 16, 16))
    with pytest.raises(UsageError, match=message):
        predict(model, tmp_path / "in", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def mixed_input(tmp_path):
    write_scans(tmp_path / "in", (12, 16, 16))
    write_series(tmp_path / "in" / "scan", count=12, shape=(16, 16))
    return tmp_path / "in"


def test_of_a_mixed_folder_each_case_is_written_as_suits_it(model, tmp_path):
    out = tmp_path / "out"
    predict(model, mixed_input(tmp_path), out)
    assert files_in(out) == ["scan.nii.gz", "scan.seg.dcm", "scan_0.nii.gz"]


def test_a_case_that_cannot_be_written_as_asked_is_set_aside(model, tmp_path):
    out = tmp_path / "out"
    done = predict(model, mixed_input(tmp_path), out, format="nifti,rtstruct")
    assert done.failed == ["scan_0"]
    assert "refers to DICOM images" in record_of(out, "scan_0")["error"]
    assert files_in(out) == ["scan.nii.gz", "scan.rtstruct.dcm"]


def picture(folder):
    """An image that says not where it lies."""
    dataset = slice_of(
        0, ImagePositionPatient=None, ImageOrientationPatient=None, **PATIENT
    )
    return save(folder, [dataset])


def test_an_image_without_place_is_a_map_with_a_warning(model, tmp_path):
    out = tmp_path / "out"
    predict(model, picture(tmp_path / "scan"), out)
    assert files_in(out) == ["scan.nii.gz"]
    assert any("no dicom-seg: " in each for each in record_of(out)["warnings"])
    before = changed_at(out)
    predict(model, tmp_path / "scan", out)
    assert changed_at(out) == before


def test_an_image_without_place_is_set_aside_where_a_segmentation_is_asked_for(
    model, tmp_path
):
    out = tmp_path / "out"
    done = predict(model, picture(tmp_path / "scan"), out, format="nifti,dicom-seg")
    assert done.failed == ["scan"]
    assert files_in(out) == []


def test_nothing_of_a_patient_is_in_a_message(model, series, tmp_path, monkeypatch):
    def broken(*arguments):
        raise ValueError("invalid: Müller^Jörg 19500203")

    monkeypatch.setattr(segmentation, "_built", broken)
    out = tmp_path / "out"
    predict(model, series, out, format="nifti,dicom-seg")
    error = record_of(out)["error"]
    assert error.startswith(
        "scan: dicom-seg cannot be made of its headers (ValueError)"
    )
    assert "Müller" not in (out / "predictions.json").read_text()


def test_without_highdicom_maps_are_written_and_a_line_says_how_to_have_more(
    model, series, tmp_path, monkeypatch
):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    lines = []

    class Console(trivox.tasks.console.Quiet):
        def say(self, line):
            lines.append(line)

    predict(model, series, tmp_path / "out", console=Console())
    assert files_in(tmp_path / "out") == ["scan.nii.gz"]
    assert any("pip install 'trivox[dicom]'" in line for line in lines)


def test_a_missing_package_that_is_asked_for_is_named(
    model, series, tmp_path, monkeypatch
):
    def missing(name, *, extra):
        raise ResourceError(f"{name} is not installed")

    monkeypatch.setattr(formats, "optional_package", missing)
    with pytest.raises(ResourceError, match="highdicom is not installed"):
        predict(model, series, tmp_path / "out", format="dicom-seg")
    assert not (tmp_path / "out").exists()


def test_labels_go_by_the_cases_own_values(model, series):
    predictor = Predictor.load(model, device="cpu")
    scheme = LabelScheme(labels={"c": 5, "a": 9})
    case = Case(name="scan", images=(series,), labels=scheme)
    made = predictor.predict_case(case)
    result = label_result(predictor, case, made, ResultOptions())
    assert result.names == {"a": 9, "c": 5}
    assert result.segments == {"a": (9,), "b": (), "c": (5,)}
    assert set(np.unique(result.labels.array)) == {0, 5, 9}


def test_the_model_is_known_by_its_weights(model, regional, series):
    identities = []
    for each in (model, regional):
        predictor = Predictor.load(each, device="cpu")
        case = Case(name="scan", images=(series,))
        made = predictor.predict_case(case)
        identities.append(label_result(predictor, case, made, ResultOptions()).model)
    first, second = identities
    assert first.name == "untrained nnunet-plain"
    assert first.version == trivox.__version__
    assert len(first.sha256) == 64
    assert first.sha256 != second.sha256


def test_a_case_of_several_series_lies_on_that_of_its_first_channel(tmp_path):
    for channel in ("T1", "T2"):
        write_series(tmp_path / f"p_{channel}", SeriesInstanceUID=f"1.2.{channel[1]}")
    images = (tmp_path / "p_T2", tmp_path / "p_T1")
    source = series_of_case(Case(name="p", images=images))
    assert source.first.SeriesInstanceUID == "1.2.2"
