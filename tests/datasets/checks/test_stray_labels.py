"""A few voxels of a value that nobody declared are no new class."""

import numpy as np
import pytest

from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import DataError
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume


def folder_of(folder, strays, *, cases=5, declared=""):
    """Blocks of labels 1 and 2; strays: case -> value -> how many voxels."""
    random = np.random.default_rng(0)
    for number in range(cases):
        label = np.zeros((8, 9, 10), np.int32)
        label[2:6, 2:6, 2:6] = 1
        label[2:4, 2:4, 2:4] = 2
        for value, count in strays.get(number, {}).items():
            label[7, 8, :count] = value
        image = random.normal(size=label.shape).astype(np.float32)
        for kind, array in {"images": image, "labels": label}.items():
            file = folder / kind / f"case{number}.nii.gz"
            write_volume(file, Volume(array[None], np.eye(4)))
    if declared:
        (folder / "manifest.json").write_text(declared)
    return folder


def found_in(folder):
    report = check_dataset(load_dataset(folder))
    return [f for f in report.findings if f.code == "stray-label"]


@pytest.mark.parametrize("value", [255, 65535, 4])
def test_a_stray_voxel_is_named_with_case_and_place_and_is_no_class(tmp_path, value):
    folder = folder_of(tmp_path / "data", {3: {value: 1}})
    (finding,) = found_in(folder)
    assert finding.severity == "error"
    assert finding.case == "case3"
    assert f"value {value} is in 1 voxels, the first at z, y, x = (7, 8, 0)" in str(
        finding
    )
    with pytest.raises(DataError, match="stray-label"):
        run_request(RunRequest(folder, tmp_path / "run", device="cpu"))


def test_one_that_follows_the_others_may_be_a_class(tmp_path):
    (finding,) = found_in(folder_of(tmp_path / "data", {3: {3: 2}}))
    assert finding.severity == "warning"


@pytest.mark.parametrize(
    "strays",
    [
        {},
        {number: {255: 3} for number in range(5)},  # small, but everywhere
        {1: {255: 3}, 2: {255: 3}},
    ],
)
def test_labels_of_several_cases_are_classes(tmp_path, strays):
    assert not found_in(folder_of(tmp_path / "data", strays))
