"""The client."""

import json
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import numpy as np

from trivox_client.errors import (
    JobCancelled,
    JobFailed,
    NotFound,
    ServerAtCapacity,
    ServerFailed,
    WaitedTooLong,
)
from trivox_client.nifti import Array, read_nifti
from trivox_client.records import Job, Model, job_of, model_of
from trivox_client.sending import ENDING, Form, Source, files_of, images_of
from trivox_client.transport import Retries, Timeouts, Transport

Progress = Callable[[Job], None]
RECORD = "predictions.json"
POLL = 1.0
"""Seconds between two looks at a job that cannot be followed."""
CHUNK = 1 << 20
AS_USUAL = Timeouts()
USUAL_RETRIES = Retries()


class TrivoxClient:
    """A trivox service. url: as `http://127.0.0.1:8470`; token: where it needs one.

    All methods raise `TrivoxClientError`.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeouts: Timeouts = AS_USUAL,
        retries: Retries = USUAL_RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._transport = Transport(url, token, timeouts, retries, transport)

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections."""
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    # -- models and jobs ---------------------------------------------------------------
    def models(self) -> list[Model]:
        """The models that are served."""
        content = self._transport.json("GET", "/v1/models")
        models = content.get("models") if isinstance(content, dict) else None
        if not isinstance(models, list):
            raise ServerFailed("the answer is no list of models; is this a service?")
        return [model_of(each) for each in models]

    def model(self, name: str) -> Model:
        """A model by name; raises `NotFound`."""
        return model_of(self._transport.json("GET", f"/v1/models/{_quoted(name)}"))

    def submit(
        self,
        source: Source | Array,
        model: str,
        *,
        affine: Array | None = None,
        format: str | None = None,
        key: str | None = None,
    ) -> Job:
        """Queue a scan.

        source: a file, the files of a scan, or an array (x, y, z) or (channel, x, y, z)
        with its `affine` (voxel -> mm, RAS+). format: of the results, several with commas
        between. key: makes a repetition harmless, also one by another process; by itself
        each call is a job of its own.
        """
        contents: list[Path | bytes] = []
        if isinstance(source, np.ndarray):
            contents += images_of(source, np.eye(4) if affine is None else affine)
        else:
            contents += files_of(source)
        return self._queued(contents, {"model": model}, format, key)

    def submit_reference(
        self,
        reference: str,
        model: str,
        *,
        format: str | None = None,
        key: str | None = None,
    ) -> Job:
        """Queue a series of an archive that the server knows, `NAME/studies/UID/series/UID`
        as `/v1/archives/NAME/series` gives it; the server fetches it. Others as in
        `submit`.
        """
        return self._queued([], {"model": model, "reference": reference}, format, key)

    def _queued(
        self,
        contents: list[Path | bytes],
        fields: dict[str, str],
        format: str | None,
        key: str | None,
    ) -> Job:
        if format is not None:
            fields = {**fields, "format": format}
        with closing(Form(contents, fields)) as form:
            answer = self._transport.post(
                "/v1/jobs", key or token_hex(16), form.content
            )
        return job_of(answer)

    def job(self, job: Job | str) -> Job:
        """How far a job is."""
        return job_of(self._transport.json("GET", f"/v1/jobs/{_quoted(_id(job))}"))

    def cancel(self, job: Job | str) -> Job:
        """Cancel an open job; forget one that has ended, with its results."""
        return job_of(self._transport.json("DELETE", f"/v1/jobs/{_quoted(_id(job))}"))

    # -- waiting -----------------------------------------------------------------------
    def wait(
        self,
        job: Job | str,
        *,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> Job:
        """The job once it is done. progress: is called with each change; timeout:
        seconds, which are looked at with each change and every ten seconds. Raises
        `JobFailed`, `JobCancelled` and `WaitedTooLong`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        last: Job | None = None
        with closing(self._states(_id(job))) as states:
            for state in states:
                if progress is not None and state != last:
                    progress(state)
                last = state
                if state.has_ended:
                    return _done(state)
                if deadline is not None and time.monotonic() > deadline:
                    raise WaitedTooLong(f"job {state.id} takes more than {timeout:g} s")
        raise AssertionError("a job is looked at until it has ended")

    def _states(self, id: str) -> Generator[Job, None, None]:
        """The job again and again: by its events, else by asking."""
        while True:
            with suppress(httpx.TransportError, ServerAtCapacity):
                yield from self._followed(id)
            job = self.job(id)
            yield job
            if job.has_ended:
                return
            self._transport.sleep(POLL)

    def _followed(self, id: str) -> Iterator[Job]:
        job: Job | None = None
        with self._transport.streamed(f"/v1/jobs/{_quoted(id)}/events") as answer:
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    job = job_of(_parsed(line.removeprefix("data:")))
                if job is not None and line:  # also where it only says that it lives
                    yield job

    # -- results -----------------------------------------------------------------------
    def results(self, job: Job | str) -> tuple[str, ...]:
        """The names of a job's results, the image of the case first."""
        return _done(self.job(job)).results

    def result(self, job: Job | str, name: str) -> bytes:
        """A result as bytes."""
        path = _result_path(job, name)

        def read() -> bytes:
            with self._transport.streamed(path) as answer:
                return answer.read()

        return self._transport.repeated(read, True)

    def fetch(self, job: Job | str, folder: str | Path) -> list[Path]:
        """Write all results of a job into a folder; returns the files.

        Raises `FileExistsError` before anything is written where a file of the name is
        there already.
        """
        target = Path(folder)
        names = self.results(job)
        files = [target / _plain(name) for name in names]
        for file in files:
            if file.exists():
                raise FileExistsError(f"{file}: is there already; name another folder")
        target.mkdir(parents=True, exist_ok=True)
        for name, file in zip(names, files, strict=True):
            self._write(_result_path(job, name), file)
        return files

    def _write(self, path: str, file: Path) -> None:
        """Write a result; no half of it is left under its name."""
        part = file.with_name(f".{file.name}.{token_hex(4)}.part")

        def write() -> None:
            with self._transport.streamed(path) as answer, part.open("wb") as written:
                for piece in answer.iter_bytes(CHUNK):
                    written.write(piece)
                written.flush()
                os.fsync(written.fileno())

        try:
            self._transport.repeated(write, True)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

    def segment(
        self,
        array: Array,
        affine: Array,
        model: str,
        *,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> tuple[Array, Array, dict[str, Any]]:
        """Label map (x, y, z) of an array (x, y, z) or (channel, x, y, z), its affine, and
        what the service noted of the case.
        """
        job = self.submit(np.asarray(array), model, affine=affine, format="nifti")
        job = self.wait(job, progress=progress, timeout=timeout)
        images = [name for name in job.results if name.endswith(ENDING)]
        if not images:
            raise NotFound("the job has no label map; does the model give one?")
        labels, placed = read_nifti(self.result(job, images[0]))
        record: dict[str, Any] = {}
        if RECORD in job.results:
            record = _parsed(self.result(job, RECORD).decode())
        return labels, placed, record


def _id(job: Job | str) -> str:
    return job.id if isinstance(job, Job) else job


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _result_path(job: Job | str, name: str) -> str:
    return f"/v1/jobs/{_quoted(_id(job))}/results/{_quoted(_plain(name))}"


def _plain(name: str) -> str:
    """A name of a file and nothing else, whatever a service says."""
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0:"):
        raise ServerFailed("the service names a result like no file")
    return name


def _done(job: Job) -> Job:
    """The job, if it is done."""
    if job.state == "failed":
        failure = job.error
        code = "" if failure is None else failure.code
        detail = "" if failure is None else failure.detail
        raise JobFailed(f"job {job.id} failed ({code}): {detail}", code=code)
    if job.state == "cancelled":
        raise JobCancelled(f"job {job.id} was cancelled", code="job-cancelled")
    return job


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ServerFailed(
            "the answer is no JSON; is this a trivox service?"
        ) from error
