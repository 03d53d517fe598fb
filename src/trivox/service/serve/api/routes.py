"""The routes under `/v1`. Other protocols get routers of their own, which ask the same
desk.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse

from trivox.service.serve.api import desk as desks
from trivox.service.serve.api.desk import Desk
from trivox.service.serve.api.events import MEDIA_TYPE, Streams
from trivox.service.serve.api.problems import ProblemError
from trivox.service.serve.api.schemas import (
    ID,
    Accepted,
    JobList,
    JobView,
    ModelList,
    ModelView,
    problems,
)
from trivox.service.serve.api.uploads import received
from trivox.service.serve.jobs.states import Job, State

KEY = re.compile(r"[\x21-\x7e]{1,255}")
WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,4})(?:$|[,;\s])")
LONGEST_WAIT = 600
LOOK = 0.1
MEDIA_TYPES = {
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".png": "image/png",
    ".dcm": "application/dicom",
    ".gz": "application/gzip",
}

Id = Annotated[str, Path(pattern=ID, description="of the job")]
Name = Annotated[str, Path(max_length=200, description="one of the job's `results`")]
Limit = Annotated[int, Query(ge=1, le=200)]


def client_of(request: Request) -> str:
    """The pseudonym of who asks, as the guard has noted it."""
    client: str = request.state.client
    return client


def job_routes(desk: Desk, form: Mapping[str, Any]) -> APIRouter:
    """Models and jobs. form: schema of what is sent for a job."""
    router = APIRouter(prefix="/v1")
    _add_models(router, desk)
    _add_submission(router, desk, form)
    _add_jobs(router, desk)
    _add_results(router, desk)
    return router


def _add_models(router: APIRouter, desk: Desk) -> None:
    @router.get("/models", responses=problems())
    def list_models() -> ModelList:
        """The models that are served."""
        return ModelList(models=list(desk.models))

    @router.get("/models/{name}", responses=problems(404, 422))
    def show_model(name: Name) -> ModelView:
        """A model by name."""
        return desk.model(name)


def _add_submission(router: APIRouter, desk: Desk, form: Mapping[str, Any]) -> None:
    @router.post(
        "/jobs",
        status_code=202,
        response_model=Accepted,
        responses={
            **problems(404, 408, 409, 413, 415, 422, 429, 503, 507),
            303: {"description": "the result, where the client waits for it"},
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"multipart/form-data": {"schema": form}},
            }
        },
    )
    async def submit(request: Request) -> Response:
        """Queue a scan. With `Idempotency-Key`, the same request queued twice is one job.
        With `Prefer: wait=SECONDS`, the answer is the result, by a 303, if it is there in
        time.
        """
        asked = desks.Request(client_of(request), _key(request))
        await run_sync(desk.require_room, asked)
        with desk.place() as folder:
            upload = await received(request, folder / "input", desk.limits)
            job = await run_sync(desk.queue, upload, asked)
        seconds = _wait(request)
        if seconds:
            job = await awaited(desk, job, seconds)
        return _accepted(request, job)


def _add_jobs(router: APIRouter, desk: Desk) -> None:
    @router.get("/jobs", responses=problems(422))
    def list_jobs(request: Request, limit: Limit = 50) -> JobList:
        """The newest jobs of this client."""
        return JobList(jobs=desk.jobs(client_of(request), limit))

    @router.get("/jobs/{id}", responses=problems(404, 422))
    def show_job(request: Request, id: Id) -> JobView:
        """How far a job is."""
        return desk.view(desk.job(id, client_of(request)))

    @router.delete("/jobs/{id}", responses=problems(404, 422))
    def delete_job(request: Request, id: Id) -> JobView:
        """Cancel an open job; forget one that has ended, with its results."""
        return desk.view(desk.delete(desk.job(id, client_of(request))))


def _add_results(router: APIRouter, desk: Desk) -> None:
    streams = Streams(desk)

    @router.get(
        "/jobs/{id}/results/{name}",
        response_class=FileResponse,
        responses={
            **problems(404, 409, 422),
            200: {"content": {"application/octet-stream": {}}},
        },
    )
    def show_result(request: Request, id: Id, name: Name) -> Response:
        """A file that a job left."""
        job = desk.job(id, client_of(request))
        file = desk.result(job, name)
        media_type = MEDIA_TYPES.get(file.suffix, "application/octet-stream")
        return FileResponse(file, media_type=media_type, filename=name)

    @router.get(
        "/jobs/{id}/events",
        response_class=StreamingResponse,
        responses={
            **problems(404, 422, 503),
            200: {"content": {MEDIA_TYPE: {}}},
        },
    )
    async def show_events(request: Request, id: Id) -> Response:
        """What happens to a job, as server-sent events, until it has ended."""
        client = client_of(request)
        await run_sync(desk.job, id, client)
        events = await streams.of(id, client)
        return StreamingResponse(events, media_type=MEDIA_TYPE)


def _key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not KEY.fullmatch(key):
        raise ProblemError(
            "invalid-request", "Idempotency-Key is 1 to 255 visible characters"
        )
    return key


def _wait(request: Request) -> int:
    """Seconds that the client would wait for the result."""
    match = WAIT.search(request.headers.get("prefer", ""))
    return min(int(match[1]), LONGEST_WAIT) if match else 0


async def awaited(desk: Desk, job: Job, seconds: float) -> Job:
    """The job at its end, or after some seconds."""
    deadline = time.monotonic() + seconds
    while not job.has_ended and time.monotonic() < deadline:
        if desk.stopping.is_set():
            break
        await asyncio.sleep(LOOK)
        job = await run_sync(partial(desk.job, job.id, job.client))
    return job


def _accepted(request: Request, job: Job) -> Response:
    """Where the job is; where its first result is, if it is done."""
    place = f"{request.scope.get('root_path', '')}/v1/jobs/{job.id}"
    waited = _wait(request) > 0
    if waited and job.state is State.FAILED:
        reason = f"{job.code}: {job.detail}"
        raise ProblemError("job-failed", reason, {"Location": place})
    if waited and job.results:
        first = job.results[0].name
        return Response(
            status_code=303, headers={"Location": f"{place}/results/{first}"}
        )
    content = {"id": job.id, "state": job.state}
    return JSONResponse(content, status_code=202, headers={"Location": place})
