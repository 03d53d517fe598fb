"""Stands for `trivox predict`: writes one object about a series, or fails as its model
is called.
"""

import os
import sys
import time
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid

PREFIX = "1.2.826.0.1.3680043.8.498."


def main(arguments):
    model, folder, *options = arguments
    given = dict(zip(options[::2], options[1::2], strict=False))
    out = Path(given["--out"])
    files = sorted(Path(folder).glob("*.dcm"))
    source = pydicom.dcmread(files[0], stop_before_pixels=True)
    note_start(folder, model)
    act(model, out, source)
    time.sleep(float(model.partition("-for-")[2] or 0))
    out.mkdir(parents=True, exist_ok=True)
    if model != "nothing":
        write_result(out, source, files, other=model == "other-study")


def note_start(folder, model):
    """A line a start, so that tests count them."""
    with (Path(folder).parents[2] / "starts.txt").open("a") as file:
        file.write(f"{Path(folder).name} {model}\n")


def act(model, out, source):
    if model == "crash":
        os.abort()
    if model == "fail":
        print(f"error: {source.PatientName} {source.SeriesInstanceUID}: no model")
        sys.exit(1)
    if model == "once":  # fails the first time alone
        mark = out.with_suffix(".mark")
        if not mark.exists():
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            sys.exit(1)
    print("about", source.PatientName, source.PatientID, source.StudyInstanceUID)


def write_result(out, source, files, *, other):
    """UIDs follow from what was seen: the same input gives the same object."""
    seen = sorted(
        str(pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID) for f in files
    )
    result = pydicom.Dataset()
    for name in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate"):
        setattr(result, name, getattr(source, name))
    if other:
        result.StudyInstanceUID = "1.2.3.4.5"
    result.Modality = "SEG"
    result.SeriesDescription = f"of {len(files)}"
    result.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    result.SeriesInstanceUID = generate_uid(PREFIX, ["series", *seen])
    result.SOPInstanceUID = generate_uid(PREFIX, ["object", *seen])
    result.file_meta = pydicom.dataset.FileMetaDataset()
    result.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    result.file_meta.MediaStorageSOPClassUID = result.SOPClassUID
    result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    result.save_as(out / "result.seg.dcm", enforce_file_format=True)


if __name__ == "__main__":
    main(sys.argv[1:])
