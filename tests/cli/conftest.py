"""What the tests of commands share."""

import json
import sys

import pytest

from trivox.cli import main


@pytest.fixture
def ran(tmp_path, monkeypatch, capsys):
    """Run a command; returns its exit status, and what it printed to each stream."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["trivox", *(str(a) for a in arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture
def trivox(ran):
    """Run a command; returns its exit status and what it printed."""

    def call(*arguments):
        status, out, err = ran(*arguments)
        return status, out + err

    return call


@pytest.fixture
def asked(ran):
    """Run a command with --json; returns its exit status and its answer."""

    def call(*arguments):
        status, out, _ = ran(*arguments, "--json")
        assert out.endswith("}\n")
        return status, json.loads(out, parse_constant=pytest.fail)

    return call
