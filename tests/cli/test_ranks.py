"""Under torchrun the first rank alone says what went wrong, if it knows."""

import warnings

import pytest

from trivox import cli
from trivox.cli import runtime


@pytest.mark.parametrize(("rank", "waits"), [(None, []), ("0", []), ("3", [15.0])])
def test_other_ranks_wait_before_they_speak(monkeypatch, capsys, rank, waits):
    waited = []
    monkeypatch.setattr(runtime.time, "sleep", waited.append)
    monkeypatch.setattr("sys.argv", ["trivox", "plan", "/no/such/dataset"])
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    with warnings.catch_warnings(), pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    assert waited == waits
    assert capsys.readouterr().err.startswith("error: /no/such/dataset")


def test_a_foreign_error_waits_as_well(monkeypatch):
    """A rank whose first one died fails in a collective, with a traceback."""
    waited = []
    monkeypatch.setattr(runtime.time, "sleep", waited.append)
    monkeypatch.setenv("RANK", "1")

    def broken():
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(cli, "app", broken)
    with warnings.catch_warnings(), pytest.raises(RuntimeError, match="peer"):
        cli.main()
    assert waited == [runtime.PATIENCE]
