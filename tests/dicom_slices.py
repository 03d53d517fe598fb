"""DICOM slices made for tests: CT, its compressed forms, and enhanced multi-frame."""

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from openjpeg.utils import encode_array
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    generate_uid,
)

AXIAL = (1, 0, 0, 0, 1, 0)
ROWS = 36  # openjpeg encodes nothing smaller than 32
COLUMNS = 48


def pixels_of(number):
    rng = np.random.default_rng(number)
    return rng.integers(0, 4096, (ROWS, COLUMNS)).astype(np.uint16)


def slice_of(number, *, position=None, pixels=None, series="1.2.3", **attributes):
    """A CT slice at z = 2 * number mm, although its SliceThickness says 3."""
    pixels = pixels_of(number) if pixels is None else pixels
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesInstanceUID = series
    dataset.Modality = "CT"
    dataset.SeriesDescription = "thorax"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient = list(position or (-10.5, 20.25, 2.0 * number))
    dataset.ImageOrientationPatient = list(AXIAL)
    dataset.PixelSpacing = [0.75, 0.5]
    dataset.SliceThickness = 3
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.RescaleSlope = 1
    dataset.RescaleIntercept = -1024
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    for name, value in attributes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def save(folder, datasets, name="IM"):
    folder.mkdir(exist_ok=True, parents=True)
    # file names say nothing about positions
    order = np.random.default_rng(0).permutation(len(datasets))
    for file, index in enumerate(order):
        path = folder / f"{name}{file:03d}.dcm"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            datasets[index].save_as(path, enforce_file_format=True)
    return folder


def compress(dataset, syntax):
    """By pydicom; its JPEG 2000 encoder needs one more package than decoding does, hence
    openjpeg itself. Lossless JPEG by GDCM.
    """
    if syntax == JPEGLosslessSV1:
        dataset.PixelData = lossless_jpeg(dataset.pixel_array)
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
        return
    if syntax != JPEG2000Lossless:
        dataset.compress(syntax, generate_instance_uid=False)
        return
    frame = encode_array(
        dataset.pixel_array, bits_stored=12, photometric_interpretation=2, use_mct=False
    )
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax


def lossless_jpeg(pixels):
    """Encapsulated frame, as GDCM writes it."""
    with TemporaryDirectory() as folder:
        file = str(Path(folder, "a.dcm"))
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(file)
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.Execute(sitk.GetImageFromArray(pixels))
        return pydicom.dcmread(file).PixelData


def one(**attributes):
    """A sequence of one item."""
    item = Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    return Sequence([item])


def enhanced(positions, **frame_attributes):
    """A multi-frame image with its frames at `positions`, three to a point in time."""
    dataset = slice_of(
        0,
        NumberOfFrames=len(positions),
        RescaleSlope=None,
        RescaleIntercept=None,
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
        SliceThickness=None,
    )
    dataset.SOPClassUID = EnhancedCTImageStorage
    dataset.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    shared = Dataset()
    shared.PixelMeasuresSequence = one(PixelSpacing=[0.75, 0.5], SliceThickness=3)
    shared.PlaneOrientationSequence = one(ImageOrientationPatient=list(AXIAL))
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for index, position in enumerate(positions):
        group = Dataset()
        group.PlanePositionSequence = one(ImagePositionPatient=list(position))
        group.PixelValueTransformationSequence = one(
            RescaleSlope=1, RescaleIntercept=-1000
        )
        group.FrameContentSequence = one(TemporalPositionIndex=1 + index // 3)
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    dataset.PixelData = b"".join(pixels_of(i).tobytes() for i in range(len(positions)))
    for name, value in frame_attributes.items():
        setattr(dataset, name, value)
    return dataset


def film(frames, **attributes):
    """A classic multi-frame image: one position for all of its frames."""
    pixels = np.stack([pixels_of(i) for i in range(frames)])
    dataset = slice_of(0, pixels=pixels[0], **attributes)
    dataset.NumberOfFrames = frames
    dataset.PixelData = pixels.tobytes()
    return dataset
