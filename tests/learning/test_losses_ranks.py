"""Losses whose sums span all ranks: two processes with half of the batch each agree
with one that has all of it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trivox.learning.losses.choice import LOSSES, LossSetup
from trivox.learning.losses.combined import AdaptiveLoss
from trivox.learning.losses.weighting import balanced

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch without distributed"
)

NAMES = ("dice", "generalised_dice", "tversky", "focal_tversky", "cl_dice")
TERMS = ((1.0, 4.0), (3.0, 1.0))  # of the two ranks; swapped in the second window
WORKER = """
import os
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from safetensors.torch import save_file
sys.path.insert(0, sys.argv[2])
from test_losses_ranks import NAMES, TERMS, adaptive, batch, gradient

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()
half = [part[rank : rank + 1] for part in batch()]
found = {name: gradient(name, *half) for name in NAMES}
for rule in ("uncertainty", "balancing"):
    found |= adaptive(rule, torch.tensor(TERMS[rank]))
save_file(found, Path(sys.argv[1]) / f"{rank}.safetensors")
dist.barrier()
dist.destroy_process_group()
# torch's threads may end the process with SIGABRT while Python shuts down
os._exit(0)
"""


def batch():
    torch.manual_seed(0)
    return torch.randn(2, 3, 5, 5, 5), torch.randint(0, 3, (2, 5, 5, 5))


def gradient(name, logits, labels):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(
        LOSSES[name](LossSetup(batch=True))(logits, labels), logits
    )[0]


def adaptive(rule, terms):
    """Gradients of outputs and log-variances, or the balance after two windows, of
    terms that are given.
    """
    now = {"terms": terms}
    loss = AdaptiveLoss(
        lambda x, _: now["terms"] * x, {"a": 1.0, "b": 1.0}, rule=rule, window=1
    )
    x = torch.ones(2, requires_grad=True)
    loss(x, x).backward()
    if rule == "uncertainty":
        return {"outputs": x.grad, "log_variance": loss.log_variance.grad}
    now["terms"] = terms.flip(0)
    loss(x, x)
    return {"factor": loss.factor}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "worker.py").write_text(WORKER)
    here = str(Path(__file__).resolve().parent)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--standalone",
        str(folder / "worker.py"),
        str(folder),
        here,
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
    return [load_file(folder / f"{rank}.safetensors") for rank in (0, 1)]


@pytest.mark.parametrize("name", NAMES)
def test_pooled_losses_span_the_ranks(ranks, name):
    """DDP takes the mean of what the ranks compute, so each computes twice its part."""
    whole = gradient(name, *batch())
    torch.testing.assert_close(
        torch.cat([of_rank[name] for of_rank in ranks]) / 2, whole, atol=1e-6, rtol=1e-4
    )


def test_ranks_learn_the_same_weights_from_the_mean_of_their_terms(ranks):
    mean = torch.tensor(TERMS).mean(0)
    for of_rank, terms in zip(ranks, TERMS, strict=True):
        torch.testing.assert_close(of_rank["log_variance"], 1 - mean)
        torch.testing.assert_close(
            of_rank["outputs"], torch.tensor(terms)
        )  # its own, which DDP will average
        torch.testing.assert_close(of_rank["factor"], balanced(mean.flip(0), mean))
