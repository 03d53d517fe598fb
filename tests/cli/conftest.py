"""What the tests of commands share."""

import sys

import pytest

from trivox.cli import main


@pytest.fixture
def trivox(tmp_path, monkeypatch, capsys):
    """Run a command; returns its exit status and what it printed."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["trivox", *(str(a) for a in arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out + printed.err

    return call
