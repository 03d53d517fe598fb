"""kill -9 at any moment, inside renames and while a second process runs: nothing half
written under a final name, and the same command ends where an undisturbed one does.
"""

import gzip
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import blosc2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trivox.locks import CLAIM, LOCK

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")

SETTINGS = {
    "network": "unet-tiny",
    "patch_size": [16, 16, 16],
    "batch_size": 2,
    "epochs": 3,
    "iterations_per_epoch": 2,
    "validation_iterations": 1,
    "checkpoint_minutes": 1e-9,
    "keep_best": 2,
    "precision": "fp32",
    "workers": 0,
    "deterministic": True,
}
KILLED = -signal.SIGKILL if hasattr(signal, "SIGKILL") else None
TIMES = {"seconds", "seconds_per_step", "memory_bytes", "modified_ns", "changed_ns"}
"""What differs between two undisturbed processes."""
CHAIN = 4
"""Kills of one piece of work before it is let go on to its end."""


# -- what lies on the disk -------------------------------------------------------------
def require_whole(folder):
    """Every file under a final name can be read to its end."""
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.is_file() and not hidden:
            READERS[file.suffix](file)


def lines_of(file):
    """All but the last, which is being added, are whole."""
    return [json.loads(line) for line in file.read_text().split("\n")[:-1]]


READERS = {
    ".json": lambda file: json.loads(file.read_text()),
    ".jsonl": lines_of,
    ".gz": lambda file: gzip.decompress(file.read_bytes()),
    ".safetensors": load_file,
    ".pt": lambda file: torch.load(file, weights_only=True),
    ".b2nd": lambda file: blosc2.open(str(file), mode="r")[:],
    ".npz": lambda file: dict(np.load(file, allow_pickle=False)),
    ".html": lambda file: file.read_text().rindex("</html>"),
    ".txt": lambda file: file.read_text(),
}


def timeless(content):
    if isinstance(content, dict):
        return {k: timeless(v) for k, v in content.items() if k not in TIMES}
    if isinstance(content, list):
        return [timeless(each) for each in content]
    return content


def content_of(file, folder):
    """What a file holds, without times and places."""
    if file.suffix in (".json", ".jsonl"):
        text = json.dumps(timeless(READERS[file.suffix](file)), sort_keys=True)
        return text.replace(str(folder), "")
    if file.suffix == ".b2nd":
        return blosc2.open(str(file), mode="r")[:].tobytes()
    return file.read_bytes()


def outcome(folder):
    """Hash of what each file holds; logs and pages tell times."""
    found = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.is_file() and file.suffix not in (".txt", ".html", ".pt"):
            content = content_of(file, folder)
            data = content.encode() if isinstance(content, str) else content
            found[name] = hashlib.sha256(data).hexdigest()
    return found


def litter(folder):
    """Files that no finished command leaves."""
    beginnings = (".tmp-", CLAIM, LOCK)
    return [
        path
        for path in folder.rglob(".*")
        if path.name.startswith(beginnings) or path.name.endswith(".old")
    ]


# -- work that is killed ---------------------------------------------------------------
class Driver:
    """Gives work to `kill_driver.py`."""

    def __init__(self, folder):
        self.folder = folder
        script = Path(__file__).with_name("kill_driver.py")
        self.child = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.child.stdout.readline() == "ready\n"

    def run(self, *processes):
        """Exit codes of processes that run together."""
        for number, process in enumerate(processes):
            process["log"] = str(self.log(number))
        print(json.dumps({"processes": processes}), file=self.child.stdin, flush=True)
        return json.loads(self.child.stdout.readline())

    def log(self, number=0):
        return self.folder / f"log-{number}"

    def steps(self):
        """Steps of the last process that came to its end."""
        return int(Path(f"{self.log()}.steps").read_text())


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    made = Driver(tmp_path_factory.mktemp("driver"))
    yield made
    with made.child:
        made.child.stdin.close()


def jobs(verb, out, data, model):
    """The processes of a verb, the one to kill first; `None`: nobody runs beside it."""
    if verb == "train":
        arguments = {"data": data, "run": out, "settings": SETTINGS}
        return [arguments, arguments]
    if verb == "preprocess":
        arguments = {"data": data, "out": out}
        return [arguments, arguments]
    if verb == "predict":
        parts = [model.with_name(f"part-{number}.txt") for number in range(2)]
        each = {"model": model, "data": data, "out": out}
        return [{**each, "cases": part} for part in parts]
    arguments = {"predictions": model.with_name("predictions"), "data": data}
    return [{**arguments, "out": out / "metrics.json"}] * 2


def as_job(verb, arguments, **fate):
    plain = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in arguments.items()
    }
    return {"verb": verb, "arguments": plain, **fate}


@pytest.fixture(scope="module")
def work(driver, tmp_path_factory):
    """What is worked on: data, a model, predictions to measure; and, by verb, what an
    undisturbed process leaves, and how many steps it takes.
    """
    from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms

    folder = tmp_path_factory.mktemp("kills")
    settings = PhantomSettings(
        cases=6, shape=(16, 24, 20), spacing=(2.0, 1.5, 1.5), test_cases=1
    )
    data = write_phantoms(folder / "data", settings)
    names = [f"phantom_{number:03d}" for number in range(6)]
    (folder / "part-0.txt").write_text("\n".join(names[:3]))
    (folder / "part-1.txt").write_text("\n".join(names[3:]))
    expected = {}
    for verb in ("train", "predict", "preprocess", "evaluate"):
        out = folder / ("run" if verb == "train" else f"{verb}-reference")
        first, second = jobs(verb, out, data, folder / "run")
        assert driver.run(as_job(verb, first)) == [0], driver.log().read_text()
        steps = driver.steps()
        if verb == "predict":
            assert driver.run(as_job(verb, second)) == [0]
            shutil.copytree(out, folder / "predictions")
        assert not litter(out)
        expected[verb] = (outcome(out), steps)
    return data, folder / "run", expected


def campaign(driver, work, verb, kills, *, seed, out, together=False, chain=CHAIN):
    """Kill a verb so many times; returns how often what happened."""
    data, model, expected = work
    wanted, steps = expected[verb]
    rng = random.Random(seed)
    counts = Counter()
    place = 0
    while counts["killed"] < kills:
        folder = out / f"{place}"
        place += 1
        victim, other = jobs(verb, folder, data, model)
        for _ in range(min(chain, kills - counts["killed"])):
            event = rng.randint(1, steps)
            processes = [as_job(verb, victim, event=event)]
            if together:
                processes.append(as_job(verb, other))
            first, *others = driver.run(*processes)
            counts["killed"] += first == KILLED
            counts["ended before"] += first == 0
            counts["beside another"] += first == KILLED and together
            logs = [driver.log(number).read_text() for number in range(len(processes))]
            for code, log in zip([first, *others], logs, strict=True):
                refused = code == 1 and "BusyError" in log
                counts["refused"] += refused
                assert code in (0, KILLED) or refused, log
            if folder.exists():
                require_whole(folder)
                counts["folders read"] += 1
        last = [as_job(verb, victim)]
        if verb == "predict":
            assert driver.run(as_job(verb, other)) == [0], driver.log().read_text()
        assert driver.run(*last) == [0], driver.log().read_text()
        assert outcome(folder) == wanted, (verb, place)
        assert not litter(folder)
        counts["ended as undisturbed"] += 1
        shutil.rmtree(folder)
    return counts


@pytest.mark.parametrize("verb", ["train", "preprocess", "predict", "evaluate"])
def test_a_killed_verb_loses_nothing(driver, work, tmp_path, verb):
    counts = campaign(driver, work, verb, 2, seed=1, out=tmp_path, chain=2)
    assert counts["killed"] == 2
    assert counts["ended as undisturbed"] >= 1


def test_a_verb_that_is_killed_beside_another_loses_nothing(driver, work, tmp_path):
    counts = campaign(
        driver, work, "predict", 2, seed=2, out=tmp_path, together=True, chain=2
    )
    assert counts["beside another"] == 2


@pytest.mark.slow
def test_two_hundred_kills(driver, work, tmp_path, capsys):
    rows = {}
    for together, kills in ((False, (50, 40, 40, 10)), (True, (20, 20, 15, 5))):
        verbs = ("train", "preprocess", "predict", "evaluate")
        for seed, (verb, number) in enumerate(zip(verbs, kills, strict=True)):
            out = tmp_path / f"{verb}-{together}"
            label = f"{verb}, two processes" if together else verb
            rows[label] = campaign(
                driver, work, verb, number, seed=seed, out=out, together=together
            )
    kinds = (
        "killed",
        "ended before",
        "refused",
        "folders read",
        "ended as undisturbed",
    )
    with capsys.disabled():
        print("\n" + " | ".join(("verb", *kinds)))
        for label, counts in rows.items():
            print(" | ".join((label, *(str(counts[kind]) for kind in kinds))))
        total = sum(counts["killed"] for counts in rows.values())
        print(f"{total} kills, 0 lost")
    assert sum(counts["killed"] for counts in rows.values()) >= 200
