"""Running many inputs: watched children that read, a parent that counts.

A child reads one input after the other; where it dies, hangs or takes too much memory
the parent notes it, starts another child and goes on with the next input. An input is a
function of (seed, target, number).
"""

import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fuzzing.mutations import mutated
from fuzzing.targets import TARGETS, Target

ExcInfo = tuple[type[BaseException], BaseException, Any]
ADDRESS_SPACE = 3 * 2**30
"""Bytes that a child may take beyond what it has at its start."""
SECONDS = 30.0
"""Longest reading of one input."""
ROUND = 50
"""Inputs that a child is given at a time."""

Verdict = Literal["accepted", "refused", "foreign"]


class Outcome(NamedTuple):
    """What became of an input; group: kind of exception and where in our code."""

    target: str
    number: int
    verdict: Verdict
    group: str
    seconds: float
    megabytes: float


class Job(NamedTuple):
    """Inputs of a target, from a number on."""

    target: str
    first: int
    count: int


@dataclass
class Row:
    """The counts of a target."""

    inputs: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    deaths: int = 0
    hangs: int = 0
    seconds: float = 0.0
    megabytes: float = 0.0

    @property
    def wrong(self) -> int:
        """Inputs that ended otherwise than they should."""
        return self.verdicts["foreign"] + self.deaths + self.hangs


@dataclass
class Result:
    """Rows by target, and how often which foreign exception, with an example."""

    rows: dict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    groups: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, int]] = field(default_factory=dict)

    def note(self, group: str, target: str, number: int) -> None:
        """Count something that must not be."""
        self.groups[group] += 1
        self.examples.setdefault(group, (target, number))


# -- one input -------------------------------------------------------------------------
class Bench:
    """The example of a target in a folder, one file of it spoilt at a time."""

    def __init__(self, target: Target, place: Path, seed: int) -> None:
        self.target = target
        self.seed = seed
        self.whole = place / "whole"
        self.folder = place / "x"
        # a few examples hold the path that they stand at
        target.example(self.folder)
        shutil.copytree(self.folder, self.whole, symlinks=True)
        self.files = target.spoilable(self.whole)
        self.contents = {name: (self.whole / name).read_bytes() for name in self.files}

    def spoil(self, number: int) -> Path:
        """Spoil one file as (seed, target, number) says; returns which."""
        rng = random.Random(f"{self.seed}/{self.target.name}/{number}")
        name = rng.choice(self.files)
        file = self.folder / name
        kind = rng.random()
        if kind > 0.02 or file.suffix == ".args":
            file.write_bytes(mutated(name, self.contents[name], rng))
            return file
        file.unlink()
        if kind < 0.004:
            file.mkdir()
        elif kind < 0.008:
            file.symlink_to("nowhere")
        elif kind < 0.012:
            file.symlink_to(file.name)
        return file

    def mend(self, file: Path) -> None:
        """Make the example whole again."""
        if self.target.writes:
            shutil.rmtree(self.folder, onerror=_unless_gone)
            shutil.copytree(self.whole, self.folder, symlinks=True)
            return
        if file.is_symlink() or not file.is_dir():
            file.unlink(missing_ok=True)
        else:
            shutil.rmtree(file)
        name = str(file.relative_to(self.folder))
        file.write_bytes(self.contents[name])

    def outcome(self, number: int) -> Outcome:
        """Read one input."""
        file = self.spoil(number)
        begun = time.monotonic()
        try:
            verdict, group = judged(self.target, self.folder, file)
        finally:
            self.mend(file)
        seconds = time.monotonic() - begun
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return Outcome(self.target.name, number, verdict, group, seconds, megabytes)


def _unless_gone(_remove: object, _path: str, reason: ExcInfo) -> None:
    """Let what is gone be gone: the mark of who reads a store vanishes with the store,
    whenever Python clears it away.
    """
    error = reason[1]
    if not isinstance(error, FileNotFoundError):
        raise error


def judged(target: Target, folder: Path, file: Path) -> tuple[Verdict, str]:
    """What a reading comes to."""
    from trivox.errors import TrivoxError

    try:
        target.read(folder, file)
    except TrivoxError as error:
        if not str(error).strip():
            return "foreign", f"{type(error).__name__} without a word"
        return "refused", ""
    except SystemExit as stop:
        if stop.code in (0, None):
            return "accepted", ""
        if stop.code in (1, 2):
            return "refused", ""
        return "foreign", f"exit {stop.code}"
    except BaseException as error:
        return "foreign", group_of(error)
    return "accepted", ""


def group_of(error: BaseException) -> str:
    """Kind of exception, and the last place in our code that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/src/trivox/" in frame.filename]
    if not ours:
        return f"{type(error).__name__} {error!s:.80}"
    last = ours[-1]
    file = last.filename.partition("/src/trivox/")[2]
    return f"{type(error).__name__} {file}:{last.lineno} {last.name}"


# -- children --------------------------------------------------------------------------
def work(pipe: Connection, place: str, seed: int, *, quiet: bool) -> None:
    """A child: reads what it is given until there is no more."""
    if quiet:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    prepare_process()
    benches: dict[str, Bench] = {}
    targets = {target.name: target for target in TARGETS}
    while (job := pipe.recv()) is not None:
        if job.target not in benches:
            folder = Path(place) / str(len(benches))
            folder.mkdir(parents=True)
            benches[job.target] = Bench(targets[job.target], folder, seed)
        for number in range(job.first, job.first + job.count):
            pipe.send(number)
            pipe.send(benches[job.target].outcome(number))
        pipe.send("done")


def prepare_process() -> None:
    """Load what all readers load, then limit the memory."""
    import warnings

    import trivox

    warnings.simplefilter("ignore")
    for name in trivox.__all__:
        getattr(trivox, name)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class Child:
    """A process that reads, and what it is at."""

    def __init__(self, place: Path, seed: int, *, quiet: bool = True) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, inner = context.Pipe()
        self.place = Path(tempfile.mkdtemp(dir=place))
        self.process = context.Process(
            target=work,
            args=(inner, str(self.place), seed),
            kwargs={"quiet": quiet},
            daemon=True,
        )
        self.process.start()
        inner.close()
        self.job: Job | None = None
        self.number: int | None = None
        self.silent = False
        """Whether nothing more will come from it: it died."""
        self.since = time.monotonic()

    def give(self, job: Job | None) -> None:
        """Let it read, or end."""
        self.job = job
        self.number = None
        self.since = time.monotonic()
        self.pipe.send(job)

    def end(self) -> None:
        """End it, whatever it is at."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        shutil.rmtree(self.place, ignore_errors=True)


# -- the parent ------------------------------------------------------------------------
def jobs_of(targets: Sequence[Target], count: int) -> Iterator[Job]:
    """About `count` inputs, shared out among targets, a round of each in turn."""
    total = sum(target.share for target in targets)
    left = {t.name: max(1, round(count * t.share / total)) for t in targets}
    place = dict.fromkeys(left, 0)
    while any(left.values()):
        for name in list(left):
            number = min(ROUND, left[name])
            if number:
                yield Job(name, place[name], number)
                place[name] += number
                left[name] -= number


def fuzz(
    targets: Sequence[Target],
    *,
    count: int,
    seed: int,
    children: int = 2,
    seconds: float = SECONDS,
    until: float | None = None,
) -> Result:
    """Read `count` inputs of the targets; until: seconds after which no more is begun."""
    result = Result()
    waiting = list(jobs_of(targets, count))[::-1]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trivox-fuzz-") as name:
        place = Path(name)
        working = [Child(place, seed) for _ in range(children)]
        try:
            for child in working:
                child.give(waiting.pop() if waiting else None)
            while any(child.job for child in working):
                late = until is not None and time.monotonic() - began > until
                if late:
                    waiting.clear()
                _listen(working, waiting, result)
                working = [
                    _watched(child, place, seed, waiting, result, seconds)
                    for child in working
                ]
        finally:
            for child in working:
                child.end()
    return result


def _listen(working: list[Child], waiting: list[Job], result: Result) -> None:
    busy = {child.pipe: child for child in working if child.job}
    for pipe in wait(list(busy), timeout=0.5):
        child = busy[pipe]
        try:
            said = pipe.recv()
        except (EOFError, ConnectionResetError):
            child.process.join()
            child.silent = True
            continue
        child.since = time.monotonic()
        if said == "done":
            child.give(waiting.pop() if waiting else None)
        elif isinstance(said, int):
            child.number = said
        else:
            _count(said, result)
            child.number = None


def _count(outcome: Outcome, result: Result) -> None:
    row = result.rows[outcome.target]
    row.inputs += 1
    row.verdicts[outcome.verdict] += 1
    row.seconds = max(row.seconds, outcome.seconds)
    row.megabytes = max(row.megabytes, outcome.megabytes)
    if outcome.verdict == "foreign":
        result.note(outcome.group, outcome.target, outcome.number)


def _watched(
    child: Child,
    place: Path,
    seed: int,
    waiting: list[Job],
    result: Result,
    seconds: float,
) -> Child:
    """The child, or one in its place if it died or hangs; the rest of its work is done
    by another.
    """
    if child.job is None:
        return child
    # a pipe that was closed at the other end can be read for ever
    dead = child.silent or not (child.process.is_alive() or child.pipe.poll())
    # loading everything at the start takes long, and is no reading
    hanging = child.number is not None and time.monotonic() - child.since > seconds
    if not (dead or hanging):
        return child
    job = child.job
    if child.number is None:
        raise RuntimeError(f"a child cannot begin with {job}")
    row = result.rows[job.target]
    row.inputs += 1
    row.deaths += dead
    row.hangs += hanging and not dead
    what = f"death by {-(child.process.exitcode or 0)}" if dead else "hang"
    result.note(f"{what} in {job.target}", job.target, child.number)
    child.end()
    first = child.number + 1
    rest = Job(job.target, first, job.first + job.count - first)
    if rest.count:
        waiting.append(rest)
    another = Child(place, seed)
    another.give(waiting.pop() if waiting else None)
    return another


# -- the table -------------------------------------------------------------------------
HEADINGS = (
    "inputs",
    "accepted",
    "refused",
    "foreign",
    "deaths",
    "hangs",
    "longest s",
    "most MB",
)


def table(result: Result) -> list[str]:
    """Lines: a target each, and the sum."""
    lines = [f"{'target':24}" + "".join(f"{heading:>11}" for heading in HEADINGS)]
    total = Row()
    for target in TARGETS:
        row = result.rows.get(target.name)
        if row is None:
            continue
        lines.append(_line(target.name, row))
        total.inputs += row.inputs
        total.verdicts += row.verdicts
        total.deaths += row.deaths
        total.hangs += row.hangs
        total.seconds = max(total.seconds, row.seconds)
        total.megabytes = max(total.megabytes, row.megabytes)
    lines.append(_line("all", total))
    for group, count in result.groups.most_common():
        target, number = result.examples[group]
        lines.append(f"{count:6d} x {group}  (for example {target!r} {number})")
    return lines


def _line(name: str, row: Row) -> str:
    verdicts = [row.verdicts[kind] for kind in ("accepted", "refused", "foreign")]
    numbers = [row.inputs, *verdicts, row.deaths, row.hangs]
    cells = "".join(f"{number:11d}" for number in numbers)
    return f"{name:24}{cells}{row.seconds:11.2f}{row.megabytes:11.0f}"


def once(target: Target, number: int, seed: int) -> None:
    """Read a single input here, and let its exception through: to look into a group."""
    with tempfile.TemporaryDirectory(prefix="trivox-fuzz-") as name:
        bench = Bench(target, Path(name), seed)
        file = bench.spoil(number)
        content = file.read_bytes() if file.is_file() else b""
        sys.stderr.write(f"{file}: {content[:3000]!r}\n")
        print(target.read(bench.folder, file))


def wrong(result: Result) -> int:
    """Inputs that ended otherwise than in success or one line."""
    return sum(row.wrong for row in result.rows.values())


def counted(result: Result) -> int:
    """All inputs."""
    return sum(row.inputs for row in result.rows.values())
