"""Quantum noise of an X-ray detector."""

import torch
from torch import Generator, Tensor


def add_noise(
    images: Tensor, photons: float | Tensor, *, generator: Generator | None = None
) -> Tensor:
    """Line integrals, any shape, as counted with so many photons a pixel where nothing
    is in the way.

    `-log(max(1, N) / photons)` with `N ~ Poisson(photons * exp(-line integral))`: a
    pixel that no photon reached counts as one, so that the result is finite and at most
    `log(photons)`. photons may be a tensor that broadcasts, as `(b, 1, 1, 1)`; 1e5 is a
    chest film, 1e4 a low dose. Without gradient.
    """
    if not isinstance(photons, Tensor):
        photons = images.new_full((), photons)
    expected = photons.to(images) * torch.exp(-images.detach())
    if images.device.type == "mps":  # which has no kernel for it
        counts = torch.poisson(expected.cpu(), generator=generator).to(images)
    else:
        counts = torch.poisson(expected, generator=generator)
    return torch.log(photons.to(images) / counts.clamp(min=1))
