"""Fixtures that all rooms share."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--data",
        default=None,
        help="folder of real scans; default: ../shared/data beside the repository",
    )


def pytest_configure(config):
    import torch
    from hypothesis import settings

    torch.set_num_threads(1)  # two test workers share two cores
    # every run tries the same examples, however busy the machine
    settings.register_profile("seeded", derandomize=True, deadline=None)
    settings.load_profile("seeded")


def pytest_collection_modifyitems(items):
    """The longest tests first, so that no worker is left alone with them at the end."""
    items.sort(key=lambda item: "test_notebook" not in item.nodeid)


@pytest.fixture
def dead_process():
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.fixture
def living_process():
    """The number of a process that runs as long as the test."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE
    ) as process:
        yield process.pid
        process.communicate(b"\n")


@pytest.fixture(scope="session")
def data_root(request):
    """Real scans; tests that need them are skipped with a visible reason where they are
    absent.
    """
    given = request.config.getoption("--data")
    root = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not root.is_dir():
        pytest.skip(f"no real scans at {root} (pass --data)")
    return root


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's cache in which nothing lies, and no checkout with ready models; returns
    the shelf of fetched ones.
    """
    from trivox.inference.zoo import shelves

    monkeypatch.setattr(shelves, "cache_folder", lambda what: tmp_path / "cache" / what)
    monkeypatch.setattr(shelves, "CHECKOUT", tmp_path / "elsewhere")
    return tmp_path / "cache" / "models"


@pytest.fixture(scope="module")
def without_figures():
    """Reports of this module's runs have blank figures."""
    from blank_figures import blank_figures

    with blank_figures():
        yield


@pytest.fixture(scope="session")
def whole_release(tmp_path_factory):
    """A release of models; tests read it and never write into it."""
    from releases import write_release

    return write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def release(tmp_path, whole_release):
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(whole_release, tmp_path / "release"))


TINY = {
    "network": "unet-tiny",
    "patch_size": [16, 16, 16],
    "batch_size": 2,
    "epochs": 2,
    "iterations_per_epoch": 3,
    "validation_iterations": 1,
    "precision": "fp32",
    "workers": 0,
    "deterministic": True,
}


@pytest.fixture(scope="session")
def tiny_settings():
    """Recipe overrides of a training that takes a fraction of a second."""
    return dict(TINY)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Six phantoms of 16 x 24 x 20 voxels with label values 7 and 300, one of them a
    test case.
    """
    from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms

    settings = PhantomSettings(
        cases=6,
        shape=(16, 24, 20),
        spacing=(2.0, 1.5, 1.5),
        label_values=(7, 300),
        test_cases=1,
    )
    return write_phantoms(tmp_path_factory.mktemp("tiny") / "phantoms", settings)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_data):
    """A finished run on `tiny_data`; tests read it and never write into it."""
    from trivox.tasks.run import run_request
    from trivox.tasks.task import RunRequest

    run = tmp_path_factory.mktemp("tiny") / "run"
    run_request(RunRequest(tiny_data, run, "quick_test", TINY))
    return run


@pytest.fixture(scope="session")
def xray_data(tmp_path_factory):
    """Six drawn chests of 16^3 voxels with eight X-rays each, one of them a test case."""
    from trivox.datasets.phantoms.thoraxes import ThoraxSettings, write_thoraxes

    return write_thoraxes(
        tmp_path_factory.mktemp("xrays") / "chests",
        ThoraxSettings(cases=6, test_cases=1, size=16),
    )


@pytest.fixture(scope="session")
def xray_plan(xray_data):
    """A plan for `xray_data`: 8^3 voxels of 40 mm."""
    from trivox.config.recipe import make_recipe
    from trivox.datasets.layouts.choice import load_dataset
    from trivox.tasks.reconstruction.planning import plan_reconstruction

    recipe = make_recipe("quick_test", {"patch_size": (8, 8, 8)}, named="xray2ct")
    return plan_reconstruction(load_dataset(xray_data), recipe)


TINY_XRAYS = {
    "patch_size": (8, 8, 8),
    "epochs": 2,
    "iterations_per_epoch": 2,
    "validation_iterations": 2,
    "workers": 0,
    "batch_size": 2,
    "precision": "fp32",
    "reconstruction": {"view_counts": (1, 2)},
}


@pytest.fixture(scope="session")
def xray_run(tmp_path_factory, xray_data):
    """A finished reconstruction run on `xray_data`; tests read it and never write into
    it.
    """
    from trivox.tasks.run import run_request
    from trivox.tasks.task import RunRequest

    run = tmp_path_factory.mktemp("xrays") / "run"
    run_request(
        RunRequest(xray_data, run, "quick_test", TINY_XRAYS, task="reconstruction")
    )
    return run
