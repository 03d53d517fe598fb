"""Read: the image of a case, all channels on one grid."""

from collections.abc import Sequence

from trivox.config.choices import MissingChannels
from trivox.datasets.dataset import Case
from trivox.datasets.reading import read_channels
from trivox.errors import DataError
from trivox.volumes.volume import Volume


def read_image(
    case: Case, channels: Sequence[str], *, missing: MissingChannels
) -> Volume:
    """The channels of a case as one volume, zeros for absent ones if asked for; errors
    name the case. The values of a single file stay as they are stored.
    """
    case.require_usable()
    if case.absent and missing == "refuse":
        names = ", ".join(channels[index] for index in case.absent)
        raise DataError(
            f"{case.name}: has no {names}; add the file, or predict with zeros in its "
            "place by --missing-channels zeros"
        )
    return read_channels(case, channels=len(channels), stored=True)
