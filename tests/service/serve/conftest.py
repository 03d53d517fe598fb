"""A server that all tests of this folder may use."""

import pytest

from serve_client import served


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Client and desk of a server; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("serve")
    data = tmp_path_factory.mktemp("data")
    with served(folder, data=data) as (client, desk):
        yield client, desk


@pytest.fixture
def client(shared):
    return shared[0]


@pytest.fixture
def desk(shared):
    return shared[1]
