import pytest

from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms


@pytest.fixture
def phantoms(tmp_path):
    """Four cases of two channels under a manifest; the last one is to test on."""
    settings = PhantomSettings(
        cases=4, shape=(8, 12, 10), channels=2, test_cases=1, neighbour=True
    )
    return write_phantoms(tmp_path / "phantoms", settings)
