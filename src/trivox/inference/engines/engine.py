"""What sliding windows ask of whatever computes a network."""

from typing import Protocol

import torch
from torch import Tensor, nn

from trivox.errors import BundleError


class Engine(Protocol):
    """One network made ready to compute."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""

    @property
    def device(self) -> torch.device:
        """Where it wants its windows, and leaves its logits."""

    @property
    def precision(self) -> str:
        """What it computes in, for the record: "fp32", "bf16", "fp16", "int8"."""

    @property
    def voxels_a_batch(self) -> int:
        """Patch voxels that it computes best at once."""

    def logits(self, windows: Tensor) -> Tensor:
        """Logits `(b, outputs, z, y, x)` of windows `(b, c, z, y, x)` on its device, in
        any floating type.
        """

    def split(self) -> "Split | None":
        """The same without the last layer, so that it gives features, and that layer,
        a convolution of 1x1x1; None where it does not come apart.
        """


Split = tuple[Engine, nn.Conv3d]
"""An engine of features, and the layer that makes logits of them."""


def require_finite(outputs: Tensor) -> None:
    """Raise `BundleError` if what networks gave holds NaN or infinity: such voxels have
    no largest class, and would pass for background.
    """
    # one number to wait for, whatever the size
    if not outputs.sum(dtype=torch.float32).isfinite():
        raise BundleError(
            "the network gives NaN or infinity for this case, no answer; try "
            "--precision fp32, and if that does not help train the model again"
        )
