"""Prediction on GPUs: few waits, the CPU's answer, and a folder that several share."""

import json
import re
import shutil
import signal
import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

import trivox
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import RecipeError, TrivoxError
from trivox.inference.decide import seeded
from trivox.inference.doubt.kinds import Extras
from trivox.inference.predictor import Predictor
from trivox.learning.runtime import make_runtime
from untrained_models import write_scans, write_untrained

SHAPE = (30, 48, 44)
VOTING = {"mirror": True, "mc_samples": 1, "scales": (1.0, 1.2)}
DOUBT = Extras(probabilities=True, uncertainty=("entropy", "variance"))
ASKED = {
    "plain": ({}, Extras(), 12),
    "mirrored": ({"mirror": True}, Extras(), 12),
    "probabilities": ({}, Extras(probabilities=True), 8),
    "16 votes": (VOTING, DOUBT, 40),
}
"""Options, what is asked for, and how often a case may wait: a vote twice, whatever the
number of its windows, and a restored layer of windows three times.
"""
UPLOADS = 30
"""Of a case, whatever the number of its votes: image, tables, weights of windows."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_untrained(tmp_path_factory.mktemp("model"), dropout=0.1)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    (case,) = write_scans(tmp_path_factory.mktemp("scans"), (30, 48, 44))
    return case


def loaded(model, device, options, extras):
    settings = {"precision": "fp32", "mirror": False, **options}
    return replace(Predictor.load(model, device=str(device), **settings), extras=extras)


def arrays(prediction):
    volumes = [prediction.labels, *prediction.uncertainty.values()]
    if prediction.probabilities is not None:
        volumes.append(prediction.probabilities)
    return [volume.array for volume in volumes]


def require_equal(prediction, expected):
    for array, other in zip(arrays(prediction), arrays(expected), strict=True):
        assert np.array_equal(array, other)


@pytest.mark.parametrize("what", ASKED)
def test_a_case_waits_for_the_gpu_a_few_times_and_equals_the_cpu(
    gpu, model, scan, what
):
    from pretended_gpu.device import counting

    options, extras, most = ASKED[what]
    predictor = loaded(model, gpu, options, extras)
    with counting(launches=True) as counts:
        prediction = predictor.predict_case(scan)
    assert sum(counts.waits.values()) <= most, counts.table()
    uploads = [key for key in counts.launches.elements() if key[0] == "upload"]
    assert len(uploads) <= UPLOADS, Counter(uploads)
    require_equal(prediction, loaded(model, "cpu", options, extras).predict_case(scan))


def test_regions_too(gpu, scan, tmp_path):
    model = write_untrained(tmp_path, regions=True)
    for extras in (Extras(), Extras(probabilities=True)):
        prediction = loaded(model, gpu, {}, extras).predict_case(scan)
        expected = loaded(model, "cpu", {}, extras).predict_case(scan)
        require_equal(prediction, expected)


@pytest.mark.parametrize("megabytes", [1.5, 4, 12])
def test_what_does_not_fit_beside_the_network_stays_in_memory(
    gpu, model, scan, megabytes
):
    from pretended_gpu.device import memory_of

    for extras in (Extras(), Extras(probabilities=True, uncertainty=("entropy",))):
        predictor = loaded(model, gpu, {}, extras)
        with memory_of(megabytes):
            prediction = predictor.predict_case(scan)
        expected = loaded(model, "cpu", {}, extras).predict_case(scan)
        same = prediction.labels.array == expected.labels.array
        assert same.mean() > 0.999
        # smaller batches are rounded otherwise
        for array, other in zip(arrays(prediction), arrays(expected), strict=True):
            differences = np.abs(array - other)[:, same[0]]
            assert differences.max() < 1e-4


def test_the_allocators_cache_counts_as_free(gpu, model, monkeypatch):
    predictor = loaded(model, gpu, {}, Extras())
    windows = predictor.members[0].windows
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 2**30))
    assert windows.place_for((2**20,), copies=1).type == "cpu"
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2**30)
    assert windows.place_for((2**20,), copies=1) == gpu


def test_a_vote_seeds_the_generator_of_its_own_gpu_alone(gpu, model):
    windows = loaded(model, gpu, {}, Extras()).members[0].windows
    other = torch.device("cuda", 0)
    states = [torch.cuda.get_rng_state(device) for device in (gpu, other)]
    with seeded(5, windows):
        assert torch.equal(torch.cuda.get_rng_state(other), states[1])
        drawn = torch.rand(3, device=gpu)
    with seeded(5, windows):
        assert torch.equal(torch.rand(3, device=gpu), drawn)
    assert torch.equal(torch.cuda.get_rng_state(gpu), states[0])


# -- a folder --------------------------------------------------------------------------
@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    write_scans(folder, *((16 + 4 * number, 22, 20) for number in range(4)))
    return folder


def shared(model, scans, out, device, console=None):
    """Predict a folder; returns the bytes of all files, and the records without what
    differs in every run.
    """
    options = {"precision": "fp32", "mc_samples": 2, "uncertainty": ["entropy"]}
    trivox.predict(model, scans, out, device=device, console=console, **options)
    text = (out / "predictions.json").read_text()
    files = {path.name: path.read_bytes() for path in out.glob("*.nii.gz")}
    # of files that were just written, times are not noted
    differing = r'"(seconds|modified_ns|changed_ns)": [0-9.]+'
    return files, re.sub(differing, "", text)


@pytest.fixture(scope="module")
def alone(gpu, model, scans, tmp_path_factory):
    """What one GPU writes."""
    out = tmp_path_factory.mktemp("alone") / "out"
    return shared(model, scans, out, str(gpu))


@pytest.mark.parametrize("device", ["cuda:0,1", "cuda:1, cuda:0", "cuda"])
def test_gpus_that_share_a_folder_write_what_one_writes(
    model, scans, alone, tmp_path, device
):
    assert shared(model, scans, tmp_path / "out", device) == alone


def test_a_bad_case_sets_only_itself_aside(model, scans, alone, tmp_path):
    copies = tmp_path / "scans"
    shutil.copytree(scans, copies)
    (copies / "scan_1.nii.gz").write_bytes(b"no image")
    files, _ = shared(model, copies, tmp_path / "out", "cuda:0,1")
    assert len(files) == 6
    assert files.items() <= alone[0].items()
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    failed = [name for name, each in content["cases"].items() if "error" in each]
    assert failed == ["scan_1"]
    assert list(content["cases"]) == [f"scan_{number}" for number in range(4)]


# a file that is being opened just then is closed a moment later
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("device", ["cuda:1", "cuda:0,1"])
def test_ctrl_c_leaves_nothing_half_written_and_the_rest_is_gone_on_with(
    model, scans, alone, tmp_path, monkeypatch, device
):
    real = Predictor.compute
    begun = []

    def interrupted(self, case):
        begun.append(case)
        if len(begun) == 3:  # and never again
            signal.raise_signal(signal.SIGINT)
        return real(self, case)

    out = tmp_path / "out"
    monkeypatch.setattr(Predictor, "compute", interrupted)
    # whoever started the tests may ignore Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            shared(model, scans, out, device)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    assert not [each for each in threading.enumerate() if "meanwhile" in each.name]
    assert shared(model, scans, out, device) == alone


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:0,0", "names cuda:0 twice"),
        ("cuda,cuda:0", "names cuda:0 twice"),
        ("cuda:0,cpu", "is no list of GPUs"),
        ("cpu,cuda:0", "is no list of GPUs"),
        ("0,1", "is no list of GPUs"),
        ("cuda:0,", "is no list of GPUs"),
        ("auto,cuda:1", "is no list of GPUs"),
        ("cuda:0,7", "device 'cuda:7' is not available here"),
    ],
)
def test_other_lists_are_refused_before_anything_is_written(
    model, scans, tmp_path, device, message
):
    with pytest.raises(TrivoxError, match=message):
        trivox.predict(model, scans, tmp_path / "out", device=device)
    assert not (tmp_path / "out").exists()


def test_gpus_of_two_kinds_need_a_precision(model, scans, tmp_path, monkeypatch):
    def supported(including_emulation=True):
        return torch.cuda.current_device() == 0

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    with pytest.raises(RecipeError, match="cuda:0 and cuda:1 differ in the precision"):
        trivox.predict(model, scans, tmp_path / "out", device="cuda:0,1")


def test_only_prediction_knows_lists(gpu, tiny_data, tmp_path):
    with pytest.raises(RecipeError, match="is several, and only the cases"):
        trivox.train(tiny_data, tmp_path / "run", device="cuda:0,1")
    with pytest.raises(RecipeError, match="is several, and only the cases"):
        make_runtime("cuda:0,1")


def test_exams_are_shared_too(gpu, xray_run, xray_data, tmp_path):
    """With the figures and numbers beside them."""
    names = [case.name for case in load_dataset(xray_data).cases[:2]]
    chosen = tmp_path / "chosen.txt"
    chosen.write_text("\n".join(names))
    options = {"cases": chosen, "precision": "fp32"}
    written = []
    for device in (str(gpu), "cuda:0,1"):
        out = tmp_path / device
        trivox.predict(xray_run, xray_data, out, device=device, **options)
        files = {path.name: path.read_bytes() for path in out.iterdir()}
        del files["predictions.json"]
        written.append(files)
    assert len(written[0]) == 6
    assert written[0] == written[1]
