"""Fingerprints and datasets made of numbers, for planning without files."""

from pathlib import Path

import pytest

from trivox.datasets.dataset import Dataset
from trivox.datasets.labels import LabelScheme
from trivox.planning.fingerprint import CaseFingerprint, Fingerprint, Intensities

INTENSITIES = Intensities(
    mean=40.0,
    median=38.0,
    std=12.0,
    minimum=-50.0,
    maximum=200.0,
    percentile_00_5=-10.0,
    percentile_99_5=90.0,
)


def described(shape, spacing, cases, labels, *, channels=("mr",), relative_size=1.0):
    """The fingerprint of `cases` equal cases and a dataset with that many labels."""
    many = tuple(
        CaseFingerprint(
            name=f"c{i}", shape=shape, spacing=spacing, relative_size=relative_size
        )
        for i in range(cases)
    )
    fingerprint = Fingerprint(
        dataset="d", cases=many, intensities=dict.fromkeys(channels, INTENSITIES)
    )
    scheme = LabelScheme(labels={f"l{i}": i for i in range(1, labels + 1)})
    return fingerprint, Dataset(
        name="d",
        root=Path("/d"),
        layout="manifest",
        channels=channels,
        labels=scheme,
        cases=(),
    )


@pytest.fixture(scope="session")
def describe():
    """Make a fingerprint and a dataset from shape, spacing, number of cases and of
    labels.
    """
    return described


@pytest.fixture(scope="session")
def examples():
    """The datasets of research/nnunet.md 1.5 as `describe` gives them."""
    return {
        "hippocampus": described((36, 50, 35), (1.0, 1.0, 1.0), 260, 2),
        "lits": described((432, 512, 512), (1.0, 0.767, 0.767), 131, 2),
        "acdc": described((9, 256, 216), (10.0, 1.56, 1.56), 200, 3),
        "brats": described(
            (140, 171, 137),
            (1.0, 1.0, 1.0),
            1251,
            3,
            channels=("t1", "t1ce", "t2", "flair"),
        ),
    }
