"""Headers of NRRD and MetaImage, which are read strictly: what ITK means by them, and
nothing outside their own folder.
"""

import bz2
import gzip
import zlib

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from trivox.errors import FormatError, GeometryError, TrivoxError
from trivox.volumes.formats import read_header, read_volume
from trivox.volumes.headers import promise

NRRD_TYPES = {
    "int8": "i1",
    "uchar": "u1",
    "short": "i2",
    "unsigned short": "u2",
    "int32_t": "i4",
    "unsigned int": "u4",
    "long long": "i8",
    "uint64": "u8",
    "float": "f4",
    "double": "f8",
}
MET_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
SPACES = ("left-posterior-superior", "LPS", "RAS", "left-anterior-superior")
LAYOUTS = ("3-D", "vector first", "vector last", "time")
rotations = st.tuples(*[st.floats(-180, 180)] * 3)
spacings = st.tuples(*[st.floats(0.1, 9)] * 3)
origins = st.tuples(*[st.floats(-500, 500)] * 3)
slow = settings(max_examples=20)


def text_of(vector):
    return "(" + ",".join(repr(float(v)) for v in vector) + ")"


def values_of(sizes, kind):
    """Voxels whose order shows, in the order of the file (fastest first)."""
    count = int(np.prod(sizes))
    return (np.arange(count) % 120).astype(kind)


def as_itk_has_it(path):
    """Voxels `(c, z, y, x)` and the affine to RAS mm that ITK finds."""
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    size = (-1, *array.shape[-3:])
    dimension = image.GetDimension()
    directions = np.array(image.GetDirection()).reshape(dimension, dimension)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = directions * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return array.reshape(size), np.diag([-1, -1, 1, 1]) @ affine


def require_equal(path, *, place=True):
    array, affine = as_itk_has_it(path)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, array.astype(volume.array.dtype))
    if place:
        np.testing.assert_allclose(volume.affine, affine, atol=1e-6)
    described = read_header(path)
    assert (described.channels, *described.shape) == volume.array.shape
    assert described.dtype == volume.array.dtype
    return volume


# -- what ITK means --------------------------------------------------------------------
@pytest.mark.oracle
@slow
@given(
    kind=st.sampled_from(list(NRRD_TYPES)),
    big=st.booleans(),
    space=st.sampled_from(SPACES),
    layout=st.sampled_from(LAYOUTS),
    packed=st.booleans(),
    angles=rotations,
    steps=spacings,
    origin=origins,
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_nrrd_headers_mean_what_itk_means(
    tmp_path_factory, kind, big, space, layout, packed, angles, steps, origin, ending
):
    sizes = {
        "3-D": (5, 4, 3),
        "vector first": (2, 5, 4, 3),
        "vector last": (5, 4, 3, 2),
        "time": (5, 4, 3, 2),
    }[layout]
    turned = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    vectors = [text_of(column) for column in (turned * steps).T]
    kinds = ["domain"] * 3
    if layout == "vector first":
        vectors = ["none", *vectors]
        kinds = ["vector", *kinds]
    elif layout != "3-D":
        vectors.append("none")
        kinds.append("list" if layout == "vector last" else "time")
    array = values_of(sizes, NRRD_TYPES[kind]).astype(
        np.dtype(NRRD_TYPES[kind]).newbyteorder(">" if big else "<")
    )
    lines = [
        "NRRD0005",
        "# a comment: with a colon",
        f"type: {kind}",
        f"dimension: {len(sizes)}",
        f"space: {space}",
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {' '.join(vectors)}",
        f"kinds: {' '.join(kinds)}",
        f"endian: {'big' if big else 'little'}",
        f"encoding: {'gzip' if packed else 'raw'}",
        f"space origin: {text_of(origin)}",
        "Segment0_Name:=liver %s%n",
        "",
        "",
    ]
    path = tmp_path_factory.mktemp("nrrd") / "a.nrrd"
    data = array.tobytes()
    head = ending.join(lines).encode()
    path.write_bytes(head + (gzip.compress(data) if packed else data))
    if layout == "time":  # which ITK refuses in a space of three dimensions
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array.ravel(), array)
    else:
        volume = require_equal(path)
    corner = np.diag([-1, -1, 1]) if "L" in space[:1].upper() else np.eye(3)
    if "anterior" in space:
        corner = np.diag([-1, 1, 1])
    expected = corner @ (turned * steps)
    np.testing.assert_allclose(volume.affine[:3, :3], expected, atol=1e-6)
    assert volume.remarks == ()


@pytest.mark.oracle
@slow
@given(
    kind=st.sampled_from(list(MET_TYPES)),
    big=st.booleans(),
    layout=st.sampled_from(["3-D", "vector", "time", "2-D"]),
    packed=st.booleans(),
    angles=rotations,
    steps=spacings,
    origin=origins,
)
def test_metaimage_headers_mean_what_itk_means(
    tmp_path_factory, kind, big, layout, packed, angles, steps, origin
):
    sizes = {"time": (5, 4, 3, 2), "2-D": (5, 4)}.get(layout, (5, 4, 3))
    dimension = len(sizes)
    turned = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    whole = np.eye(dimension)
    if dimension > 2:
        whole[:3, :3] = turned.T
    channels = 2 if layout == "vector" else 1
    array = values_of((channels, *sizes), MET_TYPES[kind]).astype(
        np.dtype(MET_TYPES[kind]).newbyteorder(">" if big else "<")
    )
    data = zlib.compress(array.tobytes()) if packed else array.tobytes()
    fill = [0.0] * dimension
    head = {
        "ObjectType": "Image",
        "NDims": dimension,
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": big,
        "CompressedData": packed,
        "CompressedDataSize": len(data),
        "TransformMatrix": " ".join(map(repr, whole.ravel().tolist())),
        "Offset": " ".join(map(repr, [*origin, *fill][:dimension])),
        "ElementSpacing": " ".join(map(repr, [*steps, 1.0][:dimension])),
        "0008|0008": "ORIGINAL = %s%n",
        "DimSize": " ".join(map(str, sizes)),
        "ElementNumberOfChannels": channels,
        "ElementType": kind,
        "ElementDataFile": "LOCAL",
    }
    if not packed:
        del head["CompressedDataSize"]
    path = tmp_path_factory.mktemp("mha") / "a.mha"
    lines = "".join(f"{name} = {value}\n" for name, value in head.items())
    path.write_bytes(lines.encode() + data)
    if layout == "2-D":
        assert read_volume(path).array.shape == (1, 1, 4, 5)
        return
    require_equal(path)


@pytest.mark.oracle
@pytest.mark.parametrize("spacing", ["spacings: 2 3 4", "spacings: nan 3 4", ""])
@pytest.mark.parametrize("starts", ["axis mins: 10 20 30\n", ""])
@pytest.mark.parametrize("centres", ["centerings: node node node\n", ""])
def test_nrrd_without_space_lies_where_itk_puts_it(tmp_path, spacing, starts, centres):
    head = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 5 4 3\n{spacing}\n"
    path = tmp_path / "a.nrrd"
    text = (head + starts + centres + "encoding: raw\n\n").replace("3\n\n", "3\n")
    path.write_bytes(text.encode() + bytes(range(60)))
    require_equal(path, place="nan" not in spacing)


@pytest.mark.oracle
@pytest.mark.parametrize("encoding", ["raw", "gzip", "text"])
def test_detached_data_with_lines_and_bytes_before_them(tmp_path, encoding):
    array = values_of((5, 4, 3), "<i2")
    data = array.tobytes()
    skip = "" if encoding == "text" else "byte skip: 7\n"
    if encoding == "gzip":
        data = gzip.compress(b"1234567" + data)
    elif encoding == "raw":
        data = b"1234567" + data
    else:
        data = " ".join(map(str, array.tolist())).encode()
    before = b"" if encoding == "gzip" else b"two\nlines\n"
    lines = "" if encoding == "gzip" else "line skip: 2\n"
    (tmp_path / "a.raw").write_bytes(before + data)
    (tmp_path / "a.nhdr").write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nendian: little\n"
        f"encoding: {encoding}\n{lines}{skip}data file: ./a.raw\n"
    )
    volume = read_volume(tmp_path / "a.nhdr")
    np.testing.assert_array_equal(volume.array.ravel(), array)
    if encoding != "text":  # ITK does not skip lines of text
        require_equal(tmp_path / "a.nhdr")


@pytest.mark.oracle
@pytest.mark.parametrize("names", ["LIST\n{}", "im%02d.raw 1 3 1"])
@pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
def test_an_image_may_be_spread_over_files_of_its_folder(tmp_path, names, suffix):
    array = values_of((5, 4, 3), "u1")
    files = [f"im{number:02d}.raw" for number in (1, 2, 3)]
    for part, file in zip(array.reshape(3, 20), files, strict=True):
        (tmp_path / file).write_bytes(part.tobytes())
    text = names.format("\n".join(files) + "\n")
    if suffix == ".nhdr":
        head = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 5 4 3\nencoding: raw\n"
        head += f"data file: {text.rstrip()}\n"
    else:
        head = "ObjectType = Image\nNDims = 3\nDimSize = 5 4 3\n"
        head += f"ElementType = MET_UCHAR\nElementDataFile = {text}\n"
    path = tmp_path / f"a{suffix}"
    path.write_text(head)
    require_equal(path)


def test_bzip2_and_data_at_the_end_of_the_file(tmp_path):
    array = values_of((5, 4, 3), "u1")
    head = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 5 4 3\n"
    path = tmp_path / "a.nrrd"
    path.write_bytes(
        f"{head}encoding: bzip2\n\n".encode() + bz2.compress(array.tobytes())
    )
    np.testing.assert_array_equal(read_volume(path).array.ravel(), array)
    path.write_bytes(
        f"{head}encoding: raw\nbyte skip: -1\n\n".encode() + bytes(9) + array.tobytes()
    )
    np.testing.assert_array_equal(read_volume(path).array.ravel(), array)


# -- more than ITK means ---------------------------------------------------------------
NRRD = (
    "NRRD0005\ntype: uint8\ndimension: 3\nspace: RAS\nsizes: 3 2 2\n"
    "space directions: (2000,0,0) (0,2000,0) (0,0,3000)\nencoding: raw\n"
    "space origin: (1000,0,0)\n"
)
META = (
    "ObjectType = Image\nNDims = 3\nDimSize = 3 2 2\nElementSpacing = 2000 2000 3000\n"
    "Offset = -1000 0 0\nElementType = MET_UCHAR\n"
)


def test_lengths_that_are_not_mm_are_turned_into_mm(tmp_path):
    nrrd = tmp_path / "a.nrrd"
    nrrd.write_bytes((NRRD + 'space units: "um" "um" "um"\n\n').encode() + bytes(12))
    meta = tmp_path / "a.mha"
    local = "DistanceUnits = um\nElementDataFile = LOCAL\n"
    meta.write_bytes((META + local).encode() + bytes(12))
    for path in (nrrd, meta):
        volume = read_volume(path)
        assert volume.spacing == pytest.approx((3, 2, 2))
        assert volume.affine[0, 3] == pytest.approx(1)
        assert volume.remarks == ()
    nrrd.write_bytes((NRRD + 'space units: "ly" "um" "um"\n\n').encode() + bytes(12))
    assert read_header(nrrd).remarks[0].startswith("unknown unit: ")


def test_a_slice_in_space_keeps_its_plane(tmp_path):
    head = (
        "NRRD0005\ntype: uint8\ndimension: 2\nspace: RAS\nsizes: 3 2\n"
        "space directions: (0,2,0) (0,0,3)\nencoding: raw\nspace origin: (7,8,9)\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(head.encode() + bytes(6))
    expected = [[0, 0, 1, 7], [2, 0, 0, 8], [0, 3, 0, 9], [0, 0, 0, 1]]
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nrrd").affine, expected)


def test_a_space_without_sides_is_told(tmp_path):
    text = NRRD.replace("2000", "2").replace("3000", "3").replace("RAS", "scanner-xyz")
    (tmp_path / "a.nrrd").write_bytes((text + "\n").encode() + bytes(12))
    (remark,) = read_header(tmp_path / "a.nrrd").remarks
    assert "does not say where right and left are" in remark


# -- nothing outside -------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
@pytest.mark.parametrize(
    "name",
    [
        "../secret.raw",
        "{}/secret.raw",
        "sub/../../secret.raw",
        "..\\secret.raw",
        "C:\\secret.raw",
        "http://host/secret.raw",
        "..",
        "LIST\n../secret.raw",
        "../secret%d.raw 1 1 1",
        "%s%n%n%n",
        "a%d%s%n.raw 1 2 1",
        "a%d.raw 1 999999 1",
        "a%d.raw 1 2 0",
        "a%d.raw 9 2 1",
    ],
)
def test_data_outside_the_folder_of_a_header_are_refused(tmp_path, suffix, name):
    (tmp_path / "secret.raw").write_bytes(bytes(12))
    (tmp_path / "secret1.raw").write_bytes(bytes(12))
    folder = tmp_path / "scans"
    folder.mkdir()
    name = name.format(tmp_path)
    line = (
        f"data file: {name}\n" if suffix == ".nhdr" else f"ElementDataFile = {name}\n"
    )
    (folder / f"a{suffix}").write_text((NRRD if suffix == ".nhdr" else META) + line)
    for read in (read_header, read_volume):
        with pytest.raises(FormatError, match=r"a\.(nhdr|mhd): "):
            read(folder / f"a{suffix}")


# -- more than the file holds ----------------------------------------------------------
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("count", [11, 13, 10**9, 10**14])
def test_a_header_that_promises_something_else_is_refused(
    tmp_path, suffix, packed, count
):
    sizes = {11: "3 2 2", 13: "3 2 2", 10**9: "1000 1000 1000"}
    size = sizes.get(count, "100000 100000 10000")
    data = zlib.compress(bytes(min(count, 13)))
    if suffix == ".nrrd":
        data = gzip.compress(bytes(min(count, 13)))
    data = data if packed else bytes(min(count, 13))
    text = (NRRD if suffix == ".nrrd" else META).replace("3 2 2", size)
    text = text.replace("2000", "2").replace("3000", "3")
    if packed:
        text = text.replace("encoding: raw", "encoding: gzip")
    if suffix == ".mha":
        text += f"CompressedData = {packed}\nElementDataFile = LOCAL\n"
    path = tmp_path / f"a{suffix}"
    path.write_bytes(text.encode() + b"\n" * (suffix == ".nrrd") + data)
    if count == 13 and not packed:
        read_volume(path)  # bytes after raw data are left alone, as ITK does
        return
    with pytest.raises(FormatError, match=r"fewer bytes|more voxels|too early|limit"):
        read_volume(path)
    if count >= 10**9:
        with pytest.raises(FormatError, match="fewer bytes"):
            read_header(path)


@pytest.mark.parametrize(
    ("before", "after", "error"),
    [
        ("dimension: 3", "dimension: three", FormatError),
        ("dimension: 3", "dimension: -3", FormatError),
        ("dimension: 3", "dimension: 4", FormatError),
        ("sizes: 3 2 2", "sizes: 3 2 0", FormatError),
        ("sizes: 3 2 2", "sizes: 3 2 -2", FormatError),
        ("sizes: 3 2 2", f"sizes: 3 2 {10**300}", FormatError),
        ("sizes: 3 2 2", "sizes: 3 2 ٢", FormatError),
        ("type: uint8", "type: block", FormatError),
        ("type: uint8", "type: int16", FormatError),
        ("encoding: raw", "encoding: hex", FormatError),
        ("encoding: raw", "encode: raw", FormatError),
        ("encoding: raw", "encoding: raw\nencoding: raw", FormatError),
        ("space: RAS", "space: %s%n", FormatError),
        ("(0,0,3000)", "(0,0,nan)", GeometryError),
        ("(0,0,3000)", "(0,0,0)", GeometryError),
        ("(0,0,3000)", "(0,0)", FormatError),
        ("(0,0,3000)", "none", FormatError),
        ("(1000,0,0)", "(1e999,0,0)", GeometryError),
    ],
)
def test_a_damaged_nrrd_header_is_one_line(tmp_path, before, after, error):
    if after == "none":
        before = "(0,2000,0) (0,0,3000)"
        after = "none none"
    assert before in NRRD
    path = tmp_path / "a.nrrd"
    path.write_bytes((NRRD.replace(before, after) + "\n").encode() + bytes(12))
    for read in (read_header, read_volume):
        with pytest.raises(error, match=r"a\.nrrd: ") as raised:
            read(path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("NDims = 3", "NDims = 9999999999"),
        ("NDims = 3", "NDims = -1"),
        ("DimSize = 3 2 2", "DimSize = 3 2"),
        ("DimSize = 3 2 2", "DimSize = 3 2 0"),
        ("ElementType = MET_UCHAR", "ElementType = MET_STRING"),
        ("ElementType = MET_UCHAR", "ElementNumberOfChannels = 0"),
        ("ObjectType = Image", "ObjectType = Tube"),
        ("ElementSpacing = 2000", "ElementSpacing = x"),
        ("ElementSpacing = 2000", "ElementSpacing = nan"),
        ("ElementSpacing = 2000", "ElementSpacing = 0"),
        ("NDims = 3", "NDims = 3\nHeaderSizePerSlice = 4"),
        ("NDims = 3", "NDims = 3\nHeaderSize = 999"),
    ],
)
def test_a_damaged_metaimage_header_is_one_line(tmp_path, before, after):
    assert before in META
    path = tmp_path / "a.mha"
    text = META.replace(before, after) + "ElementDataFile = LOCAL\n"
    path.write_bytes(text.encode() + bytes(12))
    for read in (read_header, read_volume):
        with pytest.raises(TrivoxError, match=r"a\.mha: ") as raised:
            read(path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("chunk", [1, 3, 2**20])
def test_numbers_written_as_text_are_read_chunk_by_chunk(
    tmp_path, suffix, chunk, monkeypatch
):
    monkeypatch.setattr(promise, "CHUNK", chunk)
    text = (NRRD if suffix == ".nrrd" else META).replace("2000", "2")
    text = text.replace("3000", "3").replace("encoding: raw", "encoding: ascii")
    text += (
        "\n" if suffix == ".nrrd" else "BinaryData = False\nElementDataFile = LOCAL\n"
    )
    path = tmp_path / f"a{suffix}"
    words = " 1  22 3 255\n5 6 7 8 9\t10 11 12"
    path.write_text(text + words + "\n")
    expected = [int(word) for word in words.split()]
    np.testing.assert_array_equal(read_volume(path).array.ravel(), expected)
    for wrong in (words + " 13", words[:-3], words + "x", "1" * 10**5, "x " * 12, "-"):
        path.write_text(text + wrong)
        with pytest.raises(FormatError, match=rf"a{suffix}: "):
            read_volume(path)
