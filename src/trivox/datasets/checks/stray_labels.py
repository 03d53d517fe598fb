"""Values that were found in label maps and are hardly a class: a few voxels in one case,
where other labels are everywhere.
"""

from collections.abc import Iterator, Sequence

from trivox.datasets.checks.examine import RARE_VOXELS, Examination
from trivox.datasets.checks.findings import Finding, error, warning
from trivox.datasets.dataset import Dataset
from trivox.datasets.labels import discovered_name

RARE = 0.1
"""Share of the cases that may have it."""
COMMON = 0.5
"""Share of the cases that have another label."""


def stray_labels(
    dataset: Dataset, examinations: Sequence[Examination]
) -> Iterator[Finding]:
    """A finding for each value that nobody declared and that is hardly a class; an
    error where it does not even follow the other values (255 after 1 and 2).
    """
    labels = dataset.labels
    if labels is None:
        return
    seen = [one for one in examinations if one.voxels]
    for name, value in labels.labels.items():
        having = [one for one in seen if value in one.voxels]
        if name != discovered_name(value) or not having or len(seen) < 3:
            continue
        few_cases = len(having) <= max(1, RARE * len(seen))
        few_voxels = all(one.voxels[value] <= RARE_VOXELS for one in having)
        if few_cases and few_voxels and _has_common_label(value, seen):
            yield _finding(value, having, len(seen), follows=value - 1 in labels.values)


def _has_common_label(value: int, seen: Sequence[Examination]) -> bool:
    """Whether another label than `value` and the background is in most cases."""
    others = {other for one in seen for other in one.voxels} - {0, value}
    counts = (sum(other in one.voxels for one in seen) for other in others)
    return max(counts, default=0) > COMMON * len(seen)


def _finding(
    value: int, having: Sequence[Examination], cases: int, *, follows: bool
) -> Finding:
    first = having[0]
    severity = warning if follows else error
    place = first.rare.get(value)
    where = f", the first at z, y, x = {place}" if place else ""
    return severity(
        "stray-label",
        first.case.name,
        f"value {value} is in {first.voxels[value]} voxels{where}, and in "
        f"{len(having)} of {cases} cases: hardly a class",
        "clean it, or declare the labels by names of their own (dataset.json or "
        "manifest.json) if it is one",
    )
