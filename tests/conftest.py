"""Fixtures that all rooms share."""

from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption("--data", default=None, help="folder of real scans; default: ../shared/data beside the repository")


def pytest_configure(config):
    import torch

    torch.set_num_threads(1)  # two test workers share two cores


@pytest.fixture(scope="session")
def data_root(request):
    """Real scans; tests that need them are skipped with a visible reason where they are absent."""
    given = request.config.getoption("--data")
    root = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not root.is_dir():
        pytest.skip(f"no real scans at {root} (pass --data)")
    return root
