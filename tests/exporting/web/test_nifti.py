"""The page reads NIfTI files as Python reads them, and writes what Python reads."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from page_cases import affine_of
from page_node import PageError, needs_node, only, run
from trivox.volumes.formats import read_volume

pytestmark = needs_node
TYPES = ("u1", "i2", "i4", "f4", "f8", "i1", "u2", "u4", "i8", "u8")


def save(path, array, affine, *, kind=nib.Nifti1Image, codes=(1, 1), **fields):
    """A file of an array `(x, y, z)` with header fields as they are given."""
    image = kind(array, affine, dtype=array.dtype)
    image.header.set_sform(affine, code=codes[0])
    image.header.set_qform(affine, code=codes[1], strip_shears=True)
    big = fields.pop("big", False)
    header = image.header.copy()
    for name, value in fields.items():
        header[name] = value
    header["vox_offset"] = len(header.binaryblock) + 4
    if big:
        header = header.as_byteswapped(">")
    order = ">" if big else "<"
    data = np.asarray(array.astype(array.dtype.newbyteorder(order)))
    content = header.binaryblock + bytes(4) + data.tobytes(order="F")
    packed = gzip.compress(content) if path.name.endswith(".gz") else content
    path.write_bytes(packed)
    return path


def images(folder):
    """Files of every type, order of bytes, scaling and kind of placement."""
    draw = np.random.default_rng(5)
    for number, kind in enumerate(TYPES):
        size = tuple(int(length) for length in draw.integers(2, 9, 3))
        low = 0 if kind.startswith("u") else -50
        array = draw.integers(low, 100, size).astype(kind)
        affine = affine_of(draw, draw.uniform(0.5, 4, 3))
        suffix = ".nii.gz" if number % 2 else ".nii"
        version = nib.Nifti2Image if number % 3 == 0 else nib.Nifti1Image
        fields = {"big": number % 4 == 1, "kind": version}
        yield save(folder / f"plain-{kind}{suffix}", array, affine, **fields)
        if number % 2:
            slope = {"scl_slope": 0.37, "scl_inter": -12.5}
            yield save(folder / f"scaled-{kind}.nii", array, affine, **slope, **fields)
    array = draw.integers(0, 100, (4, 5, 6)).astype("i2")
    affine = affine_of(draw, np.array([1, 2, 3]))
    yield save(folder / "qform.nii", array, affine, codes=(0, 1))
    flipped = affine @ np.diag([-1, 1, 1, 1])
    yield save(folder / "qfac.nii", array, flipped, codes=(0, 1))
    yield save(folder / "neither.nii", array, affine, codes=(0, 0))
    sheared = affine_of(draw, np.ones(3), sheared=True)
    yield save(folder / "sheared.nii", array, sheared, codes=(1, 0))
    yield save(folder / "microns.nii", array, affine, xyzt_units=3)
    yield save(folder / "unset.nii", array, affine, scl_slope=0, scl_inter=5)
    yield save(folder / "infinite.nii", array, affine, scl_slope=np.inf)
    four = draw.integers(0, 9, (4, 5, 6, 3)).astype("u1")
    yield save(folder / "channels.nii", four, affine)
    five = draw.integers(0, 9, (4, 5, 6, 1, 2)).astype("u1")
    yield save(folder / "vector.nii", five, affine)
    flat = draw.integers(0, 9, (7, 6)).astype("u1")
    yield save(folder / "flat.nii", flat, affine)


def test_files_are_read_as_python_reads_them(tmp_path):
    paths = list(images(tmp_path))
    results = run(*({"call": "nifti", "path": str(path)} for path in paths))
    for path, page in zip(paths, results, strict=True):
        assert not isinstance(page, PageError), (path.name, page)
        volume = read_volume(path)
        assert tuple(page["shape"]) == volume.shape, path.name
        # nibabel turns quaternions in extended precision, which JavaScript lacks
        near = 1e-14 if path.name in ("qform.nii", "qfac.nii") else 0
        np.testing.assert_allclose(page["affine"], volume.affine, rtol=near)
        assert page["unitMm"] == volume.unit_mm, path.name
        read = np.stack([each.reshape(volume.shape) for each in page["channels"]])
        wanted = volume.array.astype(np.float32)
        np.testing.assert_array_equal(read, wanted, path.name)
        spoken = "no sform and no qform" in " ".join(page["remarks"])
        assert spoken == (path.name == "neither.nii")
        assert ("infinite" in " ".join(page["remarks"])) == (path.stem == "infinite")


def damaged(folder):
    """Files that no volume comes of, and a word that says why."""
    array = np.arange(120, dtype="i2").reshape(4, 5, 6)
    affine = np.diag([1, 2, 3, 1.0])
    whole = save(folder / "whole.nii", array, affine).read_bytes()
    packed = gzip.compress(whole)

    def file(name, content):
        path = folder / name
        path.write_bytes(content)
        return path

    yield file("cut.nii", whole[:-10]), "fewer bytes"
    yield file("header.nii", whole[:200]), "fewer bytes"
    yield file("long.nii", whole + bytes(50)), "more voxels"
    yield file("cut.nii.gz", packed[:-20]), "gzip stream"
    yield file("flipped.nii.gz", packed[:60] + b"\xff\xff" + packed[62:]), "gzip|fewer"
    yield file("text.nii", b"no image at all " * 40), "no NIfTI"
    yield file("empty.nii", b""), "fewer bytes"
    yield save(folder / "colour.nii", array, affine, datatype=128), "colour"
    yield (
        save(
            folder / "huge.nii", array, affine, dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]
        ),
        "fewer bytes",
    )
    yield save(folder / "none.nii", array, affine, dim=[3, 0, 5, 6, 1, 1, 1, 1]), "size"
    rows = {"srow_x": [0, 0, 0, 0]}
    yield save(folder / "singular.nii", array, affine, **rows), "singular"
    rows = {"srow_x": [np.nan, 0, 0, 0]}
    yield save(folder / "nan.nii", array, affine, **rows), "affine"
    sizes = {"pixdim": [1, 0, 2, 3, 0, 0, 0, 0], "codes": (0, 1)}
    yield save(folder / "sizes.nii", array, affine, **sizes), "pixdim"
    turn = {"quatern_b": 2, "codes": (0, 1)}
    yield save(folder / "turn.nii", array, affine, **turn), "quaternion"
    slope = {"scl_slope": 2, "scl_inter": np.nan}
    yield save(folder / "slope.nii", array, affine, **slope), "scl_inter"
    metres = {"xyzt_units": 1}
    yield save(folder / "metres.nii", array, affine, **metres), "image of"
    six = np.zeros((2, 2, 2, 2, 2, 2), "u1")
    yield save(folder / "six.nii", six, affine), "not 3-D"


def test_damaged_files_are_refused_in_a_line(tmp_path):
    files = list(damaged(tmp_path))
    results = run(*({"call": "nifti", "path": str(path)} for path, _ in files))
    for (path, words), error in zip(files, results, strict=True):
        assert isinstance(error, PageError), path.name
        assert error.kind == "Problem", (path.name, error)
        assert any(word in str(error) for word in words.split("|")), (path.name, error)


@pytest.mark.parametrize("sheared", [False, True])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f4"])
def test_written_files_are_what_python_would_write(tmp_path, kind, sheared):
    draw = np.random.default_rng(6)
    array = draw.integers(0, 100, (3, 4, 5)).astype(kind)
    affine = affine_of(draw, np.array([1.5, 0.7, 3]), sheared=sheared)
    volume = {"data": array.reshape(-1), "shape": [3, 4, 5], "affine": affine.tolist()}
    written = only("written", volume={**volume, "unitMm": 0.001})
    (tmp_path / "packed.nii.gz").write_bytes(written["packed"].tobytes())
    (tmp_path / "plain.nii").write_bytes(written["plain"].tobytes())
    for name in ("packed.nii.gz", "plain.nii"):
        read = read_volume(tmp_path / name)
        np.testing.assert_array_equal(read.array[0], array)
        assert read.array.dtype == array.dtype
        np.testing.assert_allclose(read.affine, affine, rtol=1e-5, atol=1e-5)
        assert read.unit_mm == 0.001
        assert not read.remarks
        header = nib.load(tmp_path / name).header
        assert int(header["qform_code"]) == (0 if sheared else 1)


def test_an_axis_beyond_the_first_version_is_written_in_the_second(tmp_path):
    array = np.zeros((1, 1, 40000), "u1")
    volume = {
        "data": array.reshape(-1),
        "shape": [1, 1, 40000],
        "affine": np.diag([0.1, 1, 1, 1]).tolist(),
    }
    written = only("written", volume=volume)
    (tmp_path / "long.nii").write_bytes(written["plain"].tobytes())
    read = read_volume(tmp_path / "long.nii")
    assert read.shape == (1, 1, 40000)
    np.testing.assert_allclose(read.spacing, (1, 1, 0.1))
