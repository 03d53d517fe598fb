"""What clients are told of reviews and images."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from trivox.service.serve.api.reviews import LONGEST_NAME, LONGEST_NOTE
from trivox.service.serve.api.schemas import moment
from trivox.service.serve.review.store import Decision, Review

FIELDS = ("decision", "who", "note")
LABEL_MAP = {
    "type": "string",
    "format": "binary",
    "minLength": 1,
    "description": "the whole corrected label map as NIfTI",
}


def _form(decisions: Sequence[Decision], **more: Any) -> dict[str, Any]:
    """What is sent for these decisions. more: fields that they need."""
    fields = {
        "decision": {"type": "string", "enum": [each.value for each in decisions]},
        "who": {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME},
        "note": {"type": "string", "maxLength": LONGEST_NOTE},
        **more,
    }
    return {
        "type": "object",
        "properties": fields,
        "required": ["decision", "who", *more],
        "additionalProperties": False,
    }


FORM: dict[str, Any] = {
    "oneOf": [
        _form((Decision.ACCEPT, Decision.REJECT)),
        _form((Decision.EDIT,), file=LABEL_MAP),
    ]
}
"""What is sent for a review."""


class ReviewView(BaseModel):
    """What somebody said of a result.

    number: grows with every review of the server; identity: of the model; who: as they
    call themselves; sha256: of the label map that was accepted or corrected.
    """

    number: int
    job: str
    model: str
    identity: str
    decision: Decision
    who: str
    note: str
    when: str
    sha256: str | None


class Origin(BaseModel):
    """Where a label map of reviewed cases is from; fields as of `ReviewView`."""

    job: str
    model: str
    identity: str
    decision: Decision
    who: str
    when: str
    sha256: str | None


class ReviewedModel(BaseModel):
    """The model whose results were reviewed."""

    name: str
    identity: str


class ProvenanceFile(BaseModel):
    """What provenance.json of reviewed cases says beside its task and version: who
    decided what of which model's results, and when.
    """

    trivox_version: str
    notice: str
    model: ReviewedModel
    cases: dict[str, Origin]


class History(BaseModel):
    """All that was said of a job's result, the newest last: that one counts."""

    job: str
    reviews: list[ReviewView]


class ReviewList(BaseModel):
    """Of each job the review that counts, the newest first."""

    reviews: list[ReviewView]


def view_of_review(review: Review) -> ReviewView:
    """A review as its client sees it."""
    return ReviewView(
        number=review.number,
        job=review.job,
        model=review.model,
        identity=review.identity,
        decision=review.decision,
        who=review.who,
        note=review.note,
        when=moment(review.made) or "",
        sha256=review.sha256,
    )
