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
import time
from collections import Counter
from pathlib import Path

import blosc2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trivox.inference.zoo.release import index_of
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
    """Gives work to `kill_driver.py`; verbs: what it is to load once."""

    def __init__(self, folder, *verbs):
        self.folder = folder
        script = Path(__file__).with_name("kill_driver.py")
        self.child = subprocess.Popen(
            [sys.executable, str(script), *verbs],
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

    def end(self):
        with self.child:  # waits
            self.child.stdin.close()


class Work:
    """What is worked on, and what an undisturbed process makes of it."""

    def __init__(self, driver, data, model, folder):
        self.driver = driver
        self.data = data
        self.model = model
        self.folder = folder
        self.undisturbed = {}
        names = [f"phantom_{number:03d}" for number in range(6)]
        for number, part in enumerate((names[:3], names[3:])):
            (folder / f"part-{number}.txt").write_text("\n".join(part))

    def jobs(self, verb, out):
        """Two processes of a verb into one folder."""
        if verb in ("train", "preprocess"):
            arguments = {"data": self.data, "out": out}
            if verb == "train":
                arguments["settings"] = SETTINGS
            return [as_job(verb, arguments), as_job(verb, arguments)]
        if verb == "predict":
            arguments = {"model": self.model, "data": self.data, "out": out}
            parts = [self.folder / f"part-{number}.txt" for number in range(2)]
            return [as_job(verb, {**arguments, "cases": part}) for part in parts]
        if verb == "fetch":
            arguments = {"source": self.release(), "out": out}
            return [as_job(verb, arguments), as_job(verb, arguments)]
        self.expected("predict")
        maps = self.folder / "predict"
        arguments = {"predictions": maps, "data": self.data, "out": out / "m.json"}
        return [as_job(verb, arguments), as_job(verb, arguments)]

    def release(self):
        """A release that holds the model."""
        release = self.folder / "release"
        if not release.exists():
            shutil.copytree(self.model / "bundle", release / "tiny")
            index = index_of(release).model_dump_json()
            (release / "index.json").write_text(index)
        return release

    def finish(self, verb, out):
        """Do what is left of a verb's work."""
        first, second = self.jobs(verb, out)
        assert self.driver.run(first) == [0], self.driver.log().read_text()
        steps = self.driver.steps()
        if verb == "predict":
            assert self.driver.run(second) == [0], self.driver.log().read_text()
        assert not litter(out)
        return steps

    def expected(self, verb):
        """What an undisturbed process leaves, and how many steps and seconds it
        takes.
        """
        if verb not in self.undisturbed:
            out = self.folder / verb
            began = time.monotonic()
            steps = self.finish(verb, out)
            seconds = time.monotonic() - began
            self.undisturbed[verb] = (outcome(out), steps, seconds)
        return self.undisturbed[verb]


def as_job(verb, arguments, **fate):
    plain = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in arguments.items()
    }
    return {"verb": verb, "arguments": plain, **fate}


@pytest.fixture(scope="module")
def work(tmp_path_factory, tiny_data, tiny_run):
    folder = tmp_path_factory.mktemp("kills")
    driver = Driver(folder)
    yield Work(driver, tiny_data, tiny_run, folder)
    driver.end()


def campaign(work, verb, kills, *, seed, out, together, chain=CHAIN, timed=0.0):
    """Kill a verb so many times; returns how often what happened.

    timed: share of the kills that come after some time instead of at a step.
    """
    wanted, steps, seconds = work.expected(verb)
    rng = random.Random(seed)
    counts = Counter()
    while counts["killed"] < kills:
        folder = out / f"{counts['killed']}"
        for _ in range(min(chain, kills - counts["killed"])):
            victim, other = work.jobs(verb, folder)
            if rng.random() < timed:
                victim["after"] = rng.uniform(0, seconds)
            else:
                victim["event"] = rng.randint(1, steps)
            processes = [victim, other] if together else [victim]
            codes = work.driver.run(*processes)
            counts["killed"] += codes[0] == KILLED
            counts["ended before"] += codes[0] == 0
            for number, code in enumerate(codes):
                log = work.driver.log(number).read_text()
                refused = code == 1 and "BusyError" in log
                counts["refused"] += refused
                assert code in (0, KILLED) or refused, log
            if folder.exists():
                require_whole(folder)
        work.finish(verb, folder)
        assert outcome(folder) == wanted, verb
        counts["ended as undisturbed"] += 1
        shutil.rmtree(folder)
    return counts


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("verb", ["preprocess", "predict", "evaluate", "fetch"])
def test_a_killed_verb_loses_nothing(work, tmp_path, verb, together):
    """Alone, and while another process works in the same folder."""
    counts = campaign(work, verb, 2, seed=1, out=tmp_path, together=together, chain=2)
    assert counts["killed"] >= 2
    assert counts["ended as undisturbed"] >= 1


CAMPAIGN = {
    ("train", False): 60,
    ("preprocess", False): 45,
    ("predict", False): 40,
    ("evaluate", False): 10,
    ("fetch", False): 10,
    ("train", True): 15,
    ("preprocess", True): 15,
    ("predict", True): 10,
    ("evaluate", True): 5,
    ("fetch", True): 5,
}
"""Kills of each verb, alone and beside another process."""
COLUMNS = ("killed", "ended before", "refused", "ended as undisturbed")


@pytest.mark.slow
def test_two_hundred_kills(tmp_path, tiny_data, tiny_run, capsys):
    driver = Driver(tmp_path, "train")
    work = Work(driver, tiny_data, tiny_run, tmp_path)
    rows = {}
    for seed, ((verb, together), kills) in enumerate(CAMPAIGN.items()):
        out = tmp_path / f"{verb}-{together}"
        counts = campaign(
            work, verb, kills, seed=seed, out=out, together=together, timed=0.3
        )
        rows[f"{verb}, two processes" if together else verb] = counts
    driver.end()
    total = sum(counts["killed"] for counts in rows.values())
    with capsys.disabled():
        print("\n" + " | ".join(("verb", "steps", *COLUMNS)))
        for label, counts in rows.items():
            steps = work.expected(label.split(",")[0])[1]
            cells = (label, steps, *(counts[column] for column in COLUMNS))
            print(" | ".join(map(str, cells)))
        print(f"{total} kills, 0 lost")
    assert total >= 200
