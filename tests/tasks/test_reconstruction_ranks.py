"""Two processes train one network on X-rays, under torchrun."""

import json
import subprocess
import sys

import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not torch.distributed.is_available(), reason="torch without distributed"
    ),
]
SETTINGS = {
    "patch_size": (8, 8, 8),
    "epochs": 2,
    "iterations_per_epoch": 2,
    "validation_iterations": 1,
    "workers": 0,
    "batch_size": 4,
    "precision": "fp32",
    "optimizer": "sgd",
    "momentum": 0.0,
    "final_weights": "latest",
    "reconstruction": {
        "view_counts": (0, 2),
        "growth": (4,),
        "adversarial": 0.1,
        "adversarial_share": 0.5,
        "psnr_budget": 99,
    },
}
WORKER = """
import hashlib, json, sys
from pathlib import Path
import torch
import torch.distributed as dist
import trivox.tasks.reconstruction.task as reconstruction
import trivox.tasks.run as training

torch.set_num_threads(1)
dist.init_process_group("gloo")
networks, build = [], reconstruction.volume_network
reconstruction.volume_network = lambda *args: networks.append(build(*args)) or networks[-1]
data, folder = Path(sys.argv[1]), Path(sys.argv[2])
request = training.RunRequest(
    data, folder / "run", "quick_test", json.loads(sys.argv[3]), task="reconstruction"
)
training.run_request(request)
joined = b"".join(value.numpy().tobytes() for value in networks[0].state_dict().values())
(folder / f"{dist.get_rank()}.txt").write_text(hashlib.sha256(joined).hexdigest())
torch.save(networks[0].state_dict(), folder / f"{dist.get_rank()}.pt")
dist.barrier()
dist.destroy_process_group()
"""


def launch(folder, data, processes, settings):
    folder.mkdir()
    (folder / "worker.py").write_text(WORKER)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        str(processes),
        "--master-port",
        "0",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "localhost:0",
        str(folder / "worker.py"),
        str(data),
        str(folder),
        json.dumps(settings),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-6000:]


def test_ranks_hold_the_same_weights_with_growth_and_a_critic(xray_data, tmp_path):
    launch(tmp_path / "two", xray_data, 2, SETTINGS)
    first, second = ((tmp_path / "two" / f"{rank}.txt").read_text() for rank in (0, 1))
    assert first == second


def test_two_ranks_take_the_step_that_one_process_takes(xray_data, tmp_path):
    plain = {
        **SETTINGS,
        "reconstruction": {"view_counts": (2,), "photons": None},
        "epochs": 1,
    }
    launch(tmp_path / "one", xray_data, 1, plain)
    launch(tmp_path / "two", xray_data, 2, plain)
    one, two = (
        torch.load(tmp_path / folder / "0.pt", weights_only=True)
        for folder in ("one", "two")
    )
    for name, value in one.items():
        torch.testing.assert_close(
            two[name],
            value,
            rtol=1e-4,
            atol=1e-5,
            msg=lambda text, name=name: f"{name}: {text}",
        )
    figures = [
        json.loads((tmp_path / folder / "run/validation/metrics.json").read_text())
        for folder in ("one", "two")
    ]
    one, two = (each["cases"] for each in figures)
    assert list(one) == list(two)
    for name, values in one.items():
        assert two[name]["volume"]["mae_hu"] == pytest.approx(
            values["volume"]["mae_hu"], rel=1e-3
        )
