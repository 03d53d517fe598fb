"""`--json`: one document on standard output and nothing else, whatever happens."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinic import uid, web_archive, write_profiles, write_series
from json_schemas import complaints
from trivox import cli
from trivox.cli.failures import message_of
from trivox.errors import (
    HIDDEN,
    DataError,
    InterruptedTrainingError,
    TrivoxError,
    UsageError,
)
from trivox.verbs.answers.documents import document

ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")
"""A disk without space."""
NOISY = """
import os, sys
from trivox.cli import main
import trivox.verbs.doctor as doctor
facts = {"trivox": "\\u00e5 \\u202e \\x1b[31m \\udcff", "python": "3"}
def noisy():
    print("printed")
    os.write(1, b"written by a library")
    os.system("echo echoed by another process")
    sys.__stdout__.write("written past us")
    return facts
doctor.examine_machine = noisy
sys.argv = ["trivox", "doctor", *sys.argv[1:]]
main()
"""


def ran_noisily(*options, **settings):
    return subprocess.run(
        [sys.executable, "-c", NOISY, *options],
        capture_output=True,
        check=False,
        **settings,
    )


# -- one document ----------------------------------------------------------------------
@pytest.mark.parametrize("encoding", ["C", "C.UTF-8", "latin-1"])
def test_nothing_else_gets_to_standard_output_in_any_locale(encoding):
    variables = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    if encoding == "latin-1":
        variables["PYTHONIOENCODING"] = encoding
    else:
        variables["LC_ALL"] = encoding
    done = ran_noisily("--json", env=variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(b"}\n")
    facts = json.loads(done.stdout.decode("ascii"))["facts"]
    assert facts["trivox"] == "\u00e5 \u202e \x1b[31m \udcff"
    for noise in (b"printed", b"a library", b"another process", b"past us"):
        assert noise in done.stderr
        assert noise not in done.stdout


@pytest.mark.skipif(not FULL.exists(), reason="no full disk here")
def test_a_document_that_did_not_fit_is_an_error():
    with FULL.open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", NOISY, "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    assert b"error: standard output cannot be written" in done.stderr


def test_people_are_told_the_same_as_ever(ran):
    status, out, err = ran("doctor")
    assert status == 0
    assert out.startswith("trivox  ")
    assert err == ""


def test_a_program_gets_no_lines_beside(ran):
    _, out, err = ran("doctor", "--json")
    assert json.loads(out)["facts"]["trivox"] == cli.__version__
    assert err == ""


def test_help_is_for_people(ran):
    for arguments in (("check", "--help", "--json"), ("check", "--json", "--help")):
        status, out, _ = ran(*arguments)
        assert status == 0
        assert out.startswith("Usage")
        assert "--json" in out


def test_what_comes_after_two_dashes_is_no_option(ran):
    status, out, err = ran("info", "--", "--json")
    assert (status, out) == (1, "")
    assert err.startswith("error: '--json' is neither")


@pytest.mark.skipif(sys.platform != "linux", reason="names are text here")
@pytest.mark.parametrize("name", [b"\xff\xe5", "\u00fc \u202e".encode(), b"a\nb"])
def test_paths_of_any_name_can_be_opened_as_they_stand(
    asked, tmp_path, tiny_data, name
):
    folder = tmp_path / os.fsdecode(name)
    shutil.copytree(tiny_data, folder)
    status, answer = asked("check", folder.name)
    assert status == 0
    assert answer["dataset"]["root"] == str(folder)
    assert Path(answer["dataset"]["root"]).is_dir()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(st.characters())
    | st.floats(width=32).map(np.float32)
    | st.integers(0, 5).map(np.arange),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


def predictions(tmp, record):
    case = {"name": "a", "is_done": True, "files": (), "record": record}
    return SimpleNamespace(
        folder=tmp,
        file=tmp / "predictions.json",
        results="cases",
        done=1,
        failed=[],
        seconds=1.0,
        classes=(),
        note="",
        cases=[case],
    )


def numbers_in(content):
    if isinstance(content, dict):
        content = list(content.values())
    if not isinstance(content, list):
        return [content] if isinstance(content, float) else []
    return [number for part in content for number in numbers_in(part)]


@settings(max_examples=40)
@given(value=VALUES)
def test_any_content_is_json_without_nan(tmp_path_factory, value):
    record = {"inputs": [], "seconds": math.nan, "more": value}
    made = document("predict", predictions(tmp_path_factory.getbasetemp(), record))
    text = json.dumps(made, allow_nan=False)
    (case,) = json.loads(text)["cases"]
    assert case["record"]["seconds"] is None
    assert all(map(math.isfinite, numbers_in(case["record"])))


# -- errors ----------------------------------------------------------------------------
KINDS = {
    "error": ["TrivoxError"],
    "data": ["DataError"],
    "format": ["FormatError"],
    "geometry": ["GeometryError"],
    "label": ["LabelError"],
    "plan": ["PlanError"],
    "recipe": ["RecipeError"],
    "usage": ["UsageError"],
    "bundle": ["BundleError"],
    "trust": ["TrustError"],
    "resource": ["ResourceError"],
    "busy": ["BusyError"],
    "diverged": ["DivergedTrainingError"],
    "interrupted": ["InterruptedTrainingError"],
    "unreachable": ["UnreachableError"],
    "refused": ["RefusedError"],
}
"""What programs rely on: it may grow, and nothing in it may change."""


def below(kind):
    yield kind
    for child in kind.__subclasses__():
        yield from below(child)


def test_kinds_of_errors_stay_what_they_are():
    from trivox.service.peers import archive

    named = {each.__name__: each.kind for each in below(TrivoxError)}
    assert archive.UnreachableError.kind == "unreachable"
    for kind, names in KINDS.items():
        for name in names:
            assert named[name] == kind
    assert set(named.values()) == KINDS.keys()


def test_the_page_lists_all_kinds():
    page = ROOT / "docs" / "reference" / "schemas.md"
    rows = re.findall(r"^\| `(\w+)` \| .* \| ([12]) \|$", page.read_text(), re.M)
    expected = {kind: "2" if kind == "usage" else "1" for kind in KINDS}
    expected.pop("interrupted")  # stopped: there is no document
    assert dict(rows) == {**expected, "internal": "1"}


def test_the_example_of_the_page_works():
    page = ROOT / "docs" / "how-to" / "read-trivox-from-programs.md"
    (code,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    names = {}
    exec(code, names)
    assert names["machine"]["python"]
    with pytest.raises(RuntimeError, match="No such command"):
        names["ask"]("nothing")


@pytest.mark.parametrize(
    ("arguments", "status", "kind"),
    [
        (("check", "none"), 1, "format"),
        (("evaluate", "a", "b"), 1, "data"),
        (("info", "none"), 1, "bundle"),
        (("info", "unet-tiny", "--set", "x=1"), 1, "recipe"),
        (("pacs", "find", "--dates", "yesterday"), 2, "usage"),
        (("predict", "model", "--out", "p"), 2, "usage"),
        (("check",), 2, "usage"),
        (("check", "x", "--wrong"), 2, "usage"),
        (("train", "x", "--out", "y", "--preset", "z"), 2, "usage"),
        (("nothing",), 2, "usage"),
        (("pacs", "nothing"), 2, "usage"),
        (("--nothing", "check"), 2, "usage"),
        (("node", "x"), 2, "usage"),
    ],
)
def test_errors_are_documents_too(ran, arguments, status, kind):
    ended, out, err = ran(*arguments, "--json")
    answer = json.loads(out)
    assert ended == status
    assert complaints("error", answer) == []
    assert answer["task"] is None
    assert answer["error"]["kind"] == kind
    line = err.splitlines()[-1]
    assert line.lower() == f"error: {answer['error']['message']}".lower()
    assert ran(*arguments)[1:] == ("", err) or kind == "usage"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DataError("a\nb \x1b[31m"), "data"),
        (UsageError("no"), "usage"),
        (OSError(28, "No space left on device"), "resource"),
        (MemoryError(), "resource"),
    ],
)
def test_the_message_is_the_line(ran, monkeypatch, error, kind):
    def fails():
        raise error

    monkeypatch.setattr("trivox.verbs.doctor.examine_machine", fails)
    status, out, err = ran("doctor", "--json")
    answer = json.loads(out)
    assert status == (2 if kind == "usage" else 1)
    assert answer["verb"] == "doctor"
    assert answer["error"]["kind"] == kind
    assert err == f"error: {answer['error']['message']}\n"


@given(text=st.text(st.characters()))
def test_any_message_is_one_line_that_a_terminal_shows(text):
    for error in (DataError(text), OSError(text), KeyError(text)):
        line = message_of(error)
        assert not {*map(unicodedata.category, line)} & {*HIDDEN}
        assert json.loads(json.dumps(line)) == line


def failing(monkeypatch, error, *options):
    def fails():
        raise error

    monkeypatch.setattr("trivox.verbs.doctor.examine_machine", fails)
    monkeypatch.setattr(sys, "argv", ["trivox", "doctor", "--json", *options])


def test_what_should_not_happen_is_said_and_still_a_traceback(monkeypatch, capsys):
    failing(monkeypatch, KeyError("x"))
    with pytest.raises(KeyError):
        cli.main()
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"] == {"kind": "internal", "message": "KeyError: 'x'"}


def test_debug_shows_the_traceback_beside_the_document(monkeypatch, capsys):
    failing(monkeypatch, DataError("x"), "--debug")
    with pytest.raises(DataError):
        cli.main()
    assert json.loads(capsys.readouterr().out)["error"]["message"] == "x"


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), InterruptedTrainingError("x")])
def test_what_is_stopped_answers_nothing(monkeypatch, capsys, stop):
    failing(monkeypatch, stop)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 130
    assert capsys.readouterr().out == ""


def test_only_the_first_rank_answers(ran, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert ran("doctor", "--json") == (0, "", "")


# -- what was done nevertheless --------------------------------------------------------
def failed(asked, verb, *arguments):
    status, answer = asked(*verb.split(), *arguments)
    assert status == 1
    assert complaints(verb.replace(" ", "-"), answer) == []
    assert complaints("error", answer) == []
    return answer


@pytest.fixture
def spoiled(tmp_path, tiny_data):
    """The tiny dataset with an image that is none."""
    shutil.copytree(tiny_data, tmp_path / "data")
    image = sorted((tmp_path / "data").glob("images/*"))[0]
    image.write_bytes(b"no image")
    return tmp_path / "data"


def test_a_check_says_what_is_wrong(asked, spoiled):
    answer = failed(asked, "check", spoiled, "--out", "check.json")
    assert not answer["is_ready"]
    (finding,) = answer["report"]["findings"]
    assert finding["code"] == "unreadable"
    assert finding["fix"]
    written = json.loads((spoiled.parent / "check.json").read_text())
    assert {**answer["report"], "task": None, "format_version": 1} == written


def test_a_prediction_says_what_was_set_aside(asked, spoiled, tiny_run):
    answer = failed(asked, "predict", tiny_run, spoiled, "--out", "p", "--device=cpu")
    assert (answer["done"], len(answer["failed"])) == (5, 1)
    (aside,) = (case for case in answer["cases"] if not case["is_done"])
    assert aside["record"]["error"]
    assert aside["files"] == []
    assert answer["failed"] == [aside["name"]]
    saved = json.loads((spoiled.parent / "p" / "predictions.json").read_text())
    for case in answer["cases"]:
        assert saved["cases"][case["name"]] == case["record"]


def test_a_verification_says_what_does_not_agree(asked, tiny_run, tmp_path):
    content = json.loads((tiny_run / "validation" / "metrics.json").read_text())
    content["summary"]["organ"]["dice"]["mean"] = 0.9
    (tmp_path / "m.json").write_text(json.dumps(content))
    answer = failed(asked, "verify", tmp_path / "m.json")
    assert answer["numbers"] > 10
    (line,) = answer["disagreements"]
    assert "organ" in line


def test_renderings_that_failed_stand_beside_the_others(asked, spoiled):
    images = sorted(spoiled.glob("images/*"))[:2]
    answer = failed(asked, "drr", *images, "--out", "xrays", "--detector", 8)
    assert (len(answer["exams"]), len(answer["failed"])) == (1, 1)


def test_files_that_cannot_be_read_are_counted(asked, tmp_path):
    first, *_ = write_series(tmp_path / "scan")
    first.write_bytes(first.read_bytes()[:-1000])
    places = ("--out", "clean", "--key", "secret")
    answer = failed(asked, "deidentify", tmp_path / "scan", *places)
    assert answer["report"]["written"] == 2
    assert sum(answer["report"]["set_aside"].values()) == 1
    assert str(tmp_path / "scan") not in json.dumps(answer)


def test_a_study_that_is_not_whole_says_so(asked, tmp_path):
    with web_archive("count-too-high") as archive:
        archive.load(write_series(tmp_path / "scan"))
        options = ("--profiles", write_profiles(tmp_path, archive), "--pacs", "web")
        answer = failed(asked, "pacs fetch", uid("s"), "--out", "f", *options)
    (series,) = answer["series"]
    assert (series["here"], series["expected"], series["is_whole"]) == (3, 4, False)
