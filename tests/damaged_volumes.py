"""Damaged files of every format, drawn from a seed: bytes turned, ends cut off, fields
of headers replaced, sizes made huge, printf patterns where names stand.

`mutations` draws them, `outcome` reads one: for the law in `tests/volumes`, and for
whoever wants a hundred thousand of them.
"""

import gzip
import io
import random
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import h5py
import nibabel
import numpy as np

from trivox.errors import TrivoxError
from trivox.volumes.formats import read_header, read_volume, write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

MOST_BYTES = 2**26
"""Of a volume that may be read."""
WORDS = (
    *("0", "-1", "3", "99999999999", "-99999999999", "1e308", "nan", "inf", "none", ""),
    *("%s%s%n", "%n%n%n%n", "../../../etc/passwd", "/dev/zero", "a%d.raw 1 999999 1"),
    *("LIST", "LOCAL", "True", "MET_DOUBLE", "double", "gzip", "raw", "big", "(1,0,0)"),
    *("RAS", "MET_UCHAR_ARRAY", "x" * 3000, "1 " * 400, "\0\0", "é", "\ud800", "٣"),
)
NUMBERS = (
    *(b"\xff" * 8, b"\x00" * 8, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x7f\xff"),
    *(struct.pack("<d", float("nan")), struct.pack("<f", float("inf")), b"%n%n%s%s"),
)
LONGEST_LINE = 1200
"""Characters of a message."""


def mutations(seed: int, n: int) -> Iterator[tuple[str, bytes]]:
    """`n` names and contents of damaged files."""
    draw = random.Random(seed)
    names = sorted(sound_files())
    for _ in range(n):
        name = draw.choice(names)
        yield name, _damaged(name, draw)


def outcome(folder: Path, name: str, data: bytes) -> str:
    """How a file is read from `folder`: `volume`, or the kind of error; raises
    `AssertionError` for an error that is not ours or not one line, or a volume that is
    none.
    """
    for other, content in companions().items():
        (folder / other).write_bytes(content)
    path = folder / name
    path.write_bytes(data)
    try:
        read_header(path)
        volume = read_volume(path, max_bytes=MOST_BYTES)
    except TrivoxError as error:
        line = str(error)
        assert "\n" not in line, line
        assert len(line) < LONGEST_LINE + len(str(path)), line
        assert name in line, line
        return type(error).__name__
    assert volume.array.ndim == 4
    assert min(volume.array.shape) > 0
    assert volume.array.nbytes <= 2 * MOST_BYTES
    assert np.isfinite(volume.affine).all()
    assert volume.voxel_ml > 0
    return "volume"


@cache
def sound_files() -> dict[str, bytes]:
    """One or two files of each format."""
    values = np.random.default_rng(0).integers(0, 99, (2, 3, 4, 5)).astype(np.int16)
    volume = Volume(values, affine_from_spacing((2.5, 0.7, 0.9), (5, -3, 7)))
    alone = volume.with_array(values[:1])
    files = {}
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        for suffix in (".nii", ".nii.gz", ".nrrd", ".mha", ".npz", ".h5"):
            for number, one in enumerate((alone, volume)):
                write_volume(folder / f"{number}{suffix}", one)
        np.save(folder / "0.npy", values)
        pair = nibabel.Nifti1Pair(values[0].T, volume.affine)
        nibabel.save(pair, folder / "0.hdr")
        with h5py.File(folder / "2.h5", "w", libver="latest") as file:
            image = file.create_dataset("g/image", data=values, chunks=(1, 1, 4, 5))
            image.attrs["spacing"] = [3.0, 2.0, 1.0]
        for path in folder.iterdir():
            if path.suffix != ".img":
                files[path.name] = path.read_bytes()
    return files | _text_files(values)


def _text_files(values: np.ndarray) -> dict[str, bytes]:
    head = (
        "NRRD0005\n# made by hand\ntype: short\ndimension: 4\n"
        "space: left-posterior-superior\nsizes: 5 4 3 2\n"
        "space directions: (0.9,0,0) (0,0.7,0) (0,0,2.5) none\n"
        "kinds: domain domain domain list\nendian: little\nencoding: {}\n"
        "space origin: (1,2,3)\nSegment0_Name:=liver\n{}"
    )
    met = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\n"
        "BinaryDataByteOrderMSB = False\nCompressedData = {}\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\n"
        "ElementSpacing = 0.9 0.7 2.5\nDimSize = 5 4 3\nElementNumberOfChannels = 2\n"
        "ElementType = MET_SHORT\nElementDataFile = {}\n"
    )
    data = values.tobytes()
    spread = "data file: part%d.raw 1 2 1 3\n"
    return {
        "2.nrrd": head.format("raw", "\n").encode() + data,
        "3.nrrd": head.format("gzip", "\n").encode() + gzip.compress(data, mtime=0),
        "2.mha": met.format("False", "LOCAL").encode() + data,
        "3.mha": met.format("True", "LOCAL").encode() + zlib.compress(data),
        "0.nhdr": head.format("raw", "data file: data.raw\n").encode(),
        "1.nhdr": head.format("raw", spread).encode(),
        "0.mhd": met.format("False", "data.raw").encode(),
        "1.mhd": met.format("False", "LIST\npart1.raw\npart2.raw").encode(),
    }


@cache
def companions() -> dict[str, bytes]:
    """What lies beside the files."""
    half = np.arange(60, dtype=np.int16).tobytes()
    return {
        "data.raw": half + half,
        "part1.raw": half,
        "part2.raw": half,
        "0.img": half,
    }


def _damaged(name: str, draw: random.Random) -> bytes:
    """A file with one to four damages; of packed ones, half of them inside."""
    data = sound_files()[name]
    inside = draw.random() < 0.5
    if inside and name.endswith(".gz"):
        return gzip.compress(_hurt(name, gzip.decompress(data), draw), 1, mtime=0)
    if inside and name.endswith(".npz"):
        return _hurt_inside_zip(data, draw)
    return _hurt(name, data, draw)


def _hurt_inside_zip(data: bytes, draw: random.Random) -> bytes:
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        chosen = draw.choice(archive.namelist())
        with zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as other:
            for member in archive.namelist():
                content = archive.read(member)
                hurt = _hurt(".npy", content, draw) if member == chosen else content
                other.writestr(zipfile.ZipInfo(member), hurt)
    return changed.getvalue()


def _hurt(name: str, data: bytes, draw: random.Random) -> bytes:
    ways = [_turned, _turned, _overwritten, _cut, _doubled]
    if name.endswith((".nrrd", ".nhdr", ".mha", ".mhd", ".npy")):
        ways = [*ways, _other_word, _other_word, _other_word, _other_line]
    for _ in range(draw.choice((1, 1, 2, 4))):
        data = draw.choice(ways)(data, draw) or b"?"
    return data


def _place(data: bytes, draw: random.Random) -> int:
    """Most damage is done where headers are."""
    return draw.randrange(min(len(data), 400) if draw.random() < 0.7 else len(data))


def _turned(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 3, 16))):
        changed[_place(data, draw)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _overwritten(data: bytes, draw: random.Random) -> bytes:
    at = _place(data, draw)
    other = draw.choice((*NUMBERS, draw.randbytes(4)))
    return data[:at] + other + data[at + len(other) :]


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: _place(data, draw)]


def _doubled(data: bytes, draw: random.Random) -> bytes:
    at = _place(data, draw)
    until = min(len(data), at + draw.choice((1, 8, 100)))
    return data[:until] + data[at:]


def _other_word(data: bytes, draw: random.Random) -> bytes:
    """One word or number of a text header replaced."""
    words = list(re.finditer(rb"[^\s:=(),]+", data[:700]))
    if not words:
        return data
    word = draw.choice(words)
    other = draw.choice(WORDS).encode("utf-8", "surrogatepass")
    return data[: word.start()] + other + data[word.end() :]


def _other_line(data: bytes, draw: random.Random) -> bytes:
    """A line left out, said twice, or moved to the front."""
    lines = data.split(b"\n")
    at = draw.randrange(len(lines))
    line = lines.pop(at)
    places = {"out": [], "twice": [line, line], "first": []}
    way = draw.choice(list(places))
    lines[at:at] = places[way]
    if way == "first":
        lines.insert(0, line)
    return b"\n".join(lines)
