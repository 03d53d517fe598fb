"""The entry point of a BraTS container keeps the contract, bad cases are named.

Nothing here needs Docker: it is the file that the image runs, with other folders for
/input and /output.
"""

import re
import runpy
import sys

import nibabel as nib
import numpy as np
import pytest

from container_inputs import brats_case, files_below, random_model, sockets
from trivox import Predictor
from trivox.exporting.containers import package_model


def stored(path):
    """Label values `(z, y, x)`."""
    return np.asarray(nib.load(path).dataobj).T


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_case_comes_back_in_the_values_of_its_own_family(brats, tmp_path, enter):
    brats_case(tmp_path / "in", "BraTS2021_00001", family="2021", flat=True)
    brats_case(tmp_path / "in", "BraTS-GLI-00002-000", flat=True)
    assert enter(brats) == (0, [])
    out = tmp_path / "out"
    assert names_in(out) == ["BraTS-GLI-00002-000.nii.gz", "BraTS2021_00001.nii.gz"]
    assert set(np.unique(stored(out / "BraTS2021_00001.nii.gz"))) == {0, 1, 2, 4}
    assert set(np.unique(stored(out / "BraTS-GLI-00002-000.nii.gz"))) == {0, 1, 2, 3}


def test_bad_cases_are_named_and_the_others_predicted(brats, tmp_path, enter):
    brats_case(tmp_path / "in", "BraTS-GLI-00001-000")
    brats_case(tmp_path / "in", "BraTS-GLI-00002-000")[2].write_bytes(b"no image")
    brats_case(tmp_path / "in", "BraTS-GLI-00003-000", without=["T2"])
    (tmp_path / "in" / "BraTS-GLI-00004-000").mkdir()
    code, lines = enter(brats)
    assert code == 1
    assert names_in(tmp_path / "out") == ["BraTS-GLI-00001-000.nii.gz"]
    for number, reason in ((2, "not a gzip file"), (3, "has no T2"), (4, "no images")):
        start = f"BraTS-GLI-0000{number}-000: set aside"
        (line,) = (line for line in lines if line.startswith(start))
        assert reason in line
    assert lines[-1].startswith("error: 3 of 4 cases failed: ")


def test_a_missing_sequence_is_predicted_if_packaged_so(bundle, tmp_path, enter):
    context = tmp_path / "context"
    package_model([bundle], context, target="brats", missing_channels="zeros")
    brats_case(tmp_path / "in", "BraTS-GLI-00003-000", without=["T2"])
    assert enter(context) == (0, [])
    assert (tmp_path / "out" / "BraTS-GLI-00003-000.nii.gz").exists()


def test_the_command_of_earlier_challenges_is_understood(brats, tmp_path, monkeypatch):
    brats_case(tmp_path / "in", "BraTS-GLI-00001-000")
    command = [
        "predict.py",
        "infer",
        f"--data_path={tmp_path / 'in'}",
        f"--output_path={tmp_path / 'out'}",
        "--parameters_file=/none.yml",
    ]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(str(brats / "predict.py"), run_name="__main__")
    assert names_in(tmp_path / "out") == ["BraTS-GLI-00001-000.nii.gz"]


def test_an_empty_input_is_one_line(brats, tmp_path, enter):
    (tmp_path / "in").mkdir()
    code, lines = enter(brats)
    assert code == 1
    (line,) = lines
    assert str(tmp_path / "in") in line


@pytest.mark.parametrize("target", ["brats", "grand_challenge"])
def test_a_full_disk_is_one_line_and_leaves_no_half_file(
    target, request, tmp_path, enter
):
    resource = pytest.importorskip("resource", reason="no limits of file sizes here")
    context = request.getfixturevalue(target)
    if target == "brats":
        brats_case(tmp_path / "in", "BraTS-GLI-00001-000")
    else:
        sockets(tmp_path / "in")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (128, limits[1]))
    try:
        code, lines = enter(context)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1
    (line,) = lines
    assert re.fullmatch("error: .* cannot be written .*", line)
    assert files_below(tmp_path / "out") == []


def test_several_models_vote(tiny_run, bundle, tmp_path, enter):
    other = random_model(tiny_run, tmp_path / "other", seed=1)
    context = tmp_path / "context"
    contract = package_model([bundle, other], context, target="brats")
    assert contract.models == ("model0", "model1")
    images = brats_case(tmp_path / "in", "BraTS2021_00001", family="2021")
    assert enter(context) == (0, [])
    ensemble = Predictor.load([bundle, other], device="cpu")
    expected = ensemble.predict_file(images).labels.array[0]
    written = stored(tmp_path / "out" / "BraTS2021_00001.nii.gz")
    np.testing.assert_array_equal(written, expected)
