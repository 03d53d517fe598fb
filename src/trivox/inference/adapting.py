"""What a case asks for beside its voxels: zeros for the channels it lacks, and label
maps in its own values.
"""

from collections.abc import Sequence

import numpy as np

from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.inference.bundle import Bundle
from trivox.volumes.volume import Volume


def about_absent(
    case: Case, channels: Sequence[str], bundles: Sequence[Bundle]
) -> list[str]:
    """A warning where channels are absent, which says whether the models were trained
    for that.
    """
    if not case.absent:
        return []
    recipes = [bundle.description.training.get("recipe") or {} for bundle in bundles]
    used = all(
        (recipe.get("augmentation") or {}).get("drop_channel", 0) > 0
        for recipe in recipes
    )
    doubt = (
        ""
        if used
        else "; the model was not trained for that (augmentation.drop_channel)"
    )
    return [
        f"no {', '.join(channels[index] for index in case.absent)}: predicted with zeros in its place{doubt}"
    ]


def in_values_of(
    case: Case, labels: Volume, scheme: LabelScheme
) -> tuple[Volume, list[str]]:
    """A label map of `scheme` in the case's own values, matched by label name, and a
    warning for names that it lacks.
    """
    own = case.labels
    if (
        own is None
        or own.labels == scheme.labels
        or not set(own.labels) & set(scheme.labels)
    ):
        return labels, []  # a model of other things keeps its own values
    table, lost = scheme.translation(own)
    gone = [name for name in lost if (labels.array == scheme.labels[name]).any()]
    note = [
        f"{', '.join(gone)} was found but does not exist in this case's labels; written as background"
    ]
    translated = table.astype(np.min_scalar_type(table.max()))[
        scheme.encode(labels.array)
    ]
    return labels.with_array(translated), note if gone else []
