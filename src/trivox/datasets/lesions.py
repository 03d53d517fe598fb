"""Which of the labels are the lesion that the class of a case is decided by."""

from collections.abc import Sequence

from trivox.datasets.labels import LabelScheme
from trivox.errors import RecipeError

WORDS = ("lesion", "tumour", "tumor", "cancer", "carcinoma", "nodule", "metasta", "cyst", "stroke", "haemorrhage")
"""Parts of names that lesions go by."""


def lesion_indices(labels: LabelScheme, wanted: Sequence[str] = ()) -> tuple[int, ...]:
    """Label indices of the lesion, ascending: those of the targets `wanted`, else found by name, else all foreground.

    Raises `RecipeError` for a name that no target has.
    """
    strange = [name for name in wanted if name not in labels.targets]
    if strange:
        raise RecipeError(
            f"recipe setting 'classification.lesion': {strange} are not among {', '.join(labels.targets)}"
        )
    names = wanted or [name for name in labels.targets if any(word in name.lower() for word in WORDS)]
    chosen = {index for name in names for index in labels.targets[name]}
    return tuple(sorted(chosen)) if chosen else tuple(range(1, len(labels.values)))
