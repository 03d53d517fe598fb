"""Prediction on GPUs: few waits, the CPU's answer, and a folder that several share."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from trivox.inference.decide import seeded
from trivox.inference.doubt.kinds import Extras
from trivox.inference.predictor import Predictor
from untrained_models import write_scans, write_untrained

SHAPE = (30, 48, 44)
VOTING = {"mirror": True, "mc_samples": 2, "scales": (1.0, 1.2)}
DOUBT = Extras(probabilities=True, uncertainty=("entropy", "variance"))
ASKED = {
    "plain": ({}, Extras(), 12),
    "mirrored": ({"mirror": True}, Extras(), 12),
    "probabilities": ({}, Extras(probabilities=True), 8),
    "32 votes": (VOTING, DOUBT, 70),
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

    for options, extras in (({}, Extras()), ({"mirror": True}, DOUBT)):
        predictor = loaded(model, gpu, options, extras)
        with memory_of(megabytes):
            prediction = predictor.predict_case(scan)
        expected = loaded(model, "cpu", options, extras).predict_case(scan)
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
