"""How channels are normalised, by their names."""

from collections.abc import Sequence

from trivox.config.recipe import Recipe
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


SCHEMES = {
    "ct": "CT takes the foreground's statistics",
    "z-score": "z-score of each image",
    "none": "left as stored",
    "rescale-0-1": "each image from 0 to 1",
    "rgb-0-1": "divided by 255",
}


def normalisation_reason(
    chosen: Sequence[Normalisation], fingerprint: Fingerprint, recipe: Recipe
) -> str:
    """Why the channels are normalised so."""
    schemes = dict.fromkeys(channel.scheme for channel in chosen)
    reason = "by channel name: " + ", ".join(SCHEMES[scheme] for scheme in schemes)
    if "z-score" not in schemes:
        return reason
    if recipe.masked_normalisation is not None:
        where = "in the mask" if recipe.masked_normalisation else "over all voxels"
        return f"{reason}, {where} as the recipe says"
    share = f"cropping keeps {fingerprint.relative_size:.0%} of the voxels"
    where = "in the mask" if any(channel.masked for channel in chosen) else "everywhere"
    return f"{reason}, {where} since {share}"
