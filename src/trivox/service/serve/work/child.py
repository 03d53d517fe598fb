"""The child that does one job, and what it tells the worker through a pipe: a line of
JSON for each stage, and one for the end.
"""

import json
import os
import shutil
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trivox.errors import BundleError, ResourceError, TrivoxError
from trivox.files import file_hash
from trivox.memory import memory_ran_out
from trivox.service.serve.jobs.folders import NO_SPACE, Folders, sync_folder
from trivox.service.serve.jobs.states import Claim, Failure, ResultFile, Stage
from trivox.service.serve.settings import WorkSettings
from trivox.service.serve.work.engine import Engine, JobError, Order
from trivox.service.serve.work.limits import limit_this_process, set_apart
from trivox.service.serve.work.references import fetched
from trivox.service.serve.work.staging import CASE, staged
from trivox.service.serve.work.wording import spoken

LARGEST = 1 << 36
"""Bytes of a file that a job may write."""

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Child:
    """A child. reader: end of the pipe through which it speaks; starter: of that through
    which it is let off.
    """

    process: int
    reader: int
    starter: int

    def let_off(self) -> None:
        """It may begin: its number is noted."""
        os.write(self.starter, b"\n")
        self.forget()

    def forget(self) -> None:
        """It never will."""
        os.close(self.starter)


def fork_child(
    engine: Engine, settings: WorkSettings, folders: Folders, claim: Claim
) -> Child:
    """Make a child for a job, which waits until it is let off; this process must have no
    other thread.
    """
    reader, writer = os.pipe()
    start, starter = os.pipe()
    parent = os.getpid()
    process = os.fork()
    if process:
        os.close(writer)
        os.close(start)
        os.set_blocking(reader, False)
        return Child(process, reader, starter)
    code = 1
    try:
        os.close(reader)
        os.close(starter)
        _silence()
        set_apart(parent)
        if os.read(start, 1):
            code = _work(engine, settings, folders, claim, _teller(writer))
    finally:
        os._exit(code)


def _silence() -> None:
    """Nothing that a library prints about a file reaches a log."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)


def _teller(writer: int) -> Tell:
    def tell(message: dict[str, Any]) -> None:
        os.write(writer, json.dumps(message).encode() + b"\n")

    return tell


def _work(
    engine: Engine, settings: WorkSettings, folders: Folders, claim: Claim, tell: Tell
) -> int:
    """Do the job; returns the exit code."""
    job = claim.job
    try:
        limits = settings.limits
        cpu_seconds = limits.seconds * settings.cores
        limit_this_process(memory=limits.memory, seconds=cpu_seconds, largest=LARGEST)
        engine.begin()
        results = _computed(engine, settings, folders, claim, tell)
    except BaseException as error:
        code, detail = failure_of(error)
        words = engine.words(job.model) if code is not Failure.INTERNAL else ()
        said = {"failed": code, "detail": spoken(detail, words)}
        tell({**said, "where": places_of(error)})
        return 1
    tell({"done": [asdict(each) for each in results]})
    return 0


def _computed(
    engine: Engine, settings: WorkSettings, folders: Folders, claim: Claim, tell: Tell
) -> list[ResultFile]:
    def report(stage: Stage) -> None:
        tell({"stage": stage})

    job = claim.job
    scratch = folders.work(job.id, claim.lease)
    given = scratch / "input"
    out = scratch / "results"
    given.mkdir(parents=True)
    out.mkdir()
    report(Stage.READING)
    parts = fetched(folders.parts(job.id), settings.archives, scratch / "archive")
    channels = engine.channels(job.model)
    source = staged(parts, given, channels, settings.limits.unpacked)
    engine.predict(Order(job.model, source, out, job.format, job.series), report)
    report(Stage.WRITING)
    neutralise(out, scratch)
    pack_folders(out)
    results = results_in(out)
    final = folders.results(job.id, claim.lease)
    out.rename(final)
    sync_folder(final.parent)
    return results


def neutralise(out: Path, scratch: Path) -> None:
    """The tables of a prediction name its input without the folders of the server."""
    for file in out.glob("*.json"):
        text = file.read_text(encoding="utf-8")
        plain = text.replace(f"{given_prefix(scratch)}", "")
        file.write_text(plain, encoding="utf-8")


def pack_folders(out: Path) -> None:
    """A result of many files becomes a zip of its name."""
    for folder in [each for each in out.iterdir() if each.is_dir()]:
        shutil.make_archive(str(folder), "zip", folder)
        shutil.rmtree(folder)


def given_prefix(scratch: Path) -> str:
    """What stands before the names of inputs in JSON."""
    return json.dumps(f"{scratch / 'input'}{os.sep}")[1:-1]


def results_in(out: Path) -> list[ResultFile]:
    """The files of a prediction, the image of the case first."""
    files = [each for each in out.iterdir() if each.is_file()]
    wanted = [each for each in files if not each.name.startswith(".")]
    return [_result(each) for each in sorted(wanted, key=_rank)]


def _rank(file: Path) -> tuple[bool, bool, str]:
    is_case = file.name.startswith(f"{CASE}.")
    return (not is_case, not file.name.endswith(".nii.gz"), file.name)


def _result(file: Path) -> ResultFile:
    digest = file_hash(file)
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
    return ResultFile(file.name, file.stat().st_size, digest)


def failure_of(error: BaseException) -> tuple[Failure, str]:
    """The code of an error, and what to say of it."""
    if isinstance(error, JobError):
        return error.code, error.detail
    if memory_ran_out(error):
        return (
            Failure.MEMORY,
            "the job takes more memory than it may; send a smaller scan",
        )
    if _is_no_space(error):
        return Failure.NO_SPACE, "the disk of the server is full; try again later"
    if isinstance(error, BundleError):
        return Failure.MODEL, "the model is damaged; the operator has to look at it"
    if isinstance(error, ResourceError):
        return Failure.INTERNAL, "the server lacks something; the operator has to look"
    if isinstance(error, TrivoxError):
        return Failure.UNUSABLE_INPUT, str(error)
    return Failure.INTERNAL, "the server failed; the operator has to look at its log"


def _is_no_space(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return True
        error = error.__cause__
    return False


def places_of(error: BaseException) -> str:
    """Kind of an error and where in the program it arose, without what it says."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = [f"{Path(each.filename).name}:{each.lineno}" for each in frames]
    return f"{type(error).__name__} at {' < '.join(reversed(places))}"


def messages_of(lines: bytes) -> Sequence[dict[str, Any]]:
    """What a child told, of whole lines."""
    return [json.loads(line) for line in lines.splitlines() if line]
