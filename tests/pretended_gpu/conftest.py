"""What the tests on the pretended device share; they run in a process of their own."""

import sys

import pytest


def pytest_runtest_setup(item):
    plugin = sys.modules.get("pretended_gpu.plugin")
    if plugin is None:
        pytest.skip("runs in a process of its own: make test-pretended-gpu")
    if plugin.REASON is not None:
        pytest.skip(f"a pretended GPU {plugin.REASON}")


@pytest.fixture(scope="session")
def gpu():
    """The second device: what is put on the first by mistake does not go unseen."""
    import torch

    return torch.device("cuda", 1)
