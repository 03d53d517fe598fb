"""What MONAI Label's clients ask for, in terms of jobs, images and reviews."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path
from typing import Any

from trivox.service.serve.api.desk import Desk, Request, require_done
from trivox.service.serve.api.paths import nothing_there
from trivox.service.serve.api.problems import ProblemError
from trivox.service.serve.api.protocols.label_answers import NRRD_TYPES, nrrd_of
from trivox.service.serve.api.protocols.listing import scans_in
from trivox.service.serve.api.protocols.shelf import Entry, Shelf
from trivox.service.serve.api.reviews import ReviewDesk
from trivox.service.serve.api.schemas import ModelView
from trivox.service.serve.api.uploads import Upload
from trivox.service.serve.jobs.states import Job
from trivox.service.serve.review.scans import name_of_labels
from trivox.version import NOTICE, __version__

NAME = "trivox"
BACKGROUND = "background"
NIFTI = ".nii.gz"
NRRD = ".nrrd"
SUFFIXES = (NIFTI, NRRD)
USUAL_DTYPE = "uint16"
CHOICES = {"result_extension": SUFFIXES, "result_dtype": tuple(NRRD_TYPES)}
"""Parameters that are looked at, and what they may be."""
WHO = "MONAI Label client"
TAG = "final"
STRATEGY = "first"

Json = dict[str, Any]


class Kind(StrEnum):
    """What viewers sort models by."""

    SEGMENTATION = auto()


@dataclass(frozen=True)
class Asked:
    """What is asked of a model. image: name, or path in the data folder; session: id of
    one; params: of the client, as JSON.
    """

    model: str
    image: str
    session: str
    params: Mapping[str, Any]

    @property
    def suffix(self) -> str:
        """Format that the label map is wanted in."""
        return str(self.params.get("result_extension", NIFTI))

    @property
    def dtype(self) -> str:
        """Type of the voxels of a label map as NRRD."""
        return str(self.params.get("result_dtype", USUAL_DTYPE))


@dataclass
class Labelling:
    """Answers clients of MONAI Label."""

    desk: Desk
    reviews: ReviewDesk
    shelf: Shelf

    # -- what there is -----------------------------------------------------------------
    def models(self) -> list[ModelView]:
        """Models that give label maps."""
        return [model for model in self.desk.models if model.labels]

    def info(self, client: str) -> Json:
        """What is served. Viewers take the first of the labels for the background."""
        names = {name: None for model in self.models() for name in model.labels}
        return {
            "name": NAME,
            "description": NOTICE,
            "version": __version__,
            "labels": [BACKGROUND, *names],
            "models": {model.name: _model_info(model) for model in self.models()},
            "trainers": {},
            "strategies": {STRATEGY: {"description": "first image without a label"}},
            "scoring": {},
            "train_stats": {},
            "datastore": self.counts(client),
            "config": {},
        }

    def objects(self, client: str) -> Json:
        """All images of a client and of the data folder, with what they are labelled."""
        objects = {
            name: _object(Path(name).suffix) for name in scans_in(self.desk.data)
        }
        for entry in self.shelf.entries(client):
            if entry.kind == "image":
                objects[entry.name] = _object(entry.suffix)
            if entry.name in objects and self._is_labelled(entry):
                objects[entry.name]["labels"] = {TAG: {"ext": NIFTI, "info": {}}}
        return objects

    def counts(self, client: str) -> Json:
        """How many images there are, and how many are labelled."""
        objects = self.objects(client)
        tags = Counter(tag for each in objects.values() for tag in each["labels"])
        return {
            "total": len(objects),
            "completed": tags[TAG],
            "label_tags": dict(tags),
        }

    def next_image(self, client: str) -> Json:
        """The first image that has no label; nothing where all have one."""
        for name, each in self.objects(client).items():
            if not each["labels"]:
                return {
                    "id": name,
                    "name": Path(name).name,
                    "ext": each["image"]["ext"],
                }
        return {}

    # -- jobs --------------------------------------------------------------------------
    def queue(self, asked: Asked, upload: Upload, request: Request) -> Job:
        """Queue a job for an image; raises `ProblemError`."""
        model = self.desk.model(asked.model)
        if not model.labels:
            raise ProblemError("no-such-model", "this model gives no label map")
        fields = {"model": model.name, "format": model.formats[0]}
        name = asked.session or asked.image
        if not upload.parts:
            upload = self._known(asked, upload, request.client)
        upload.fields = {**upload.fields, **fields}
        job = self.desk.queue(upload, request)
        if name:
            self.shelf.note_job(request.client, name, job.id)
        return job

    def _known(self, asked: Asked, upload: Upload, client: str) -> Upload:
        """The image as a job takes it: one that was sent, or a path."""
        name = asked.session or asked.image
        if not name:
            raise ProblemError("no-such-path", "name an image, or send one as 'file'")
        entry = self.shelf.entry(client, name)
        if entry is not None and entry.files:
            return self.shelf.upload(self.shelf.touch(entry), upload.folder)
        if asked.session:
            raise ProblemError("no-such-session", "open a session for the image again")
        if self.desk.data is None:
            raise nothing_there()
        upload.fields = {"path": name}
        return upload

    def label_map(self, job: Job, asked: Asked) -> bytes | Path:
        """The label map of a job; raises `ProblemError`."""
        if job.code is not None:
            raise ProblemError("job-failed", f"{job.code}: {job.detail}")
        if not job.has_ended:
            raise ProblemError("not-ready", "the job takes long; ask GET /v1/jobs")
        require_done(job)
        file = self.desk.result(job, name_of_labels())
        if asked.suffix == NRRD:
            return nrrd_of(file, asked.dtype)
        return file

    def params(self, job: Job) -> Json:
        """What is said of a label map."""
        seconds = job.seconds or 0.0
        return {
            "label_names": self.desk.model(job.model).labels,
            "centroids": {},
            "latencies": {"total": round(seconds, 2)},
            "job": job.id,
        }

    # -- labels ------------------------------------------------------------------------
    def save(self, image: str, client: str, upload: Upload, tag: str) -> Json:
        """Keep a label map as the correction of the image's newest result."""
        entry = self.shelf.entry(client, image)
        if entry is None or entry.job is None:
            raise ProblemError("no-such-job", "run a model on the image first")
        job = self.desk.job(entry.job, client)
        upload.fields = {"decision": "edit", "who": WHO, "note": f"tag {tag}"}
        self.reviews.review(job, upload)
        return {"image": image, "label": image, "job": job.id}

    def saved(self, image: str, client: str) -> Path:
        """The label map that was kept of an image; raises `ProblemError`."""
        entry = self.shelf.entry(client, image)
        if entry is None or entry.job is None:
            raise ProblemError("not-reviewed", "the image has no label")
        return self.reviews.labels(entry.job, client)

    def _is_labelled(self, entry: Entry) -> bool:
        if entry.job is None:
            return False
        history = self.reviews.store.history(entry.job, entry.client)
        return bool(history) and history[-1].labels is not None


def session_view(entry: Entry) -> Json:
    """A session as clients know it, without places on this machine."""
    return {
        "name": entry.name,
        "path": "",
        "image": entry.name,
        "meta": {},
        "create_ts": int(entry.created),
        "last_access_ts": int(entry.used),
        "expiry": int(entry.keep),
    }


def params_of(text: str | None) -> Json:
    """The parameters that a client sent; raises `ProblemError`."""
    try:
        params = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise _invalid("params is no JSON") from error
    if not isinstance(params, dict):
        raise _invalid("params is no JSON object")
    for name, choices in CHOICES.items():
        if name in params and params[name] not in choices:
            raise _invalid(f"{name} is one of {', '.join(choices)}")
    return params


def _model_info(model: ModelView) -> Json:
    return {
        "type": Kind.SEGMENTATION,
        "labels": model.labels,
        "dimension": 3,
        "description": f"{model.task} of {', '.join(model.channels)}",
        "config": {},
    }


def _object(suffix: str) -> Json:
    return {"image": {"ext": suffix, "info": {}}, "labels": {}}


def _invalid(detail: str) -> ProblemError:
    return ProblemError("invalid-request", detail)
