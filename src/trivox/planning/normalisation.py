"""How channels are normalised, by their names."""

from trivox.planning.fingerprint import Fingerprint
from trivox.planning.plan import Normalisation


def normalisation(
    channel: str, fingerprint: Fingerprint, *, masked: bool | None = None
) -> Normalisation:
    """The scheme for a channel name, as nnU-Net chooses it: 'ct', 'nonorm',
    'rescale_0_1', 'rgb_to_0_1', else z-score.

    masked: z-score inside the non-zero mask; None: where cropping took away more than a
    quarter.
    """
    name = channel.casefold().replace("-", "_").replace("_to_", "_")
    if name == "ct":
        values = fingerprint.intensities[channel]
        return Normalisation(
            scheme="ct",
            mean=values.mean,
            std=max(values.std, 1e-8),
            low=values.percentile_00_5,
            high=values.percentile_99_5,
        )
    if name in {"nonorm", "none"}:
        return Normalisation(scheme="none")
    if name == "rescale_0_1":
        return Normalisation(scheme="rescale-0-1")
    if name == "rgb_0_1":
        return Normalisation(scheme="rgb-0-1")
    if masked is None:
        masked = fingerprint.relative_size < 3 / 4
    return Normalisation(scheme="z-score", masked=masked)
