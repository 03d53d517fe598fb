"""`trivox serve` before it serves: whom it would let in, and what it would serve."""

import pytest
from typer.testing import CliRunner

from trivox.cli import app
from trivox.errors import BundleError, ResourceError, UsageError
from trivox.tasks.console import Quiet
from trivox.verbs.clinic import serve as module
from trivox.verbs.clinic.serve import read_tokens, serve, served_models

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """What the server would be run with, and a way to run it."""
    runs = []
    monkeypatch.setattr(module, "run_service", lambda work, **rest: runs.append(rest))

    def start(**options):
        serve("hippocampus", state=tmp_path / "state", **options)
        return runs[-1]

    return start


def token_file(tmp_path, text=TOKEN, mode=0o600):
    file = tmp_path / "tokens"
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return file


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "scans.hospital", ""])
def test_others_are_let_in_only_with_a_token_or_the_flag(run, tmp_path, host):
    with pytest.raises(UsageError, match="--insecure-no-auth"):
        run(host=host)
    assert run(host=host, token_file=token_file(tmp_path))["access"].tokens == (TOKEN,)
    assert run(host=host, insecure_no_auth=True)["access"].tokens == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_needs_no_token_unless_there_is_one(run, tmp_path, host):
    assert run(host=host)["access"].tokens == ()
    assert run(host=host, token_file=token_file(tmp_path))["access"].tokens == (TOKEN,)


class Hearing(Quiet):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def test_tokens_are_one_a_line(tmp_path):
    file = token_file(tmp_path, f"{TOKEN}\n\n  {TOKEN[::-1]}  \n")
    console = Hearing()
    assert read_tokens(file, console) == [TOKEN, TOKEN[::-1]]
    assert console.lines == []


def test_weak_and_readable_tokens_are_warned_of(tmp_path):
    console = Hearing()
    read_tokens(token_file(tmp_path, "short", 0o644), console)
    assert ["chmod 600" in line for line in console.lines] == [True, False]
    assert "openssl rand" in console.lines[1]


@pytest.mark.parametrize("text", ["", "\n \n", "two words", "ümlaut", "tab\tbed"])
def test_files_without_a_token_are_refused(tmp_path, text):
    with pytest.raises(UsageError, match="must hold a token a line"):
        read_tokens(token_file(tmp_path, text), Quiet())
    with pytest.raises(UsageError, match="cannot be read"):
        read_tokens(tmp_path / "missing", Quiet())


def test_a_token_in_the_clear_is_warned_of(run, tmp_path):
    console = Hearing()
    run(host="0.0.0.0", token_file=token_file(tmp_path), console=console)
    assert any("in the clear" in line for line in console.lines)


def test_certificate_and_key_go_together(run, tmp_path):
    with pytest.raises(UsageError, match="go together"):
        run(tls_cert=tmp_path / "cert.pem")


def test_a_data_folder_has_to_be_there(run, tmp_path):
    with pytest.raises(UsageError, match="is no folder"):
        run(data=tmp_path / "missing")
    assert run(data=tmp_path)["data"] == tmp_path


def test_models_are_called_by_their_names(tiny_run, tmp_path):
    models = served_models(["hippocampus", tiny_run, tiny_run / "bundle"][:2])
    assert [each.name for each in models] == ["hippocampus", "run"]
    with pytest.raises(UsageError, match="two models are called run"):
        served_models([tiny_run, tiny_run / "bundle"])
    odd = tmp_path / "Lésion model (v2)"
    odd.symlink_to(tiny_run)
    assert served_models([odd])[0].name == "L-sion-model--v2"


def test_a_damaged_model_is_said_at_once(tiny_run, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_run / "bundle", copy)
    (weights,) = copy.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="checksum differs"):
        served_models([copy])


def test_a_missing_package_names_the_extra(run, monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("no_such_package",))
    with pytest.raises(ResourceError, match=r"pip install 'trivox\[serve\]'"):
        run()


def test_the_command_line_says_the_same_in_one_line(tmp_path):
    arguments = ["serve", "hippocampus", "--host", "0.0.0.0", "--state", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, UsageError)
