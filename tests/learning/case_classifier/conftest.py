import pytest


@pytest.fixture
def whole_subsets(monkeypatch):
    """All features of a subset, never the best few: for laws about what is done with
    each of them.
    """
    monkeypatch.setattr("trivox.learning.case_classifier.fitting.FEW", ())
