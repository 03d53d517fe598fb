"""A run is verified as long as its figures follow from its files; whatever is changed in
it, is named.
"""

import json
import shutil

import pytest
import SimpleITK
import torch
from safetensors.torch import load_file, save_file

import trivox
from trivox.errors import BundleError, DataError
from trivox.files import file_hash
from trivox.tasks.verification.record import RECORD

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture
def run(tiny_run, tmp_path):
    """A run that may be changed."""
    return shutil.copytree(tiny_run, tmp_path / "run")


def edited(file, change):
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def first_number(mapping):
    return next(name for name, value in mapping.items() if isinstance(value, float))


def edit_case(run):
    def change(metrics):
        row = next(iter(next(iter(metrics["cases"].values())).values()))
        row[first_number(row)] += 0.01

    edited(run / "validation" / "metrics.json", change)


def edit_mean(run):
    def change(metrics):
        next(iter(metrics["summary"].values()))["dice"]["mean"] += 0.001

    edited(run / "validation" / "metrics.json", change)


def edit_interval(metrics):
    next(iter(metrics["summary"].values()))["dice"]["ci95"][0] += 0.01


def leave_out_a_case(metrics):
    metrics["cases"].pop(next(iter(metrics["cases"])))


def swap_rows(metrics):
    first, second = list(metrics["cases"])[:2]
    cases = metrics["cases"]
    cases[first], cases[second] = cases[second], cases[first]


def better_than_measured(metrics):
    for rows in metrics["cases"].values():
        for row in rows.values():
            row["dice"] = min(1.0, (row["dice"] or 0.0) + 0.02)


def train_on_a_held_out_case(run):
    def change(splits):
        splits[0]["train"].append(splits[0]["validation"][0])

    edited(run / "splits.json", change)


def exchange_sides(run):
    def change(splits):
        splits[0]["train"], splits[0]["validation"] = (
            splits[0]["validation"],
            splits[0]["train"],
        )

    edited(run / "splits.json", change)


def deal_other_folds(run):
    """Cases of two later folds change places: no case is on both sides."""

    def change(splits):
        third, fourth = splits[2], splits[3]
        third["validation"], fourth["validation"] = (
            fourth["validation"],
            third["validation"],
        )
        third["train"], fourth["train"] = fourth["train"], third["train"]

    edited(run / "splits.json", change)


def record_another_label(run):
    def change(sources):
        case = next(iter(sources["cases"].values()))
        label = case["content"]["files"]["label"]
        label.update(sha256="0" * 64, size=label["size"] + 1)

    edited(run / "sources.json", change)


def split_a_patient(run):
    def change(dataset):
        splits = json.loads((run / "splits.json").read_text(encoding="utf-8"))
        one, other = splits[0]["train"][0], splits[0]["validation"][0]
        for case in dataset["cases"]:
            if case["name"] in (one, other):
                case["patient"] = "the same"

    edited(run / "dataset.json", change)


def damage_weights(run):
    (file,) = (run / "bundle").glob("weights*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def exchange_weights(run):
    (file,) = (run / "bundle").glob("weights*.safetensors")
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        for name, tensor in load_file(file).items()
    }
    save_file(weights, file)

    def change(bundle):
        bundle["weights"][0]["sha256"] = file_hash(file)

    edited(run / "bundle" / "bundle.json", change)


CHANGES = {
    "a number of a case": (edit_case, "cases: "),
    "a mean": (edit_mean, "summary: .*mean says"),
    "a case on both sides": (train_on_a_held_out_case, "on both sides"),
    "a patient on both sides": (split_a_patient, "1 patients on both sides"),
    "a label of the data": (record_another_label, "the data changed"),
    "sides of the fold": (exchange_sides, "no fold held out"),
    "other folds": (deal_other_folds, "other folds than the data give"),
    "damaged weights": (damage_weights, "weights: .*checksum"),
    "other weights": (exchange_weights, "another prediction"),
}


def test_a_run_is_verified_and_its_report_says_so(run):
    trivox.report(run)
    assert "not verified" in (run / "report.html").read_text(encoding="utf-8")
    verification = trivox.verify(run)
    assert verification.numbers > 20
    assert verification.cases == 1
    assert verification.disagreements == []
    assert "numbers follow from the files" in (run / "report.html").read_text(
        encoding="utf-8"
    )
    record = json.loads((run / RECORD).read_text(encoding="utf-8"))
    assert record["numbers"] == verification.numbers
    assert (record["task"], record["format_version"]) == ("segmentation", 1)


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_was_changed_is_named(run, what):
    (run / RECORD).write_text("{}")
    (run / "report.html").unlink(missing_ok=True)
    change, complaint = CHANGES[what]
    change(run)
    with pytest.raises(DataError, match=complaint):
        trivox.verify(run)
    assert not (run / RECORD).exists()


def test_a_report_made_after_a_change_is_not_verified(run):
    trivox.verify(run)
    edit_mean(run)
    trivox.report(run)
    assert "not verified" in (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def measured(tiny_data, tmp_path):
    """A metrics.json of several cases, and the folder of their label maps."""
    maps = tmp_path / "maps"
    maps.mkdir()
    for number, file in enumerate(sorted((tiny_data / "labels").iterdir())):
        labels = trivox.read_labels(file)
        array = labels.array.copy()
        array[:, : 3 + number] = 0
        trivox.write_volume(maps / file.name, labels.with_array(array))
    trivox.evaluate(maps, tiny_data, tmp_path / "metrics.json")
    return tmp_path / "metrics.json", maps


EDITS = {
    "an interval": (edit_interval, "summary: .*ci95"),
    "a case less": (leave_out_a_case, "cases: "),
    "rows of two cases": (swap_rows, "cases: "),
    "better figures": (better_than_measured, "dice says"),
}


@pytest.mark.parametrize("what", EDITS)
def test_a_measurement_alone_is_verified(measured, what):
    file, _ = measured
    assert trivox.verify(file).numbers > 20
    change, complaint = EDITS[what]
    edited(file, change)
    with pytest.raises(DataError, match=complaint):
        trivox.verify(file)


def test_maps_that_changed_places_are_named(measured):
    file, maps = measured
    first, second = sorted(maps.iterdir())[:2]
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    with pytest.raises(DataError, match="not the file that was measured"):
        trivox.verify(file)


def test_maps_of_header_and_voxels_are_looked_at_whole(measured, tiny_data):
    file, maps = measured
    for nifti in [*maps.iterdir()]:
        image = SimpleITK.ReadImage(nifti)
        SimpleITK.WriteImage(image, maps / f"{nifti.name.removesuffix('.nii.gz')}.mhd")
        nifti.unlink()
    trivox.evaluate(maps, tiny_data, file)
    assert trivox.verify(file).disagreements == []
    voxels = sorted(maps.glob("*.*raw"))[0]
    content = bytearray(voxels.read_bytes())
    content[-1] ^= 1
    voxels.write_bytes(content)
    with pytest.raises(DataError, match="not the file that was measured"):
        trivox.verify(file)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="not found"):
        trivox.verify(tmp_path / "nothing")
    with pytest.raises(BundleError):
        trivox.verify(tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(BundleError, match=r"no metrics\.json"):
        trivox.verify(tmp_path / "metrics.json")


@pytest.fixture
def volumes_run(xray_run, tmp_path):
    copy = tmp_path / "volumes"
    shutil.copytree(xray_run, copy)
    return copy


def test_a_run_of_volumes_is_verified_as_far_as_its_files_tell(volumes_run):
    verification = trivox.verify(volumes_run)
    assert verification.disagreements == []
    assert (verification.numbers, verification.cases) == (0, 1)
    (line,) = [line for line in verification.unchecked if "network's grid" in line]
    assert line.startswith("the figures")


def test_a_volume_that_was_changed_is_named(volumes_run):
    file = sorted((volumes_run / "validation" / "predictions").glob("*.nii.gz"))[0]
    volume = trivox.read_volume(file)
    trivox.write_volume(file, volume.with_array(volume.array + 100))
    with pytest.raises(DataError, match="not the file that was measured"):
        trivox.verify(volumes_run)
