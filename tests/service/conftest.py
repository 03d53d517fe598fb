"""What the tests of the service share."""

import pytest

from trivox.service.jobs import tables


@pytest.fixture(autouse=True, scope="session")
def disks_are_not_waited_for():
    """Tests kill processes and cut no power."""
    before = tables.SYNCHRONOUS
    tables.SYNCHRONOUS = "OFF"
    yield
    tables.SYNCHRONOUS = before
