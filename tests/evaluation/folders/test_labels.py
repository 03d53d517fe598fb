import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import IGNORED, LabelScheme
from trivox.errors import DataError, GeometryError, LabelError, RecipeError
from trivox.evaluation.conventions.cases import evaluate_case
from trivox.evaluation.conventions.choice import CONVENTIONS
from trivox.evaluation.folders.labels import (
    collect_metrics,
    evaluate_folders,
    summarise_cases,
)
from trivox.evaluation.metrics import overlap
from trivox.evaluation.metrics.surfaces import surface_distances
from trivox.files import write_json
from trivox.inference.doubt.kinds import EXTRAS
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

SPACING = (2.0, 1.0, 0.5)
AVERAGED = (
    "dice",
    "iou",
    "sensitivity",
    "precision",
    "hd95_mm",
    "assd_mm",
    "nsd",
    "nsd_voxel",
)
TARGETS = {"organ": (1,), "tumour": (2,), "whole": (1, 2)}


def label_map(shift=0, tumour=True):
    labels = np.zeros((12, 16, 20), np.int16)
    labels[3:9, 3:12, 3 + shift : 14 + shift] = 1
    if tumour:
        labels[4:6, 5:8, 6 + shift : 9 + shift] = 2
    return labels


def save(path, labels, spacing=SPACING):
    write_volume(path, Volume(labels[None], affine_from_spacing(spacing)))


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), spacing=st.tuples(*[st.floats(0.3, 4)] * 3))
def test_case_equals_each_target_measured_alone(seed, spacing):
    prediction, reference = (
        np.random.default_rng(seed).integers(0, 4, (2, 7, 8, 9)).astype(np.int16)
    )
    for name, result in evaluate_case(
        prediction, reference, spacing=spacing, targets=TARGETS
    ).items():
        a, b = (np.isin(array, TARGETS[name]) for array in (prediction, reference))
        counts = overlap.confusion(a, b)
        voxel, mesh = (
            surface_distances(a, b, spacing=spacing, convention=c)
            for c in ("voxel", "mesh")
        )
        assert result["dice"] == overlap.dice(counts)
        assert result["precision"] == overlap.precision(counts)
        assert result["volume_ml"] == pytest.approx(a.sum() * np.prod(spacing) / 1000)
        assert result["hd95_mm"] == pytest.approx(voxel.hausdorff_mm())
        assert result["assd_mm"] == pytest.approx(voxel.average_mm())
        assert result["nsd"] == pytest.approx(mesh.surface_dice(2.0))
        assert result["nsd_voxel"] == pytest.approx(voxel.surface_dice(2.0))


def test_perfect_prediction():
    result = evaluate_case(label_map(), label_map(), spacing=SPACING, targets=TARGETS)[
        "whole"
    ]
    assert [result[key] for key in AVERAGED] == [1, 1, 1, 1, 0, 0, 1, 1]
    assert (result["volume_error_ml"], "empty" in result) == (0, False)


def test_empty_masks_follow_the_convention():
    with_it, without = label_map(), label_map(tumour=False)
    both, missed, spurious = (
        evaluate_case(p, r, spacing=SPACING, targets={"tumour": (2,)})["tumour"]
        for p, r in ((without, without), (without, with_it), (with_it, without))
    )
    assert (both["empty"], {both[key] for key in AVERAGED}) == ("both", {None})
    for result, empty in ((missed, "prediction"), (spurious, "reference")):
        assert result["empty"] == empty
        assert [result[key] for key in ("dice", "iou", "nsd", "nsd_voxel")] == [0] * 4
        assert result["hd95_mm"] is result["assd_mm"] is None
    assert (missed["sensitivity"], missed["precision"]) == (0, None)
    far = evaluate_case(
        without,
        with_it,
        spacing=SPACING,
        targets={"tumour": (2,)},
        hd95_if_missed="diagonal",
    )
    assert far["tumour"]["hd95_mm"] == pytest.approx(np.linalg.norm([24, 16, 10]))
    same = evaluate_case(
        without,
        without,
        spacing=SPACING,
        targets={"tumour": (2,)},
        hd95_if_missed="diagonal",
    )
    assert same["tumour"]["hd95_mm"] is None


def test_ignored_voxels_count_nowhere():
    prediction, reference = label_map(), label_map()
    prediction[0], reference[0] = 2, IGNORED
    assert evaluate_case(
        prediction, reference, spacing=SPACING, targets=TARGETS
    ) == evaluate_case(label_map(), label_map(), spacing=SPACING, targets=TARGETS)


def test_tolerance_for_each_target():
    arrays = label_map(shift=3), label_map()
    wide = evaluate_case(
        *arrays, spacing=SPACING, targets=TARGETS, tolerance_mm={"organ": 0.5}
    )
    assert (
        wide["organ"]
        == evaluate_case(*arrays, spacing=SPACING, targets=TARGETS, tolerance_mm=0.5)[
            "organ"
        ]
    )
    assert (
        wide["whole"]
        == evaluate_case(*arrays, spacing=SPACING, targets=TARGETS)["whole"]
    )


def test_different_shapes_are_refused():
    with pytest.raises(GeometryError, match="shape"):
        evaluate_case(label_map(), label_map()[1:], spacing=SPACING, targets=TARGETS)


@pytest.fixture
def folders(tmp_path):
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    for case, shift in (("a", 0), ("b", 1), ("c", 2)):
        save(predictions / f"{case}.nii.gz", label_map(shift) * 7)
        save(references / f"{case}.nii.gz", label_map() * 7)
    return predictions, references


def test_folders_give_what_the_cases_give(folders):
    scheme = LabelScheme(labels={"organ": 7, "tumour": 14})
    metrics = evaluate_folders(*folders, labels=scheme)
    for case, shift in (("a", 0), ("b", 1), ("c", 2)):
        expected = evaluate_case(
            label_map(shift), label_map(), spacing=SPACING, targets=scheme.targets
        )
        assert metrics["cases"][case] == expected
    assert metrics == evaluate_folders(*folders, labels=scheme, workers=1)
    assert metrics["warnings"] == []
    json.dumps(metrics, allow_nan=False)


def test_values_name_labels_that_nobody_declared(folders):
    assert set(evaluate_folders(*folders)["cases"]["a"]) == {"label_7", "label_14"}


def test_regions_overlap(folders):
    scheme = LabelScheme(
        labels={"o": 7, "t": 14},
        regions={"whole": (7, 14), "core": (14,)},
        region_order=(7, 14),
    )
    metrics = evaluate_folders(*folders, labels=scheme)["cases"]["b"]
    expected = evaluate_case(
        label_map(1),
        label_map(),
        spacing=SPACING,
        targets={"whole": (1, 2), "core": (2,)},
    )
    assert metrics == expected


def test_summary_and_mean_of_labels(folders):
    metrics = evaluate_folders(*folders)
    dice = [
        [case[label]["dice"] for label in ("label_7", "label_14")]
        for case in metrics["cases"].values()
    ]
    assert metrics["summary"]["label_7"]["dice"]["mean"] == pytest.approx(
        np.mean(dice, axis=0)[0]
    )
    assert metrics["summary"]["mean"]["dice"]["mean"] == pytest.approx(np.mean(dice))
    assert metrics["summary"]["mean"]["dice"]["n"] == 3
    assert metrics["convention"]["tolerance_mm"] == 2.0


def test_summary_counts_empty_and_missed_cases():
    organ, empty = label_map(tumour=False), label_map() * 0
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
    row = collect_metrics(cases)["summary"]["organ"]
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
    metrics = evaluate_folders(predictions, references)
    assert set(metrics["cases"]) == {"a", "c"}
    assert [warning.rsplit(": ", 1) for warning in metrics["warnings"]] == [
        ["prediction without reference, not measured", "x"],
        ["reference without prediction, not measured", "b"],
    ]


def test_what_predict_writes_beside_a_label_map_is_not_taken_for_one(folders):
    predictions, references = folders
    name = sorted(
        path.name.removesuffix(".nii.gz") for path in predictions.glob("*.nii.gz")
    )[0]
    before = evaluate_folders(predictions, references)
    for extra in EXTRAS:
        doubt = Volume(
            np.full((1, 4, 5, 6), 0.3, np.float32), affine_from_spacing((1.0, 1.0, 1.0))
        )
        write_volume(predictions / f"{name}_{extra}.nii.gz", doubt)
    assert evaluate_folders(predictions, references) == before


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
    metrics = evaluate_folders(folders[0], root)
    assert (set(metrics["cases"]), metrics["warnings"]) == ({"a", "b", "c"}, [])
    assert set(metrics["cases"]["a"]) == {"organ", "tumour"}


def test_references_may_carry_a_suffix_and_files_may_be_given(folders):
    predictions, references = folders
    (references / "a.nii.gz").rename(references / "a_seg.nii.gz")
    assert set(evaluate_folders(predictions, references)["cases"]) == {"a", "b", "c"}
    assert set(
        evaluate_folders(predictions / "c.nii.gz", references / "a_seg.nii.gz")["cases"]
    ) == {"c"}


def test_all_cases_on_other_grids_are_named_in_one_line(folders):
    predictions, references = folders
    save(predictions / "a.nii.gz", label_map() * 7, spacing=(2.0, 1.0, 0.6))
    save(predictions / "c.nii.gz", label_map()[1:] * 7)
    with pytest.raises(GeometryError, match=r"a: .* mm.*; c: .*sizes differ") as caught:
        evaluate_folders(predictions, references)
    assert "\n" not in str(caught.value)


def test_nothing_in_common_is_an_error(tmp_path, folders):
    save(tmp_path / "other" / "z.nii.gz", label_map())
    with pytest.raises(DataError, match="no case name is in both"):
        evaluate_folders(folders[0], tmp_path / "other")
    with pytest.raises(DataError, match="not found"):
        evaluate_folders(tmp_path / "nowhere", folders[1])
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="no label maps"):
        evaluate_folders(tmp_path / "bare", folders[1])


def test_undeclared_values_name_the_case(folders):
    with pytest.raises(LabelError, match="a: prediction"):
        evaluate_folders(*folders, labels=LabelScheme(labels={"organ": 7}))


def test_conventions_of_challenges_warn_where_their_terms_are_not_met(folders):
    told = evaluate_folders(*folders, convention="brats-instance")["warnings"]
    assert len(told) == 2
    assert "declares no regions" in told[0]
    assert "not 1 mm wide in a, b, c" in told[1]
    scheme = LabelScheme(
        labels={"o": 7, "t": 14}, regions={"whole": (7, 14)}, region_order=(7,)
    )
    assert (
        evaluate_folders(*folders, labels=scheme, convention="brats-legacy")["warnings"]
        == []
    )


def test_unknown_convention_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(RecipeError, match="does not exist"):
        evaluate_folders(tmp_path / "a", tmp_path / "b", convention="brats-2030")


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
    grown = label_map(1)
    results = []
    for case, et in values.items():
        sep, sequences = (
            ("-", ("t1n", "t1c", "t2w", "t2f"))
            if "-" in case
            else ("_", ("t1", "t1ce", "t2", "flair"))
        )
        root = tmp_path / case
        for sequence in sequences:
            save(
                root / "data" / case / f"{case}{sep}{sequence}.nii.gz",
                label_map().astype(np.float32),
                (1.0, 1.0, 1.0),
            )
        for name, labels in (
            (root / "data" / case / f"{case}{sep}seg", label_map()),
            (root / "out" / case, grown),
        ):
            save(
                name.with_name(name.name + ".nii.gz"),
                np.select([labels == 1, labels == 2], [2, et]),
                (1.0, 1.0, 1.0),
            )
        metrics = evaluate_folders(root / "out", root / "data", convention=convention)
        assert metrics["warnings"] == []
        regions = metrics["cases"][case]
        assert set(regions) == {
            "WT",
            "TC",
            "ET",
            *(["RC"] if case.endswith("-100") else []),
        }
        results.append({name: regions[name] for name in ("WT", "TC", "ET")})
    assert all(result == results[0] for result in results)
    assert 0 < results[0]["WT"]["dice"] < 1


def test_a_case_with_values_of_its_own_is_read_by_them(tmp_path, monkeypatch):
    own = LabelScheme(
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
    for case, value, scheme in (("a", 2, None), ("b", 9, own)):
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
        "trivox.datasets.layouts.choice.load_dataset", lambda path: dataset
    )
    (tmp_path / "data").mkdir()
    found = evaluate_folders(tmp_path / "out", tmp_path / "data")["cases"]
    assert found["a"] == found["b"]
