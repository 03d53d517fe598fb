"""Where what is deployed lies, and the programs that judge it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root():
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def deploy():
    """The folder of what is deployed."""
    return ROOT / "deploy"


@pytest.fixture(scope="session")
def linted():
    """Runs a linter, which has to find nothing."""

    def run(tool, *arguments):
        folder = str(Path(sys.executable).parent)
        program = shutil.which(tool) or shutil.which(tool, path=folder)
        if program is None:
            pytest.skip(f"no {tool} here (pip install {tool}-py)")
        command = [program, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture(scope="session")
def chart(deploy):
    """The folder of the Helm chart."""
    return deploy / "helm" / "trivox"
