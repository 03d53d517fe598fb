"""The page reads uncompressed DICOM series as Python reads them."""

import numpy as np
import pytest
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from dicom_slices import compress, one, save, slice_of
from page_node import PageError, needs_node, run
from trivox.volumes.formats import read_volume

pytestmark = needs_node
COUNT = 5


def slices(**attributes):
    return [slice_of(number, **attributes) for number in range(COUNT)]


def stored_as(syntax):
    made = slices()
    for each in made:
        each.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            each.PixelData = (
                np.frombuffer(each.PixelData, "<u2").astype(">u2").tobytes()
            )
    return made


def tilted():
    """A gantry that is tilted: each slice lies a little further to the front."""
    turned = (1, 0, 0, 0, 0.9848, -0.1736)
    return [
        slice_of(
            number,
            position=(-10, 20.0, 2.0 * number),
            ImageOrientationPatient=list(turned),
        )
        for number in range(COUNT)
    ]


def signed():
    pixels = np.random.default_rng(7).integers(-900, 900, (36, 48)).astype(np.int16)
    overlay = (pixels & 0x0FFF) | np.int16(0x1000)  # bits above those stored
    return slices(PixelRepresentation=1, PixelData=overlay.tobytes())


def readable(folder):
    """Series by name, and what both programs make of them is equal."""
    sagittal = (0, 1, 0, 0, 0, -1)
    far = [
        slice_of(
            number,
            position=(3.0 * number, -4, 7),
            ImageOrientationPatient=list(sagittal),
        )
        for number in range(COUNT)
    ]
    groups = {
        "explicit": slices(),
        "implicit": stored_as(ImplicitVRLittleEndian),
        "big-endian": stored_as(ExplicitVRBigEndian),
        "sagittal": far,
        "tilted": tilted(),
        "signed": signed(),
        "rescaled": slices(RescaleSlope="0.37", RescaleIntercept="-3.25"),
        "bytes": slices(
            BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=bytes(range(216)) * 8
        ),
        "sequences": slices(
            RequestAttributesSequence=one(ScheduledProcedureStepID="4")
        ),
        "single": [slice_of(3)],
        "backwards": slices()[::-1],
        "copies": slices() + slices()[:1],
        "nameless": slices(series=""),
    }
    for name, made in groups.items():
        yield name, save(folder / name, made)


def call(folder):
    return {"call": "series", "paths": sorted(map(str, folder.iterdir()))}


def test_series_are_read_as_python_reads_them(tmp_path):
    folders = dict(readable(tmp_path))
    results = run(*map(call, folders.values()))
    for (name, folder), page in zip(folders.items(), results, strict=True):
        assert not isinstance(page, PageError), (name, page)
        volume = read_volume(folder)
        assert tuple(page["shape"]) == volume.shape, name
        np.testing.assert_allclose(page["affine"], volume.affine, rtol=1e-12)
        wanted = volume.array.astype(np.float32).reshape(-1)
        np.testing.assert_array_equal(page["channels"][0], wanted, name)


def compressed(syntax):
    made = slices()
    for each in made:
        compress(each, syntax)
    return made


def gapped():
    return [slice_of(number) for number in (0, 1, 2, 5, 6)]


def shifted():
    return [*slices()[:-1], slice_of(4, position=(30, 20.25, 8.0))]


REFUSED = {
    "JPEG 2000": lambda: compressed(JPEG2000Lossless),
    "RLE": lambda: compressed(RLELossless),
    "uneven": gapped,
    "sideways": shifted,
    "patients": lambda: [slice_of(0, PatientID="a"), slice_of(1, PatientID="b")],
    "another size": lambda: [
        *slices()[:-1],
        slice_of(4, pixels=np.zeros((40, 48), "u2")),
    ],
    "different images": lambda: [
        *slices(),
        slice_of(0, pixels=np.ones((36, 48), "u2")),
    ],
    "cannot be ordered": lambda: slices(ImagePositionPatient=None),
    "PixelSpacing": lambda: slices(PixelSpacing=None),
    "fewer pixels": lambda: slices(PixelData=bytes(100)),
    "colour": lambda: slices(PhotometricInterpretation="RGB", SamplesPerPixel=3),
    "PET": lambda: slices(Modality="PT", Units="BQML"),
    "No DICOM image": lambda: slices(Modality="SEG"),
}


def test_series_that_cannot_be_read_are_refused_in_a_line(tmp_path):
    folders = {word: save(tmp_path / word, made()) for word, made in REFUSED.items()}
    results = run(*map(call, folders.values()))
    for (word, folder), error in zip(folders.items(), results, strict=True):
        assert isinstance(error, PageError), word
        assert error.kind == "Problem", (word, error)
        assert word in str(error), (word, error)
        assert "\n" not in str(error), folder


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_named(tmp_path, share):
    folder = save(tmp_path / "cut", slices())
    file = folder / "IM002.dcm"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    (error,) = run(call(folder))
    assert isinstance(error, PageError)
    assert error.kind == "Problem"
    assert "IM002.dcm" in str(error)


def test_what_lies_beside_a_series_is_left_alone(tmp_path):
    folder = save(tmp_path / "study", slices())
    save(folder, [slice_of(9, series="1.9", Modality="SR")], name="report")
    scout = [slice_of(0, series="1.8", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])]
    save(folder, scout, name="scout")
    save(folder, [slice_of(n, series="1.7") for n in range(2)], name="other")
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    (page,) = run(call(folder))
    assert page["shape"][0] == COUNT
    assert len(page["titles"]) == 2
    assert page["titles"][0].startswith("-: CT, thorax, 5 images")
