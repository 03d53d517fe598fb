"""What KServe and Triton clients probe: the Open Inference Protocol, version 2, without
inference: a volume is not sent as numbers in one request.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from trivox.service.serve.api.desk import Desk
from trivox.service.serve.api.problems import ProblemError
from trivox.service.serve.api.schemas import ModelView, problems
from trivox.version import __version__

PLATFORM = "trivox"
ANY_GRID = (-1, -1, -1)
"""Shape of a volume whose size is not known."""

Name = Annotated[str, Path(max_length=200, description="one of `GET /v1/models`")]


class Live(BaseModel):
    """That the server answers."""

    live: bool


class Ready(BaseModel):
    """That jobs can be taken and done."""

    ready: bool


class ModelReady(BaseModel):
    """That a model is served."""

    name: str
    ready: bool


class ServerMetadata(BaseModel):
    """What answers. extensions: of the protocol, none."""

    name: str
    version: str
    extensions: list[str]


class Tensor(BaseModel):
    """An image or a label map. shape: -1 for sizes that differ from scan to scan."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """What a model reads and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


def kserve_routes(desk: Desk) -> APIRouter:
    """The routes under `/v2`."""
    router = APIRouter(prefix="/v2", tags=["KServe"])
    _add_health(router, desk)
    _add_models(router, desk)
    return router


def _add_health(router: APIRouter, desk: Desk) -> None:
    @router.get("", responses=problems())
    def show_server() -> ServerMetadata:
        """What answers."""
        return ServerMetadata(name=PLATFORM, version=__version__, extensions=[])

    @router.get("/health/live", responses=problems())
    def show_live() -> Live:
        """Whether the server answers."""
        return Live(live=True)

    @router.get("/health/ready", responses=problems(503))
    def show_ready() -> Ready:
        """Whether jobs can be taken and done."""
        _require_ready(desk)
        return Ready(ready=True)


def _add_models(router: APIRouter, desk: Desk) -> None:
    @router.get("/models/{name}", responses=problems(404, 422))
    def show_metadata(name: Name) -> ModelMetadata:
        """What a model reads and gives."""
        return metadata_of(desk.model(name))

    @router.get("/models/{name}/ready", responses=problems(404, 422, 503))
    def show_model_ready(name: Name) -> ModelReady:
        """Whether a model is served and jobs can be done."""
        model = desk.model(name)
        _require_ready(desk)
        return ModelReady(name=model.name, ready=True)

    @router.post(
        "/models/{name}/infer",
        response_class=Response,
        responses=problems(404, 422),
    )
    def infer(request: Request, name: Name) -> Response:
        """Is refused: volumes go through `POST /v1/jobs`."""
        desk.model(name)
        raise ProblemError(
            "no-inline-inference",
            "send the scan as a file to POST /v1/jobs; the job has the result",
        )


def _require_ready(desk: Desk) -> None:
    if not desk.is_healthy() or desk.stopping.is_set():
        raise ProblemError("not-healthy", "the operator has to look at its log")


def metadata_of(model: ModelView) -> ModelMetadata:
    """A model as the protocol describes it."""
    largest = max([*model.labels.values(), model.background], default=0)
    return ModelMetadata(
        name=model.name,
        versions=[model.version],
        platform=PLATFORM,
        inputs=[_tensor(channel, "FP32") for channel in model.channels],
        outputs=_outputs(model, "UINT8" if largest < 256 else "UINT16"),
    )


def _outputs(model: ModelView, datatype: str) -> list[Tensor]:
    outputs: list[Tensor] = []
    if model.labels:
        outputs.append(_tensor("labels", datatype))
    if model.classes:
        classes = Tensor(name="classes", datatype="FP32", shape=[len(model.classes)])
        outputs.append(classes)
    return outputs


def _tensor(name: str, datatype: str) -> Tensor:
    return Tensor(name=name, datatype=datatype, shape=list(ANY_GRID))
