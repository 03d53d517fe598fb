"""Reviewed cases as a dataset for the next training: nnU-Net 2 raw data in a zip.

    dataset.json  provenance.json
    imagesTr/case-0123456789ab_0000.nii.gz   labelsTr/case-0123456789ab.nii.gz

Names are made of the random ids of jobs. Notes stay on the server: people write into
them what they like.
"""

import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from trivox.schema import stamped
from trivox.service.serve.api.limits import no_space, require_space
from trivox.service.serve.api.problems import ProblemError
from trivox.service.serve.api.review_schemas import (
    Origin,
    ProvenanceFile,
    ReviewedModel,
    view_of_review,
)
from trivox.service.serve.api.reviews import ReviewDesk
from trivox.service.serve.api.schemas import ModelView
from trivox.service.serve.review.store import Decision, Review
from trivox.version import NOTICE, __version__

MOST = 100_000
ENDING = ".nii.gz"
ID_LETTERS = 12


@dataclass(frozen=True)
class Made:
    """A folder that was made for one answer."""

    path: Path

    def remove(self) -> None:
        """It was sent."""
        shutil.rmtree(self.path, ignore_errors=True)


def write_corrections(
    reviews: ReviewDesk, client: str, name: str, *, accepted: bool
) -> tuple[Made, Path]:
    """Write the dataset of a model; returns the folder to remove, and the zip in it.

    Raises `ProblemError` where there are no cases or no labels.
    """
    desk = reviews.desk
    model = desk.model(name)
    if not model.labels:
        raise ProblemError("invalid-request", "the model gives no label maps")
    wanted = {Decision.EDIT, Decision.ACCEPT} if accepted else {Decision.EDIT}
    newest = reviews.store.newest(client, MOST, name)
    cases = [each for each in newest if each.decision in wanted and each.labels]
    if not cases:
        raise ProblemError("not-reviewed", "accept or correct results of it first")
    files = dict(_files(reviews, cases))
    size = sum(file.stat().st_size for file in files.values())
    require_space(desk.folders.root, desk.limits.reserve, size)
    folder = Made(desk.folders.uploads / token_hex(16))
    try:
        folder.path.mkdir()
        zipped = folder.path / f"{name}-reviewed.zip"
        texts = {
            "dataset.json": _description(model, len(cases)),
            "provenance.json": _provenance(model, cases),
        }
        _write_zip(zipped, files, texts)
    except OSError as error:
        folder.remove()
        raise no_space() from error
    return folder, zipped


def case_name(job: str) -> str:
    """What a case is called."""
    return f"case-{job[:ID_LETTERS]}"


def _files(reviews: ReviewDesk, cases: Sequence[Review]) -> Iterator[tuple[str, Path]]:
    """The files of all cases by their place in the zip."""
    for review in cases:
        name = case_name(review.job)
        folder = reviews.store.of(review.job)
        yield f"labelsTr/{name}{ENDING}", folder / str(review.labels)
        for image in sorted(folder.glob(f"image_*{ENDING}")):
            number = image.name.removeprefix("image_")
            yield f"imagesTr/{name}_{number}", image


def _description(model: ModelView, cases: int) -> dict[str, Any]:
    names = {str(number): name for number, name in enumerate(model.channels)}
    return {
        "channel_names": names,
        "labels": {"background": model.background, **model.labels},
        "numTraining": cases,
        "file_ending": ENDING,
        "name": f"{model.name}-reviewed",
    }


def _provenance(model: ModelView, cases: Sequence[Review]) -> dict[str, Any]:
    content = ProvenanceFile(
        trivox_version=__version__,
        notice=NOTICE,
        model=ReviewedModel(name=model.name, identity=model.identity),
        cases={case_name(each.job): _origin(each) for each in cases},
    )
    return stamped(content.model_dump(mode="json"), model.task)


def _origin(review: Review) -> Origin:
    return Origin.model_validate(view_of_review(review), from_attributes=True)


def _write_zip(
    target: Path, files: dict[str, Path], texts: dict[str, dict[str, Any]]
) -> None:
    """Files as they are (they are compressed), and texts as JSON."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in texts.items():
            archive.writestr(name, json.dumps(content, indent=2) + "\n")
        for name, file in files.items():
            archive.write(file, name)
