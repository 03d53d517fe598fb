"""Made-up scans that the smoke test of a container predicts: noise, as its kind is given
scans.
"""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivox.datasets.channels import sequence_of
from trivox.datasets.layouts.brats import family_of
from trivox.datasets.layouts.choice import load_inputs
from trivox.exporting.contract import Contract, Target
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

SHAPE = (20, 28, 24)  # (z, y, x)
CASES = ("scan-1", "scan-2")
ROOT_UID = "2.25."
"""Of identifiers made of UUIDs (DICOM PS3.5 B.2)."""
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
SERIES = "series"
Expected = dict[str, Path]
"""File of the output -> an image whose grid it must have, or the series that it is of."""


def make(folder: Path, contract: Contract) -> Expected:
    """Write scans as the platform passes them; returns what has to come out."""
    return MAKERS[contract.target](folder, contract)


def expected(folder: Path, contract: Contract) -> Expected:
    """What `make` returned for the scans in `folder`."""
    return FINDERS[contract.target](folder, contract)


def _brats(folder: Path, contract: Contract) -> Expected:
    return {
        f"{name}.nii.gz": _brats_case(folder, name, contract)
        for name in contract.example_cases
    }


def _brats_case(folder: Path, name: str, contract: Contract) -> Path:
    """One folder a case, as its family names the files; voxels of 1 mm with flipped
    axes, as BraTS stores them.
    """
    family = family_of(name)
    assert family is not None, "the examples are BraTS cases"
    flipped = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine = affine_from_spacing((1.0, 1.0, 1.0), (0.0, 239.0, 0.0)) @ flipped
    paths = []
    for number, channel in enumerate(contract.channels):
        path = folder / name / family.file_name(name, sequence_of(channel))
        write_volume(path, Volume(_noise(number), affine))
        paths.append(path)
    return paths[0]


def _images(folder: Path, contract: Contract) -> Expected:
    """Images of the channels, numbered where there are several."""
    count = len(contract.channels)
    endings = [f"_{number:04d}" for number in range(count)] if count > 1 else [""]
    first: Expected = {}
    for name in CASES:
        for number, ending in enumerate(endings):
            path = folder / f"{name}{ending}.nii.gz"
            write_volume(path, Volume(_noise(number), _oblique()))
            first.setdefault(f"{name}.nii.gz", path)
    return first


def _listed(folder: Path, contract: Contract) -> Expected:
    cases = load_inputs(folder, channels=contract.channels)
    return {f"{case.name}.nii.gz": case.images[0] for case in cases}


def _grand_challenge(folder: Path, contract: Contract) -> Expected:
    images = []
    entries = []
    for seed, channel in enumerate(contract.channels):
        slug = contract.slugs[channel]
        path = folder / "images" / slug / f"{uuid.uuid5(uuid.NAMESPACE_OID, slug)}.mha"
        write_volume(path, Volume(_noise(seed), _oblique()))
        images.append(path)
        socket = {"slug": slug, "relative_path": f"images/{slug}"}
        entries.append({"socket": socket})
    (folder / "inputs.json").write_text(json.dumps(entries), encoding="utf-8")
    return {f"images/{contract.output_slug}/{images[0].name}": images[0]}


def _in_sockets(folder: Path, contract: Contract) -> Expected:
    slug = contract.slugs[contract.channels[0]]
    image = next((folder / "images" / slug).glob("*.mha"))
    return {f"images/{contract.output_slug}/{image.name}": image}


def _mercure(folder: Path, contract: Contract) -> Expected:
    """One series beside the router's file about its task."""
    task = {"process": {"module_name": "trivox", "settings": {}}}
    write_series(folder, name=lambda series, image: f"{series}#{image}.dcm")
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
    return {SERIES: folder}


def _study(folder: Path, contract: Contract) -> Expected:
    """One series, below a folder of its study."""
    place = folder / "study" / "series"
    write_series(place, name=lambda series, image: f"{image}.dcm")
    return {SERIES: place}


def _as_series(folder: Path, contract: Contract) -> Expected:
    return {SERIES: next(folder.rglob("*.dcm")).parent}


MAKERS: dict[Target, Callable[[Path, Contract], Expected]] = {
    "brats": _brats,
    "grand-challenge": _grand_challenge,
    "docker": _images,
    "mercure": _mercure,
    "map": _study,
}
FINDERS: dict[Target, Callable[[Path, Contract], Expected]] = {
    "brats": _listed,
    "grand-challenge": _in_sockets,
    "docker": _listed,
    "mercure": _as_series,
    "map": _as_series,
}


def write_series(folder: Path, *, name: Callable[[str, str], str]) -> list[Path]:
    """A CT series of noise, an image a file, with made-up identifiers; returns its files.

    name: of a file, from the UIDs of series and image.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    stored = (_noise(0)[0] + 1024).astype("<u2")
    for number, pixels in enumerate(stored):
        dataset = _slice(number, pixels)
        path = folder / name(dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _slice(number: int, pixels: NDArray[np.uint16]) -> Any:
    """A CT image (DICOM PS3.3 A.3), 2.5 mm above the one before it."""
    from pydicom.dataset import Dataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CT
    meta.MediaStorageSOPInstanceUID = _uid(f"image {number}")
    meta.TransferSyntaxUID = EXPLICIT_LITTLE_ENDIAN
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.update(_identity())
    dataset.SOPClassUID = CT
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.InstanceNumber = number + 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient = [-10.0, 20.0, 2.5 * number]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [1.1, 0.9]
    dataset.SliceThickness = 2.5
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.RescaleSlope = 1
    dataset.RescaleIntercept = -1024
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def _identity() -> Any:
    """What all images of the series say of patient, study and series: nobody."""
    from pydicom.dataset import Dataset

    dataset = Dataset()
    for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
        setattr(dataset, keyword, "")
    for keyword in ("AccessionNumber", "ReferringPhysicianName", "Manufacturer"):
        setattr(dataset, keyword, "")
    dataset.PatientName = "SMOKE^TEST"
    dataset.PatientID = "smoke-test"
    dataset.StudyID = "1"
    dataset.StudyInstanceUID = _uid("study")
    dataset.SeriesInstanceUID = _uid("series")
    dataset.FrameOfReferenceUID = _uid("frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.SeriesNumber = 1
    dataset.Modality = "CT"
    return dataset


def _uid(what: str) -> str:
    """Always the same for the same."""
    return ROOT_UID + str(uuid.uuid5(uuid.NAMESPACE_OID, f"trivox smoke {what}").int)


def _noise(seed: int) -> NDArray[np.float32]:
    """A noisy ellipsoid in zeros, `(1, z, y, x)`."""
    axes = [np.linspace(-1.2, 1.2, size) ** 2 for size in SHAPE]
    inside = axes[0][:, None, None] + axes[1][:, None] + axes[2] < 1
    noise = np.random.default_rng(seed).normal(500, 120, SHAPE)
    return np.asarray((noise.clip(1) * inside)[None], dtype=np.float32)


def _oblique() -> NDArray[np.float64]:
    """A turned grid of unequal spacing, so that a lost direction, spacing or origin
    shows.
    """
    affine = affine_from_spacing((2.0, 1.1, 0.9), (-31.0, 17.5, 4.0))
    cos = np.cos(0.3)
    sin = np.sin(0.3)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    affine[:3, :3] = turn @ affine[:3, :3]
    return affine
