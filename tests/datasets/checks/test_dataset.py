import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from trivox.datasets.checks.classes import class_findings
from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.checks.findings import Report
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms
from trivox.files import write_json
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

NAMES = [f"phantom_{i:03d}" for i in range(6)]
WARNINGS = {
    "empty-label",
    "unused-label",
    "constant-image",
    "mixed-orientation",
    "spacing-outlier",
}


@pytest.fixture
def folder(tmp_path):
    settings = PhantomSettings(
        cases=6, shape=(10, 16, 16), test_cases=1, spacing_variation=0.05
    )
    return write_phantoms(tmp_path / "phantoms", settings)


def image_of(folder: Path, index: int) -> Path:
    return folder / "images" / f"{NAMES[index]}.nii.gz"


def label_of(folder: Path, index: int) -> Path:
    return folder / "labels" / f"{NAMES[index]}.nii.gz"


def change(file: Path, edit) -> None:
    """Rewrite a file after `edit` has changed a float32 copy of its array in place, or
    returned another volume.
    """
    volume = read_volume(file)
    volume = Volume(volume.array.astype(np.float32), volume.affine)
    write_volume(file, edit(volume) or volume)


def put(place, value):
    def edit(volume):
        volume.array[place] = value

    return edit


def edit_manifest(folder: Path, edit) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    edit(content)
    write_json(folder / "manifest.json", content)


def two_channels(volume):
    return volume.with_array(np.concatenate([volume.array] * 2))


def moved(volume):
    return Volume(volume.array, volume.affine + np.outer([5, 0, 0, 0], [0, 0, 0, 1]))


def flipped(volume):
    affine = volume.affine.copy()
    affine[:3, 0] *= -1
    return Volume(volume.array, affine)


def coarse(volume):
    return Volume(volume.array, volume.affine @ np.diag([1.0, 1, 10, 1]))


def same_patient(content):
    content["cases"][4]["patient"] = content["cases"][5]["patient"] = "P7"


def copy_case(folder, source, target, *, label=True):
    shutil.copy(image_of(folder, source), image_of(folder, target))
    if label:
        shutil.copy(label_of(folder, source), label_of(folder, target))


def regrid(folder, index, edit):
    change(image_of(folder, index), edit)
    change(label_of(folder, index), edit)


DEFECTS = {
    "missing-file": (2, lambda f: image_of(f, 2).unlink()),
    "empty-file": (1, lambda f: label_of(f, 1).write_bytes(b"")),
    "unreadable": (
        3,
        lambda f: image_of(f, 3).write_bytes(image_of(f, 3).read_bytes()[:400]),
    ),
    "geometry-mismatch": (0, lambda f: change(label_of(f, 0), moved)),
    "unknown-label": (1, lambda f: change(label_of(f, 1), put((0, 5, 5, 5), 9))),
    "fractional-label": (4, lambda f: change(label_of(f, 4), put((0, 5, 5, 5), 1.4))),
    "empty-label": (0, lambda f: change(label_of(f, 0), put(slice(None), 0))),
    "unused-label": (
        None,
        lambda f: edit_manifest(f, lambda c: c["labels"].update(ghost=77)),
    ),
    "nan-or-inf": (3, lambda f: change(image_of(f, 3), put((0, 1, 2, 3), np.nan))),
    "constant-image": (2, lambda f: change(image_of(f, 2), put(slice(None), 5))),
    "channel-count": (1, lambda f: change(image_of(f, 1), two_channels)),
    "duplicate-content": (0, lambda f: copy_case(f, 0, 5)),
    "patient-across-splits": (4, lambda f: edit_manifest(f, same_patient)),
    "too-few-cases": (
        None,
        lambda f: edit_manifest(f, lambda c: c.update(cases=c["cases"][:1])),
    ),
    "mixed-orientation": (3, lambda f: regrid(f, 3, flipped)),
    "spacing-outlier": (2, lambda f: regrid(f, 2, coarse)),
}


def check(folder: Path, **kwargs) -> Report:
    return check_dataset(load_dataset(folder), **kwargs)


@pytest.mark.parametrize("code", DEFECTS)
def test_a_planted_defect_is_the_only_finding(folder, code):
    index, plant = DEFECTS[code]
    plant(folder)
    report = check(folder)
    assert {finding.code for finding in report.findings} == {code}
    finding = report.findings[0]
    assert finding.case == ("" if index is None else NAMES[index])
    assert finding.severity == ("warning" if code in WARNINGS else "error")
    assert finding.message
    assert finding.fix
    assert "\n" not in str(finding)
    assert report.errors == (() if code in WARNINGS else report.findings)


def test_a_sound_dataset_has_no_findings(folder):
    report = check(folder)
    assert report.findings == ()
    assert report.checked_cases == 6


@pytest.mark.parametrize("workers", [1, 3])
def test_one_bad_case_never_hides_another(folder, workers):
    codes = [
        "missing-file",
        "empty-file",
        "unreadable",
        "geometry-mismatch",
        "fractional-label",
    ]
    for code in codes:
        DEFECTS[code][1](folder)
    report = check(folder, workers=workers)
    assert {finding.code for finding in report.errors} == set(codes)
    assert report.checked_cases == 6


def test_unpaired_files_are_errors(folder):
    (folder / "manifest.json").unlink()
    image_of(folder, 0).unlink()
    label_of(folder, 5).unlink()
    assert {(f.code, f.case) for f in check(folder).errors} == {
        ("unpaired-label", NAMES[0]),
        ("unpaired-image", NAMES[5]),
    }


@pytest.mark.parametrize(
    ("target", "label", "severity", "why"),
    [
        (1, True, "warning", ""),
        (1, False, "error", "different labels"),
        (5, True, "error", "leak"),
    ],
)
def test_duplicates_are_as_bad_as_what_they_spoil(folder, target, label, severity, why):
    copy_case(folder, 0, target, label=label)
    if not label:
        for file in (
            label_of(folder, target),
            image_of(folder, target),
        ):  # the same grid, another truth
            write_volume(
                file,
                Volume(
                    read_volume(file).array, read_volume(image_of(folder, 0)).affine
                ),
            )
    (finding,) = check(folder).findings
    assert (finding.code, finding.severity) == ("duplicate-content", severity)
    assert why in finding.message
    assert NAMES[target] in finding.message


def test_duplicates_are_found_across_file_formats(folder):
    copied = read_volume(image_of(folder, 0))
    write_volume(
        folder / "images" / "copy.nrrd",
        Volume(copied.array.astype(np.float32), copied.affine),
    )
    edit_manifest(
        folder,
        lambda c: c["cases"].append({"case": "copy", "images": ["images/copy.nrrd"]}),
    )
    assert [finding.code for finding in check(folder).findings] == ["duplicate-content"]


def test_channels_of_a_case_must_share_a_grid(tmp_path):
    folder = write_phantoms(
        tmp_path / "p", PhantomSettings(cases=5, shape=(10, 16, 16), channels=2)
    )
    change(folder / "images" / "phantom_002_0001.nii.gz", moved)
    (finding,) = check(folder).findings
    assert (finding.code, finding.case) == ("geometry-mismatch", "phantom_002")
    assert "phantom_002_0001" in finding.message


def test_a_label_with_channels_is_not_called_fractional(folder):
    change(label_of(folder, 0), two_channels)
    assert [finding.code for finding in check(folder).findings] == ["channel-count"]


@pytest.mark.parametrize(("count", "severity"), [(1, "error"), (3, "warning")])
def test_few_cases(folder, count, severity):
    edit_manifest(folder, lambda c: c.update(cases=c["cases"][:count]))
    (finding,) = check(folder).findings
    assert (finding.code, finding.severity) == ("too-few-cases", severity)


def test_varied_spacings_are_no_outliers(folder):
    for index, factor in enumerate((1, 1.5, 2.2, 3, 4, 5)):
        regrid(
            folder,
            index,
            lambda v, f=factor: Volume(v.array, v.affine @ np.diag([1, 1, f, 1])),
        )
    assert check(folder).findings == ()


def test_ignored_voxels_are_known_but_no_structure(folder):
    edit_manifest(folder, lambda c: c.update(ignore=9))
    change(label_of(folder, 0), put(slice(None), 9))
    assert [finding.code for finding in check(folder).findings] == ["empty-label"]


def test_an_image_only_dataset_can_be_checked(tmp_path):
    write_volume(
        tmp_path / "a.nii",
        Volume(
            np.eye(8, dtype=np.int16).reshape(1, 4, 4, 4),
            affine_from_spacing((1, 1, 1)),
        ),
    )
    (tmp_path / "manifest.csv").write_text("case,image\na,a.nii\n")
    assert check(tmp_path).findings == ()


def test_progress_sees_every_case_as_it_is_done(folder):
    shown = []

    def show(examined, total):
        for examination in examined:
            shown.append((len(shown) + 1, total))
            yield examination

    assert check(folder, progress=show).checked_cases == 6
    assert shown == [(i, 6) for i in range(1, 7)]


def test_report_goes_to_json(folder, tmp_path):
    DEFECTS["missing-file"][1](folder)
    DEFECTS["empty-label"][1](folder)
    report = check(folder)
    write_json(tmp_path / "report.json", report.to_json())
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["codes"] == {"empty-label": 1, "missing-file": 1}
    assert [f["severity"] for f in content["findings"]] == ["error", "warning"]
    assert Report(findings=content["findings"], checked_cases=6) == report


def test_examination_survives_any_reader_failure(folder, monkeypatch):
    def broken(path):
        raise MemoryError

    monkeypatch.setattr("trivox.datasets.checks.examine.read_volume", broken)
    report = check(folder)
    assert {finding.code for finding in report.errors} == {"unreadable"}
    assert len(report.errors) == 6
    assert isinstance(load_dataset(folder).cases[0], Case)


# --- classes
def say_classes(folder, classes, **changes):
    """Write `classes` and other fields into the manifest's cases, in their order."""

    def edit(content):
        for case, name in zip(content["cases"], classes, strict=True):
            case["class"] = name
        for index, fields in changes.pop("fields", {}).items():
            content["cases"][index].update(fields)
        content.update(changes)

    edit_manifest(folder, edit)


CLASS_DEFECTS = {
    "class-without-cases": (
        "error",
        ["a", "a", "b", "b", "a", "c"],
        {},
    ),  # c is the test case's
    "class-unknown": ("warning", ["a", None, "b", "b", "a", "a"], {}),
    "patient-with-classes": (
        "warning",
        ["a", "a", "b", "b", "a", "a"],
        {"fields": {i: {"patient": "p"} for i in (0, 2)}},
    ),
    "single-class": ("warning", ["a"] * 6, {}),
    "patient-across-splits": (
        "error",
        ["a", "a", "b", "b", "a", "a"],
        {"fields": {0: {"patient": "p"}, 1: {"patient": "p", "split": "validation"}}},
    ),
}


@pytest.mark.parametrize("code", CLASS_DEFECTS)
def test_a_planted_defect_of_the_classes_is_found(folder, code):
    severity, classes, changes = CLASS_DEFECTS[code]
    say_classes(folder, classes, **changes)
    findings = {finding.code: finding for finding in check(folder).findings}
    assert findings.keys() - {"rare-class"} == {
        code
    }  # five cases are few for five folds
    assert findings[code].severity == severity
    assert "\n" not in str(findings[code])


def test_classes_with_fewer_patients_than_folds_are_named_unless_a_split_is_declared(
    folder,
):
    say_classes(folder, ["a", "a", "b", "b", "a", "a"])
    assert [(f.code, f.severity) for f in check(folder).findings] == [
        ("rare-class", "warning")
    ] * 2
    assert {
        ("class 'a' has 3 patients" in f.message, "class 'b' has 2" in f.message)
        for f in check(folder).findings
    } == {
        (True, False),
        (False, True),
    }
    say_classes(
        folder, ["a", "a", "b", "b", "a", "a"], fields={0: {"split": "validation"}}
    )
    assert check(folder).findings == ()


@pytest.mark.parametrize(("common", "found"), [(10, False), (11, True)])
def test_imbalance_worse_than_ten_to_one(tmp_path, common, found):
    cases = [
        Case(name=f"c{i}", images=(Path("/x"),), class_name="a" if i else "b")
        for i in range(common + 1)
    ]
    dataset = Dataset(
        name="d",
        root=tmp_path,
        layout="x",
        channels=("CT",),
        classes=("a", "b"),
        cases=tuple(cases),
    )
    codes = {finding.code for finding in class_findings(dataset)}
    assert ("class-imbalance" in codes) == found


def test_a_leak_into_the_validation_split_is_an_error(folder):
    copy_case(folder, 0, 1)
    edit_manifest(folder, lambda c: c["cases"][1].update(split="validation"))
    (finding,) = check(folder).findings
    assert (finding.code, finding.severity) == ("duplicate-content", "error")
    assert "a leak between training and validation data" in finding.message


def test_what_readers_have_to_say_is_one_line_a_subject(folder):
    """Two images and a label map whose qform is not their sform."""
    for file, mm in ((image_of(folder, 0), 3), (image_of(folder, 2), 4)):
        disagree(file, mm)
    disagree(label_of(folder, 2), 3)
    report = check_dataset(load_dataset(folder))
    (finding,) = [each for each in report.warnings if each.code == "file-remark"]
    assert "sform and qform disagree: spacing" in finding.message
    assert f"(in 2 of 6 cases: {NAMES[0]}, {NAMES[2]})" in finding.message
    assert finding.case == NAMES[0]
    assert not report.errors


def disagree(file: Path, mm: float) -> None:
    image = nibabel.load(file)
    header = image.header.copy()
    header.set_qform(np.diag([mm, mm, mm, 1]), code=1)
    header.set_sform(image.affine, code=1)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None, header), file)
