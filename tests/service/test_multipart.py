"""Parts of an answer, however its bytes arrive, and bodies made of files."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.service.peers import multipart
from trivox.service.peers.multipart import (
    BrokenAnswerError,
    Parts,
    boundary_of,
    files_body,
)


def reader(content, sizes):
    """Gives bytes in pieces of these sizes."""
    rest = bytearray(content)
    turns = iter(sizes)

    def read(size):
        piece = bytes(rest[: min(size, next(turns, 7))])
        del rest[: len(piece)]
        return piece

    return read


@settings(max_examples=60)
@given(
    st.lists(st.binary(max_size=60), min_size=1, max_size=4),
    st.lists(st.integers(1, 40), max_size=30),
)
def test_what_a_body_holds_is_what_its_parts_say(tmp_path_factory, contents, sizes):
    folder = tmp_path_factory.mktemp("parts")
    files = []
    for number, content in enumerate(contents):
        files.append(folder / f"in{number}")
        files[-1].write_bytes(content)
    body = files_body(files, [len(content) for content in contents])
    whole = b"".join(body.chunks())
    assert len(whole) == body.size
    parts = Parts(reader(whole, sizes), boundary_of(body.kind), 100)
    numbers = iter(range(99))
    written = parts.write_each(lambda: folder / f"out{next(numbers)}")
    assert [file.read_bytes() for file in written] == contents


@settings(max_examples=40)
@given(st.integers(0, 200), st.binary(min_size=1, max_size=40))
def test_an_answer_that_breaks_off_is_no_object(tmp_path_factory, cut, content):
    folder = tmp_path_factory.mktemp("parts")
    (folder / "in").write_bytes(content)
    body = files_body([folder / "in"], [len(content)])
    whole = b"".join(body.chunks())
    end = len(whole) - len(b"--\r\n")
    parts = Parts(reader(whole[: min(cut, end)], []), boundary_of(body.kind), 100)
    with pytest.raises(BrokenAnswerError):
        list(parts.write_each(lambda: folder / "out"))


@pytest.mark.parametrize(
    "kind", ["", "text/html", "multipart/related", "x; boundary=a"]
)
def test_an_answer_of_another_kind_is_none(kind):
    with pytest.raises(BrokenAnswerError):
        boundary_of(kind)


def test_a_header_without_end_is_not_read(tmp_path):
    endless = b"--b\r\n" + b"x" * 3 * multipart.LONGEST_HEADER
    parts = Parts(reader(endless, [2**20]), b"b", 100)
    with pytest.raises(BrokenAnswerError, match="larger"):
        list(parts.write_each(lambda: tmp_path / "out"))
