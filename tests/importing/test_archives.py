"""Archives that nobody vouches for: only plain files, under names that the caller
chooses, or one clear line.
"""

import io
import os
import stat
import tarfile
import zipfile

import pytest

from trivox.errors import DataError, FormatError
from trivox.importing import archives
from trivox.importing.archives import members

CONTENT = {"a/one.nii": b"1" * 700, "b/two.nii": b"2" * 1300, "b/notes.txt": b"n"}


def wanted(name):
    return name.name.endswith(".nii")


def write_tar(path, content, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_zip(path, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def write_folder(path, content):
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


KINDS = {
    "tar": write_tar,
    "tar.gz": lambda path, content: write_tar(path, content, "w:gz"),
    "tar.xz": lambda path, content: write_tar(path, content, "w:xz"),
    "tar.bz2": lambda path, content: write_tar(path, content, "w:bz2"),
    "zip": write_zip,
    "folder": write_folder,
}
PACKED = [kind for kind in KINDS if kind != "folder"]


def read_all(source):
    with members(source, wanted) as files:
        for member in files.values():
            with member.read() as stream:
                stream.read()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_wanted_files_whatever_it_is_called(tmp_path, kind):
    source = KINDS[kind](tmp_path / "download", CONTENT)
    with members(source, wanted) as files:
        assert {str(name): member.size for name, member in files.items()} == {
            "a/one.nii": 700,
            "b/two.nii": 1300,
        }
        for name in reversed(files):
            with files[name].read() as stream:
                assert stream.read() == CONTENT[str(name)]


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize(
    "name",
    [
        "../one.nii",
        "a/../../one.nii",
        "/etc/one.nii",
        "C:/one.nii",
        "a\\..\\..\\one.nii",
    ],
)
def test_names_that_point_out_of_the_archive_are_refused(tmp_path, kind, name):
    source = KINDS[kind](tmp_path / "x", {**CONTENT, name: b"evil"})
    with (
        pytest.raises(DataError, match="points out of the archive"),
        members(source, wanted),
    ):
        pass


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
    ],
)
def test_links_and_devices_are_refused_in_tars(tmp_path, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("evil.nii")
        info.type = kind
        info.linkname = "/etc/passwd"
        archive.addfile(info)
    with (
        pytest.raises(DataError, match=r"'evil\.nii' is a link or device"),
        members(tmp_path / "x.tar", wanted),
    ):
        pass


def test_links_are_refused_in_zips(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("evil.nii")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with (
        pytest.raises(DataError, match="is a link or device"),
        members(tmp_path / "x.zip", wanted),
    ):
        pass


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("A/One.nii", "one file on some systems"),
        ("a/\x1b[2J.nii", "control characters"),
    ],
)
def test_names_that_cannot_stand_beside_others_are_refused(tmp_path, kind, name, words):
    source = KINDS[kind](tmp_path / "x", {**CONTENT, name: b"other"})
    with pytest.raises(DataError, match=words), members(source, wanted):
        pass


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_member_that_is_there_twice_is_refused(tmp_path, kind):
    source = tmp_path / "x"
    if kind == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("one.nii", b"first")
            archive.writestr("one.nii", b"second")
    else:
        with tarfile.open(source, "w") as archive:
            for size in (5, 6):
                info = tarfile.TarInfo("one.nii")
                info.size = size
                archive.addfile(info, io.BytesIO(b"x" * size))
    with pytest.raises(DataError, match="is there twice"), members(source, wanted):
        pass


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_archives_that_declare_too_much_are_refused_before_reading(
    tmp_path, monkeypatch, kind
):
    source = KINDS[kind](tmp_path / "x", CONTENT)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    with (
        pytest.raises(DataError, match="declares over 2 members"),
        members(source, wanted),
    ):
        pass
    monkeypatch.setattr(archives, "MAX_MEMBERS", 10)
    monkeypatch.setattr(archives, "MAX_BYTES", 1999)  # the three files have 2001
    with pytest.raises(DataError, match="declares over"), members(source, wanted):
        pass


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_truncated_archives_are_never_taken_for_whole(tmp_path, kind, share):
    content = {f"c{i}.nii": os.urandom(3000) for i in range(4)}
    whole = KINDS[kind](tmp_path / "whole", content).read_bytes()
    end = (
        len(whole) if kind != "tar" else 4 * (512 + 3072)
    )  # behind that are zeros alone
    (tmp_path / "half").write_bytes(whole[: int(share * end)])
    with pytest.raises(FormatError, match=r"half: (damaged, truncated|is neither)"):
        read_all(tmp_path / "half")


def test_a_tar_cut_between_two_members_is_not_taken_for_whole(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", CONTENT).read_bytes()
    (tmp_path / "half.tar").write_bytes(
        whole[: 512 + 1024]
    )  # header and blocks of the first
    with (
        pytest.raises(FormatError, match="its end is missing"),
        members(tmp_path / "half.tar", wanted),
    ):
        pass


def test_a_tar_with_a_damaged_header_is_not_taken_for_whole(tmp_path):
    content = bytearray(write_tar(tmp_path / "x.tar", CONTENT).read_bytes())
    content[512 + 1024 + 3] ^= 255  # in the second member's name
    (tmp_path / "x.tar").write_bytes(content)
    with (
        pytest.raises(FormatError, match="its end is missing"),
        members(tmp_path / "x.tar", wanted),
    ):
        pass


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_flipped_bytes_are_noticed(tmp_path, kind):
    source = KINDS[kind](tmp_path / "x", {"one.nii": os.urandom(5000)})
    content = bytearray(source.read_bytes())
    content[2500] ^= 255
    source.write_bytes(content)
    with pytest.raises(FormatError, match=r"x: (damaged|is neither)"):
        read_all(source)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello", "neither a zip"),
        (b"\x1f\x8b\x08rubbish", "neither"),
        (b"PK\x03\x04", "damaged"),
    ],
)
def test_what_is_no_archive_is_said_so(tmp_path, content, words):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(FormatError, match=words), members(tmp_path / "x.zip", wanted):
        pass
    with (
        pytest.raises(FormatError, match="not found"),
        members(tmp_path / "nowhere.zip", wanted),
    ):
        pass


def test_errors_of_the_caller_are_not_taken_for_damage(tmp_path):
    source = write_zip(tmp_path / "x.zip", CONTENT)
    with pytest.raises(ValueError, match="mine"), members(source, wanted):
        raise ValueError("mine")
