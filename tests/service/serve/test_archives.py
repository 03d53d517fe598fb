"""Zips that somebody sent: traps are refused before anything is written."""

import io
import stat
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.service.serve.work.archives import MEMBERS, opened_archive
from trivox.service.serve.work.engine import JobError
from trivox.service.serve.work.staging import staged

MOST = 1 << 26


def zipped(file, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(file, "w", method) as archive:
        for member, data in members:
            archive.writestr(member, data)
    return file


def refusal(file, most=MOST):
    with pytest.raises(JobError) as refused, opened_archive(file, most):
        pass
    return refused.value


def is_untouched(folder):
    return not list(folder.iterdir())


def link(name, target):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return (info, target)


TRAPS = {
    "up": [("../x.dcm", b"1")],
    "far up": [("a/../../x.dcm", b"1")],
    "absolute": [("/etc/x.dcm", b"1")],
    "drive": [("C:/x.dcm", b"1")],
    "backslash": [("..\\x.dcm", b"1")],
    "backslash inside": [("a\\..\\..\\x.dcm", b"1")],
    "link": [link("x.dcm", "/etc/passwd")],
    "device": [
        (
            (lambda i: (setattr(i, "external_attr", stat.S_IFCHR << 16), i)[1])(
                zipfile.ZipInfo("x.dcm")
            ),
            b"",
        )
    ],
    "zeros": [("x.dcm", bytes(1 << 24))],
    "same name": [("x.dcm", b"1"), ("X.DCM", b"2")],
    "one good": [("a.dcm", b"1"), ("../b.dcm", b"2")],
}


@pytest.mark.parametrize("trap", TRAPS)
def test_traps_are_refused_before_anything_is_written(tmp_path, trap):
    file = zipped(tmp_path / "x.zip", TRAPS[trap])
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(JobError) as refused:
        staged([file], out, ("T1",), MOST)
    assert refused.value.code == "unsafe-archive"
    assert is_untouched(out)


def test_too_many_members_are_refused(tmp_path):
    members = ((f"{number}", b"") for number in range(MEMBERS + 1))
    file = zipped(tmp_path / "x.zip", members, zipfile.ZIP_STORED)
    assert "members" in refusal(file).detail


def test_too_many_bytes_are_refused(tmp_path):
    file = zipped(tmp_path / "x.zip", [("a", b"12345"), ("b", b"67890")])
    assert refusal(file, most=9).code == "unsafe-archive"
    with opened_archive(file, 10) as archive:
        assert len(archive.members) == 2


def test_encrypted_members_are_refused(tmp_path):
    file = zipped(tmp_path / "x.zip", [("a.dcm", b"1")])
    data = bytearray(file.read_bytes())
    place = data.index(b"PK\x01\x02")
    data[place + 8] |= 1
    file.write_bytes(data)
    assert "encrypted" in refusal(file).detail


PARTS = st.sampled_from(["..", "/", "\\", "a", ".", "C:", "\0", "é", " "])
NAMES = st.lists(PARTS, min_size=1, max_size=9).map("".join)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@settings(max_examples=80)
@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), st.binary(max_size=9))
def test_whatever_names_nothing_is_written_elsewhere(tmp_path_factory, names, data):
    root = tmp_path_factory.mktemp("names")
    out = root / "a" / "out"
    out.mkdir(parents=True)
    try:
        with zipfile.ZipFile(root / "x.zip", "w") as archive:
            for name in names:
                archive.writestr(name, data)
    except (ValueError, IndexError):
        return
    with suppress(JobError):
        staged([root / "x.zip"], out, ("T1",), MOST)
    written = {each for each in root.rglob("*") if each.is_file()}
    assert all(each == root / "x.zip" or out in each.parents for each in written)
    assert all(each.suffix in (".zip", ".dcm") for each in written)


@settings(max_examples=60)
@given(st.data())
def test_damaged_zips_are_unusable_and_nothing_else(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("damaged")
    buffer = io.BytesIO()
    members = [("a/IM1", b"x" * 200), ("a/IM2", b"y" * 200)]
    content = bytearray(zipped(buffer, members).getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    (root / "x.zip").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    (root / "out").mkdir()
    with suppress(JobError):
        assert staged([root / "x.zip"], root / "out", ("T1",), MOST).exists()
