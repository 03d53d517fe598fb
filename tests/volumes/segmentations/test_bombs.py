"""Small files that would fill a memory are refused before they do."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
    SegmentationStorage,
)

import segmentation_files as files
from trivox.errors import DataError
from trivox.volumes.dicom import elements
from trivox.volumes.dicom import files as dicom_files
from trivox.volumes.formats import read_labels

MOST = 700 * 2**20
"""Bytes that refusing may take; what the files claim is many times that."""


def refused(path):
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            read_labels(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert peak < MOST
    return str(caught.value)


def begun(syntax):
    """The bytes of a SEG up to its last element."""
    dataset = Dataset()
    dataset.SOPClassUID = SegmentationStorage
    dataset.Modality = "SEG"
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = SegmentationStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.file_meta = meta
    return dataset


def deflated(path, packed):
    """A deflated file of some content after the header."""
    dataset = begun(DeflatedExplicitVRLittleEndian)
    dataset.save_as(path, enforce_file_format=True)
    whole = path.read_bytes()
    length = struct.unpack_from("<I", whole, 140)[0]
    path.write_bytes(whole[: 144 + length] + packed)


def packed_in_chunks(chunk, times):
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    # after a full flush nothing refers to what came before: the same bytes may follow
    packed = packer.compress(chunk) + packer.flush(zlib.Z_FULL_FLUSH)
    return packed * times + packer.flush()


def test_a_deflated_file_of_nine_hundred_megabytes(tmp_path):
    path = tmp_path / "bomb.dcm"
    deflated(path, packed_in_chunks(bytes(2**20), 900))
    assert path.stat().st_size < 2**20
    assert "deflated content is larger" in refused(path)


@pytest.fixture(params=[1000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def most_items(request, monkeypatch):
    """How many items a file may hold; the real limit takes long under a tracer."""
    monkeypatch.setattr(elements, "MOST_ITEMS", request.param)
    monkeypatch.setattr(elements, "WORTH_COUNTING", request.param)
    monkeypatch.setattr(dicom_files, "WORTH_COUNTING", request.param)
    return request.param


def test_a_deflated_file_of_millions_of_items(tmp_path, most_items):
    """Eight bytes each, and a thousand in memory."""
    sequence = struct.pack("<HH2sHI", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    parts = [packer.compress(sequence)]
    parts += [packer.compress(item * most_items) for _ in range(2)]
    path = tmp_path / "bomb.dcm"
    deflated(path, b"".join([*parts, packer.flush()]))
    assert "items of sequences" in refused(path)


@pytest.mark.parametrize("implicit", [False, True])
def test_a_plain_file_of_millions_of_items(tmp_path, implicit, most_items):
    dataset = begun("1.2.840.10008.1.2" if implicit else ExplicitVRLittleEndian)
    path = tmp_path / "bomb.dcm"
    dataset.save_as(path, enforce_file_format=True)
    kind = b"" if implicit else b"SQ\0\0"
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    size = len(item) * 2 * most_items
    sequence = struct.pack("<HH", 0x0008, 0x1115) + kind + struct.pack("<I", size)
    with path.open("ab") as file:
        file.write(sequence + item * 2 * most_items)
    assert "items of sequences" in refused(path)


def test_sequences_in_each_other(tmp_path):
    path = tmp_path / "bomb.dcm"
    begun(ExplicitVRLittleEndian).save_as(path, enforce_file_format=True)
    sequence = struct.pack("<HH2sHI", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with path.open("ab") as file:
        file.write((sequence + item) * 50_000)
    refused(path)


def frames_of(path, syntax, frame):
    """A label map of two compressed frames that declares 30,000 x 30,000 pixels."""
    labels = np.ones((1, 2, 8, 8))
    dataset = files.seg(path, labels, np.eye(4), names=["a"], type_="LABELMAP")
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.Rows = dataset.Columns = 30000
    dataset.PixelData = encapsulate([frame, frame])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
    content = path.read_bytes()
    name = syntax.encode().ljust(len(JPEGBaseline8Bit), b"\0")
    path.write_bytes(content.replace(JPEGBaseline8Bit.encode(), name))


def test_runs_that_declare_more_than_they_hold(tmp_path):
    path = tmp_path / "bomb.dcm"
    frames_of(path, RLELossless, struct.pack("<16I", 1, 64, *[0] * 14))
    assert "cannot hold" in refused(path)


def test_deflated_frames_that_are_another_size(tmp_path):
    path = tmp_path / "bomb.dcm"
    frames_of(path, "1.2.840.10008.1.2.8.1", packed_in_chunks(bytes(2**20), 100))
    refused(path)


@pytest.mark.parametrize("far", [1e9, 1e300])
def test_two_frames_far_apart(tmp_path, far):
    path = tmp_path / "bomb.dcm"
    dataset = files.seg(path, np.ones((1, 3, 512, 8)), np.eye(4), names=["a"])
    groups = dataset.PerFrameFunctionalGroupsSequence
    position = groups[2].PlanePositionSequence[0].ImagePositionPatient
    groups[2].PlanePositionSequence[0].ImagePositionPatient = [*position[:2], far]
    dataset.save_as(path, enforce_file_format=True)
    refused(path)
