"""What a drawn case of each kind costs, and the textures against blurring white noise.

Ours: `Grid.smooth_noise`, coarse knots and three small matrix products. Theirs: white
noise in every voxel and scipy's `gaussian_filter` at the same width, scaled to unit
variance. They agree in distribution: standard deviation and correlation of neighbours.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from _measure import arguments, race, timed
from trivox.datasets.phantoms.abdomens import PancreasPhantomSettings, pancreas_phantom
from trivox.datasets.phantoms.brains import BrainPhantomSettings, brain_phantom
from trivox.datasets.phantoms.ellipsoids import Grid, PhantomSettings, phantom_case
from trivox.datasets.phantoms.thoraxes import ThoraxSettings, thorax_phantom

WIDTH = 12.0
"""Voxels of 1 mm; correlation length of the field."""


def compare_textures(size: int, rounds: int) -> None:
    shape = (size, size, size)
    grid = Grid.of(shape, (1.0, 1.0, 1.0))

    def ours() -> np.ndarray:
        return grid.smooth_noise(np.random.default_rng(0), WIDTH)

    def theirs() -> np.ndarray:
        white = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        field = gaussian_filter(white, WIDTH / 2, mode="wrap")
        return field / field.std()

    result = race(ours, theirs, rounds=rounds)
    texts = [described(field) for field in (result.our_result, result.their_result)]
    result.show(f"texture of {WIDTH:g} mm in {size}^3", " and ".join(texts))


def described(field: np.ndarray) -> str:
    """Standard deviation, and how neighbours in a row agree."""
    correlation = np.corrcoef(field[..., 1:].ravel(), field[..., :-1].ravel())[0, 1]
    return f"std {field.std():.2f} neighbours {correlation:.3f}"


def show_cost(name: str, draw: Callable[[], Any]) -> None:
    draw()
    cost, _ = timed(draw)
    print(f"{name}: {1000 * cost.cpu:.0f} CPU-ms", flush=True)


def main() -> None:
    quick = arguments(__doc__).quick
    compare_textures(64 if quick else 128, rounds=2 if quick else 4)
    ellipsoids = PhantomSettings(shape=(64, 64, 64))
    show_cost("ellipsoids 64^3", lambda: phantom_case(ellipsoids, 0))
    abdomens = PancreasPhantomSettings()
    show_cost("abdomen 32x80x96", lambda: pancreas_phantom(abdomens, 0))
    brains = BrainPhantomSettings()
    show_cost("brain 48x60x52", lambda: brain_phantom(brains, 0))
    thoraxes = ThoraxSettings(size=64)
    show_cost("chest 64^3", lambda: thorax_phantom(thoraxes, 0))


if __name__ == "__main__":
    main()
