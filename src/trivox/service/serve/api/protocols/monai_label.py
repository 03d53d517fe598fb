"""The part of MONAI Label's REST interface that its client and its plug-ins for viewers
use: information, images, sessions, inference and labels. Training is not offered.
"""

from collections.abc import Sequence
from functools import partial
from secrets import token_hex
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Query, Request, Response
from starlette.responses import JSONResponse

from trivox.service.serve.api import desk as desks
from trivox.service.serve.api.problems import ProblemError
from trivox.service.serve.api.protocols import label_answers as answers
from trivox.service.serve.api.protocols.labelling import (
    CHOICES,
    STRATEGY,
    TAG,
    Asked,
    Labelling,
    params_of,
    session_view,
)
from trivox.service.serve.api.protocols.listing import opened_image
from trivox.service.serve.api.protocols.shelf import Entry
from trivox.service.serve.api.routes import awaited, client_of
from trivox.service.serve.api.schemas import problems
from trivox.service.serve.api.security import Gate
from trivox.service.serve.api.uploads import Upload, received

LONGEST_WAIT = 3600
FORM_BYTES = 8192
FIELDS = ("params", "client_id")
PARAMS = {
    "type": "object",
    "properties": {
        name: {"type": "string", "enum": list(choices)}
        for name, choices in CHOICES.items()
    },
}
"""Other parameters are taken and not looked at."""
SENT = (400, 404, 408, 409, 413, 415, 422, 429, 503, 507)
"""Problems of requests that send something."""

Text = Annotated[str, Query(max_length=1024)]
Named = Annotated[str, Query(min_length=1, max_length=1024, description="of an image")]
Model = Annotated[str, Path(max_length=200, description="one of `GET /info/`")]
SessionId = Annotated[str, Path(max_length=200)]
Output = Literal["all", "label", "image", "json"]
Shown = Literal["all", "stats"]
Expiry = Annotated[
    int, Query(ge=0, le=1 << 31, description="seconds; 0: as long as results")
]


def label_routes(labelling: Labelling, gate: Gate) -> APIRouter:
    """The routes, as MONAI Label 0.8 has them."""
    router = APIRouter(tags=["MONAI Label"])
    _add_tokens(router, gate)
    _add_information(router, labelling)
    _add_inference(router, labelling)
    _add_images(router, labelling)
    _add_labels(router, labelling)
    _add_sessions(router, labelling)
    return router


def _form(required: Sequence[str] = (), **files: dict[str, Any]) -> dict[str, Any]:
    """The description of what is sent."""
    client = {"type": "string", "maxLength": 4096}
    schema = {
        "type": "object",
        "properties": {"params": PARAMS, "client_id": client, **files},
        "required": list(required),
        "minProperties": 1,
        "additionalProperties": False,
    }
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


BINARY = {"type": "string", "format": "binary", "minLength": 1}


def _add_tokens(router: APIRouter, gate: Gate) -> None:
    @router.get("/auth/", responses=problems())
    def show_rule() -> dict[str, Any]:
        """Whether a token is needed."""
        return {"enabled": bool(gate.tokens), "client_id": "trivox", "realm": ""}

    @router.post(
        "/auth/token", response_class=JSONResponse, responses=problems(413, 422)
    )
    async def exchange(request: Request) -> dict[str, Any]:
        """The token in the form that clients send on: it is the password; the name of
        the user is not looked at.
        """
        password = _password(await _short_body(request))
        if not gate.tokens:
            return {"access_token": None, "token_type": None}
        if not gate.knows_token(password):
            raise ProblemError("unauthorized", "give a token of the server as password")
        return {"access_token": password, "token_type": "Bearer"}

    @router.get("/auth/token/valid", responses=problems())
    def show_client(request: Request) -> dict[str, Any]:
        """Who asks; a token that is not valid does not come as far as here."""
        return {"username": client_of(request), "roles": []}


async def _short_body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > FORM_BYTES:
            raise ProblemError("too-large", f"send at most {FORM_BYTES} bytes")
    return bytes(body)


def _password(body: bytes) -> str:
    fields = parse_qs(body.decode("utf-8", "replace"))
    return fields.get("password", [""])[0]


def _add_information(router: APIRouter, labelling: Labelling) -> None:
    @router.get("/info/", responses=problems())
    def show_information(request: Request) -> dict[str, Any]:
        """Models, labels and how many images there are."""
        return labelling.info(client_of(request))

    @router.post("/activelearning/{strategy}", responses=problems(404, 422))
    def show_next(request: Request, strategy: Model) -> dict[str, Any]:
        """The image that is to be labelled next."""
        if strategy != STRATEGY:
            raise ProblemError("not-found", f"the strategy here is {STRATEGY}")
        return labelling.next_image(client_of(request))


def _add_inference(router: APIRouter, labelling: Labelling) -> None:
    @router.post(
        "/infer/{model}",
        response_class=Response,
        responses={
            **problems(*SENT),
            200: {"content": {"multipart/form-data": {}, "application/json": {}}},
        },
        openapi_extra=_form(file=BINARY),
    )
    async def infer(
        request: Request,
        model: Model,
        image: Text = "",
        session_id: Text = "",
        output: Output = "all",
    ) -> Response:
        """Run a model on an image that was sent before, that lies in the data folder, or
        that comes as `file`; answers when the job has ended.
        """
        asking = desks.Request(client_of(request))
        await run_sync(labelling.desk.require_room, asking)
        with labelling.desk.place() as folder:
            limits = labelling.desk.limits
            upload = await received(request, folder / "input", limits, FIELDS)
            params = params_of(upload.fields.pop("params", None))
            asked = Asked(model, image, session_id, params)
            job = await run_sync(labelling.queue, asked, upload, asking)
        job = await awaited(labelling.desk, job, LONGEST_WAIT)
        content = await run_sync(labelling.label_map, job, asked)
        if output == "json":
            return answers.params_answer(labelling.params(job))
        file, size = answers.opened(content)
        name = f"{job.id}{asked.suffix}"
        if output == "all":
            return answers.both_answer(labelling.params(job), file, size, name)
        return answers.file_answer(file, size, name)


def _add_images(router: APIRouter, labelling: Labelling) -> None:
    desk = labelling.desk

    @router.get("/datastore/", responses=problems(422))
    def show_images(request: Request, output: Shown = "stats") -> dict[str, Any]:
        """Images of this client and of the data folder."""
        client = client_of(request)
        if output == "stats":
            return labelling.counts(client)
        objects = labelling.objects(client)
        return {"name": "trivox", "description": "", "objects": objects}

    @router.put(
        "/datastore/",
        responses=problems(*SENT),
        openapi_extra=_form(["file"], file=BINARY),
    )
    async def put_image(request: Request, image: Text = "") -> dict[str, Any]:
        """Send an image under a name, which models are run on later."""
        name = image or token_hex(16)
        with desk.place() as folder:
            upload = await received(request, folder / "input", desk.limits, FIELDS)
            _require_whole(upload)
            keep = desk.limits.keep
            add = partial(labelling.shelf.add, client_of(request), name, "image")
            await run_sync(add, upload, keep)
        return {"image": name}

    @router.get(
        "/datastore/image",
        response_class=Response,
        responses={**problems(404, 422), 200: {"content": {answers.BINARY: {}}}},
    )
    def show_image(request: Request, image: Named) -> Response:
        """An image as it was sent, or as it lies in the data folder."""
        entry = labelling.shelf.entry(client_of(request), image)
        if entry is None or not entry.files:
            file, size = opened_image(desk.data, image)
            return answers.file_answer(file, size, "image")
        file, size = answers.opened(labelling.shelf.file(entry))
        return answers.file_answer(file, size, f"image{entry.suffix}")

    @router.delete("/datastore/", responses=problems(404, 422))
    def delete_image(request: Request, id: Named) -> dict[str, Any]:
        """Forget an image that was sent; the data folder is left alone."""
        entry = labelling.shelf.entry(client_of(request), id)
        if entry is None or entry.kind != "image":
            raise ProblemError("no-such-path", "no image was sent under this name")
        labelling.shelf.remove(entry)
        return {}


def _add_labels(router: APIRouter, labelling: Labelling) -> None:
    desk = labelling.desk

    @router.put(
        "/datastore/label",
        responses=problems(*SENT),
        openapi_extra=_form(["label"], label=BINARY),
    )
    async def put_label(
        request: Request, image: Named, tag: Text = TAG
    ) -> dict[str, Any]:
        """Keep a corrected label map: as a review of the newest result of the image."""
        with desk.place() as folder:
            upload = await received(
                request, folder / "input", desk.limits, FIELDS, ("label",)
            )
            _require_whole(upload)
            client = client_of(request)
            return await run_sync(labelling.save, image, client, upload, tag)

    @router.get(
        "/datastore/label",
        response_class=Response,
        responses={**problems(404, 409, 422), 200: {"content": {answers.BINARY: {}}}},
    )
    def show_label(request: Request, label: Named, tag: Text = TAG) -> Response:
        """The label map that was kept of an image."""
        saved = labelling.saved(label, client_of(request))
        file, size = answers.opened(saved)
        return answers.file_answer(file, size, "label.nii.gz")


def _add_sessions(router: APIRouter, labelling: Labelling) -> None:
    desk = labelling.desk

    @router.put(
        "/session/",
        responses=problems(*SENT),
        openapi_extra=_form(["files"], files=BINARY),
    )
    async def put_session(
        request: Request, expiry: Expiry = 0, uncompress: bool = False
    ) -> dict[str, Any]:
        """Send an image for a while; a zip is unpacked by the job in any case."""
        name = token_hex(16)
        with desk.place() as folder:
            upload = await received(
                request, folder / "input", desk.limits, FIELDS, ("files",)
            )
            _require_whole(upload)
            keep = float(expiry) or desk.limits.keep
            add = partial(labelling.shelf.add, client_of(request), name, "session")
            entry = await run_sync(add, upload, keep)
        return {"session_id": name, "session_info": session_view(entry)}

    def session(request: Request, id: str) -> Entry:
        entry = labelling.shelf.entry(client_of(request), id)
        if entry is None or entry.kind != "session":
            raise ProblemError("no-such-session", "open a session for the image again")
        return entry

    @router.get(
        "/session/{session_id}",
        response_class=Response,
        responses={
            **problems(404, 422),
            200: {"content": {answers.BINARY: {}, "application/json": {}}},
        },
    )
    def show_session(
        request: Request,
        session_id: SessionId,
        update_ts: bool = False,
        image: bool = False,
    ) -> Any:
        """A session, or its image."""
        entry = session(request, session_id)
        if update_ts:
            entry = labelling.shelf.touch(entry)
        if not image:
            return JSONResponse(session_view(entry))
        file, size = answers.opened(labelling.shelf.file(entry))
        return answers.file_answer(file, size, f"image{entry.suffix}")

    @router.delete("/session/{session_id}", responses=problems(404, 422))
    def delete_session(request: Request, session_id: SessionId) -> dict[str, Any]:
        """End a session and remove its image."""
        entry = session(request, session_id)
        labelling.shelf.remove(entry)
        return session_view(entry)


def _require_whole(upload: Upload) -> None:
    params_of(upload.fields.get("params"))
    if not any(part.size for part in upload.parts):
        raise ProblemError("invalid-request", "send the file")
