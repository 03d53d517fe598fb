"""What verbs say and write of DICOM scans names nobody that stands in their tags."""

import gzip

import numpy as np
import pytest
from typer.testing import CliRunner

import trivox
from dicom_slices import save, slice_of
from privacy.canaries import with_private
from trivox.cli import app
from trivox.volumes.dicom.files import quiet
from untrained_models import write_untrained

NAMED = {
    "PatientName": "CANNAME",
    "PatientID": "CANPATIENT",
    "StudyInstanceUID": "1.2.826.0.777.42",
    "InstitutionName": "CANHOSPITAL",
    "ImageComments": "CANCOMMENT",
}
SLICES = 12
CASES = 5


def write_series(folder, case):
    """A series whose tags name somebody; returns all that they hold."""
    rng = np.random.default_rng(case)
    series = []
    with quiet():
        for number in range(SLICES):
            pixels = rng.integers(1, 4096, (36, 48)).astype(np.uint16)
            uid = f"1.2.826.0.777.{case + 1}"
            dataset = slice_of(number, pixels=pixels, series=uid)
            for keyword, value in NAMED.items():
                setattr(dataset, keyword, value)
            series.append(dataset)
        private = with_private(series[0])
    save(folder, series)
    return {*NAMED.values(), *private, "1.2.826.0.777."}


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A dataset of series with label maps, and what must not be seen again."""
    root = tmp_path_factory.mktemp("scans")
    canaries = set()
    for case in range(CASES):
        folder = root / "images" / f"case_{case}"
        canaries |= write_series(folder, case)
        image = trivox.read_volume(folder)
        labels = np.zeros(image.array.shape, np.uint8)
        labels[:, 3:9, 8:28, 10 : 30 + case] = 1
        file = root / "labels" / f"case_{case}.nii.gz"
        file.parent.mkdir(exist_ok=True)
        trivox.write_volume(file, image.with_array(labels))
    return root, canaries


def written_in(folder):
    """The content of all files but the objects for the archive, which belong to the
    patient; compressed ones as they are and unpacked.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".dcm":
            content = path.read_bytes()
            yield content
            if path.suffix == ".gz":
                yield gzip.decompress(content)


def require_nobody(commands, folder, canaries):
    """Run verbs, and look for canaries in all that they say and leave; returns the verbs
    that failed.
    """
    said = b""
    failed = []
    for command in commands:
        done = CliRunner().invoke(app, [str(word) for word in command])
        said += done.output.encode() + str(done.exception).encode()
        if done.exit_code:
            failed.append(command[0])
    everything = said + b"".join(written_in(folder))
    assert len(everything) > 10_000
    assert [text for text in canaries if text.encode() in everything] == []
    return failed


def test_predictions_and_their_errors_name_nobody(scans, tmp_path):
    root, canaries = scans
    model = write_untrained(tmp_path / "model")
    case = root / "images" / "case_0"
    commands = [
        ("check", root, "--out", tmp_path / "check.json"),
        (
            *("predict", model, case, "--out", tmp_path / "maps"),
            *("--format", "nifti,png,sr", "--statistics"),
        ),
        ("predict", model, root / "images", "--out", tmp_path / "all"),
        ("predict", model, case / "nothing", "--out", tmp_path / "none"),
        ("explain", model, case, "--out", tmp_path / "none", "--case", "another"),
    ]
    assert require_nobody(commands, tmp_path, canaries) == ["predict", "explain"]


@pytest.mark.slow
def test_trainings_name_nobody(scans, tmp_path, tiny_settings):
    root, canaries = scans
    run, maps, metrics = tmp_path / "run", tmp_path / "maps", tmp_path / "metrics.json"
    settings = [f"--set={name}={value}" for name, value in tiny_settings.items()]
    case = root / "images" / "case_0"
    network = ("--network", "unet-tiny")
    commands = [
        ("plan", root, "--out", tmp_path / "plan.json", *network),
        ("preprocess", root, "--out", tmp_path / "prepared", *network),
        ("train", root, "--out", run, "--preset", "quick_test", *settings),
        ("predict", run, root / "images", "--out", maps),
        ("evaluate", maps, root / "labels", "--out", metrics),
        ("report", metrics),
        ("verify", run),
        ("explain", run, case, "--out", tmp_path / "explained"),
    ]
    assert require_nobody(commands, tmp_path, canaries) == []
