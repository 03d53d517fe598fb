"""Weights in half precision: half the bytes, read back as fp32, the same answers."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import BundleError, DataError
from trivox.exporting.half import Agreement, agreement, write_half
from trivox.files import file_hash
from trivox.inference.bundle import read_any_bundle
from trivox.learning.checkpoints import load_weights
from untrained_models import write_scans, write_untrained


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_untrained(tmp_path_factory.mktemp("half") / "model")


def with_weights(bundle, folder, change):
    """A copy of a bundle whose weights are others."""
    copied = shutil.copytree(bundle, folder)
    file = copied / "weights-fold0.safetensors"
    save_file(change(load_file(file)), file)
    content = json.loads((copied / "bundle.json").read_text())
    content["weights"][0]["sha256"] = file_hash(file)
    (copied / "bundle.json").write_text(json.dumps(content))
    return copied


def test_a_half_bundle_is_half_as_large_and_answers_alike(bundle, tmp_path):
    cases = write_scans(tmp_path / "scans", (18, 20, 17), (12, 14, 13))
    write_half(bundle, tmp_path / "half")
    sizes = [
        (folder / "weights-fold0.safetensors").stat().st_size
        for folder in (bundle, tmp_path / "half")
    ]
    assert sizes[1] < 0.7 * sizes[0]  # names of tensors take their share
    alike = agreement(bundle, tmp_path / "half", cases)
    assert sorted(alike) == ["scan_0", "scan_1"]
    assert all(each.equal > 0.99 for each in alike.values())


def test_a_half_bundle_of_volumes_answers_alike(xray_run, xray_data, tmp_path):
    write_half(xray_run, tmp_path / "half")
    case = load_dataset(xray_data).cases[-1]
    (alike,) = agreement(xray_run, tmp_path / "half", [case]).values()
    assert alike.mean_difference < 2  # HU


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_what_is_stored_with_fewer_bits_is_read_as_fp32(bundle, tmp_path, kind):
    folder = with_weights(
        bundle,
        tmp_path / "short",
        lambda tensors: {name: value.to(kind) for name, value in tensors.items()},
    )
    (file,) = read_any_bundle(folder).weight_files()
    for name, value in load_weights(file).items():
        assert value.dtype == torch.float32
        assert torch.equal(value, load_file(file)[name].float())


def test_weights_beyond_half_precision_are_refused(bundle, tmp_path):
    def grown(tensors):
        name = min(tensors)
        return {**tensors, name: tensors[name] + 7e4}

    large = with_weights(bundle, tmp_path / "large", grown)
    with pytest.raises(BundleError, match="above 65504"):
        write_half(large, tmp_path / "half")
    assert not (tmp_path / "half").exists()


def test_the_description_says_what_is_asked_and_nothing_else_changes(bundle, tmp_path):
    write_half(bundle, tmp_path / "half", notice="of a test")
    old, new = (
        read_any_bundle(each).description for each in (bundle, tmp_path / "half")
    )
    assert new.notice == "of a test"
    assert new.plan == old.plan
    assert new.identity != old.identity
    with pytest.raises(DataError, match="is not empty"):
        write_half(bundle, tmp_path / "half")


def test_agreement_counts_what_differs():
    first = np.array([0, 1, 2, 3], np.int16)
    assert Agreement.of(first, first) == Agreement(1.0, 0.0)
    assert Agreement.of(first, np.array([0, 1, 2, 7], np.int16)) == Agreement(0.75, 1.0)
