"""The smoke test that every container brings passes, and notices what is wrong."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from container_inputs import SLUGS
from trivox import Volume, read_volume, write_volume
from trivox.exporting.contract import read_contract


@pytest.fixture
def contract(grand_challenge):
    return read_contract(grand_challenge / "contract.json")


@pytest.fixture
def smoke(grand_challenge):
    """The smoke test as a module."""
    file = grand_challenge / "smoke_test.py"
    spec = importlib.util.spec_from_file_location("smoke_test", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_smoke_test_passes(brats):
    done = subprocess.run(
        [sys.executable, "-B", brats / "smoke_test.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "all: ok\n"), done.stderr


def test_smoke_test_passes_for_grand_challenge(
    smoke, contract, grand_challenge, tmp_path, enter, monkeypatch
):
    def predict(source, output, models):
        """In this process, which has torch loaded already."""
        code, lines = enter(grand_challenge, input=source, output=output, models=models)
        return subprocess.CompletedProcess([], code, "", "\n".join(lines))

    monkeypatch.setattr(smoke, "predict", predict)
    smoke.run_all(tmp_path, contract, grand_challenge / "models")


def signed(labels):
    return labels.with_array(labels.array.astype(np.int16))


def with_strange_value(labels):
    return labels.with_array(labels.array + np.uint8(77))


def flipped(labels):
    return Volume(labels.array, labels.affine @ np.diag([1, -1, 1, 1]))


def cropped(labels):
    return Volume(labels.array[:, :-1], labels.affine)


@pytest.fixture
def empty_labels(smoke, contract, tmp_path):
    """A right answer to the scan that the smoke test made, and what it expects."""
    expected = smoke.make(tmp_path / "in", contract)
    ((_, image),) = expected.items()
    source = read_volume(image)
    return expected, source.with_array(np.zeros(source.array.shape, np.uint8))


def check(smoke, expected, labels, out):
    out.mkdir()
    if labels is not None:
        (name,) = expected
        write_volume(out / name, labels)
    smoke.check(expected, out, {0, 1, 2, 4}, kind="uint8")


def test_smoke_test_takes_a_right_label_map(smoke, empty_labels, tmp_path):
    expected, labels = empty_labels
    check(smoke, expected, labels, tmp_path / "out")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (signed, "type int16"),
        (with_strange_value, r"values \[77\]"),
        (flipped, "grid"),
        (cropped, "grid"),
        (lambda labels: None, "files"),
    ],
)
def test_smoke_test_notices_wrong_label_maps(
    smoke, empty_labels, tmp_path, harm, message
):
    expected, labels = empty_labels
    with pytest.raises(smoke.BrokenContractError, match=message):
        check(smoke, expected, harm(labels), tmp_path / "out")


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ((1, 1, 1), "exit code 1"),
        ((0, 0, 1), "a broken case gave exit code 0"),
        ((0, 1, 0), "an empty input gave"),
    ],
)
def test_smoke_test_notices_wrong_exit_codes(
    smoke, contract, tmp_path, monkeypatch, codes, message
):
    remaining = iter(codes)

    def pretend(source, output, models):
        code = next(remaining)
        files = list(source.rglob("*.mha"))
        if code == 0 and files and files[0].stat().st_size > 100:
            first = read_volume(files[0])
            labels = first.with_array(np.zeros(first.array.shape, np.uint8))
            slug = next(iter(SLUGS))
            (image,) = (source / "images" / slug).iterdir()
            write_volume(output / "images" / "tumour" / image.name, labels)
        names = "".join(path.stem for path in files)
        return subprocess.CompletedProcess([], code, "", f"error: {names}\n")

    monkeypatch.setattr(smoke, "predict", pretend)
    with pytest.raises(smoke.BrokenContractError, match=message):
        smoke.run_all(tmp_path, contract, tmp_path)
