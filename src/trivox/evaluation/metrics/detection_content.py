"""The section `detection` of metrics.json, as types; see `content`."""

from typing import Annotated

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from trivox.evaluation.metrics.class_content import ShareScore
from trivox.evaluation.metrics.numbers import Count, Number, Share


class DetectionCase(TypedDict):
    """Candidates of a case by their likelihoods.

    likelihood: that the case has a lesion; lesions: how many it has; hits: of lesions
    that were found; false: of candidates where none is; second: of further candidates
    on a lesion that another one was counted for.
    """

    likelihood: Share
    lesions: Count
    hits: list[Share]
    false: list[Share]
    second: list[Share]


Rate = Annotated[str, Field(pattern=r"^\d+(\.\d+)?$")]
"""False positives a case."""


class DetectionSummary(TypedDict):
    """Scores over all cases; sensitivity: by false positives a case."""

    cases: Count
    with_lesion: Count
    lesions: Count
    ap: ShareScore
    auroc: ShareScore
    sensitivity: dict[Rate, ShareScore]


class FrocCurve(TypedDict):
    """Candidates from a likelihood on: false ones a case, and the share of lesions that
    were found; one value a likelihood, descending.
    """

    likelihood: list[Share]
    false_positives: list[Number]
    sensitivity: list[Share]


class DetectionSection(TypedDict):
    """How well lesions are found, and cases that have some."""

    convention: dict[str, str]
    lesion: list[str]
    cases: dict[str, DetectionCase]
    summary: DetectionSummary
    curve: FrocCurve


def _agreeing(section: DetectionSection) -> DetectionSection:
    """Cases whose likelihood is that of their most likely candidate."""
    for name, case in section["cases"].items():
        candidates = [*case["hits"], *case["false"], *case["second"]]
        if case["likelihood"] != max(candidates, default=0.0):
            raise ValueError(
                f"cases: {name:.60}: likelihood: is not the largest of its candidates"
            )
        if not len(case["hits"]) <= case["lesions"]:
            raise ValueError(f"cases: {name:.60}: hits: are more than lesions")
    counts = [case["lesions"] for case in section["cases"].values()]
    summary = section["summary"]
    said = (summary["cases"], summary["with_lesion"], summary["lesions"])
    if said != (len(counts), sum(count > 0 for count in counts), sum(counts)):
        raise ValueError("summary: cases or lesions: are not those that are listed")
    curve = section["curve"]
    points = len(curve["likelihood"])
    if {len(curve["false_positives"]), len(curve["sensitivity"])} != {points}:
        raise ValueError("curve: has not as many values in each column")
    return section


CheckedDetection = Annotated[DetectionSection, AfterValidator(_agreeing)]
"""The section, whose parts agree with each other."""
