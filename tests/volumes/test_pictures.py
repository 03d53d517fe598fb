"""PNG, TIFF, JPEG and BMP: pictures as slices, stacks where a spacing is declared."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from trivox.errors import FormatError, GeometryError, LabelError
from trivox.volumes.formats import read_header, read_labels, read_volume, write_volume
from trivox.volumes.pictures import PALETTE, UNKNOWN
from trivox.volumes.volume import Volume

SHAPE = (9, 12)


def grey(seed=0, kind=np.uint8, high=256):
    return np.random.default_rng(seed).integers(0, high, SHAPE).astype(kind)


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    if mode is not None:
        image = image.convert(mode)
    image.save(path, **options)
    return path


def assert_headers_agree(path, volume):
    header = read_header(path)
    assert header.shape == volume.shape
    assert header.channels == volume.channels
    assert header.dtype == volume.array.dtype
    assert header.remarks == volume.remarks
    np.testing.assert_array_equal(header.affine, volume.affine)


@pytest.mark.parametrize(
    ("name", "kind", "high"),
    [
        ("a.png", np.uint8, 256),
        ("a.png", np.uint16, 65536),
        ("a.tif", np.uint8, 256),
        ("a.tiff", np.uint16, 65536),
        ("a.TIF", np.int32, 2**31),
        ("a.bmp", np.uint8, 256),
    ],
)
def test_grey_pictures_are_one_slice_with_their_values(tmp_path, name, kind, high):
    array = grey(1, kind, high)
    path = save(tmp_path / name, array)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, array[None, None])
    assert volume.array.dtype == kind
    assert volume.spacing == (999, 1, 1)
    assert volume.remarks == (UNKNOWN,)
    assert_headers_agree(path, volume)


def test_real_numbers_in_tiff(tmp_path):
    array = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    volume = read_volume(save(tmp_path / "a.tif", array))
    np.testing.assert_array_equal(volume.array[0, 0], array)


def test_colours_are_channels_and_opacity_is_none(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3)).astype(np.uint8)
    path = save(tmp_path / "a.png", colour)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array[:, 0], np.moveaxis(colour, -1, 0))
    assert_headers_agree(path, volume)
    opaque = np.concatenate([colour, np.full((*SHAPE, 1), 255, np.uint8)], axis=-1)
    path = save(tmp_path / "b.png", opaque)
    np.testing.assert_array_equal(read_volume(path).array, volume.array)
    opaque[3, 4, 3] = 7
    with pytest.raises(FormatError, match=r"c\.png: has transparent"):
        read_volume(save(tmp_path / "c.png", opaque))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_keep_the_values_of_labels(tmp_path, bits):
    labels = grey(0, np.uint8, 2**bits)
    palette = Image.fromarray(labels, mode=None).convert("P")
    palette.putdata(labels.ravel().tolist())
    palette.save(tmp_path / "palette.png", bits=bits)
    np.testing.assert_array_equal(
        read_labels(tmp_path / "palette.png").array[0, 0], labels
    )
    if bits == 1:
        save(tmp_path / "grey.png", labels.astype(bool))
        np.testing.assert_array_equal(
            read_labels(tmp_path / "grey.png").array[0, 0], labels
        )


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.uint16]))
def test_label_maps_survive_there_and_back(tmp_path_factory, seed, kind):
    path = tmp_path_factory.getbasetemp() / "label.png"
    array = grey(seed, kind, np.iinfo(kind).max + 1)
    volume = Volume(array[None, None], np.diag([-1.0, -1, 999, 1]))
    write_volume(path, volume)
    again = read_labels(path)
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_array_equal(again.affine, volume.affine)


def test_only_label_maps_of_one_slice_become_pictures(tmp_path):
    whole = Volume(np.zeros((1, 2, 3, 4), np.uint8), np.eye(4))
    real = Volume(np.zeros((1, 1, 3, 4), np.float32), np.eye(4))
    for volume in (whole, real):
        with pytest.raises(FormatError, match=r"write \.nii\.gz"):
            write_volume(tmp_path / "a.png", volume)
    with pytest.raises(FormatError, match=r"write \.nii\.gz"):
        write_volume(tmp_path / "a.tif", real)


def test_jpeg_is_an_image_and_no_label_map(tmp_path):
    path = save(tmp_path / "a.jpg", grey())
    assert read_volume(path).shape == (1, *SHAPE)
    with pytest.raises(LabelError, match="JPEG changes values"):
        read_labels(path)


# -- several pages ---------------------------------------------------------------------
def pages(path, arrays, **options):
    first, *rest = [Image.fromarray(array) for array in arrays]
    first.save(path, save_all=True, append_images=rest, **options)
    return path


ARRAYS = [grey(i) for i in range(4)]


def test_pages_without_spacing_are_refused_with_the_way_to_give_it(tmp_path):
    path = pages(tmp_path / "a.tif", ARRAYS)
    way = r'4 slices without a spacing; put it beside them as a\.json: \{"spacing"'
    for read in (read_volume, read_header):
        with pytest.raises(FormatError, match=way):
            read(path)


@pytest.mark.parametrize("name", ["case", "case_0000"])
def test_a_json_beside_gives_the_spacing_as_in_nnunet(tmp_path, name):
    path = pages(tmp_path / f"{name}.tif", ARRAYS)
    (tmp_path / "case.json").write_text('{"spacing": [3, 0.5, 0.7]}')
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array[0], np.stack(ARRAYS))
    assert volume.spacing == (3, 0.5, 0.7)
    assert volume.remarks == ()
    assert_headers_agree(path, volume)


@pytest.mark.parametrize("content", ["[1, 2]", "[1, 2, 0]", '"a"', "[1, 2, NaN]", "3"])
def test_impossible_spacings_are_refused_by_the_name_of_their_file(tmp_path, content):
    path = pages(tmp_path / "a.tif", ARRAYS)
    (tmp_path / "a.json").write_text(f'{{"spacing": {content}}}')
    with pytest.raises(FormatError, match=r"a\.json"):
        read_volume(path)


def tagged(description, resolution=None):
    tags = ImageFileDirectory_v2()
    tags[270] = description
    if resolution:
        tags[282], tags[283] = resolution
    return {"tiffinfo": tags}


@pytest.mark.parametrize(
    ("unit", "spacing"), [("mm", (2.5, 0.5, 0.25)), ("micron", (2.5e-3, 5e-4, 2.5e-4))]
)
def test_imagej_stacks_have_their_spacing(tmp_path, unit, spacing):
    words = f"ImageJ=1.53t\nimages=4\nslices=4\nunit={unit}\nspacing=2.5\n"
    path = pages(tmp_path / "a.tif", ARRAYS, **tagged(words, (4.0, 2.0)))
    volume = read_volume(path)
    assert volume.spacing == pytest.approx(spacing)
    assert_headers_agree(path, volume)


def test_imagej_channels_follow_each_other(tmp_path):
    words = "ImageJ=1.53t\nimages=4\nchannels=2\nslices=2\nunit=mm\nspacing=2.5\n"
    path = pages(tmp_path / "a.tif", ARRAYS, **tagged(words, (1.0, 1.0)))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array[0], np.stack(ARRAYS[::2]))
    np.testing.assert_array_equal(volume.array[1], np.stack(ARRAYS[1::2]))
    assert_headers_agree(path, volume)


def test_ome_stacks_have_their_spacing(tmp_path):
    words = (
        '<?xml version="1.0"?><OME><Image><Pixels SizeC="1" SizeT="1" SizeZ="4" '
        'DimensionOrder="XYZCT" PhysicalSizeX="0.5" PhysicalSizeXUnit="mm" '
        'PhysicalSizeY="700" PhysicalSizeZ="3" PhysicalSizeZUnit="mm"/></Image></OME>'
    )
    volume = read_volume(pages(tmp_path / "a.tif", ARRAYS, **tagged(words)))
    assert volume.spacing == pytest.approx((3, 0.7, 0.5))


@pytest.mark.parametrize(
    "words",
    [
        "ImageJ=1\nimages=4\nframes=4\n",
        "ImageJ=1\nimages=40\nslices=40\n",
        "ImageJ=1\nimages=4\nchannels=3\n",
        '<OME SizeT="4" />',
        '<OME SizeC="2" DimensionOrder="XYZCT" />',
    ],
)
def test_series_in_time_and_unknown_orders_are_refused(tmp_path, words):
    path = pages(tmp_path / "a.tif", ARRAYS, **tagged(words))
    (tmp_path / "a.json").write_text('{"spacing": [1, 1, 1]}')
    with pytest.raises(FormatError, match=r"a\.tif: "):
        read_volume(path)


# -- folders of slices -----------------------------------------------------------------
def stack(folder, numbers, spacing=(2, 0.5, 0.5)):
    folder.mkdir()
    for number in numbers:
        save(folder / f"slice{number}.png", grey(number))
    if spacing:
        (folder / "spacing.json").write_text(json.dumps({"spacing": spacing}))
    return folder


def test_numbered_slices_with_a_spacing_are_a_volume(tmp_path):
    folder = stack(tmp_path / "s", range(8, 12))
    volume = read_volume(folder)
    expected = np.stack([grey(i) for i in range(8, 12)])  # 8, 9, 10: by number
    np.testing.assert_array_equal(volume.array[0], expected)
    assert volume.spacing == (2, 0.5, 0.5)
    assert_headers_agree(folder, volume)


def test_incomplete_and_mixed_stacks_are_refused(tmp_path):
    with pytest.raises(
        FormatError, match="1 slices are missing, the first is number 3"
    ):
        read_volume(stack(tmp_path / "a", [1, 2, 4]))
    with pytest.raises(FormatError, match=r"spacing\.json"):
        read_volume(stack(tmp_path / "b", [1, 2], spacing="2"))
    folder = stack(tmp_path / "c", [1, 2])
    save(folder / "x3.png", np.zeros((3, 3), np.uint8))
    with pytest.raises(GeometryError, match=r"x3\.png: is \(1, 3, 3\)"):
        read_volume(folder)
    save(folder / "cover.png", grey())
    with pytest.raises(FormatError, match=r"cover\.png: has no number"):
        read_volume(folder)


def test_too_large_is_refused_before_decoding(tmp_path):
    path = save(tmp_path / "a.png", grey())
    with pytest.raises(FormatError, match="more than the limit"):
        read_volume(path, max_bytes=grey().nbytes - 1)
    with pytest.raises(FormatError, match="more than the limit"):
        read_volume(stack(tmp_path / "s", [1, 2]), max_bytes=grey().nbytes)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "bmp"])
@settings(max_examples=40)
@given(st.data())
def test_damaged_pictures_are_one_line(tmp_path_factory, suffix, data):
    folder = tmp_path_factory.getbasetemp()
    good = save(folder / f"good.{suffix}", grey()).read_bytes()
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(good) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    length = data.draw(st.integers(1, len(good)))
    path = folder / f"bad.{suffix}"
    path.write_bytes(bytes(damaged[:length]))
    for read in (read_volume, read_header):
        said = complaint_of(read, path)
        assert "\n" not in said
        assert not said or f"bad.{suffix}" in said


def complaint_of(read, path):
    try:
        read(path)
    except (FormatError, GeometryError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_pictures_that_are_shown_turned_are_refused(tmp_path, suffix):
    """A label map may be drawn on either."""
    picture = Image.fromarray(grey(0, np.uint8, 255))
    for orientation in range(10):
        path = tmp_path / f"{orientation}{suffix}"
        words = Image.Exif()
        words[0x112] = orientation
        picture.save(path, exif=words)
        if 2 <= orientation <= 8:
            for read in (read_volume, read_header):
                with pytest.raises(
                    FormatError, match=f"EXIF orientation {orientation}"
                ):
                    read(path)
        else:
            assert read_volume(path).shape == read_header(path).shape == (1, *SHAPE)


@pytest.mark.parametrize(
    "words", [b"", b"Exif", b"Exif\0\0MM", b"Exif\0\0" + 99 * b"\xff"]
)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_damaged_words_about_a_picture_do_not_matter(tmp_path, suffix, words):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(grey(0, np.uint8, 255)).save(path, exif=words)
    assert read_volume(path).shape == (1, *SHAPE)


def test_numbers_of_colours_are_said_to_be_no_brightness(tmp_path):
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (*SHAPE, 3), np.uint8))
    colours.convert("P").save(tmp_path / "colours.png")
    assert PALETTE in read_header(tmp_path / "colours.png").remarks
    levels = Image.fromarray(grey(0, np.uint8, 255)).convert("P")
    levels.save(tmp_path / "levels.png")
    assert PALETTE not in read_volume(tmp_path / "levels.png").remarks
