"""What clients ask for, whatever the protocol: jobs are taken in, shown, cancelled."""

import hashlib
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

from trivox.errors import ResourceError, UsageError
from trivox.files import file_hash
from trivox.service.serve.api.archives.search import require_archive
from trivox.service.serve.api.limits import ServerLimits, no_space, require_space
from trivox.service.serve.api.paths import copied
from trivox.service.serve.api.problems import ProblemError
from trivox.service.serve.api.schemas import JobView, ModelView, view_of
from trivox.service.serve.api.uploads import Part, Upload
from trivox.service.serve.jobs.folders import Folders, sync_folder
from trivox.service.serve.jobs.states import (
    ENDED,
    Job,
    NewJob,
    OtherRequestError,
    QueueFullError,
    State,
    TooManyJobsError,
)
from trivox.service.serve.jobs.store import JobStore
from trivox.service.serve.settings import JobLimits
from trivox.service.serve.work.references import parsed_reference, write_reference
from trivox.service.serve.work.staging import UNKNOWN
from trivox.service.serve.work.supervisor import Supervisor

RULE = "(?:largest|thinnest|axial)"
SERIES = rf"\d{{1,5}}|{RULE}(?:,{RULE})*"
"""Which series of a folder of DICOM is meant."""


@dataclass(frozen=True)
class Request:
    """Who asks, and the key that makes a repetition harmless."""

    client: str
    key: str | None = None

    @property
    def key_hash(self) -> str | None:
        """The key of this client, of which nothing can be read."""
        if self.key is None:
            return None
        return hashlib.sha256(f"{self.client} {self.key}".encode()).hexdigest()


@dataclass
class Desk:
    """The jobs of a server. data: folder of scans that clients may name, if any;
    archives: file with the profiles of archives that scans may be fetched from.
    """

    store: JobStore
    folders: Folders
    supervisor: Supervisor
    models: Sequence[ModelView]
    limits: ServerLimits
    data: Path | None = None
    archives: Path | None = None
    workers: int = 1
    job_limits: JobLimits = field(default_factory=JobLimits)
    stopping: threading.Event = field(default_factory=threading.Event)
    _uploads: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # -- taking in ---------------------------------------------------------------------
    def require_room(self, request: Request) -> None:
        """Raise `ProblemError` before anything is sent that would be refused."""
        require_space(self.folders.root, self.limits.reserve)
        key = request.key_hash
        if key is not None and self.store.is_known(key):
            return
        try:
            self.store.require_room(request.client)
        except (QueueFullError, TooManyJobsError) as error:
            raise _refusal(error) from error

    @contextmanager
    def place(self) -> Iterator[Path]:
        """An empty folder for an upload, which is gone afterwards."""
        with self._lock:
            if self._uploads >= self.limits.uploads:
                raise ProblemError("queue-full", "too many uploads at a time")
            self._uploads += 1
        folder = self.folders.uploads / token_hex(16)
        try:
            (folder / "input").mkdir(parents=True)
            yield folder
        except OSError as error:
            raise no_space() from error
        finally:
            with self._lock:
                self._uploads -= 1
            shutil.rmtree(folder, ignore_errors=True)

    def queue(self, upload: Upload, request: Request) -> Job:
        """Make a job of what was sent; it is on the disk when this returns."""
        model = self.model(upload.fields.get("model"))
        format = checked_format(upload.fields.get("format"), model)
        series = checked_series(upload.fields.get("series"))
        parts = self._parts(upload, model)
        folder = upload.folder.parent
        new = NewJob(
            id=folder.name,
            client=request.client,
            model=model.name,
            format=format,
            series=series,
            body=_body(model.name, format, series, parts),
            size=sum(part.size for part in parts),
            key=request.key_hash,
            unreadable=_is_unknown(parts),
        )
        job = self._kept(folder, new)
        self.supervisor.announce()
        return job

    def _parts(self, upload: Upload, model: ModelView) -> list[Part]:
        """Files that were sent, that lie in the data folder, or a reference."""
        path = upload.fields.get("path")
        reference = upload.fields.get("reference")
        given = [bool(upload.parts), path is not None, reference is not None]
        if sum(given) != 1:
            raise ProblemError(
                "invalid-request", "send one of 'file', 'path' and 'reference'"
            )
        if any(not part.size for part in upload.parts):
            raise ProblemError("invalid-request", "file is empty")
        if path is not None:
            return self._copied(path, upload, model)
        if reference is not None:
            return [self._referred(reference, upload, model)]
        return upload.parts

    def _copied(self, path: str, upload: Upload, model: ModelView) -> list[Part]:
        if self.data is None:
            raise ProblemError("invalid-request", "the server has no data folder")
        return copied(
            self.data, path, upload.folder, model.channels, self.limits.upload
        )

    def _referred(self, text: str, upload: Upload, model: ModelView) -> Part:
        """A series that is fetched when the job runs."""
        if self.archives is None:
            raise ProblemError("invalid-request", "the server has no archives")
        if len(model.channels) != 1:
            raise ProblemError(
                "invalid-request",
                f"the model reads {len(model.channels)} images, a reference is one",
            )
        try:
            reference = parsed_reference(text)
        except UsageError as error:
            raise ProblemError("invalid-request", str(error)) from error
        require_archive(reference.archive, self.archives)
        file = write_reference(upload.folder, reference)
        return Part(file, file.stat().st_size, file_hash(file))

    def _kept(self, folder: Path, new: NewJob) -> Job:
        """Queue the job once its files are where they stay."""
        final = self.folders.of(new.id)
        try:
            folder.rename(final)
            sync_folder(final.parent)
            job = self.store.add(new)
        except BaseException as error:
            self.folders.remove(new.id)
            raise _refusal(error) from error
        if job.id != new.id or job.has_ended:
            self.folders.remove(new.id)
        return job

    # -- showing -----------------------------------------------------------------------
    def model(self, name: str | None) -> ModelView:
        """A model by name; raises `ProblemError`."""
        if name is None:
            raise ProblemError("invalid-request", "model is missing")
        for model in self.models:
            if model.name == name:
                return model
        known = ", ".join(model.name for model in self.models)
        raise ProblemError("no-such-model", f"this server has {known}")

    def job(self, id: str, client: str) -> Job:
        """A job of a client; raises `ProblemError`."""
        job = self.store.job(id)
        if job is None or job.client != client:
            raise ProblemError("no-such-job", "check the id, and the token")
        return job

    def view(self, job: Job) -> JobView:
        """A job as its client sees it."""
        return view_of(job, self._eta(job))

    def jobs(self, client: str, limit: int) -> list[JobView]:
        """The newest jobs of a client."""
        return [self.view(job) for job in self.store.jobs(client, limit)]

    def _eta(self, job: Job) -> float | None:
        """Seconds until a job is done, by what jobs took before."""
        if job.has_ended:
            return None
        expected = self.store.expected_seconds(job.model)
        if expected is None:
            return None
        if job.state is State.QUEUED:
            rounds = self.store.ahead(job.id) // self.workers
            return expected * (rounds + 1)
        elapsed = time.time() - (job.started or time.time())
        return max(expected - max(elapsed, 0.0), 0.0)

    def result(self, job: Job, name: str) -> Path:
        """A file that a job left; raises `ProblemError`."""
        require_done(job)
        if name not in {each.name for each in job.results} or job.folder is None:
            raise ProblemError("no-such-result", "the job lists its results")
        return self.folders.of(job.id) / job.folder / name

    # -- ending ------------------------------------------------------------------------
    def delete(self, job: Job) -> Job:
        """Cancel an open job, which is known as such for a while; forget one that has
        ended. Their files are removed. Returns the job as it is then.
        """
        if job.has_ended:
            self.store.expire(job.id)
            job = self.store.job(job.id) or job
            self.store.remove(job.id)
        else:
            job = self.store.cancel(job.id)
        self.folders.remove(job.id)
        return job

    def is_healthy(self) -> bool:
        """Whether jobs can be taken and done."""
        try:
            self.store.counts()
        except ResourceError:
            return False
        return self.folders.jobs.is_dir() and self.supervisor.alive > 0


def checked_format(format: str | None, model: ModelView) -> str | None:
    """Formats with commas between; raises `ProblemError` for one that is not known."""
    if format is None:
        return None
    names = format.split(",")
    if not all(name in model.formats for name in names):
        known = ", ".join(model.formats)
        raise ProblemError("invalid-request", f"format is one of {known}, or several")
    return ",".join(dict.fromkeys(names))


def checked_series(series: str | None) -> str | None:
    """A choice of a series; raises `ProblemError` for one that is none. UIDs, which would
    be kept with the job, are not taken.
    """
    if series is None or re.fullmatch(SERIES, series):
        return series
    raise ProblemError(
        "invalid-request", "series is its number, or of largest, thinnest, axial"
    )


def require_done(job: Job) -> None:
    """Raise `ProblemError` for a job that has no results."""
    if job.state not in ENDED:
        raise ProblemError("not-ready", "wait until the state is 'done'")
    if job.expired:
        raise ProblemError("expired", "send the scan again")
    if job.state is State.FAILED:
        raise ProblemError("job-failed", "the job says why, in 'error'")
    if job.state is State.CANCELLED:
        raise ProblemError("job-cancelled", "send the scan again")


def _is_unknown(parts: Sequence[Part]) -> bool:
    return any(part.path.suffix == UNKNOWN for part in parts)


def _body(
    model: str, format: str | None, series: str | None, parts: Sequence[Part]
) -> str:
    """A hash of all that makes two requests the same."""
    content = [model, format, series, [part.sha256 for part in parts]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _refusal(error: BaseException) -> BaseException:
    """What is answered where a job is not taken."""
    if isinstance(error, TooManyJobsError):
        return ProblemError("too-many-jobs", str(error))
    if isinstance(error, QueueFullError):
        return ProblemError("queue-full", str(error))
    if isinstance(error, OtherRequestError):
        return ProblemError("idempotency-key-reused", str(error))
    if isinstance(error, OSError | ResourceError):
        return no_space()
    return error
