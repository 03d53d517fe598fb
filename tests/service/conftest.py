"""What the tests of the service share."""

import shutil
import subprocess

import pytest

from trivox.service import database


@pytest.fixture(autouse=True, scope="session")
def disks_are_not_waited_for():
    """Tests kill processes and cut no power."""
    before = database.SYNCHRONOUS
    database.SYNCHRONOUS = "OFF"
    yield
    database.SYNCHRONOUS = before


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate of this machine that vouches for itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here, which makes certificates")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", folder / "key.pem", "-out", folder / "cert.pem"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    return folder
