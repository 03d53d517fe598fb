"""DICOM SEG, RTSTRUCT and segmentations of 3D Slicer, made for tests with plain pydicom:
each as small as a reader takes it, and as odd as one asks for.
"""

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import (
    Comprehensive3DSRStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    RLELossless,
    RTStructureSetStorage,
    SegmentationStorage,
)

from dicom_slices import save, slice_of

LABEL_MAP_CLASS = "1.2.840.10008.5.1.4.1.1.66.7"
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
FRAME_OF_REFERENCE = "1.2.3.9"


def series(folder, affine, shape, *, uid="1.2.3", frame=FRAME_OF_REFERENCE, seed=0):
    """A CT series of `(z, y, x)` voxels that lies as the affine (RAS) says; the SOP UIDs
    of its slices.
    """
    lps = LPS @ affine
    column, row, step = lps[:3, :3].T
    spacing = [np.linalg.norm(row), np.linalg.norm(column)]
    rng = np.random.default_rng(seed)
    slices = []
    for z in range(shape[0]):
        pixels = rng.integers(0, 4096, shape[1:]).astype(np.uint16)
        slices.append(
            slice_of(
                z,
                pixels=pixels,
                series=uid,
                position=(lps[:3, 3] + z * step).tolist(),
                ImageOrientationPatient=[*column / spacing[1], *row / spacing[0]],
                PixelSpacing=spacing,
                FrameOfReferenceUID=frame,
                SOPInstanceUID=f"{uid}.{z + 1}",
            )
        )
    save(folder, slices)
    return [one.SOPInstanceUID for one in slices]


def item(**attributes):
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def _begun(kind, modality, *, frame=FRAME_OF_REFERENCE):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = kind
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.9.1"
    dataset.Modality = modality
    dataset.FrameOfReferenceUID = frame
    return dataset


def referenced(uids, uid="1.2.3"):
    """What a SEG says of the images that it was drawn on."""
    images = [
        item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=each)
        for each in uids
    ]
    return [item(SeriesInstanceUID=uid, ReferencedInstanceSequence=images)]


def seg(
    path,
    masks,
    affine,
    *,
    names,
    type_="BINARY",
    order=None,
    keep_empty=False,
    rle=False,
    images=(),
    bits=8,
    per_frame_geometry=False,
    frame=FRAME_OF_REFERENCE,
    most=255,
    **attributes,
):
    """Write a SEG of masks `(segment, z, y, x)` (fractions 0..1 for FRACTIONAL; one
    label map for LABELMAP) whose voxels lie as the affine (RAS) says; empty frames are
    left out. order: seed by which frames are shuffled.
    """
    lps = LPS @ affine
    column, row, step = lps[:3, :3].T
    spacing = [float(np.linalg.norm(row)), float(np.linalg.norm(column))]
    kind = LABEL_MAP_CLASS if type_ == "LABELMAP" else SegmentationStorage
    dataset = _begun(kind, "SEG", frame=frame)
    masks = np.asarray(masks)
    planes = [
        (segment, z, masks[segment, z])
        for segment in range(len(masks))
        for z in range(masks.shape[1])
        if keep_empty or masks[segment, z].any()
    ]
    if order is not None:
        planes = [
            planes[i] for i in np.random.default_rng(order).permutation(len(planes))
        ]
    directions = [*(column / spacing[1]), *(row / spacing[0])]
    orientation = [item(ImageOrientationPatient=directions)]
    measures = [
        item(
            PixelSpacing=spacing,
            SliceThickness=float(np.linalg.norm(step)),
        )
    ]
    groups = []
    for segment, z, _ in planes:
        group = item(
            PlanePositionSequence=[
                item(ImagePositionPatient=(lps[:3, 3] + z * step).tolist())
            ]
        )
        if type_ != "LABELMAP":
            number = [item(ReferencedSegmentNumber=segment + 1)]
            group.SegmentIdentificationSequence = number
        if per_frame_geometry:
            group.PlaneOrientationSequence = orientation
            group.PixelMeasuresSequence = measures
        groups.append(group)
    shared = Dataset()
    if not per_frame_geometry:
        shared.PlaneOrientationSequence = orientation
        shared.PixelMeasuresSequence = measures
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.SegmentationType = type_
    dataset.SegmentSequence = [
        item(SegmentNumber=number, SegmentLabel=name)
        for number, name in enumerate(names, start=1)
    ]
    if images:
        dataset.ReferencedSeriesSequence = referenced(images)
    dataset.NumberOfFrames = len(planes)
    _, dataset.Rows, dataset.Columns = masks.shape[1:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelRepresentation = 0
    _fill(dataset, np.array([plane for _, _, plane in planes]), type_, bits, most, rle)
    return _saved(dataset, path, attributes)


def _fill(dataset, frames, type_, bits, most, rle):
    if type_ == "BINARY":
        bits = 1
        content = np.packbits(frames.astype(bool).ravel(), bitorder="little").tobytes()
    elif type_ == "FRACTIONAL":
        dataset.MaximumFractionalValue = most
        frames = np.rint(frames * most).astype(np.uint8)
        content = frames.tobytes()
    else:
        frames = frames.astype(f"<u{bits // 8}")
        content = frames.tobytes()
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    if rle:
        dataset.file_meta.TransferSyntaxUID = RLELossless
        packed = [
            RLELosslessEncoder.encode(
                frame,
                rows=dataset.Rows,
                columns=dataset.Columns,
                samples_per_pixel=1,
                number_of_frames=1,
                bits_allocated=bits,
                bits_stored=bits,
                pixel_representation=0,
                photometric_interpretation="MONOCHROME2",
            )
            for frame in frames
        ]
        dataset.PixelData = encapsulate(packed)
        dataset["PixelData"].is_undefined_length = True
    else:
        dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OB" if bits <= 8 else "OW"


def _saved(dataset, path, attributes):
    for name, value in attributes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def rtstruct(
    path,
    rois,
    *,
    images=(),
    uid="1.2.3",
    frame=FRAME_OF_REFERENCE,
    **attributes,
):
    """Write an RTSTRUCT. rois: name and contours of each, a contour being points `(n,
    3)` in RAS mm, or (kind, points).
    """
    dataset = _begun(RTStructureSetStorage, "RTSTRUCT", frame=frame)
    del dataset.FrameOfReferenceUID
    referenced_images = [
        item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=each)
        for each in images
    ]
    series_ = item(SeriesInstanceUID=uid, ContourImageSequence=referenced_images)
    study = item(RTReferencedSeriesSequence=[series_])
    dataset.ReferencedFrameOfReferenceSequence = [
        item(FrameOfReferenceUID=frame, RTReferencedStudySequence=[study])
    ]
    dataset.StructureSetROISequence = [
        item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=frame)
        for number, (name, _) in enumerate(rois, start=1)
    ]
    dataset.ROIContourSequence = [
        item(
            ReferencedROINumber=number,
            ContourSequence=[_contour(contour) for contour in contours],
        )
        for number, (_, contours) in enumerate(rois, start=1)
    ]
    return _saved(dataset, path, attributes)


def report(path, *, images=(), uid="1.2.3"):
    """Write an SR that refers to images, and holds neither image nor segments."""
    dataset = _begun(Comprehensive3DSRStorage, "SR")
    dataset.ValueType = "CONTAINER"
    dataset.ContinuityOfContent = "SEPARATE"
    study = item(
        StudyInstanceUID="1.2", ReferencedSeriesSequence=referenced(images, uid)
    )
    dataset.CurrentRequestedProcedureEvidenceSequence = [study]
    dataset.ContentSequence = [item(ValueType="TEXT", TextValue="nothing")]
    return _saved(dataset, path, {})


def _contour(contour):
    kind, points = ("CLOSED_PLANAR", contour)
    if isinstance(contour, tuple):
        kind, points = contour
    points = np.asarray(points, float) * (-1, -1, 1)
    return item(
        ContourGeometricType=kind,
        NumberOfContourPoints=len(points),
        ContourData=[f"{value:.8g}" for value in points.ravel()],
    )


def slicer_file(path, layers, affine, segments):
    """Write a `.seg.nrrd`: layers `(layer, z, y, x)`; segments: (name, layer, value)."""
    layers = np.asarray(layers, np.uint8)
    lps = LPS @ affine
    steps = " ".join(
        "(" + ",".join(f"{value:.17g}" for value in lps[:3, axis]) + ")"
        for axis in range(3)
    )
    origin = ",".join(f"{value:.17g}" for value in lps[:3, 3])
    z, y, x = layers.shape[1:]
    several = len(layers) > 1
    lines = [
        "NRRD0004",
        "type: unsigned char",
        f"dimension: {4 if several else 3}",
        "space: left-posterior-superior",
        f"sizes: {f'{len(layers)} ' if several else ''}{x} {y} {z}",
        f"space directions: {'none ' if several else ''}{steps}",
        f"kinds: {'list ' if several else ''}domain domain domain",
        "encoding: raw",
        f"space origin: ({origin})",
    ]
    for number, (name, layer, value) in enumerate(segments):
        lines += [
            f"Segment{number}_ID:=Segment_{number + 1}",
            f"Segment{number}_LabelValue:={value}",
            f"Segment{number}_Layer:={layer}",
            f"Segment{number}_Name:={name}",
        ]
    stored = np.moveaxis(layers, 0, -1) if several else layers[0]
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + stored.tobytes())
