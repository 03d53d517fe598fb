"""What verbs say and write of DICOM scans names nobody that stands in their tags."""

import numpy as np
from typer.testing import CliRunner

from dicom_slices import save, slice_of
from privacy.canaries import with_private
from trivox.cli import app
from trivox.volumes.dicom.files import quiet
from untrained_models import write_untrained


def series_with_canaries(folder):
    canaries = set()
    with quiet():
        series = []
        for number in range(12):
            pixels = np.random.default_rng(number).integers(0, 4096, (36, 48))
            dataset = slice_of(number, pixels=pixels.astype(np.uint16))
            dataset.PatientName = "CANNAME"
            dataset.PatientID = "CANPATIENT"
            dataset.StudyInstanceUID = "1.2.826.0.777.42"
            dataset.InstitutionName = "CANHOSPITAL"
            dataset.ImageComments = "CANCOMMENT"
            series.append(dataset)
        canaries |= with_private(series[0])
    save(folder, series)
    return canaries | {
        "CANNAME",
        "CANPATIENT",
        "1.2.826.0.777.42",
        "CANHOSPITAL",
        "CANCOMMENT",
    }


def test_verbs_name_nobody(tmp_path):
    canaries = series_with_canaries(tmp_path / "scans" / "case_1")
    model = write_untrained(tmp_path / "model")
    folder = tmp_path / "scans"
    commands = [
        ("predict", model, folder, "--out", tmp_path / "out"),
        ("predict", model, folder / "case_1", "--out", tmp_path / "one", "--tta"),
        ("check", folder),
        ("explain", model, folder / "case_1", "--out", tmp_path / "explained"),
    ]
    said = b""
    for command in commands:
        done = CliRunner().invoke(app, [str(word) for word in command])
        said += done.output.encode()
    written = b""
    for name in ("out", "one", "explained"):
        files = (path for path in (tmp_path / name).rglob("*") if path.is_file())
        # objects for the archive belong to the patient
        written += b"".join(p.read_bytes() for p in files if p.suffix != ".dcm")
    assert written
    everything = said + written
    assert [text for text in canaries if text.encode() in everything] == []
