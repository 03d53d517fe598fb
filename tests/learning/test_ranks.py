import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from rank_work import NAMES, TERMS, batch, gradient, validated
from trivox.files import read_json
from trivox.inference.classes.reader import Reading
from trivox.inference.rules.postprocess import Postprocessing
from trivox.learning.checkpoints import load_weights
from trivox.learning.losses.weighting import balanced
from trivox.learning.ranks.parcels import packed, unpacked
from trivox.learning.tracking import read_records
from trivox.tasks.console import Quiet
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest

pytestmark = [
    pytest.mark.skipif(
        not torch.distributed.is_available(), reason="torch without distributed"
    ),
    pytest.mark.usefixtures("without_figures"),
]

# Plain SGD: AdamW turns rounding noise in vanishing gradients into whole steps, so no
# two summation orders would agree.
SETTINGS = {
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "momentum": 0.9,
    "batch_size": 4,
    "weight_decay": 0.0,
}

RUNS = {
    "sample": {"batch_dice": False, "deep_supervision": False},
    "pooled": {"batch_dice": True},
    "features": {
        "pretrained": "sample",
        "freeze_encoder": 0.7,
        "unfreezing": "staged",
        "weights_ema": 0.8,
        "micro_batch": 1,
        "keep_best": 2,
        "final_weights": "average",
        "loss_options": {"adaptive": "uncertainty"},
    },
}
"""Dice a sample by a network of one head, Dice over the batch by one of several, and all
that has to be the same on every rank.
"""

WORKER = """
import hashlib, json, sys
from pathlib import Path
import torch
import torch.distributed as dist
from safetensors.torch import save_file
import trivox.tasks.labels.segmentation as segmentation
import trivox.tasks.run as training
from trivox.learning.ranks.group import process_group
sys.path.insert(0, sys.argv[5])
from blank_figures import blank_figures
from rank_work import failures, losses_of, validated

torch.set_num_threads(1)
networks = []
build = segmentation.build_network

def remember(*args, **kwargs):
    networks.append(build(*args, **kwargs))
    return networks[-1]

segmentation.build_network = remember
data = Path(sys.argv[1])
folder = Path(sys.argv[2])
settings = json.loads(sys.argv[3])
written = set()

def note(event, details):
    path, mode, flags = (*details, None, None, None)[:3] if event == "open" else (0, 0, 0)
    if isinstance(path, str) and str(folder) in path and mode not in (None, "r", "rb"):
        written.add(Path(path).name)

sys.addaudithook(note)
with process_group(torch.device("cpu")), blank_figures():  # once for all runs
    for run, extras in json.loads(sys.argv[4]).items():
        if "pretrained" in extras:
            extras["pretrained"] = str(folder / extras["pretrained"])
        request = training.RunRequest(
            data, folder / run, "quick_test", settings | extras
        )
        training.run_request(request)
        network = networks[0]  # the first that a run builds is the one it trains
        state = network.state_dict().values()
        joined = b"".join(value.numpy().tobytes() for value in state)
        digest = hashlib.sha256(joined).hexdigest()
        (folder / f"{run}-{dist.get_rank()}.txt").write_text(digest)
        networks.clear()
    (folder / f"written-{dist.get_rank()}.json").write_text(json.dumps(sorted(written)))
    validated(data, folder / "sample", folder / "validated")
    reasons = json.dumps(failures())
    (folder / f"failures-{dist.get_rank()}.json").write_text(reasons)
    save_file(losses_of(dist.get_rank()), folder / f"losses-{dist.get_rank()}.safetensors")
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, tiny_data, tiny_settings):
    """`RUNS`, trained by two processes under torchrun."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "worker.py").write_text(WORKER)
    settings = json.dumps({**tiny_settings, **SETTINGS})
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--standalone",
        str(folder / "worker.py"),
        str(tiny_data),
        str(folder),
        settings,
        json.dumps(RUNS),
        str(Path(__file__).parents[1]),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_equal_each_other_and_one_process(
    ranks, tmp_path, tiny_data, tiny_settings, name
):
    first, second = ((ranks / f"{name}-{rank}.txt").read_text() for rank in (0, 1))
    assert first == second
    settings = {**tiny_settings, **SETTINGS, **RUNS[name]}
    if "pretrained" in settings:
        settings["pretrained"] = str(ranks / settings["pretrained"])
    run = ranks / name
    run_request(RunRequest(tiny_data, tmp_path / "one", "quick_test", settings))
    files = (
        x / "checkpoints" / "latest" / "weights.safetensors"
        for x in (tmp_path / "one", run)
    )
    expected, result = (load_weights(file) for file in files)
    for key, value in expected.items():
        assert torch.allclose(value, result[key], rtol=0, atol=1e-5), key
    one, two = (read_records(x / "metrics.jsonl") for x in (tmp_path / "one", run))
    assert [r["step"] for r in two] == [r["step"] for r in one]  # rank 0 alone writes
    for a, b in zip(one, two, strict=True):
        assert b["validation_dice"] == pytest.approx(a["validation_dice"], abs=1e-4)
        assert b["validation_loss"] == pytest.approx(a["validation_loss"], abs=1e-4)


def test_ranks_leave_one_whole_run(ranks, tiny_run):
    names = {path.name for path in (ranks / "sample").iterdir()}
    assert names == {path.name for path in tiny_run.iterdir()}


def test_only_the_first_rank_writes(ranks):
    first, second = (read_json(ranks / f"written-{rank}.json") for rank in (0, 1))
    assert any("recipe.json" in name for name in first)
    others = [name for name in second if not name.startswith(".trivox-")]
    assert others == [f"{name}-1.txt" for name in sorted(RUNS)]


def test_held_out_cases_that_ranks_share_give_the_figures_of_one_process(
    ranks, tmp_path, tiny_data
):
    validation = validated(tiny_data, ranks / "sample", tmp_path)
    assert len(validation.metrics["cases"]) == 5
    expected, result = (
        json.loads((folder / "metrics.json").read_text().replace(str(folder), ""))
        for folder in (tmp_path, ranks / "validated")
    )
    assert result == expected
    for file in (tmp_path / "predictions").iterdir():
        assert (
            file.read_bytes()
            == (ranks / "validated" / "predictions" / file.name).read_bytes()
        )


def test_the_first_rank_says_what_failed_on_another(ranks):
    first, second = (read_json(ranks / f"failures-{rank}.json") for rank in (0, 1))
    assert first[0] == second[0] == "case 3: is broken"
    assert first[1] == [0, 1, 4, 9, 16]
    assert first[2] == second[2]


# -- losses ----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def losses(ranks):
    """Of both ranks; each has half of the batch."""
    return [load_file(ranks / f"losses-{rank}.safetensors") for rank in (0, 1)]


@pytest.mark.parametrize("name", NAMES)
def test_pooled_losses_span_the_ranks(losses, name):
    """DDP takes the mean of what the ranks compute, so each computes twice its part."""
    whole = gradient(name, *batch())
    torch.testing.assert_close(
        torch.cat([of_rank[name] for of_rank in losses]) / 2,
        whole,
        atol=1e-6,
        rtol=1e-4,
    )


def test_ranks_learn_the_same_weights_from_the_mean_of_their_terms(losses):
    mean = torch.tensor(TERMS).mean(0)
    for of_rank, terms in zip(losses, TERMS, strict=True):
        torch.testing.assert_close(of_rank["log_variance"], 1 - mean)
        torch.testing.assert_close(
            of_rank["outputs"], torch.tensor(terms)
        )  # its own, which DDP will average
        torch.testing.assert_close(of_rank["factor"], balanced(mean.flip(0), mean))


# -- what ranks send one another -------------------------------------------------------
NUMBERS = st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none()
VALUES = st.recursive(
    NUMBERS | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(value=VALUES)
def test_values_arrive_as_they_were_sent(value):
    result = unpacked(packed(value), ())
    assert result == value
    assert repr(result) == repr(value)  # types too


def test_arrays_and_classes_arrive_as_they_were_sent():
    logits = np.array([[np.nan, 0.1], [1e-300, -np.inf]])
    reading = Reading(logits, {"volume": 0.1 + 0.2}, ("flag",))
    rules = Postprocessing(largest_of=(1, 2), remove_small={"core": 0.3})
    sent = {
        1: [reading, rules, Path("a/b"), np.float32(0.5)],
        "mask": torch.ones(0, 2) > 0,
    }
    result = unpacked(packed(sent), (Reading, Postprocessing))
    first, second, path, number = result[1]
    assert first.logits.dtype == np.float64
    assert np.array_equal(first.logits, logits, equal_nan=True)
    assert (first.features, first.flags) == (reading.features, reading.flags)
    assert (second, path, number) == (rules, Path("a/b"), 0.5)
    assert torch.equal(result["mask"], sent["mask"])


@pytest.mark.parametrize("kinds", [(), (Postprocessing,)])
def test_a_class_that_is_not_expected_does_not_arrive(kinds):
    reading = Reading(None, {}, ())
    with pytest.raises(TypeError, match="a Reading came from another rank"):
        unpacked(packed(reading), kinds)


def test_what_is_no_value_is_not_sent():
    with pytest.raises(TypeError, match="a Quiet cannot be sent"):
        packed([Quiet()])
