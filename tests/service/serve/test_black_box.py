"""`trivox serve` with trained models, through HTTP alone: killed, filled up, kept busy.

Each test prints what it measured; run with: make test-serve
"""

import io
import random
import statistics
import subprocess
import threading
import time
import zipfile
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import psutil
import pytest

from clinic import web_archive, write_profiles, write_series
from dicom_slices import slice_of
from serve_process import serving
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

pytestmark = pytest.mark.serve
SEED = 20261130
JOBS = 100
KILLS = 30
SMALL_JOBS = 1000
GROWTH = 48 << 20
"""Bytes by which a process may grow while it does the last 700 of 1000 jobs."""
ENDS = ("done", "failed", "cancelled")
TOKEN = "correct-horse-battery"


def volume(rng, size=20):
    values = rng.normal(100, 30, (1, size, size, size)).astype(np.float32)
    return Volume(values, affine_from_spacing((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))


def written(folder, suffix, rng):
    file = folder / f"scan{suffix}"
    write_volume(file, volume(rng))
    return file.read_bytes()


def dicom_zip(rng):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(12):
            pixels = rng.integers(0, 4096, (36, 48)).astype(np.uint16)
            content = io.BytesIO()
            slice_of(number, pixels=pixels).save_as(content, enforce_file_format=True)
            archive.writestr(f"study/IM{number:03d}", content.getvalue())
    return file.getvalue()


def scans(folder, suffix, rng):
    """The files of a case, with their names."""
    if suffix == ".zip":
        return [("scan.zip", dicom_zip(rng))]
    return [(f"scan{suffix}", written(folder, suffix, rng))]


def damaged(data, rng):
    """A scan that was cut off, or whose bytes are noise."""
    half = data[: len(data) // 2]
    return half if rng.random() < 0.5 else half[:40] + rng.bytes(len(half))


def requests(folder, count):
    """Model, files and whether they can be used, of so many jobs."""
    rng = np.random.default_rng(SEED)
    suffixes = (".nii.gz", ".nii", ".nrrd", ".mha", ".zip")
    for number in range(count):
        if number % 10 == 3:
            files = [
                (f"c{n}.nii.gz", written(folder, ".nii.gz", rng)) for n in range(4)
            ]
            yield "brain-phantom", files, True
            continue
        files = scans(folder, suffixes[number % len(suffixes)], rng)
        good = number % 10 != 7
        if not good:
            files = [(name, damaged(data, rng)) for name, data in files]
        yield "hippocampus", files, good


def submit(server, model, files, key):
    parts = [("file", each) for each in files]
    headers = {"Idempotency-Key": key}
    answer = server.ask(
        "POST", "/v1/jobs", files=parts, data={"model": model}, headers=headers
    )
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def ends(server, names, *, patience=900.0):
    """All jobs at their end."""
    deadline = time.monotonic() + patience
    views = {}
    while time.monotonic() < deadline:
        for name in names:
            if name not in views:
                view = server.ask("GET", f"/v1/jobs/{name}").json()
                if view["state"] in ENDS:
                    views[name] = view
        if len(views) == len(names):
            return views
        time.sleep(0.3)
    raise AssertionError(f"{len(names) - len(views)} jobs did not end")


class Killer(threading.Thread):
    """Kills a worker, a child or the server at random moments, and starts it again."""

    def __init__(self, server, kills):
        super().__init__()
        self.server = server
        self.kills = kills
        self.counts = Counter()
        self.random = random.Random(SEED)

    def run(self):
        while self.counts.total() < self.kills:
            time.sleep(self.random.uniform(0.2, 4.0))
            if self.random.random() < 0.3:
                self.server.kill()
                self.server.start()
                self.server.wait()
                self.counts["server"] += 1
                continue
            processes = self.server.workers
            if not processes:
                continue
            children = [each for each in processes if self._is_child(each)]
            if children and self.random.random() < 0.5:
                processes = children
            victim = self.random.choice(processes)
            is_child = self._is_child(victim)
            with suppress(psutil.NoSuchProcess):
                victim.kill()
                self.counts["child" if is_child else "worker"] += 1

    def _is_child(self, process):
        with suppress(psutil.NoSuchProcess):
            return process.ppid() != self.server.process.pid
        return False


def test_every_job_ends_once_whatever_is_killed(tmp_path, capsys):
    models = ("hippocampus", "brain-phantom")
    with serving(tmp_path / "state", *models, options=("--workers", "2")) as server:
        killer = Killer(server, KILLS)
        began = time.monotonic()
        killer.start()
        good = {}
        for number, (model, files, usable) in enumerate(requests(tmp_path, JOBS)):
            good[submit(server, model, files, f"key-{number}")] = usable
        killer.join()
        server.wait()
        views = ends(server, good)
        seconds = time.monotonic() - began
        figures = server.ask("GET", "/metrics").text
        listed = server.ask("GET", "/v1/jobs?limit=200").json()["jobs"]
        states = {name: view["state"] for name, view in views.items()}
        codes = Counter((view["error"] or {}).get("code") for view in views.values())
        with capsys.disabled():
            print(f"\n{JOBS} jobs, killed {dict(killer.counts)}: {dict(codes)}")
            print(f"{seconds:.0f} s")
        assert len(good) == len(listed) == JOBS
        for name, usable in good.items():
            # a child that was killed three times is set aside as if it had crashed
            expected = ("done", "failed") if usable else ("failed",)
            assert states[name] in expected
            if usable and states[name] == "failed":
                assert views[name]["error"]["code"] == "crashed"
            if not usable:
                assert views[name]["error"]["code"] == "unusable-input"
        assert codes["crashed"] <= 2
        assert ended_in(figures) == JOBS
        for name, view in views.items():
            for result in view["results"]:
                answer = server.ask("GET", f"/v1/jobs/{name}/results/{result}")
                assert answer.status_code == 200
                assert answer.content
        left = list((tmp_path / "state" / "jobs").glob("*/work-*"))
        assert not left
        assert server.stop() == 0
    assert not [line for line in server.log.read_text().splitlines() if "scan" in line]


def ended_in(figures):
    lines = [
        line for line in figures.splitlines() if line.startswith("trivox_jobs_total")
    ]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@contextmanager
def small_disk(place, megabytes):
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk can only be made by root (mount -t tmpfs)")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_loses_nothing(tmp_path, capsys):
    rng = np.random.default_rng(SEED)
    data = written(tmp_path, ".nii", rng)
    with (
        small_disk(tmp_path / "disk", 24) as disk,
        serving(disk / "state", "hippocampus") as server,
    ):
        names = [submit(server, "hippocampus", [("a.nii", data)], "0")]
        ends(server, names)
        scan = [("a.nii", data)]
        names += [submit(server, "hippocampus", scan, str(key)) for key in range(1, 9)]
        ballast = disk / "ballast"
        with ballast.open("wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 14))
                    file.flush()
            except OSError:
                pass
        files = {"file": ("a.nii", data)}
        answers = [
            server.client.post("/v1/jobs", files=files, data={"model": "hippocampus"})
            for _ in range(5)
        ]
        assert {each.status_code for each in answers} == {507}
        assert {each.json()["code"] for each in answers} == {"no-space"}
        assert server.client.get("/healthz").status_code in (200, 503)
        time.sleep(5)
        ballast.unlink()
        views = ends(server, names)
        states = Counter(view["state"] for view in views.values())
        with capsys.disabled():
            print(f"\nfull disk: {dict(states)}")
        assert states == {"done": len(names)}
        again = submit(server, "hippocampus", [("a.nii", data)], "again")
        assert ends(server, [again])[again]["state"] == "done"


def test_memory_stays_flat(tmp_path, capsys):
    rng = np.random.default_rng(SEED)
    data = written(tmp_path, ".nii.gz", rng)
    with serving(tmp_path / "state", "hippocampus") as server:
        sizes = []
        began = time.monotonic()
        for number in range(SMALL_JOBS):
            name = submit(server, "hippocampus", [("a.nii.gz", data)], str(number))
            if number % 20 == 19:
                assert ends(server, [name])[name]["state"] == "done"
            if number % 100 == 99 and number >= 299:
                sizes.append(memory_of(server))
        seconds = time.monotonic() - began
        with capsys.disabled():
            print(f"\n{SMALL_JOBS} jobs in {seconds:.0f} s; MB of server and worker:")
            print([tuple(size >> 20 for size in each) for each in sizes])
        for first, last in zip(sizes[0], sizes[-1], strict=True):
            assert last - first < GROWTH
        assert not list((tmp_path / "state" / "uploads").iterdir())


def memory_of(server):
    process = psutil.Process(server.process.pid)
    workers = process.children()
    return process.memory_info().rss, sum(each.memory_info().rss for each in workers)


def test_answers_come_at_once_beside_running_jobs(tmp_path, capsys):
    rng = np.random.default_rng(SEED)
    data = written(tmp_path, ".nii.gz", rng)
    with serving(tmp_path / "state", "hippocampus") as server:
        names = [submit(server, "hippocampus", [("a.nii.gz", data)], "first")]
        scan = [("a.nii.gz", data)]
        names += [submit(server, "hippocampus", scan, str(key)) for key in range(100)]
        paths = (f"/v1/jobs/{names[-1]}", "/v1/models", "/v1/jobs", "/healthz")
        seconds = []
        for number in range(400):
            began = time.perf_counter()
            answer = server.client.get(paths[number % len(paths)])
            seconds.append(time.perf_counter() - began)
            assert answer.status_code == 200
            time.sleep(0.01)
        middle = statistics.median(seconds)
        last = statistics.quantiles(seconds, n=20)[-1]
        load = psutil.getloadavg()[0]
        with capsys.disabled():
            print(f"\nAPI beside jobs: median {1000 * middle:.1f} ms, ", end="")
            print(f"p95 {1000 * last:.1f} ms (load {load:.1f} on {psutil.cpu_count()})")
        assert (
            'trivox_jobs_open{state="running"} 1.0'
            in server.ask("GET", "/metrics").text
        )


def test_a_second_job_needs_no_loading(tmp_path, capsys):
    rng = np.random.default_rng(SEED)
    data = written(tmp_path, ".nii.gz", rng)
    with serving(tmp_path / "state", "hippocampus") as server:
        seconds = []
        for number in range(6):
            began = time.perf_counter()
            files = {"file": ("a.nii.gz", data)}
            answer = server.client.post(
                "/v1/jobs",
                files=files,
                data={"model": "hippocampus"},
                headers={"Prefer": "wait=60", "Idempotency-Key": str(number)},
                follow_redirects=True,
            )
            assert answer.status_code == 200
            seconds.append(time.perf_counter() - began)
        with capsys.disabled():
            print(f"\nfrom scan to labels: {[round(each, 2) for each in seconds]} s")


@pytest.mark.parametrize("equipped", [False, True])
def test_what_the_api_describes_is_what_it_does(tmp_path, equipped):
    """schemathesis: no answer of the server contradicts its own description, alone and
    with a token, a data folder and an archive.
    """
    with web_archive() as archive, ExitStack() as stack:
        options = []
        header = []
        if equipped:
            archive.load(write_series(tmp_path / "data"))
            tokens = tmp_path / "tokens"
            tokens.write_text(TOKEN)
            tokens.chmod(0o600)
            profiles = write_profiles(tmp_path, archive)
            options += ["--token-file", tokens, "--profiles", profiles]
            options += ["--data", tmp_path / "data"]
            header += ["-H", f"Authorization: Bearer {TOKEN}"]
        server = stack.enter_context(
            serving(tmp_path / "state", "hippocampus", *map(str, options))
        )
        command = ["schemathesis", "run", f"{server.url}/openapi.json", "--no-color"]
        limits = ["--max-examples", "20", "--seed", str(SEED), *header]
        done = subprocess.run(
            [*command, *limits],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout[-8000:]
