"""With a real archive, Debian's Orthanc: `make test-pacs`."""

import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

import trivox
from clinic import toml
from orthanc_server import PASSWORD, USER, free_ports, is_here, orthanc
from trivox.service.jobs.queue import Queue
from trivox.service.jobs.states import State
from trivox.service.serve.work.references import (
    fetched,
    parsed_reference,
    write_reference,
)
from untrained_models import write_untrained

pytestmark = [
    pytest.mark.pacs,
    pytest.mark.skipif(
        not is_here(), reason="Orthanc is not installed (make test-pacs installs it)"
    ),
]
TESTS = Path(__file__).parents[1]
SERIES = 6
SLICES = 8


@pytest.fixture
def real_series(data_root):
    """Files of a chest CT, in the order of their slices."""
    files = [
        f for f in (data_root / "chest-ct" / "Lung_Dx-A0002").rglob("*") if f.is_file()
    ]
    heights = {f: float(pydicom.dcmread(f).ImagePositionPatient[2]) for f in files}
    return sorted(files, key=heights.get)


@pytest.fixture
def copies(real_series, tmp_path):
    """Several patients: some slices of the CT with UIDs of their own."""
    for number in range(SERIES):
        study = generate_uid(entropy_srcs=[f"study {number}"])
        series = generate_uid(entropy_srcs=[f"series {number}"])
        for place, file in enumerate(real_series[:SLICES]):
            dataset = pydicom.dcmread(file)
            dataset.StudyInstanceUID = study
            dataset.SeriesInstanceUID = series
            dataset.SOPInstanceUID = generate_uid(entropy_srcs=[f"{number} {place}"])
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.StudyDate = time.strftime("%Y%m%d")
            target = tmp_path / "copies" / f"{number}-{place}.dcm"
            target.parent.mkdir(exist_ok=True)
            dataset.save_as(target)
    return tmp_path / "copies"


@pytest.fixture
def ports():
    """Of our node, and of our receiver."""
    return free_ports(2)


@pytest.fixture
def server(tmp_path, ports):
    node, receiver = ports
    folder = tmp_path / "orthanc"
    folder.mkdir()
    with orthanc(folder, peers={"TRIVOX": node, "RECEIVER": receiver}) as server:
        yield server


@pytest.fixture
def profiles(tmp_path, server, ports):
    """The archive in four ways."""
    (tmp_path / "password.txt").write_text(PASSWORD + "\n")
    dimse = {"host": "127.0.0.1", "port": server.dicom, "aet": "ARCHIVE"}
    receiver = {"calling_aet": "RECEIVER", "receive_port": ports[1]}
    content = {
        "web": {"url": server.web, "user": USER, "password_file": "password.txt"},
        "get": dimse,
        "move": {**dimse, **receiver, "retrieve": "move"},
        "vouching": {**dimse, **receiver, "commitment": True},
    }
    lines = []
    for name, settings in content.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {toml(value)}" for key, value in settings.items()]
    file = tmp_path / "pacs.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def rules_of(folder, ports, **rule):
    settings = {"name": "ct", "modality": "CT", "model": "good-for-0.3"} | rule
    lines = ["[intake]", "every = 0.3", "stable = 0.5", "days = 36500"]
    lines += ["[node]", f"port = {ports[0]}", 'count = "web"']
    lines += ["[[node.peers]]", 'aet = "ARCHIVE"', 'profile = "web"', "[[rules]]"]
    lines += [f"{key} = {toml(value)}" for key, value in settings.items()]
    file = folder / "rules.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


# -- client ----------------------------------------------------------------------------
@pytest.mark.parametrize("way", ["web", "get", "move", "vouching"])
def test_what_is_sent_comes_back(profiles, real_series, tmp_path, way):
    assert trivox.pacs_echo(profiles=profiles, pacs=way) == f"{way} answers"
    folder = real_series[0].parent
    sent = trivox.pacs_send([folder], profiles=profiles, pacs=way)
    sent.require_all()
    assert sent.stored == len(real_series)
    again = trivox.pacs_send([folder], profiles=profiles, pacs=way)
    assert (again.stored, again.present) == (0, len(real_series))
    (row,) = trivox.pacs_find(profiles=profiles, pacs=way, modality="CT").rows
    study = row["StudyInstanceUID"]
    fetched = trivox.pacs_fetch(study, tmp_path / "out", profiles=profiles, pacs=way)
    fetched.require_all()
    ours = trivox.read_volume(fetched.receipts[0].folder)
    theirs = trivox.read_volume(folder)
    assert np.array_equal(ours.array, theirs.array)
    assert np.allclose(ours.affine, theirs.affine)


@pytest.mark.parametrize("way", ["web", "get", "move"])
def test_a_job_of_a_service_fetches_what_it_refers_to(
    profiles, real_series, tmp_path, way
):
    trivox.pacs_send([real_series[0].parent], profiles=profiles, pacs="web")
    first = pydicom.dcmread(real_series[0], stop_before_pixels=True)
    uids = (first.StudyInstanceUID, first.SeriesInstanceUID)
    reference = parsed_reference(f"{way}/studies/{uids[0]}/series/{uids[1]}")
    folder = tmp_path / "input"
    folder.mkdir()
    part = write_reference(folder, reference)
    parts = fetched([part], profiles, tmp_path / "scratch")
    assert len(parts) == len(real_series)
    assert sorted(folder.iterdir()) == parts
    ours = trivox.read_volume(folder)
    theirs = trivox.read_volume(real_series[0].parent)
    assert np.array_equal(ours.array, theirs.array)


def test_a_wrong_password_is_said_in_one_line(profiles, tmp_path):
    (tmp_path / "password.txt").write_text("wrong\n")
    with pytest.raises(trivox.TrivoxError, match=r"web: answers with status 401; the"):
        trivox.pacs_echo(profiles=profiles, pacs="web")


def test_a_study_that_is_not_there_is_said(profiles, tmp_path):
    for way in ("web", "get"):
        with pytest.raises(trivox.TrivoxError, match="no such study"):
            trivox.pacs_fetch("1.2.3", tmp_path / "out", profiles=profiles, pacs=way)


# -- killed again and again ------------------------------------------------------------
@contextmanager
def running(verb, rules, out, profiles, log):
    """The service as a process of its own."""
    options = ["--rules", rules, "--out", out, "--profiles", profiles]
    program = [sys.executable, TESTS / "service_driver.py"]
    command = [str(part) for part in [*program, *verb, *options]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (
        log.open("ab") as written,
        subprocess.Popen(
            command, stdout=written, stderr=written, env=environment
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def all_done(out):
    """Whether each series is done, and its result put aside."""
    if not (out / "queue.sqlite").exists():
        return False
    states = [entry.state for entry in Queue(out).entries()]
    return states.count(State.DONE) == SERIES


def require_each_once(server, out):
    """0 lost, 0 twice."""
    results = server.ask("/series?expand")
    counts = {}
    for series in results:
        if series["MainDicomTags"]["Modality"] == "SEG":
            study = series["ParentStudy"]
            counts[study] = counts.get(study, 0) + len(series["Instances"])
            assert series["MainDicomTags"]["SeriesDescription"] == f"of {SLICES}"
    assert len(counts) == SERIES
    assert set(counts.values()) == {1}
    entries = Queue(out).entries()
    states = {entry.state for entry in entries}
    assert states == {State.DONE, State.IGNORED}
    for entry in entries:
        steps = [state for state, _ in Queue(out).steps(entry.key)]
        assert steps.count(State.DONE) <= 1


def test_a_watcher_that_is_killed_loses_none_and_does_none_twice(
    server, profiles, copies, tmp_path, ports
):
    out = tmp_path / "station"
    log = tmp_path / "log.txt"
    rules = rules_of(tmp_path, ports)
    trivox.pacs_send([copies], profiles=profiles, pacs="web").require_all()
    moments = random.Random(17)
    verb = ["pacs", "watch", "--pacs", "web"]
    for _ in range(10):
        with running(verb, rules, out, profiles, log) as process:
            time.sleep(moments.uniform(1.0, 3.0))
            process.send_signal(signal.SIGKILL)
    with running(verb, rules, out, profiles, log) as process:
        wait_for(lambda: all_done(out))
        process.send_signal(signal.SIGTERM)
        # where all was done before, it may end before it listens to signals
        assert process.wait(30) in (0, -signal.SIGTERM), log.read_text()
    require_each_once(server, out)


def test_a_node_that_is_killed_loses_none_and_does_none_twice(
    server, profiles, copies, tmp_path, ports
):
    out = tmp_path / "station"
    log = tmp_path / "log.txt"
    rules = rules_of(tmp_path, ports)
    trivox.pacs_send([copies], profiles=profiles, pacs="web").require_all()
    moments = random.Random(18)
    wanted = list(server.ask("/series"))
    left = list(wanted)
    for _ in range(10):
        with running(["node"], rules, out, profiles, log) as process:
            time.sleep(moments.uniform(0.8, 1.5))
            left = [each for each in left if not pushed(server, each, moments, process)]
            process.send_signal(signal.SIGKILL)
    with running(["node"], rules, out, profiles, log) as process:
        wait_for(lambda: all(pushed(server, each) for each in wanted))
        wait_for(lambda: all_done(out))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    require_each_once(server, out)


def pushed(server, series, moments=None, process=None):
    """Whether the archive could send a series to our node; sometimes the node is killed
    meanwhile.
    """
    if process is not None and moments.random() < 0.4:
        code = f"import os, time; time.sleep({moments.uniform(0, 0.3)}); "
        code += f"os.kill({process.pid}, 9)"
        killer = subprocess.Popen(
            [sys.executable, "-c", code], stderr=subprocess.DEVNULL
        )
        with killer:
            return sent_to_node(server, series)
    return sent_to_node(server, series)


def sent_to_node(server, series):
    try:
        server.ask("/modalities/TRIVOX/store", series.encode())
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


# -- the whole way ---------------------------------------------------------------------
@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A network that finds three labels everywhere."""
    return write_untrained(tmp_path_factory.mktemp("model") / "bundle", balanced=True)


def trivox_command(*arguments):
    """A command as users call it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-m", "trivox", *(str(a) for a in arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def crop(real_series, tmp_path):
    """The middle of the real CT, so that a prediction takes seconds."""
    folder = tmp_path / "crop"
    folder.mkdir()
    for file in real_series[:12]:
        dataset = pydicom.dcmread(file)
        rows = slice(200, 264)
        pixels = np.ascontiguousarray(dataset.pixel_array[rows, rows])
        first = np.array(dataset.ImagePositionPatient, dtype=float)
        row, column = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(
            2, 3
        )
        down, right = (float(mm) for mm in dataset.PixelSpacing)
        moved = first + 200 * (row * right + column * down)
        dataset.ImagePositionPatient = [f"{value:.6g}" for value in moved]
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelData = pixels.tobytes()
        dataset.save_as(folder / file.name)
    return folder


def test_a_study_goes_from_the_archive_through_a_model_and_back(
    server, profiles, crop, model, tmp_path, ports
):
    """SEG, RTSTRUCT and SR come back as they were written, voxel for voxel."""
    trivox.pacs_send([crop], profiles=profiles, pacs="web").require_all()
    formats = ["dicom-seg", "rtstruct", "sr"]
    rules = rules_of(tmp_path, ports, model=str(model), formats=formats)
    out = tmp_path / "station"
    done = trivox_command(
        *("pacs", "watch", "--pacs", "web", "--once", "--rules", rules),
        *("--out", out, "--profiles", profiles),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = sorted((out / "results").rglob("*.dcm"))
    (row,) = trivox.pacs_find(profiles=profiles, pacs="get", modality="SEG").rows
    fetched = trivox.pacs_fetch(
        row["StudyInstanceUID"], tmp_path / "back", profiles=profiles, pacs="get"
    )
    fetched.require_all()
    back = {}
    for file in (tmp_path / "back").rglob("*.dcm"):
        dataset = pydicom.dcmread(file)
        back[dataset.SOPInstanceUID] = dataset
    assert {d.Modality for d in back.values()} == {"CT", "SEG", "RTSTRUCT", "SR"}
    for file in written:
        ours = pydicom.dcmread(file)
        theirs = back[ours.SOPInstanceUID]
        if ours.Modality == "SEG":
            assert np.array_equal(ours.pixel_array, theirs.pixel_array)
            assert ours.pixel_array.any()
        else:
            assert ours.to_json() == theirs.to_json()
    said = done.stdout + done.stderr
    first = pydicom.dcmread(next(crop.iterdir()))
    for value in (first.PatientID, first.StudyInstanceUID, first.SeriesInstanceUID):
        assert str(value) not in said
