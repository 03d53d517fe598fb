"""Reviews as clients send and see them: what was decided of a result, by whom, when."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex

from trivox.errors import BusyError, DataError, ResourceError
from trivox.files import file_hash
from trivox.service.serve.api.desk import Desk, require_done
from trivox.service.serve.api.limits import no_space, require_space
from trivox.service.serve.api.problems import ProblemError
from trivox.service.serve.api.schemas import ModelView
from trivox.service.serve.api.uploads import Upload
from trivox.service.serve.jobs.folders import sync_folder
from trivox.service.serve.jobs.states import Job
from trivox.service.serve.review.reader import ScanReader, Sent
from trivox.service.serve.review.scans import ScanAnswer, name_of_labels
from trivox.service.serve.review.store import (
    Decision,
    NewReview,
    Review,
    ReviewStore,
)

LONGEST_NAME = 100
LONGEST_NOTE = 2000
ASKED = (Decision.ACCEPT, Decision.REJECT, Decision.EDIT)
ENDING = ".nii.gz"


@dataclass
class ReviewDesk:
    """Images to look at, and what people say of results."""

    desk: Desk
    reader: ScanReader
    store: ReviewStore

    def image(self, job: Job, channel: int) -> tuple[Path, ScanAnswer]:
        """The scan of a job as a file to look at; raises `ProblemError`."""
        if job.expired:
            raise ProblemError("expired", "send the scan again")
        with _problems():
            return self.reader.view(self._sent(job), channel)

    def result(self, job: Job, name: str) -> tuple[Path, ScanAnswer]:
        """A volume among the results of a job as a file to look at, thinned out as the
        scan is; raises `ProblemError`.
        """
        file = self.desk.result(job, name)
        if not name.endswith(ENDING):
            raise _invalid("this result is no volume")
        sent = replace(self._sent(job), channels=("result",), series=None, result=file)
        with _problems():
            return self.reader.view(sent, 0)

    def history(self, id: str, client: str) -> list[Review]:
        """What was said of a job, the newest last; raises `ProblemError` for one that
        nobody knows of.
        """
        reviews = self.store.history(id, client)
        if not reviews:
            self.desk.job(id, client)
        return reviews

    def review(self, job: Job, upload: Upload) -> Review:
        """Store what was sent; raises `ProblemError`."""
        require_done(job)
        decision = _decision(upload)
        who = _text(upload, "who", LONGEST_NAME, required=True)
        note = _text(upload, "note", LONGEST_NOTE)
        if (decision is Decision.EDIT) != bool(upload.parts):
            raise _invalid("'file' is the label map of an edit, and only of one")
        labels, sha256 = self._labels(job, decision, upload)
        model = self._model(job)
        new = NewReview(
            job=job.id,
            client=job.client,
            model=job.model,
            identity="" if model is None else model.identity,
            decision=decision,
            who=who,
            note=note,
            labels=labels,
            sha256=sha256,
        )
        return self.store.add(new)

    def withdraw(self, id: str, client: str) -> Review:
        """Remove the files of a job's reviews, and note that; raises `ProblemError`."""
        reviews = self.history(id, client)
        if not reviews:
            raise ProblemError("not-reviewed", "accept, reject or correct it first")
        last = reviews[-1]
        withdrawn = NewReview(
            job=id,
            client=client,
            model=last.model,
            identity=last.identity,
            decision=Decision.WITHDRAWN,
            who=last.who,
            note="",
        )
        review = self.store.add(withdrawn)
        self.store.clear(id)
        return review

    def labels(self, id: str, client: str) -> Path:
        """The label map that counts; raises `ProblemError`."""
        reviews = self.history(id, client)
        if not reviews or reviews[-1].labels is None:
            raise ProblemError("not-reviewed", "accept or correct its label map first")
        return self.store.of(id) / reviews[-1].labels

    # -- files -------------------------------------------------------------------------
    def _labels(
        self, job: Job, decision: Decision, upload: Upload
    ) -> tuple[str | None, str | None]:
        """Name and hash of the label map of a review, which is on the disk then."""
        model = self._model(job)
        if decision is Decision.REJECT or model is None or not model.labels:
            if upload.parts:
                raise _invalid("results of this model have no label map to correct")
            return None, None
        require_space(self.desk.folders.root, self.desk.limits.reserve, job.size)
        with _problems(), self.reader.scratch() as out:
            self._write(job, model, upload, out)
            return self._moved(job, out)

    def _write(self, job: Job, model: ModelView, upload: Upload, out: Path) -> None:
        """Write images and label map into `out`."""
        result = self.desk.result(job, name_of_labels())
        labels = upload.parts[0].path if upload.parts else result
        self.reader.read(
            self._sent(job),
            out,
            reference=result,
            labels=labels,
            declared=model.labels,
            background=model.background,
        )

    def _moved(self, job: Job, out: Path) -> tuple[str, str]:
        """Move what was written to where it stays."""
        folder = self.store.of(job.id)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"labels-{token_hex(8)}{ENDING}"
        (out / f"labels{ENDING}").rename(folder / name)
        for image in out.glob(f"image_*{ENDING}"):
            image.replace(folder / image.name)
        sync_folder(folder)
        return name, file_hash(folder / name)

    def _model(self, job: Job) -> ModelView | None:
        models = self.desk.models
        return next((each for each in models if each.name == job.model), None)

    def _sent(self, job: Job) -> Sent:
        model = self._model(job)
        if model is None:
            raise ProblemError("no-such-model", "the model is not served any more")
        words = (*model.channels, *model.labels, *model.classes)
        return Sent(job.id, model.channels, words, job.series)


@contextmanager
def _problems() -> Iterator[None]:
    """What is said where a scan or a label map cannot be read or stored."""
    try:
        yield
    except DataError as error:
        raise _invalid(str(error)) from error
    except BusyError as error:
        raise ProblemError("queue-full", str(error)) from error
    except FileNotFoundError as error:
        raise ProblemError("expired", "send the scan again") from error
    except (OSError, ResourceError) as error:
        raise no_space() from error


def _decision(upload: Upload) -> Decision:
    given = upload.fields.get("decision", "")
    if given not in ASKED:
        raise _invalid(f"decision is one of {', '.join(ASKED)}")
    return Decision(given)


def _text(upload: Upload, name: str, longest: int, *, required: bool = False) -> str:
    text = " ".join(upload.fields.get(name, "").split())
    if required and not text:
        raise _invalid(f"{name} is missing")
    if len(text) > longest or not text.isprintable():
        raise _invalid(f"{name} is a line of at most {longest} characters")
    return text


def _invalid(detail: str) -> ProblemError:
    return ProblemError("invalid-request", detail)
