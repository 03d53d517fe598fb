"""Results of made-up models on made-up DICOM series."""

import numpy as np
from pydicom.uid import MRImageStorage

from dicom_slices import enhanced, save, slice_of
from trivox.datasets.dataset import Case
from trivox.results.case import CaseResult
from trivox.results.codes import Codes
from trivox.results.identity import ModelIdentity
from trivox.results.options import ResultOptions
from trivox.volumes.choice import NO_CHOICE
from trivox.volumes.formats import read_volume
from trivox.volumes.volume import Volume

MODEL = ModelIdentity("demo nnunet-plain", "0.1.0", "0123456789abcdef" * 4, "demo")
NAMES = {"liver": 1, "spleen": 2, "no such organ": 7}
PATIENT = {
    "PatientName": "Müller^Jörg",
    "PatientID": "id 1",
    "PatientBirthDate": "19500203",
    "PatientSex": "M",
    "StudyInstanceUID": "1.2.840.99.1",
    "StudyDate": "20240506",
    "StudyTime": "070809",
    "StudyID": "7",
    "AccessionNumber": "A1",
    "ReferringPhysicianName": "",
    "FrameOfReferenceUID": "1.2.840.99.2",
    "SpecificCharacterSet": "ISO_IR 100",
}
MR = {"SOPClassUID": MRImageStorage, "Modality": "MR"}


SERIES = {
    "ct": {},
    "mr": MR,
    "sagittal": {"orientation": (0, 1, 0, 0, 0, -1), "step": (1.5, 0, 0)},
    "oblique": {
        "orientation": (0.8, 0.6, 0, -0.36, 0.48, 0.8),
        "step": (0.96, -1.28, 1.2),
    },
    "tilted": {"step": (0, 0.7, 2.0)},
    "reversed columns": {"orientation": (-1, 0, 0, 0, 1, 0), "step": (0, 0, -2.0)},
    "single": {"count": 1},
    "wide": {"shape": (9, 23)},
}
"""Kinds of series, by what is asked of `write_series`."""


def write_series(
    folder,
    *,
    count=5,
    shape=(12, 10),
    orientation=None,
    step=None,
    anonymous=False,
    **attributes,
):
    """A series of `count` slices whose corners are `step` (mm, LPS) apart; anonymous:
    of nobody, and in no study.
    """
    orientation = np.array(orientation or (1, 0, 0, 0, 1, 0), float)
    step = np.array((0, 0, 2.0) if step is None else step)
    known = {} if anonymous else PATIENT
    rng = np.random.default_rng(3)
    datasets = []
    for number in range(count):
        position = np.array((-10.5, 20.25, 3.0)) + number * step
        dataset = slice_of(
            number,
            pixels=rng.integers(0, 4096, shape).astype(np.uint16),
            position=[f"{value:.10g}" for value in position],
            **{**known, **attributes},
        )
        dataset.ImageOrientationPatient = [f"{value:.10g}" for value in orientation]
        datasets.append(dataset)
    return save(folder, datasets)


def enhanced_series(folder, **attributes):
    """A multi-frame image alone in a folder."""
    positions = [(-10.5, 20.25, 2.0 * number) for number in range(4)]
    dataset = enhanced(positions, **PATIENT, **attributes)
    return save(folder, [dataset])


def labels_for(shape, *, seed=0):
    """Labels 1, 2 and 7 in blots with holes, one of them on the border."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    z, y, x = (max(size // 2, 1) for size in shape)
    labels[:z, : y + 1, :x] = 1
    labels[0, y // 2, x // 2] = 0
    labels[-1:, y + 2 :, x:] = 2
    labels[z // 2 :, -1, -1] = 7
    labels[rng.random(shape) < 0.05] = 2
    return labels


def result_of(
    folder, labels=None, *, names=None, segments=None, seg_type="binary", **options
):
    """The result of a model that found `labels` in the series in `folder`."""
    image = read_volume(folder, choice=options.get("choice", NO_CHOICE))
    names = NAMES if names is None else names
    if segments is None:
        segments = {name: (value,) for name, value in names.items()}
    array = labels_for(image.shape) if labels is None else np.asarray(labels)
    chances = None
    if seg_type == "fractional":
        values = [0, *names.values()]
        hits = np.stack([array == value for value in values])
        chances = Volume((0.7 * hits + 0.1).astype(np.float32), image.affine)
    return CaseResult(
        case=Case(name=folder.name, images=(folder,)),
        model=MODEL,
        channels=("image",),
        labels=Volume(array[None], image.affine),
        names=names,
        segments=segments,
        probabilities=chances,
        options=ResultOptions(seg_type, options.get("codes", Codes())),
    )
