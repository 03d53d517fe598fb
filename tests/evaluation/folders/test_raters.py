"""Several raters of the same cases, and where the model stands among them."""

import json
import shutil

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion
from typer.testing import CliRunner

import trivox
from impossible_bundles import altered
from trivox.cli import app
from trivox.datasets.labels import LabelScheme
from trivox.errors import (
    BundleError,
    DataError,
    GeometryError,
    LabelError,
    UsageError,
)
from trivox.evaluation.folders.labels import read_metrics
from trivox.evaluation.folders.rater_labels import require_one_meaning, targets_of_all
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

CASES = ("a", "b", "c", "d")
SPACING = (2.0, 1.0, 1.0)


def drawn(seed):
    """A label map of an organ (1) that holds a lesion (4)."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((10, 14, 16), np.uint8)
    z, y, x = rng.integers(1, 4, 3)
    labels[z : z + 6, y : y + 8, x : x + 9] = 1
    labels[z + 1 : z + 4, y + 2 : y + 5, x + 2 : x + 6] = 4
    return labels


def changed(labels, how):
    """The organ of another hand."""
    organ = how(labels > 0)
    return np.where(labels == 4, 4, organ).astype(np.uint8)


HANDS = {
    "anna": lambda mask: mask,
    "ben": binary_dilation,
    "cleo": binary_erosion,
    "model": lambda mask: np.roll(mask, 1, 2),
}


def written(folder, how, spacing=SPACING, names=CASES):
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(CASES):
        if name in names:
            labels = changed(drawn(seed), how)
            volume = Volume(labels[None], affine_from_spacing(spacing))
            write_volume(folder / f"{name}.nii.gz", volume)
    return folder


@pytest.fixture
def folders(tmp_path):
    """The label maps of a model and three raters."""
    return {name: written(tmp_path / name, how) for name, how in HANDS.items()}


def measured(folders, tmp_path, raters=("anna", "ben", "cleo"), **options):
    first, *others = [folders[name] for name in raters]
    out = tmp_path / "metrics.json"
    return trivox.evaluate(folders["model"], first, out, reference=others, **options)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def masks(name, seed, value):
    labels = changed(drawn(seed), HANDS[name])
    return labels == value


def test_raters_are_compared_with_one_another_and_with_the_model(folders, tmp_path):
    evaluation = measured(folders, tmp_path)
    section = read_metrics(evaluation.file)["raters"]
    assert section["cases"] == list(CASES)
    assert set(section["files"]) == {"anna", "ben", "cleo"}
    assert list(section["targets"]) == ["label_1", "label_4", "mean"]
    organ = section["targets"]["label_1"]
    by_case = []
    for seed in range(4):
        hands = {name: masks(name, seed, 1) for name in HANDS}
        by_case.append(
            {
                "ben": (dice(hands["ben"], hands["anna"]) + dice(hands["ben"], hands["cleo"])) / 2,
                "model": np.mean([dice(hands["model"], hands[n]) for n in ("anna", "ben", "cleo")]),
                "cleo": dice(hands["model"], hands["cleo"]),
            }
        )  # fmt: skip
    mean = {key: np.mean([case[key] for case in by_case]) for key in by_case[0]}
    assert organ["raters"]["ben"]["others"]["dice"]["mean"] == pytest.approx(
        mean["ben"]
    )
    assert organ["raters"]["cleo"]["model"]["dice"]["mean"] == pytest.approx(
        mean["cleo"]
    )
    assert organ["model"]["dice"]["mean"] == pytest.approx(mean["model"])
    difference = organ["model"]["dice"]["mean"] - organ["among"]["dice"]["mean"]
    assert organ["difference"]["dice"]["mean"] == pytest.approx(difference)
    # two of three have what anna has: the majority is she
    alone = organ["raters"]["anna"]["model"]
    assert organ["majority"]["dice"] == alone["dice"]
    assert organ["majority"]["hd95_mm"] == alone["hd95_mm"]
    assert organ["raters"]["cleo"]["sensitivity"]["mean"] < 0.8
    assert organ["raters"]["cleo"]["specificity"]["mean"] > 0.99
    lesion = section["targets"]["label_4"]
    assert lesion["among"]["dice"]["mean"] == 1
    both = section["targets"]["mean"]["among"]["dice"]["mean"]
    assert both == pytest.approx((1 + organ["among"]["dice"]["mean"]) / 2)


def test_distances_count_the_other_way(folders, tmp_path):
    organ = measured(folders, tmp_path).metrics["raters"]["targets"]["label_1"]
    apart = organ["among"]["hd95_mm"]["mean"] - organ["model"]["hd95_mm"]["mean"]
    assert organ["difference"]["hd95_mm"]["mean"] == pytest.approx(apart)


def test_the_other_figures_are_those_against_the_first_reference(folders, tmp_path):
    alone = measured(folders, tmp_path, ("anna",))
    assert "raters" not in alone.metrics
    assert alone.raters == []
    several = measured(folders, tmp_path)
    assert several.metrics["cases"] == alone.metrics["cases"]
    assert several.headline == alone.headline


@pytest.mark.parametrize(
    ("shift", "place"), [(0, "above"), (2, "within"), (5, "below")]
)
def test_it_is_said_where_the_model_stands(folders, tmp_path, shift, place):
    written(folders["model"], lambda mask: np.roll(mask, shift, 1))
    lines = measured(folders, tmp_path).raters
    assert f"the model is {place} the range of the raters" in lines[-1]
    assert len([line for line in lines if "with the other raters" in line]) == 3


def test_on_the_command_line(folders, tmp_path):
    out = tmp_path / "m.json"
    arguments = ["evaluate", folders["model"], folders["anna"], "--out", out]
    for name in ("ben", "cleo"):
        arguments += ["--reference", folders[name]]
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    assert "raters with one another" in result.output
    assert "with STAPLE" in result.output
    assert json.loads(out.read_text())["raters"]["cases"] == list(CASES)
    again = trivox.verify(out)
    assert not again.disagreements
    assert "agreement of raters is not measured again" in again.unchecked


def test_two_raters_in_folders_of_one_name(folders, tmp_path):
    for name in ("ben", "cleo"):
        (tmp_path / "of" / name).mkdir(parents=True)
        folders[name].rename(tmp_path / "of" / name / "labels")
        folders[name] = tmp_path / "of" / name / "labels"
    section = measured(folders, tmp_path, ("ben", "cleo")).metrics["raters"]
    assert list(section["files"]) == [str(folders[name]) for name in ("ben", "cleo")]


def test_cases_that_a_rater_lacks_are_said_and_left_out(folders, tmp_path):
    (folders["cleo"] / "b.nii.gz").unlink()
    evaluation = measured(folders, tmp_path)
    assert evaluation.metrics["raters"]["cases"] == ["a", "c", "d"]
    assert "cleo has no label map of b: raters are not compared there" in (
        evaluation.warnings
    )
    assert list(evaluation.metrics["cases"]) == list(CASES)


def test_a_rater_who_is_the_model_is_warned_of(folders, tmp_path):
    folders["cleo"] = folders["model"]
    warnings = measured(folders, tmp_path).warnings
    assert any(
        line.startswith("model: prediction and reference of 4") for line in warnings
    )


def refusal(folders, tmp_path, error, message, **options):
    out = tmp_path / "metrics.json"
    with pytest.raises(error, match=message) as caught:
        measured(folders, tmp_path, **options)
    assert len(str(caught.value).splitlines()) == 1
    assert not out.exists()


def test_what_cannot_be_compared_is_one_line(folders, tmp_path):
    twice = ("anna", "ben", "anna")
    refusal(folders, tmp_path, DataError, "anna: is given twice", raters=twice)
    written(folders["ben"], HANDS["ben"], spacing=(2.0, 1.0, 1.5))
    refusal(folders, tmp_path, GeometryError, "rater ben, a: .* share a grid")
    written(folders["ben"], HANDS["ben"])
    for name in CASES:
        (folders["ben"] / f"{name}.nii.gz").write_bytes(b"nothing")
    refusal(
        folders, tmp_path, DataError, "no case of all raters can be read: raters: a"
    )
    shutil.rmtree(folders["ben"])
    refusal(folders, tmp_path, DataError, "ben: not found")
    written(folders["ben"], HANDS["ben"], names=("a",))
    (folders["cleo"] / "a.nii.gz").unlink()
    refusal(folders, tmp_path, DataError, "no case has label maps of all raters")


def cut(file):
    """The header stays, voxels are lacking."""
    file.write_bytes(file.read_bytes()[:-40])


def overwrite(file):
    file.write_bytes(b"nothing")


@pytest.mark.parametrize("rater", ["anna", "cleo"])
@pytest.mark.parametrize("spoil", [cut, overwrite])
def test_a_case_of_which_a_rater_cannot_be_read_is_set_aside(
    folders, tmp_path, rater, spoil
):
    expected = measured(folders, tmp_path).metrics["raters"]
    spoil(folders[rater] / "c.nii.gz")
    evaluation = measured(folders, tmp_path)
    section = evaluation.metrics["raters"]
    assert section["cases"] == ["a", "b", "d"]
    said = [line for line in evaluation.warnings if line.startswith("raters: c: not")]
    assert len(said) == 1
    assert f"{rater}/c.nii.gz" in said[0]
    assert section["targets"].keys() == expected["targets"].keys()
    # of the model, the case is measured unless it is the first rater's
    assert ("c" in evaluation.metrics["cases"]) == (rater != "anna")


def test_raters_who_never_differ_are_said_to(folders, tmp_path):
    copy = folders["copy"] = tmp_path / "copy"
    shutil.copytree(folders["anna"], copy)
    raters = ("anna", "ben", "copy")
    said = "anna and copy mark the same voxels in all 4 cases; is one a copy"
    warnings = measured(folders, tmp_path, raters).warnings
    assert [line for line in warnings if "mark the same" in line] == [
        f"{said} of the other?"
    ]
    (copy / "b.nii.gz").write_bytes((folders["ben"] / "b.nii.gz").read_bytes())
    warnings = measured(folders, tmp_path, raters).warnings
    assert not any("mark the same" in line for line in warnings)


def test_a_rater_counts_once_by_whatever_path(folders, tmp_path):
    (tmp_path / "eve").symlink_to(folders["anna"])
    for other in (tmp_path / "eve", tmp_path / "model" / ".." / "anna"):
        folders["other"] = other
        raters = ("anna", "ben", "other")
        refusal(folders, tmp_path, DataError, "given twice, as a of", raters=raters)


def declared(folder, labels):
    """The label maps of a folder as a dataset that says what they mean."""
    (folder / "imagesTr").mkdir()
    (folder / "labelsTr").mkdir()
    for file in sorted(folder.glob("*.nii.gz")):
        shutil.copy(file, folder / "imagesTr" / file.name.replace(".nii", "_0000.nii"))
        file.rename(folder / "labelsTr" / file.name)
    content = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, **labels},
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "labels",
    [
        {"lesion": 1, "organ": 4},
        {"Organ": 1, "lesion": 4},
        {"organ": 4},
        {"other": 4},
    ],
)
def test_raters_who_mean_others_by_a_label_are_refused(labels):
    first = LabelScheme(labels={"organ": 1, "lesion": 4})
    other = LabelScheme(labels=labels)
    with pytest.raises(LabelError, match="do not call labels alike") as caught:
        require_one_meaning({"anna": first, "ben": first, "cleo": other})
    assert "cleo" in str(caught.value)
    assert "ben" not in str(caught.value)


def test_labels_of_raters_who_contradict_each_other_are_refused(folders, tmp_path):
    declared(folders["anna"], {"organ": 1, "lesion": 2, "cyst": 3, "rim": 4})
    declared(folders["ben"], {"organ": 1, "lesion": 4, "cyst": 3, "rim": 2})
    refusal(
        folders,
        tmp_path,
        LabelError,
        "lesion is 2 of anna and 4 of ben, where 2 is rim",
        raters=("anna", "ben"),
    )


def test_what_a_rater_does_not_look_for_is_not_missed_by_him(folders, tmp_path):
    before = measured(folders, tmp_path, ("anna", "ben")).metrics["raters"]["targets"]
    file = folders["ben"] / "a.nii.gz"
    labels = changed(drawn(0), HANDS["ben"])
    labels[0, 0, 0] = 2  # which only he knows
    write_volume(file, Volume(labels[None], affine_from_spacing(SPACING)))
    declared(folders["anna"], {"organ": 1, "lesion": 4})
    declared(folders["ben"], {"organ": 1, "cyst": 2, "lesion": 4})
    evaluation = measured(folders, tmp_path, ("anna", "ben"))
    targets = evaluation.metrics["raters"]["targets"]
    assert list(targets) == ["organ", "lesion", "mean"]
    assert targets["lesion"]["raters"] == before["label_4"]["raters"]
    assert "not declared alike by all raters, not compared: cyst" in evaluation.warnings


def test_voxels_that_one_rater_ignores_count_for_nobody(folders, tmp_path):
    for seed, name in enumerate(CASES):
        labels = changed(drawn(seed), HANDS["anna"])
        labels[labels != changed(drawn(seed), HANDS["ben"])] = 5
        volume = Volume(labels[None], affine_from_spacing(SPACING))
        write_volume(folders["anna"] / f"{name}.nii.gz", volume)
    for hand in ("anna", "ben"):
        declared(folders[hand], {"organ": 1, "lesion": 4, "ignore": 5})
    targets = measured(folders, tmp_path, ("anna", "ben")).metrics["raters"]["targets"]
    assert targets["organ"]["among"]["dice"]["mean"] == 1


def test_raters_of_different_labels_have_nothing_in_common():
    first = LabelScheme(labels={"organ": 1})
    with pytest.raises(LabelError, match="declared alike by anna, ben"):
        targets_of_all(first, {"anna": first, "ben": LabelScheme(labels={"rim": 2})})


def test_raters_of_volumes_are_refused(xray_data, tmp_path):
    with pytest.raises(UsageError, match="holds CTs, not label maps"):
        trivox.evaluate(
            xray_data, xray_data, tmp_path / "m.json", reference=[xray_data]
        )


IMPOSSIBLE = {
    ("targets",): {},
    ("cases",): [],
    ("files",): {"anna": "somewhere"},
    ("targets", "label_1", "raters"): {},
    ("targets", "mean", "model"): {},
    ("targets", "mean", "raters", "ben", "others"): {},
}


@pytest.mark.parametrize("place", IMPOSSIBLE)
def test_a_section_that_lacks_a_part_is_no_metrics_file(folders, tmp_path, place):
    file = measured(folders, tmp_path).file
    content = json.loads(file.read_text())
    edited = altered(content, ("raters", *place), IMPOSSIBLE[place])
    file.write_text(json.dumps(edited))
    with pytest.raises(BundleError, match="raters") as caught:
        read_metrics(file)
    assert len(str(caught.value).splitlines()) == 1
