"""What is fetched is what the index lists, gets its name as a whole, and replaces
nothing that is somebody's own.
"""

import errno
import hashlib
import http.server
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trivox
from releases import NAME, described, write_index
from trivox.errors import BundleError, ResourceError, TrivoxError
from trivox.inference.zoo.release import INDEX, RECORD, Release, fetch_model


def fetched(release, shelf, name=NAME):
    lines = []
    source = Release.at(release)
    folder = fetch_model(source, name, shelf, require=str, say=lines.append)
    return folder, lines


def content(folder):
    """Files that a model consists of, and nothing that is hidden."""
    files = (path for path in folder.iterdir() if path.name != RECORD)
    return {path.name: path.read_bytes() for path in files}


def rest(shelf):
    """What lies on a shelf beside whole models."""
    return sorted(path.name for path in shelf.iterdir()) if shelf.exists() else []


@pytest.fixture
def server(release):
    """The same release behind an address."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=release)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.RequestHandlerClass.func.log_message = lambda *_: None
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_folder_and_an_address_give_the_same_files(release, server, tmp_path):
    for number, source in enumerate((release, str(release), server, f"{server}/")):
        folder, lines = fetched(source, tmp_path / f"shelf-{number}")
        assert content(folder) == content(release / NAME)
        assert json.loads((folder / RECORD).read_text())["files"]
        assert lines == [f"{NAME}: fetched from {str(source).rstrip('/')} to {folder}"]


def test_what_is_here_is_left_alone_and_what_is_damaged_is_fetched_again(
    release, tmp_path
):
    folder, _ = fetched(release, tmp_path / "shelf")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert "is here already" in fetched(release, tmp_path / "shelf")[1][0]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    weights = folder / "weights-fold0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    fetched(release, tmp_path / "shelf")
    assert content(folder) == content(release / NAME)


def test_a_folder_that_was_not_fetched_is_never_replaced(release, tmp_path):
    mine = tmp_path / "shelf" / NAME
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="was not fetched; move it away"):
        fetched(release, tmp_path / "shelf")
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]


def test_a_damaged_record_is_refused_before_a_model_is_replaced(release, tmp_path):
    folder, _ = fetched(release, tmp_path / "shelf")
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    (folder / "weights-fold0.safetensors").write_bytes(b"damaged")
    for damage in ([], {"files": 3, "source": "x"}, {**record, "files": [5, 6]}):
        (folder / RECORD).write_text(json.dumps(damage), encoding="utf-8")
        with pytest.raises(BundleError, match=r"fetched\.json: .*; move it away"):
            fetched(release, tmp_path / "shelf")
    (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")
    fetched(release, tmp_path / "shelf")
    assert content(folder) == content(release / NAME)


def test_an_unknown_name_lists_the_known_ones(release, tmp_path):
    with pytest.raises(BundleError, match="no model 'liver'; it has small-one"):
        fetched(release, tmp_path / "shelf", "liver")
    assert rest(tmp_path / "shelf") == []


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_damage_is_refused_in_a_line_and_leaves_nothing(release, tmp_path, data):
    """Of the index or of a file: a bit, the end, or all of it."""
    file = data.draw(st.sampled_from(sorted(release.rglob("*.*"))))
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["bit", "end", "more", "gone"]))
    flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    damaged = {"bit": flipped, "end": whole[:at], "more": whole + b" "}
    shelf = tmp_path / "shelf"
    if kind == "gone":
        file.unlink()
    else:
        file.write_bytes(damaged[kind])
    refusal = None
    try:
        fetched(release, shelf)
    except TrivoxError as error:
        refusal = str(error)
    file.write_bytes(whole)
    if refusal is None:  # blanks of the index
        assert file.name == INDEX
        shutil.rmtree(shelf)
    else:
        assert "\n" not in refusal
        assert rest(shelf) == []


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../../evil"},
        {"file": "/etc/passwd"},
        {"file": ".hidden"},
        {"file": "a/b"},
        {"sha256": "abc"},
        {"size": 0},
        {"size": 2**40},
        {"extra": 1},
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(release, tmp_path, change):
    index = json.loads((release / INDEX).read_text())
    index["models"][0]["files"][1].update(change)
    (release / INDEX).write_text(json.dumps(index))
    with pytest.raises(BundleError, match=r"index\.json: models\.0\.files\.1"):
        fetched(release, tmp_path / "shelf")


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".", "UPPER", "a" * 200])
def test_an_index_with_names_that_are_paths_is_refused(release, tmp_path, name):
    index = json.loads((release / INDEX).read_text())
    index["models"][0]["name"] = name
    (release / INDEX).write_text(json.dumps(index))
    with pytest.raises(BundleError, match=r"models\.0\.name"):
        fetched(release, tmp_path / "shelf", name)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("http://127.0.0.1:9/models", "cannot be fetched.*--source PATH"),
        ("http://[", "cannot be fetched"),
        ("ftp://127.0.0.1/models", "neither a folder nor an http"),
        ("nowhere", "cannot be read"),
        ("no\0where", "cannot be read"),
    ],
)
def test_a_release_that_cannot_be_reached_is_said_in_a_line(tmp_path, source, said):
    with pytest.raises(ResourceError, match=said) as raised:
        Release.at(source)
    assert "\n" not in str(raised.value)


def test_an_answer_that_is_no_release_is_said(server, release):
    with pytest.raises(ResourceError, match="cannot be fetched"):
        Release.at(f"{server}/elsewhere")
    (release / INDEX).write_text("<html>sign in</html>")
    with pytest.raises(BundleError, match="not readable as JSON"):
        Release.at(server)


def test_two_fetches_at_once_both_end_with_the_model(release, tmp_path):
    shelf = tmp_path / "shelf"
    with ThreadPoolExecutor(4) as threads:
        folders = list(threads.map(lambda _: fetched(release, shelf)[0], range(4)))
    assert {*folders} == {shelf / NAME}
    assert content(shelf / NAME) == content(release / NAME)
    assert rest(shelf) == [NAME]


def test_a_full_disk_leaves_nothing_and_says_so(release, home, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(ResourceError, match="No space left"):
        trivox.models(NAME, source=release)
    assert rest(home) == []


def test_a_home_that_nobody_can_write_is_said(release, home):
    home.parent.write_text("a file where the folder would be")
    with pytest.raises(ResourceError, match=r"cache.*cannot be written"):
        trivox.models(NAME, source=release)
    assert [model.name for model in trivox.models()] == sorted(
        ["brain-phantom", "hippocampus", "xray-phantom"]
    )


def test_a_bundle_that_this_version_cannot_read_is_not_placed(release, home):
    described(release / NAME, format_version=99)
    write_index(release)
    with pytest.raises(BundleError, match="bundle format 99"):
        trivox.models(NAME, source=release)
    assert rest(home) == []


def test_the_index_lists_each_file_with_its_checksum(release):
    (model,) = Release.at(release).index.models
    for file in model.files:
        data = (release / NAME / file.file).read_bytes()
        assert (file.size, file.sha256) == (
            len(data),
            hashlib.sha256(data).hexdigest(),
        )
    assert model.size == sum(file.size for file in model.files)
