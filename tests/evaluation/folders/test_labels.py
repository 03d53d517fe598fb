import itertools
import json
import re
from functools import partial

import numpy as np
import pytest

from organ_maps import SPACING, label_map
from spoiled_cases import cut_off, emptied, link_to_itself, link_to_nothing, twice
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import LabelScheme
from trivox.errors import (
    BundleError,
    DataError,
    GeometryError,
    LabelError,
    RecipeError,
)
from trivox.evaluation.conventions.cases import evaluate_case
from trivox.evaluation.conventions.choice import CONVENTIONS
from trivox.evaluation.folders.labels import (
    collect_metrics,
    evaluate_folders,
    read_metrics,
    summarise_cases,
)
from trivox.files import write_json
from trivox.inference.doubt.kinds import EXTRAS
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.geometry import Orientation, reorient
from trivox.volumes.volume import Volume, affine_from_spacing

TASK = "segmentation"
SHIFTS = {"a": 0, "b": 1, "c": 2}
measure_folders = partial(evaluate_folders, task=TASK)


def save(path, labels, spacing=SPACING):
    write_volume(path, Volume(labels[None], affine_from_spacing(spacing)))


@pytest.fixture
def folders(tmp_path):
    predictions = tmp_path / "predictions"
    references = tmp_path / "references"
    for case, shift in SHIFTS.items():
        save(predictions / f"{case}.nii.gz", label_map(shift) * 7)
        save(references / f"{case}.nii.gz", label_map() * 7)
    return predictions, references


def test_folders_give_what_the_cases_give(folders):
    scheme = LabelScheme(labels={"organ": 7, "tumour": 14})
    metrics = measure_folders(*folders, labels=scheme)
    for case, shift in SHIFTS.items():
        expected = evaluate_case(
            label_map(shift), label_map(), spacing=SPACING, targets=scheme.targets
        )
        assert metrics["cases"][case] == expected
    assert metrics == measure_folders(*folders, labels=scheme, workers=1)
    assert metrics["warnings"] == []
    json.dumps(metrics, allow_nan=False)


def test_a_map_that_is_measured_against_itself_is_said(folders):
    predictions, references = folders
    (predictions / "b.nii.gz").unlink()
    (predictions / "b.nii.gz").symlink_to(references / "b.nii.gz")
    (line,) = measure_folders(predictions, references)["warnings"]
    assert "reference of 1 of 3 cases are one file" in line
    (line,) = measure_folders(references, references)["warnings"]
    assert line.endswith("measured against itself: a, b, c")


@pytest.mark.parametrize(
    ("meant", "refused"),
    [
        ({"organ": 7, "tumour": 14}, False),
        ({"organ": 14, "tumour": 7}, True),
        ({"liver": 14}, False),
        ({"organ": 14, "lesion": 7}, True),
        ("damaged", False),
    ],
)
def test_predictions_of_another_meaning_are_refused(folders, meant, refused):
    predictions, references = folders
    record = {"model": "a", "cases": {}, "files": {}, "labels": meant}
    write_json(predictions / "predictions.json", record)
    images = predictions.parent / "data"
    rows = []
    for case in SHIFTS:
        name = f"{case}.nii.gz"
        save(images / name, label_map())
        rows.append({"case": case, "images": [name], "label": str(references / name)})
    content = {"labels": {"organ": 7, "tumour": 14}, "cases": rows}
    manifest = predictions.parent / "data" / "manifest.json"
    write_json(manifest, content)
    if refused:
        with pytest.raises(LabelError, match="organ is 14 in the predictions and 7 in"):
            measure_folders(predictions, manifest)
    else:
        assert len(measure_folders(predictions, manifest)["cases"]) == 3


def test_values_name_labels_that_nobody_declared(folders):
    assert set(measure_folders(*folders)["cases"]["a"]) == {"label_7", "label_14"}


def test_regions_overlap(folders):
    scheme = LabelScheme(
        labels={"o": 7, "t": 14},
        regions={"whole": (7, 14), "core": (14,)},
        region_order=(7, 14),
    )
    metrics = measure_folders(*folders, labels=scheme)["cases"]["b"]
    expected = evaluate_case(
        label_map(1),
        label_map(),
        spacing=SPACING,
        targets={"whole": (1, 2), "core": (2,)},
    )
    assert metrics == expected


def test_summary_and_mean_of_labels(folders):
    metrics = measure_folders(*folders)
    cases = metrics["cases"].values()
    dice = [case["label_7"]["dice"] for case in cases]
    other_dice = [case["label_14"]["dice"] for case in cases]
    summary = metrics["summary"]
    assert summary["label_7"]["dice"]["mean"] == pytest.approx(np.mean(dice))
    assert summary["mean"]["dice"]["mean"] == pytest.approx(np.mean(dice + other_dice))
    assert summary["mean"]["dice"]["n"] == 3
    assert metrics["convention"]["tolerance_mm"] == 2.0


def test_summary_counts_empty_and_missed_cases():
    organ = label_map(tumour=False)
    empty = np.zeros_like(organ)
    pairs = {
        "miss": (empty, organ),
        "extra": (organ, empty),
        "none": (empty, empty),
        "hit": (organ, organ),
    }
    cases = {
        name: evaluate_case(p, r, spacing=SPACING, targets={"organ": (1,)})
        for name, (p, r) in pairs.items()
    }
    row = collect_metrics(cases, task=TASK)["summary"]["organ"]
    assert (row["n_empty"], row["n_missed"], row["n_spurious"]) == (1, 1, 1)
    assert (row["dice"]["n"], row["dice"]["mean"]) == (3, pytest.approx(1 / 3))
    assert (row["hd95_mm"]["n"], row["hd95_mm"]["mean"]) == (1, 0)


def test_label_called_mean_keeps_its_row():
    case = evaluate_case(
        label_map(),
        label_map(1),
        spacing=SPACING,
        targets={"mean": (1,), "other": (2,)},
    )
    summary = summarise_cases({"a": case})
    assert set(summary) == {"mean", "other", "mean_of_labels"}
    assert summary["mean"]["dice"]["mean"] == case["mean"]["dice"]


def test_files_without_counterpart_are_named(folders):
    predictions, references = folders
    (predictions / "b.nii.gz").rename(predictions / "x.nii.gz")
    metrics = measure_folders(predictions, references)
    assert set(metrics["cases"]) == {"a", "c"}
    assert [warning.rsplit(": ", 1) for warning in metrics["warnings"]] == [
        ["prediction without reference, not measured", "x"],
        ["reference without prediction, not measured", "b"],
    ]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "spoil", [cut_off, emptied, link_to_nothing, link_to_itself, twice]
)
def test_a_file_that_cannot_be_read_is_named_and_the_others_are_measured(
    folders, which, spoil
):
    whole = measure_folders(*folders)
    spoil(folders[which] / "b.nii.gz")
    metrics = measure_folders(*folders)
    assert metrics["cases"] == {n: whole["cases"][n] for n in ("a", "c")}
    assert [w for w in metrics["warnings"] if re.search(r"(^b|: b)(:|$)", w)]
    for name in ("a", "c"):
        cut_off(folders[which] / f"{name}.nii.gz")
    with pytest.raises(DataError):
        measure_folders(*folders)


def test_what_predict_writes_beside_a_label_map_is_not_taken_for_one(folders):
    predictions, references = folders
    name = sorted(
        path.name.removesuffix(".nii.gz") for path in predictions.glob("*.nii.gz")
    )[0]
    before = measure_folders(predictions, references)
    for extra in EXTRAS:
        doubt = Volume(
            np.full((1, 4, 5, 6), 0.3, np.float32), affine_from_spacing((1.0, 1.0, 1.0))
        )
        write_volume(predictions / f"{name}_{extra}.nii.gz", doubt)
    after = measure_folders(predictions, references)
    # of the detection map that is none
    assert all("lesions" in warning for warning in after.pop("warnings"))
    assert after | {"warnings": before["warnings"]} == before


def test_dataset_as_reference_names_the_labels_and_does_not_ask_for_all_cases(
    tmp_path, folders
):
    root = tmp_path / "dataset"
    for case in "abcd":
        save(root / "imagesTr" / f"{case}_0000.nii.gz", label_map())
        save(root / "labelsTr" / f"{case}.nii.gz", label_map())
        save(folders[0] / f"{case}.nii.gz", label_map())
    (folders[0] / "d.nii.gz").unlink()
    labels = {"background": 0, "organ": 1, "tumour": 2}
    description = {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    write_json(root / "dataset.json", description)
    metrics = measure_folders(folders[0], root)
    assert (set(metrics["cases"]), metrics["warnings"]) == ({"a", "b", "c"}, [])
    assert set(metrics["cases"]["a"]) == {"organ", "tumour"}


def test_references_may_carry_a_suffix_and_files_may_be_given(folders):
    predictions, references = folders
    (references / "a.nii.gz").rename(references / "a_seg.nii.gz")
    assert set(measure_folders(predictions, references)["cases"]) == {"a", "b", "c"}
    assert set(
        measure_folders(predictions / "c.nii.gz", references / "a_seg.nii.gz")["cases"]
    ) == {"c"}


def test_all_cases_on_other_grids_are_named_in_one_line(folders):
    predictions, references = folders
    save(predictions / "a.nii.gz", label_map() * 7, spacing=(2.0, 1.0, 0.6))
    save(predictions / "c.nii.gz", label_map()[1:] * 7, spacing=(2.0, 1.0, 0.6))
    with pytest.raises(GeometryError, match=r"a: .* mm.*; c: .*sizes differ") as caught:
        measure_folders(predictions, references)
    assert "\n" not in str(caught.value)


def test_nothing_in_common_is_an_error(tmp_path, folders):
    save(tmp_path / "other" / "z.nii.gz", label_map())
    with pytest.raises(DataError, match="no case name is in both"):
        measure_folders(folders[0], tmp_path / "other")
    with pytest.raises(DataError, match="not found"):
        measure_folders(tmp_path / "nowhere", folders[1])
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="no label maps"):
        measure_folders(tmp_path / "bare", folders[1])


def test_undeclared_values_name_the_case(folders):
    with pytest.raises(LabelError, match="a: prediction"):
        measure_folders(*folders, labels=LabelScheme(labels={"organ": 7}))


def test_conventions_of_challenges_warn_where_their_terms_are_not_met(folders):
    regions, spacing = measure_folders(*folders, convention="brats-instance")[
        "warnings"
    ]
    assert "declares no regions" in regions
    assert "not 1 mm wide in a, b, c" in spacing
    scheme = LabelScheme(
        labels={"o": 7, "t": 14}, regions={"whole": (7, 14)}, region_order=(7,)
    )
    met = measure_folders(*folders, labels=scheme, convention="brats-legacy")
    assert met["warnings"] == []


def test_unknown_convention_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(RecipeError, match="does not exist"):
        measure_folders(tmp_path / "a", tmp_path / "b", convention="brats-2030")


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_brats_cases_of_every_family(tmp_path, convention):
    """The reference of each family is written in its own values, and so is the
    prediction that is compared with it.
    """
    values = {
        "BraTS20_Training_001": 4,
        "BraTS2021_00000": 4,
        "BraTS-GLI-00000-000": 3,
        "BraTS-GLI-00001-100": 3,
    }
    results = []
    for case, et in values.items():
        root = tmp_path / case
        save_brats_case(root, case, et)
        metrics = measure_folders(root / "out", root / "data", convention=convention)
        assert metrics["warnings"] == []
        regions = metrics["cases"][case]
        cavity = {"RC"} if case.endswith("-100") else set()
        assert set(regions) == {"WT", "TC", "ET"} | cavity
        results.append({name: regions[name] for name in ("WT", "TC", "ET")})
    assert all(result == results[0] for result in results)
    assert 0 < results[0]["WT"]["dice"] < 1


def save_brats_case(root, case, et):
    """`data` with the files of a case as its family names them, and a prediction in
    `out`; et: value of the enhancing tumour.
    """
    sequences = ("t1", "t1ce", "t2", "flair")
    separator = "_"
    if "-" in case:
        sequences = ("t1n", "t1c", "t2w", "t2f")
        separator = "-"
    spacing = (1.0, 1.0, 1.0)
    stem = f"{case}{separator}"
    folder = root / "data" / case
    for sequence in sequences:
        image = label_map().astype(np.float32)
        save(folder / f"{stem}{sequence}.nii.gz", image, spacing)
    save(folder / f"{stem}seg.nii.gz", written(label_map(), et), spacing)
    save(root / "out" / f"{case}.nii.gz", written(label_map(1), et), spacing)


def written(labels, et):
    return np.select([labels == 1, labels == 2], [2, et])


def test_a_case_with_values_of_its_own_is_read_by_them(tmp_path, monkeypatch):
    of_case_b = LabelScheme(
        labels={"o": 1, "t": 9},
        regions={"whole": (1, 9), "core": (9,)},
        region_order=(1, 9),
    )
    common = LabelScheme(
        labels={"o": 1, "t": 2},
        regions={"whole": (1, 2), "core": (2,)},
        region_order=(1, 2),
    )
    cases = []
    for case, value, scheme in (("a", 2, None), ("b", 9, of_case_b)):
        for folder, labels in (("out", label_map(1)), ("labels", label_map())):
            save(
                tmp_path / folder / f"{case}.nii.gz",
                np.where(labels == 2, value, labels),
            )
        label = tmp_path / "labels" / f"{case}.nii.gz"
        cases.append(
            Case(name=case, images=(tmp_path / "none",), label=label, labels=scheme)
        )
    dataset = Dataset(
        name="d",
        root=tmp_path,
        layout="x",
        channels=("T1",),
        labels=common,
        cases=tuple(cases),
    )
    monkeypatch.setattr(
        "trivox.evaluation.folders.pairs.load_dataset", lambda path: dataset
    )
    (tmp_path / "data").mkdir()
    cases = measure_folders(tmp_path / "out", tmp_path / "data")["cases"]
    assert cases["a"] == cases["b"]


# -- the file --------------------------------------------------------------------------
def test_the_file_says_its_task_and_its_format_first(folders):
    metrics = evaluate_folders(*folders, task="multitask")
    assert list(metrics)[:2] == ["task", "format_version"]
    assert (metrics["task"], metrics["format_version"]) == ("multitask", 1)


def test_files_of_0_1_0_are_read_as_they_are(folders, tmp_path):
    """They have neither task nor format version, and none is guessed."""
    metrics = measure_folders(*folders)
    old = {
        key: metrics[key] for key in metrics if key not in ("task", "format_version")
    }
    for content in (metrics, old):
        write_json(tmp_path / "metrics.json", content)
        assert read_metrics(tmp_path / "metrics.json") == content


def test_another_format_is_refused(folders, tmp_path):
    metrics = measure_folders(*folders)
    write_json(tmp_path / "metrics.json", {**metrics, "format_version": 2})
    with pytest.raises(BundleError, match="metrics format 2 is not 1"):
        read_metrics(tmp_path / "metrics.json")


@pytest.mark.parametrize("axes", [*itertools.permutations(range(3))])
def test_a_prediction_in_another_order_of_axes_measures_the_same(folders, axes):
    predictions, references = folders
    for case in "ac":
        (references / f"{case}.nii.gz").unlink()
    expected = measure_folders(predictions, references)
    for flips in itertools.product((True, False), repeat=3):
        for file in references.iterdir():
            volume = read_volume(predictions / file.name)
            other = reorient(volume, Orientation(axes, flips))
            write_volume(predictions / file.name, other)
        measured = measure_folders(predictions, references)
        assert measured["cases"] == expected["cases"]
        assert measured["summary"] == expected["summary"]


def test_a_sheared_reference_is_measured_in_the_world(tmp_path):
    affine = affine_from_spacing(SPACING)
    affine[0, 2] = 0.5 * SPACING[0]
    for folder, shift in (("predictions", 1), ("references", 0)):
        volume = Volume(label_map(shift)[None], affine)
        write_volume(tmp_path / folder / "a.nii.gz", volume)
    found = measure_folders(tmp_path / "predictions", tmp_path / "references")
    expected = evaluate_case(
        label_map(1),
        label_map(),
        spacing=volume.steps,
        targets={"label_1": (1,), "label_2": (2,)},
    )
    for name, row in expected.items():
        assert found["cases"]["a"][name] == pytest.approx(row)
    voxels = int((label_map() == 1).sum())
    volume_ml = found["cases"]["a"]["label_1"]["reference_volume_ml"]
    assert volume_ml == pytest.approx(voxels * abs(np.linalg.det(affine[:3, :3])) / 1e3)
