"""A file that holds something else is noticed, whatever else stayed the same; one that
was only touched is not.
"""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivox import sources
from trivox.errors import FormatError
from trivox.sources import are_unchanged, is_unchanged, parts_of, source_of, sources_of

OLD_NS = 1_600_000_000_000_000_000
anywhere = settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def aged(path):
    """Give a file times that are long past."""
    os.utime(path, ns=(OLD_NS, OLD_NS))
    return path


@pytest.fixture
def settled(monkeypatch):
    """As if two seconds had passed since files were written."""
    monkeypatch.setattr(sources, "FRESH_NS", 0)


@anywhere
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_unchanged_means_the_same_content(tmp_path, before, after):
    file = tmp_path / "a.nii"
    file.write_bytes(before)
    recorded = source_of(file)
    file.write_bytes(after)
    assert is_unchanged(file, recorded) == (before == after)
    assert recorded.size == len(before)


def test_the_same_size_and_time_of_content_hide_nothing(tmp_path, settled):
    """Exporters and synchronising tools set times; an uncompressed scan keeps its size."""
    file = tmp_path / "a.nii"
    file.write_bytes(b"before")
    recorded = source_of(aged(file))
    file.write_bytes(b"after!")
    assert not is_unchanged(aged(file), recorded)


def test_what_looks_the_same_is_not_read_again(tmp_path, settled, monkeypatch):
    (tmp_path / "a").write_bytes(b"x")
    file = aged(tmp_path / "a")
    recorded = source_of(file)
    monkeypatch.setattr(sources, "_digest", lambda file: pytest.fail("was read"))
    assert is_unchanged(file, recorded)
    assert source_of(file, recorded) is recorded


def test_a_file_that_changed_a_moment_ago_is_told_by_content(tmp_path):
    """Its times may stay the same when it changes once more."""
    file = tmp_path / "a"
    file.write_bytes(b"x")
    recorded = source_of(file)
    assert recorded.modified_ns == recorded.changed_ns == 0
    assert is_unchanged(file, recorded)


def test_a_missing_file_is_named_and_never_unchanged(tmp_path):
    file = tmp_path / "gone.nii"
    with pytest.raises(FormatError, match=r"gone\.nii: cannot be read \(No such file"):
        source_of(file)
    file.write_bytes(b"x")
    recorded = source_of(file)
    file.unlink()
    assert not is_unchanged(file, recorded)
    assert not is_unchanged(file, None)


def folder_with(path, contents):
    path.mkdir()
    for name, content in contents.items():
        (path / name).write_bytes(content)
    return path


@pytest.mark.parametrize("change", ["other", "added", "removed", "renamed", "nested"])
def test_a_folder_is_all_its_files(tmp_path, change):
    folder = folder_with(tmp_path / "series", {"1.dcm": b"a", "2.dcm": b"b"})
    recorded = source_of(folder)
    assert is_unchanged(folder, recorded)
    if change == "other":
        (folder / "2.dcm").write_bytes(b"c")
    if change == "added":
        (folder / "3.dcm").write_bytes(b"")
    if change == "removed":
        (folder / "2.dcm").unlink()
    if change == "renamed":
        (folder / "2.dcm").rename(folder / "3.dcm")
    if change == "nested":
        folder_with(folder / "more", {"3.dcm": b"c"})
    assert not is_unchanged(folder, recorded)


HEADERS = {
    "a.mhd": b"ObjectType = Image\nElementDataFile = voxels.raw\n",
    "b.mhd": b"NDims = 3\nElementDataFile=voxels.raw",
    "list.mhd": b"NDims = 3\nElementDataFile = LIST\nother.raw\nvoxels.raw\n",
    "pattern.mhd": b"NDims = 3\nElementDataFile = v%s.raw 1 3 1\n",
    "a.nhdr": b"NRRD0004\ndimension: 3\ndata file: voxels.raw\n",
    "b.nhdr": b"NRRD0004\nDATAFILE: ./voxels.raw\nspace: left\n",
    "voxels.hdr": b"\0" * 348,
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_is_also_the_voxels_that_it_names(tmp_path, name):
    header = tmp_path / name
    header.write_bytes(HEADERS[name])
    voxels = tmp_path / ("voxels.img" if name == "voxels.hdr" else "voxels.raw")
    for file in (voxels, tmp_path / "other.raw"):
        file.write_bytes(b"before")
    recorded = source_of(header)
    assert is_unchanged(header, recorded)
    voxels.write_bytes(b"after!")
    assert not is_unchanged(header, recorded)


@pytest.mark.parametrize(
    "content",
    [b"", b"ElementDataFile = LOCAL\n\0\xff", b"ElementDataFile =", b"\xff" * 9],
)
def test_a_header_without_other_files_is_itself(tmp_path, content):
    header = tmp_path / "a.mhd"
    header.write_bytes(content)
    assert parts_of(header) == [header]


def test_records_of_other_names_are_of_other_files(tmp_path):
    files = {name: tmp_path / name for name in ("image", "label")}
    for file in files.values():
        file.write_bytes(b"x")
    recorded = sources_of(files)
    assert are_unchanged(files, recorded)
    assert not are_unchanged({"image": files["image"]}, recorded)
    assert not are_unchanged(files | {"volume": files["label"]}, recorded)
