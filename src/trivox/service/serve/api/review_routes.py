"""The routes of images to look at, reviews, and datasets made of them."""

from pathlib import Path
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from trivox.service.serve.api.corrections import write_corrections
from trivox.service.serve.api.review_schemas import (
    FIELDS,
    FORM,
    History,
    ReviewList,
    ReviewView,
    view_of_review,
)
from trivox.service.serve.api.reviews import ReviewDesk
from trivox.service.serve.api.routes import Id, Limit, Name, client_of
from trivox.service.serve.api.schemas import problems
from trivox.service.serve.api.uploads import received
from trivox.service.serve.review.scans import ScanAnswer

GZIP: dict[int | str, dict[str, Any]] = {200: {"content": {"application/gzip": {}}}}
ZIP: dict[int | str, dict[str, Any]] = {200: {"content": {"application/zip": {}}}}
Channel = Annotated[int, Query(ge=0, le=999, description="number of the image")]
Model = Annotated[str, Query(max_length=100, description="name of a model")]
Accepted = Annotated[bool, Query(description="with accepted cases, not only edits")]


def review_routes(reviews: ReviewDesk) -> APIRouter:
    """Reviews of the results of jobs."""
    router = APIRouter(prefix="/v1")
    _add_images(router, reviews)
    _add_reviews(router, reviews)
    _add_lists(router, reviews)
    return router


def _add_images(router: APIRouter, reviews: ReviewDesk) -> None:
    desk = reviews.desk

    @router.get(
        "/jobs/{id}/image",
        response_class=FileResponse,
        responses={**problems(404, 422, 503, 507), **GZIP},
    )
    def show_image(request: Request, id: Id, channel: Channel = 0) -> Response:
        """The scan of a job as NIfTI, to look at: without any text of the original, and
        thinned out where it is large (`Trivox-Step`: of how many voxels along x, y, z
        one is there). `ETag` is the same for the same scan.
        """
        job = desk.job(id, client_of(request))
        return _looked_at(*reviews.image(job, channel))

    @router.get(
        "/jobs/{id}/results/{name}/view",
        response_class=FileResponse,
        responses={**problems(404, 409, 422, 503, 507), **GZIP},
    )
    def show_result_view(request: Request, id: Id, name: Name) -> Response:
        """A label map or another volume among the results, to look at: thinned out as the
        scan is.
        """
        job = desk.job(id, client_of(request))
        return _looked_at(*reviews.result(job, name))


def _add_reviews(router: APIRouter, reviews: ReviewDesk) -> None:
    desk = reviews.desk

    @router.put(
        "/jobs/{id}/review",
        responses=problems(404, 408, 409, 413, 415, 422, 503, 507),
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"multipart/form-data": {"schema": FORM}},
            }
        },
    )
    async def put_review(request: Request, id: Id) -> ReviewView:
        """Accept, reject or correct the result of a job. Earlier reviews stay in the
        history.
        """
        client = client_of(request)
        job = await run_sync(desk.job, id, client)
        with desk.place() as folder:
            upload = await received(request, folder / "input", desk.limits, FIELDS)
            review = await run_sync(reviews.review, job, upload)
        return view_of_review(review)

    @router.get("/jobs/{id}/review", responses=problems(404, 422))
    def show_review(request: Request, id: Id) -> History:
        """What was said of the result of a job, also when the job has expired."""
        history = reviews.history(id, client_of(request))
        return History(job=id, reviews=[view_of_review(each) for each in history])

    @router.delete("/jobs/{id}/review", responses=problems(404, 409, 422))
    def withdraw_review(request: Request, id: Id) -> ReviewView:
        """Remove the images and label maps that reviews of a job keep; the history
        stays.
        """
        return view_of_review(reviews.withdraw(id, client_of(request)))

    @router.get(
        "/jobs/{id}/review/labels",
        response_class=FileResponse,
        responses={**problems(404, 409, 422), **GZIP},
    )
    def show_labels(request: Request, id: Id) -> Response:
        """The label map that was accepted or corrected last."""
        file = reviews.labels(id, client_of(request))
        return FileResponse(file, media_type="application/gzip")


def _add_lists(router: APIRouter, reviews: ReviewDesk) -> None:
    @router.get("/reviews", responses=problems(422))
    def list_reviews(request: Request, limit: Limit = 50) -> ReviewList:
        """Of each job of this client the review that counts, the newest first."""
        newest = reviews.store.newest(client_of(request), limit)
        return ReviewList(reviews=[view_of_review(each) for each in newest])

    @router.get(
        "/reviews/dataset",
        response_class=FileResponse,
        responses={**problems(404, 409, 422, 507), **ZIP},
    )
    def show_dataset(
        request: Request, model: Model, accepted: Accepted = True
    ) -> Response:
        """Corrected cases of a model as a dataset of nnU-Net in a zip, for `trivox check`
        and `trivox train`; where they are from is in `provenance.json`.
        """
        client = client_of(request)
        folder, file = write_corrections(reviews, client, model, accepted=accepted)
        done = BackgroundTask(folder.remove)
        return FileResponse(
            file, media_type="application/zip", filename=file.name, background=done
        )


def _looked_at(file: Path, answer: ScanAnswer) -> Response:
    headers = {
        "ETag": f'"{answer.sha256}"',
        "Trivox-Kind": answer.kind,
        "Trivox-Step": ",".join(map(str, answer.step)),
        "Trivox-Channels": str(answer.channels),
    }
    return FileResponse(file, media_type="application/gzip", headers=headers)
