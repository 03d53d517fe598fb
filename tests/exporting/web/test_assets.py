"""Files of others: pinned, verified, fetched once; whatever is wrong with them is a line."""

import gzip
import hashlib
import io
import tarfile
import urllib.error

import pytest

from trivox.errors import FormatError, ResourceError
from trivox.exporting.web import assets
from trivox.exporting.web.assets import Archives, Asset, Package, pinned, write_assets

PLAIN = b"export default 1;\n"
BINARY = bytes(range(256)) * 9


def digest(content):
    return hashlib.sha256(content).hexdigest()


def archive(**files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


CONTENT = archive(plain=PLAIN, binary=BINARY)
PACKAGE = Package(
    name="one",
    version="1.0",
    url="https://registry.npmjs.org/one/-/one-1.0.tgz",
    archive="one-1.0.tgz",
    sha256=digest(CONTENT),
    license="MIT",
    files=(
        Asset(source="package/plain", target="one.js", sha256=digest(PLAIN)),
        Asset(source="package/binary", target="one.gz", sha256=digest(BINARY)),
    ),
)


@pytest.fixture
def folder(tmp_path):
    """A folder of archives, as `--assets` takes it."""
    place = tmp_path / "archives"
    place.mkdir()
    (place / PACKAGE.archive).write_bytes(CONTENT)
    return place


def of_folder(folder, package=PACKAGE):
    return Archives(folder, packages=(package,))


@pytest.fixture
def network(monkeypatch):
    """Addresses that were asked for; answers with what is put under "answer"."""
    state = {"asked": [], "answer": CONTENT}

    def answered(url, timeout):
        state["asked"].append(url)
        if isinstance(state["answer"], Exception):
            raise state["answer"]
        return io.BytesIO(state["answer"])

    monkeypatch.setattr(assets.urllib.request, "urlopen", answered)
    return state


def test_files_are_written_as_they_are_or_compressed(folder, tmp_path, network):
    for name in ("first", "second"):
        write_assets(tmp_path / name, of_folder(folder))
    assert (tmp_path / "first/one.js").read_bytes() == PLAIN
    packed = (tmp_path / "first/one.gz").read_bytes()
    assert gzip.decompress(packed) == BINARY
    assert packed == (tmp_path / "second/one.gz").read_bytes()
    assert not network["asked"]


def test_an_archive_is_fetched_once(tmp_path, network):
    archives = Archives(cache=tmp_path / "cache", packages=(PACKAGE,))
    archives.require()
    write_assets(tmp_path / "out", archives)
    assert network["asked"] == [PACKAGE.url]
    assert (tmp_path / "out/one.js").read_bytes() == PLAIN


def test_a_damaged_cache_is_fetched_again(tmp_path, network):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / PACKAGE.archive).write_bytes(CONTENT[:50])
    write_assets(tmp_path / "out", Archives(cache=cache, packages=(PACKAGE,)))
    assert network["asked"] == [PACKAGE.url]
    assert (cache / PACKAGE.archive).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "trouble",
    [
        urllib.error.URLError("no route to host"),
        TimeoutError("timed out"),
        ConnectionResetError("reset"),
    ],
    ids=["unreachable", "slow", "broken off"],
)
def test_a_failed_download_is_one_line_and_leaves_nothing(tmp_path, network, trouble):
    network["answer"] = trouble
    archives = Archives(cache=tmp_path / "cache", packages=(PACKAGE,))
    with pytest.raises(ResourceError, match="--assets") as error:
        archives.require()
    assert "\n" not in str(error.value)
    assert PACKAGE.url in str(error.value)
    assert not (tmp_path / "cache").exists()


def test_what_is_not_pinned_is_refused_and_not_kept(tmp_path, network):
    network["answer"] = archive(plain=b"altered", binary=BINARY)
    archives = Archives(cache=tmp_path / "cache", packages=(PACKAGE,))
    with pytest.raises(FormatError, match="checksum"):
        archives.require()
    assert not (tmp_path / "cache").exists()


def test_a_folder_is_taken_as_it_is(folder, tmp_path):
    file = folder / PACKAGE.archive
    file.write_bytes(CONTENT[:-1])
    with pytest.raises(FormatError, match="checksum"):
        of_folder(folder).require()
    file.unlink()
    with pytest.raises(ResourceError, match=r"one-1\.0\.tgz: not there; download"):
        of_folder(folder).require()


def spoiled(content, **changes):
    """A package whose archive is this one."""
    package = PACKAGE.model_copy(update={"sha256": digest(content)})
    return package.model_copy(update=changes)


@pytest.mark.parametrize(
    "content",
    [archive(plain=PLAIN), archive(plain=b"x", binary=BINARY), b"no archive", b""],
    ids=["a file is missing", "a file is altered", "no archive", "empty"],
)
def test_an_archive_with_other_files_is_refused(folder, tmp_path, content):
    (folder / PACKAGE.archive).write_bytes(content)
    with pytest.raises(FormatError) as error:
        write_assets(tmp_path / "out", of_folder(folder, spoiled(content)))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_pins_name_an_address_of_npm_and_whole_checksums():
    names = set()
    for package in pinned():
        assert package.url.startswith("https://registry.npmjs.org/")
        assert package.url.endswith(f"/{package.archive}")
        assert package.version in package.archive
        checksums = [package.sha256, *(each.sha256 for each in package.files)]
        assert {len(bytes.fromhex(each)) for each in checksums} == {32}
        names |= {each.target for each in package.files}
    assert {"niivue.js", "ort.wasm.min.js", "ort-wasm.wasm.gz"} <= names
