"""Predictions and references that name their segments, in any pair of forms."""

import json

import numpy as np
import pytest

import segmentation_files as files
from trivox.errors import DataError
from trivox.evaluation.folders.labels import evaluate_folders
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume

SHAPE = (5, 8, 9)
AFFINE = np.diag([-0.7, -0.8, 2.5, 1.0])
AFFINE[:3, 3] = (9, 8, -7)
NAMES = ["liver", "tumour"]
FORMS = ("nifti", "seg", "slicer")


def masks_of(*, moved):
    masks = np.zeros((2, *SHAPE), bool)
    masks[0, 1 + moved : 3 + moved, 1:5, 1:6] = True
    masks[1, 1 + moved, 6:8, 2:4] = True
    return masks


def write(folder, form, *, moved=0, shape=SHAPE):
    folder.mkdir(parents=True, exist_ok=True)
    masks = masks_of(moved=moved)
    labels = (masks[0] + 2 * masks[1]).astype(np.uint8)
    if form == "nifti":
        write_volume(folder / "a.nii.gz", Volume(labels[None], AFFINE))
    elif form == "seg":
        files.seg(folder / "a.seg.dcm", masks, AFFINE, names=NAMES)
    else:
        segments = [("liver", 0, 1), ("tumour", 0, 2)]
        files.slicer_file(folder / "a.seg.nrrd", labels[None], AFFINE, segments)


def dice_of(metrics):
    return {name: round(row["dice"], 6) for name, row in metrics["cases"]["a"].items()}


@pytest.mark.parametrize("reference", FORMS)
@pytest.mark.parametrize("prediction", FORMS)
def test_any_form_is_measured_against_any_other(tmp_path, prediction, reference):
    """Two segmentations lie on different slices: what only one of them has counts."""
    write(tmp_path / "p", prediction, moved=1)
    write(tmp_path / "r", reference)
    metrics = evaluate_folders(tmp_path / "p", tmp_path / "r", task="segmentation")
    values = list(dice_of(metrics).values())
    assert values == [0.5, 0.0]
    named = prediction != "nifti" or reference != "nifti"
    expected = NAMES if named else ["label_1", "label_2"]
    assert list(dice_of(metrics)) == expected


def test_what_the_model_meant_by_its_values_decides(tmp_path):
    write(tmp_path / "p", "nifti")
    files.seg(
        tmp_path / "r" / "a.dcm",
        masks_of(moved=0)[::-1],
        AFFINE,
        names=NAMES[::-1],  # numbers the other way round
    )
    record = {
        "labels": {"liver": 1, "tumour": 2},
        "model": "m",
        "files": {"a.nii.gz": "a"},
        "cases": {"a": {"output": "a.nii.gz"}},
    }
    (tmp_path / "p" / "predictions.json").write_text(json.dumps(record))
    metrics = evaluate_folders(tmp_path / "p", tmp_path / "r", task="segmentation")
    assert dice_of(metrics) == {"liver": 1.0, "tumour": 1.0}


def test_other_forms_of_a_prediction_are_not_measured_twice(tmp_path):
    for form in ("nifti", "seg"):
        write(tmp_path / "p", form)
    files.rtstruct(tmp_path / "p" / "a.rtstruct.dcm", [("liver", [])])
    write(tmp_path / "r", "nifti")
    metrics = evaluate_folders(tmp_path / "p", tmp_path / "r", task="segmentation")
    assert dice_of(metrics) == {"label_1": 1.0, "label_2": 1.0}
    assert metrics["warnings"] == []


def test_structures_are_measured_on_the_image_of_their_dataset(tmp_path):
    contours = []
    for z in (1, 2):
        corners = [(0.5, 0.5), (5.5, 0.5), (5.5, 4.5), (0.5, 4.5)]
        indices = np.array([[x, y, z] for x, y in corners])
        contours.append(indices @ AFFINE[:3, :3].T + AFFINE[:3, 3])
    data = tmp_path / "data"
    uids = files.series(data / "images" / "a", AFFINE, SHAPE)
    files.rtstruct(data / "labels" / "a.dcm", [("liver", contours)], images=uids)
    masks = masks_of(moved=0)[:1]
    files.seg(tmp_path / "p" / "a.seg.dcm", masks, AFFINE, names=["Liver"])
    metrics = evaluate_folders(tmp_path / "p", data, task="segmentation")
    assert dice_of(metrics) == {"liver": 1.0}


def test_a_pair_without_a_grid_is_left_out_with_the_reason(tmp_path):
    files.rtstruct(tmp_path / "p" / "a.dcm", [("liver", [])])
    files.seg(tmp_path / "p" / "b.dcm", masks_of(moved=0), AFFINE, names=NAMES)
    for case in "ab":
        files.seg(
            tmp_path / "r" / f"{case}.dcm", masks_of(moved=0), AFFINE, names=NAMES
        )
    metrics = evaluate_folders(tmp_path / "p", tmp_path / "r", task="segmentation")
    assert [*metrics["cases"]] == ["b"]
    assert any(
        line.startswith("a: not measured: ") and "no voxels of their own" in line
        for line in metrics["warnings"]
    )


def test_a_cropped_label_map_is_measured_on_the_whole(tmp_path):
    labels = masks_of(moved=0)[0].astype(np.uint8)
    part = AFFINE.copy()
    part[:3, 3] += AFFINE[:3, :3] @ [1, 1, 1]
    write_volume(tmp_path / "r" / "a.nii.gz", Volume(labels[None], AFFINE))
    write_volume(tmp_path / "p" / "a.nii.gz", Volume(labels[None, 1:, 1:, 1:], part))
    for one, other in (("p", "r"), ("r", "p")):
        metrics = evaluate_folders(
            tmp_path / one, tmp_path / other, task="segmentation"
        )
        assert dice_of(metrics) == {"label_1": 1.0}
        assert any("part: covers a part" in line for line in metrics["warnings"])


def test_nothing_to_measure_says_why(tmp_path):
    files.seg(tmp_path / "p" / "a.dcm", masks_of(moved=0), AFFINE, names=NAMES)
    shifted = AFFINE.copy()
    shifted[0, 3] += 0.3
    files.seg(tmp_path / "r" / "a.dcm", masks_of(moved=0), shifted, names=NAMES)
    with pytest.raises(DataError, match="no voxels of the image"):
        evaluate_folders(tmp_path / "p", tmp_path / "r", task="segmentation")
