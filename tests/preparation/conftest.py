"""Small datasets, plans and stores, made once."""

import numpy as np
import pytest

from planning.plans import planned
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms
from trivox.planning.fingerprint import measure
from trivox.preparation.store import Store


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """Four cases of two channels; do not write into it."""
    settings = PhantomSettings(
        cases=4, shape=(12, 20, 18), channels=2, label_values=(7, 300)
    )
    return load_dataset(
        write_phantoms(tmp_path_factory.mktemp("phantoms") / "d", settings)
    )


@pytest.fixture(scope="session")
def plan(phantoms):
    """A plan for the phantoms."""
    return planned(
        (measure(phantoms), phantoms),
        network="unet-tiny",
        patch_size=(8, 16, 16),
        batch_size=2,
    )


@pytest.fixture
def store(tmp_path):
    """Three random cases of different sizes; class 2 only in `b`, `c` partly
    unlabelled.
    """
    made = Store(tmp_path / "store")
    rng = np.random.default_rng(0)
    for name, shape in (("a", (12, 20, 24)), ("b", (20, 14, 18)), ("c", (16, 16, 16))):
        label = np.zeros(shape, np.int16)
        label[3:8, 4:9, 5:12] = 1
        if name == "b":
            label[10:13, 9:12, 1:4] = 2
        if name == "c":
            label[:, 9:] = -1
        made.write(
            name,
            rng.normal(size=(2, *shape)).astype(np.float32),
            label,
            {"patient": name},
        )
    return made
