"""The application: routers, problems instead of the framework's errors, the guard."""

import logging
from collections.abc import Mapping
from itertools import chain
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from trivox.service.serve.api.archives.routes import archive_routes
from trivox.service.serve.api.desk import SERIES, Desk
from trivox.service.serve.api.metrics import MEDIA_TYPE, Metrics
from trivox.service.serve.api.page_routes import page_routes
from trivox.service.serve.api.problems import ProblemError, problem_of_status
from trivox.service.serve.api.protocols.kserve import kserve_routes
from trivox.service.serve.api.protocols.labelling import Labelling
from trivox.service.serve.api.protocols.monai_label import label_routes
from trivox.service.serve.api.protocols.shelf import Shelf
from trivox.service.serve.api.review_routes import review_routes
from trivox.service.serve.api.reviews import ReviewDesk
from trivox.service.serve.api.routes import job_routes
from trivox.service.serve.api.schemas import Health, problems
from trivox.service.serve.api.security import FAILED, OPEN, Gate, Guard
from trivox.service.serve.page.files import PageFiles
from trivox.service.serve.review.reader import ScanReader
from trivox.service.serve.review.store import ReviewStore
from trivox.service.serve.work.references import REFERENCE
from trivox.version import NOTICE, __version__

FILE_IS = (
    "NIfTI, NRRD, MHA, DICOM, or a zip of a DICOM series or of an exam; repeated: the "
    "channels of the model in order, or the slices of a series"
)
REFERENCE_IS = (
    "a series of an archive that the server knows: NAME/studies/UID/series/UID"
)
PATH_IS = "a scan by its path in the data folder of the server"
BEARER = {"type": "http", "scheme": "bearer"}


def make_app(desk: Desk, gate: Gate, page: PageFiles | None = None) -> Guard:
    """What answers requests. page: files of the page; None: there is none."""
    app = FastAPI(
        title="trivox",
        version=__version__,
        description=f"Models behind an API. {NOTICE}",
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
    )
    # it quotes what was sent
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    metrics = Metrics(desk)
    _answer_with_problems(app)
    _add_probes(app, desk, metrics)
    app.include_router(job_routes(desk, form_schema(desk)))
    reviews = review_desk(desk)
    app.include_router(review_routes(reviews))
    app.include_router(archive_routes(desk.archives))
    app.include_router(kserve_routes(desk))
    labelling = Labelling(desk, reviews, Shelf(desk.folders, desk.limits))
    app.include_router(label_routes(labelling, gate))
    if page is not None:
        app.include_router(page_routes(page))
    if gate.tokens:
        _ask_for_token(app)
    return Guard(app, gate, metrics.note)


def review_desk(desk: Desk) -> ReviewDesk:
    """Where reviews are taken in."""
    reader = ScanReader(desk.folders, desk.job_limits)
    return ReviewDesk(desk, reader, ReviewStore(desk.folders))


def form_schema(desk: Desk) -> dict[str, Any]:
    """What is sent for a job."""
    names = [model.name for model in desk.models]
    listed = chain.from_iterable(model.formats for model in desk.models)
    choice = "|".join(sorted({*listed}))
    file = {"type": "string", "format": "binary", "minLength": 1}
    fields: dict[str, Any] = {
        "model": {"type": "string", "enum": names},
        "format": {
            "type": "string",
            "pattern": f"^({choice})(,({choice}))*$",
            "maxLength": 200,
        },
        "series": {"type": "string", "pattern": f"^({SERIES})$", "maxLength": 200},
    }
    ways = [_form({"file": {"description": FILE_IS, **file}, **fields}, "file")]
    if desk.data is not None:
        path = {"type": "string", "minLength": 1, "maxLength": 4096}
        ways.append(_form({"path": {"description": PATH_IS, **path}, **fields}, "path"))
    if desk.archives is not None:
        series = {"type": "string", "pattern": f"^{REFERENCE}$", "maxLength": 256}
        named = {"reference": {"description": REFERENCE_IS, **series}, **fields}
        ways.append(_form(named, "reference"))
    return {"oneOf": ways} if len(ways) > 1 else ways[0]


def _form(fields: Mapping[str, Any], source: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": [source, "model"],
        "additionalProperties": False,
    }


def _add_probes(app: FastAPI, desk: Desk, metrics: Metrics) -> None:
    @app.get("/healthz", responses=problems(503))
    def show_health() -> Health:
        """Whether jobs can be taken and done."""
        if not desk.is_healthy():
            raise ProblemError("not-healthy", "the operator has to look at its log")
        return Health(status="ok", version=__version__, workers=desk.supervisor.alive)

    @app.get(
        "/metrics",
        response_class=Response,
        responses={
            **problems(),
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        },
    )
    def show_metrics() -> Response:
        """Figures for Prometheus."""
        return Response(metrics.text(), media_type=MEDIA_TYPE)


def _answer_with_problems(app: FastAPI) -> None:
    @app.exception_handler(ProblemError)
    async def of_ours(request: Request, problem: ProblemError) -> Response:
        return problem.response()

    @app.exception_handler(RequestValidationError)
    async def of_fields(request: Request, error: RequestValidationError) -> Response:
        fields = {".".join(map(str, each["loc"][:2])) for each in error.errors()}
        detail = f"not as described: {', '.join(sorted(fields))}"
        return ProblemError("invalid-request", detail).response()

    @app.exception_handler(HTTPException)
    async def of_framework(request: Request, error: HTTPException) -> Response:
        problem = problem_of_status(error.status_code, error.headers)
        if problem.code == "method-not-allowed":
            problem.headers = {"Allow": ", ".join(_methods(app, request.scope["path"]))}
        return problem.response()

    @app.exception_handler(Exception)
    async def of_bugs(request: Request, error: Exception) -> Response:
        return FAILED.response()


def _methods(app: FastAPI, path: str) -> list[str]:
    """The methods that a path has."""
    methods: set[str] = set()
    for template, operations in app.openapi()["paths"].items():
        pattern, _, _ = compile_path(template)
        if pattern.match(path):
            methods.update(name.upper() for name in operations)
    return sorted(methods)


def _ask_for_token(app: FastAPI) -> None:
    """Say in the description that a token is needed."""
    content = app.openapi()
    content["components"]["securitySchemes"] = {"bearer": BEARER}
    for path, operations in content["paths"].items():
        if path not in OPEN:
            for operation in operations.values():
                operation["security"] = [{"bearer": []}]
    app.openapi_schema = content
