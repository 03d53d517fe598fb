"""DICOM SEG, RTSTRUCT and segmentations of 3D Slicer as labels, in every layout."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import segmentation_files as files
from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.listing import common_values
from trivox.datasets.reading import read_case
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume

SHAPE = (4, 6, 8)
AFFINE = np.diag([-0.7, -0.8, 2.5, 1.0])
AFFINE[:3, 3] = (9, 8, -7)
CASES = ("a", "b", "c")
FORMS = ("seg", "rtstruct", "slicer", "folder")
NAMES = ["liver", "tumour"]


def masks_of(case):
    masks = np.zeros((2, *SHAPE), bool)
    start = CASES.index(case)
    masks[0, 1:3, 1:4, 1 + start : 5 + start] = True
    masks[1, 3, 1:3, 2:4] = True
    return masks


def truth_of(case):
    masks = masks_of(case)
    return masks[0] + 2 * masks[1]


def label_file(folder, case, form, uids=()):
    """A label of a case in a form; the path."""
    folder.mkdir(parents=True, exist_ok=True)
    masks = masks_of(case)
    if form == "slicer":
        path = folder / f"{case}.seg.nrrd"
        segments = [("liver", 0, 1), ("tumour", 0, 2)]
        files.slicer_file(path, truth_of(case)[None], AFFINE, segments)
        return path
    if form == "rtstruct":
        path = folder / f"{case}.rtstruct.dcm"
        rois = [
            (name, contours_of(mask)) for name, mask in zip(NAMES, masks, strict=True)
        ]
        files.rtstruct(path, rois, images=uids)
        return path
    name = f"{case}/1.dcm" if form == "folder" else f"{case}.seg.dcm"
    files.seg(folder / name, masks, AFFINE, names=NAMES, images=uids)
    return folder / name


def contours_of(mask):
    """Rectangles round the voxels of each slice."""
    contours = []
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        rows = np.flatnonzero(mask[z].any(axis=1))
        columns = np.flatnonzero(mask[z].any(axis=0))
        low = (columns[0] - 0.5, rows[0] - 0.5)
        high = (columns[-1] + 0.5, rows[-1] + 0.5)
        corners = [low, (high[0], low[1]), high, (low[0], high[1])]
        indices = np.array([[x, y, z] for x, y in corners])
        contours.append(indices @ AFFINE[:3, :3].T + AFFINE[:3, 3])
    return contours


def image_of(folder, case, *, dicom):
    folder.mkdir(parents=True, exist_ok=True)
    seed = CASES.index(case)
    if dicom:
        return files.series(folder / case, AFFINE, SHAPE, uid=f"1.2.{seed}", seed=seed)
    values = np.random.default_rng(seed).normal(size=(1, *SHAPE)).astype(np.float32)
    write_volume(folder / f"{case}.nii.gz", Volume(values, AFFINE))
    return ()


def require_all(root, *, cases=CASES):
    """Every case reads as the truth, and a check finds no error."""
    dataset = load_dataset(root)
    assert {case.name for case in dataset.cases} == set(cases)
    values = dataset.labels.labels
    assert set(values) == set(NAMES)
    for case in dataset.cases:
        assert case.label is not None, case.name
        read = read_case(case, channels=1, labels=dataset.labels)
        source = read_volume(case.images[0], choice=case.choice)
        expected = dataset.labels.encode(
            np.array([0, values["liver"], values["tumour"]])[truth_of(case.name)]
        )
        whole = np.zeros(read.canonical_shape, np.int16)
        whole[tuple(slice(*edge) for edge in read.box)] = read.label
        stored = read.orientation.undo(whole[None])[0]
        np.testing.assert_array_equal(stored, expected)
        assert source.shape == SHAPE
    report = check_dataset(dataset, workers=1)
    assert not report.errors, report.errors
    said = " ".join(finding.message for finding in report.warnings)
    assert "read as" in said
    return dataset


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dicom", [False, True])
def test_folders_of_images_and_labels(tmp_path, form, dicom):
    for case in CASES:
        uids = image_of(tmp_path / "images", case, dicom=dicom)
        label_file(tmp_path / "labels", case, form, uids)
    require_all(tmp_path)


@pytest.mark.parametrize("form", ["seg", "rtstruct", "slicer"])
def test_nnunet_raw(tmp_path, form):
    for case in CASES:
        image_of(tmp_path / "imagesTr", case, dicom=False)
        source = tmp_path / "imagesTr" / f"{case}.nii.gz"
        source.rename(source.with_name(f"{case}_0000.nii.gz"))
        path = label_file(tmp_path / "labelsTr", case, form)
        if form == "seg":
            path.rename(path.with_name(f"{case}.dcm"))
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "tumour": 1, "liver": 2},
        "file_ending": ".nii.gz",
        "numTraining": 3,
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    require_all(tmp_path)


def test_decathlon(tmp_path):
    pairs = []
    for case in CASES:
        image_of(tmp_path / "imagesTr", case, dicom=False)
        path = label_file(tmp_path / "labelsTr", case, "seg")
        image = f"./imagesTr/{case}.nii.gz"
        pairs.append({"image": image, "label": f"./labelsTr/{path.name}"})
    content = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "tumour"},
        "training": pairs,
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    require_all(tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_manifest(tmp_path, form):
    lines = ["case,image,label"]
    for case in CASES:
        uids = image_of(tmp_path / "x", case, dicom=True)
        path = label_file(tmp_path / "y", case, form, uids)
        lines.append(f"{case},x/{case},{path.relative_to(tmp_path)}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    require_all(tmp_path)


def test_class_folders(tmp_path):
    for case, side in zip(CASES, ("one", "two", "two"), strict=True):
        image_of(tmp_path / side, case, dicom=False)
        label_file(tmp_path / side, case, "seg")
    dataset = require_all(tmp_path)
    assert dataset.classes == ("one", "two")


@pytest.mark.parametrize("form", ["seg", "rtstruct"])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("several", [False, True])
def test_a_folder_a_patient(tmp_path, form, apart, several):
    for case in CASES:
        folder = tmp_path / case
        uids = image_of(tmp_path, case, dicom=True)
        if several or apart:
            shutil.move(folder, tmp_path / "moved")
            shutil.move(tmp_path / "moved", folder / "study" / "ct")
        if several:
            smaller = SHAPE[0] - 1, *SHAPE[1:]
            files.series(folder / "study" / "other", AFFINE, smaller, uid="1.2.77")
        beside = folder / "study" / "drawn" if several or apart else folder
        path = label_file(beside, case, form, uids)
        if form == "rtstruct":  # names of archives say nothing
            path.rename(path.with_name("1-1.dcm"))
        seed = CASES.index(case)
        if several:
            write_series_name(beside, f"1.2.{seed}")
    dataset = require_all(tmp_path)
    assert dataset.layout == "dicom"


def write_series_name(folder, uid):
    """The series that a segmentation names."""
    import pydicom

    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        if "ReferencedSeriesSequence" in dataset:
            dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = uid
        else:
            frames = dataset.ReferencedFrameOfReferenceSequence
            study = frames[0].RTReferencedStudySequence[0]
            study.RTReferencedSeriesSequence[0].SeriesInstanceUID = uid
        dataset.save_as(path)


def test_two_segmentations_of_a_patient_are_a_complaint(tmp_path):
    for case in CASES:
        uids = image_of(tmp_path, case, dicom=True)
        label_file(tmp_path / case, case, "seg", uids)
    label_file(tmp_path / "a", "b", "seg")
    dataset = load_dataset(tmp_path)
    by_name = {case.name: case for case in dataset.cases}
    assert "holds 2 segmentations" in by_name["a"].complaint
    assert not by_name["b"].complaint


def test_a_bad_segmentation_sets_its_case_aside(tmp_path):
    for case in CASES:
        uids = image_of(tmp_path / "images", case, dicom=True)
        label_file(tmp_path / "labels", case, "seg", uids)
    wrong = np.zeros((2, *SHAPE), bool)
    wrong[:, 1] = True
    files.seg(tmp_path / "labels" / "b.seg.dcm", wrong, AFFINE, names=NAMES)
    moved = AFFINE.copy()
    moved[0, 3] += 0.3
    masks = masks_of("c")
    files.seg(tmp_path / "labels" / "c.seg.dcm", masks, moved, names=NAMES)
    report = check_dataset(load_dataset(tmp_path), workers=1)
    codes = {finding.case: finding.code for finding in report.errors}
    assert codes == {"b": "segments", "c": "geometry-mismatch"}


names = st.dictionaries(
    st.sampled_from(["Liver", "liver", "cyst", "L1"]), st.integers(1, 5)
)


@given(st.lists(names, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_name_has_one_value_in_all_files(listed):
    values = common_values(listed)
    assert len({name.lower() for name in values}) == len(values)
    assert len(set(values.values())) == len(values)
    present = {name.lower() for named in listed for name in named}
    assert {name.lower() for name in values} == present
