"""The routes of the page: its own files and no others, without a token."""

from fastapi import APIRouter, Request, Response

from trivox.service.serve.api.problems import ProblemError
from trivox.service.serve.page.files import POLICY, PREFIX, START, PageFiles

HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}


def page_routes(files: PageFiles) -> APIRouter:
    """The page."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def show_page(request: Request) -> Response:
        """The page itself."""
        return _answer(files, START, request)

    @router.get(f"{PREFIX}{{name:path}}")
    def show_file(request: Request, name: str) -> Response:
        """What belongs to it."""
        return _answer(files, name, request)

    return router


def _answer(files: PageFiles, name: str, request: Request) -> Response:
    file = files.get(name)
    if file is None:
        raise ProblemError("not-found", "the page has no such file")
    headers = {**HEADERS, "ETag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
