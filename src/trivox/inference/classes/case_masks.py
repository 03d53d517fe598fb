"""The masks of a case that its class is read from."""

from trivox.datasets.labels import LabelScheme
from trivox.datasets.lesions import RIM_MM, other_targets
from trivox.inference.classes.lesion_masks import lesion_masks
from trivox.volumes.volume import Array, Spacing


def case_masks(
    indices: Array, scheme: LabelScheme, lesion: tuple[int, ...], spacing: Spacing
) -> dict[str, Array]:
    """Masks `(z, y, x)` of a label map of indices, see `lesion_masks`; spacing: mm (z,
    y, x).

    The lesion has the label indices `lesion`; its rim is 3 mm. Others are the targets
    of the scheme that are neither lesion nor the whole foreground, unless there are more
    than four.
    """
    others = other_targets(scheme, lesion)
    return lesion_masks(indices, lesion, others, spacing, rim_mm=RIM_MM)
