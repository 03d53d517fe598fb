"""Starting from weights that another network learnt: matched by name and shape, resized
where the response stays the same.

Two differences are bridged, each so that an input which does not vary along them gives
the response it gave before:

- input channels of a convolution of the image: every new channel gets the mean over the
  old ones, scaled by old / new, so that an image with equal channels is answered alike
  whatever their number;
- odd kernel sizes: 1x3x3 becomes 3x3x3 by zeros around it (the very same function;
  Carreira & Zisserman 2017 spread the weights instead, which changes it at borders),
  3x3x3 becomes 1x3x3 by summing the taps (an input constant along z). A transposed
  convolution whose kernel is its stride repeats its taps, or averages them.

Everything else of another shape is skipped, heads for other classes among it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from trivox.errors import BundleError, few
from trivox.learning.checkpoints import load_weights
from trivox.schema import Frozen

Resize = Callable[[Tensor, int, int], Tensor | None]
"""(weight, axis, size) -> the weight with that size along the axis, if it can have it.
"""

SHOWN = 4
"""Names in a line of the log; the run's `transfer.json` has all of them."""


@dataclass(frozen=True)
class Tensors:
    """Names of tensors and how many numbers they hold together."""

    names: tuple[str, ...]
    parameters: int

    @classmethod
    def of(cls, names: Iterable[str], tensors: Mapping[str, Tensor]) -> "Tensors":
        """The named ones of `tensors`."""
        chosen = tuple(names)
        return cls(chosen, sum(tensors[name].numel() for name in chosen))


class TransferredPart(Frozen):
    """How many tensors, of how many numbers, and their names."""

    tensors: int
    parameters: int
    names: tuple[str, ...]


class TransferFile(Frozen):
    """What transfer.json says beside its task and version: where the weights are from,
    the share of the network's parameters that came from there, and each part of
    `TransferReport`.
    """

    source: str
    share: float
    loaded: TransferredPart
    resized: TransferredPart
    skipped: TransferredPart
    missing: TransferredPart


@dataclass(frozen=True)
class TransferReport:
    """What became of the tensors of the file and of the network; each is in exactly one
    part of its side.

    The file's are loaded, resized or skipped (another shape, or unknown to the
    network). The network's are loaded, resized or missing (they keep the values they
    were initialised with).
    """

    loaded: Tensors
    resized: Tensors
    skipped: Tensors
    missing: Tensors

    @property
    def share(self) -> float:
        """Share of the network's parameters that came from the file."""
        taken = self.loaded.parameters + self.resized.parameters
        return taken / (taken + self.missing.parameters)

    def parts(self) -> dict[str, Tensors]:
        """The four parts by name."""
        return {
            "loaded": self.loaded,
            "resized": self.resized,
            "skipped": self.skipped,
            "missing": self.missing,
        }

    def lines(self) -> list[str]:
        """A summary for the log: the counts, then the names of what did not fit."""
        counts: list[str] = []
        names: list[str] = []
        for name, part in self.parts().items():
            size = f" ({_count(part.parameters)})" if part.names else ""
            counts.append(f"{len(part.names)} {name}{size}")
            if part.names and part is not self.loaded:
                names.append(f"  {name}: {few(part.names, shown=SHOWN)}")
        first = (
            f"pretrained: {self.share:.1%} of the network's parameters; "
            f"tensors: {', '.join(counts)}"
        )
        return [first, *names]

    def to_file(self, source: str) -> TransferFile:
        """What a file says of it; source: where the weights are from."""
        parts = {
            name: TransferredPart(
                tensors=len(part.names), parameters=part.parameters, names=part.names
            )
            for name, part in self.parts().items()
        }
        return TransferFile(source=source, share=self.share, **parts)


@torch.no_grad()
def load_pretrained(network: nn.Module, path: Path, *, channels: int) -> TransferReport:
    """Put the weights of a safetensors file into `network` where they fit; the rest
    keeps its values.

    channels: of the images that the network reads. Raises `BundleError` if the file
    cannot be read or nothing fits.
    """
    # the values of a state dict are the network's memory: copying into them loads
    needed = network.state_dict()
    given = _named_like(load_weights(path), needed)
    loaded: list[str] = []
    resized: list[str] = []
    for name in sorted(needed.keys() & given.keys()):
        module = network.get_submodule(name.rpartition(".")[0])
        value = _fitting(given[name], needed[name], module, channels)
        if value is not None:
            needed[name].copy_(value)
            same = given[name].shape == needed[name].shape
            (loaded if same else resized).append(name)
    taken = {*loaded, *resized}
    if not taken:
        raise BundleError(
            f"{path}: none of its {len(given)} tensors fits this network (it has "
            f"{few(given, shown=SHOWN)}, needed are {few(needed, shown=SHOWN)}); choose the "
            "--network that it was trained with"
        )
    return TransferReport(
        loaded=Tensors.of(loaded, needed),
        resized=Tensors.of(resized, needed),
        skipped=Tensors.of((name for name in given if name not in taken), given),
        missing=Tensors.of((name for name in needed if name not in taken), needed),
    )


def _named_like(
    given: Mapping[str, Tensor], needed: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Names with or without the part that a class head beside the segmenter brings, as
    the network has them.
    """
    inner = "segmenter."
    has = any(name.startswith(inner) for name in given)
    wants = any(name.startswith(inner) for name in needed)
    if has and not wants:
        return {name.removeprefix(inner): value for name, value in given.items()}
    if wants and not has:
        return {inner + name: value for name, value in given.items()}
    return dict(given)


def _fitting(
    given: Tensor, needed: Tensor, module: nn.Module, channels: int
) -> Tensor | None:
    """`given` in the shape of `needed`, or None if there is no way that keeps the
    response.
    """
    if given.shape == needed.shape:
        return given
    if not given.ndim == needed.ndim == 5:
        return None
    given = given.float()  # (o, i, z, y, x); transposed: (i, o, z, y, x)
    if isinstance(module, nn.Conv3d):
        if module.groups == 1 and needed.shape[1] == channels:
            given = resize_channels(given, channels)
        return _resized(given, needed, resize_kernel)
    if isinstance(module, nn.ConvTranspose3d) and module.kernel_size == module.stride:
        return _resized(given, needed, resize_upsampling)
    return None


def _resized(given: Tensor, needed: Tensor, resize: Resize) -> Tensor | None:
    """`given` with the kernel size of `needed`, one axis after the other."""
    if given.shape[:2] != needed.shape[:2]:
        return None
    result: Tensor | None = given
    for axis, size in enumerate(needed.shape[2:], start=2):
        if result is not None and result.shape[axis] != size:
            result = resize(result, axis, size)
    return result


def resize_channels(weight: Tensor, channels: int) -> Tensor:
    """Weights `(o, i, z, y, x)` for `channels` inputs; an image with equal channels
    gives the response it gave before.
    """
    if weight.shape[1] == channels:
        return weight
    return (weight.sum(1, keepdim=True) / channels).expand(-1, channels, -1, -1, -1)


def resize_kernel(weight: Tensor, axis: int, size: int) -> Tensor | None:
    """An odd kernel made longer by zeros around it, or shorter by adding the outer taps
    to the outermost that stay; None for an even one, which has no centre to keep.
    """
    old = weight.shape[axis]
    if old % 2 == 0 or size % 2 == 0:
        return None
    margin = abs(old - size) // 2
    if size > old:
        shape = list(weight.shape)
        shape[axis] = size
        grown = weight.new_zeros(shape)
        grown.narrow(axis, margin, old).copy_(weight)
        return grown
    shrunk = weight.narrow(axis, margin, size).clone()
    before = weight.narrow(axis, 0, margin).sum(axis, keepdim=True)
    after = weight.narrow(axis, margin + size, margin).sum(axis, keepdim=True)
    shrunk.narrow(axis, 0, 1).add_(before)
    shrunk.narrow(axis, size - 1, 1).add_(after)
    return shrunk


def resize_upsampling(weight: Tensor, axis: int, size: int) -> Tensor | None:
    """Taps of a transposed convolution whose kernel is its stride: one tap repeated, or
    all averaged into one; None between two larger sizes.
    """
    old = weight.shape[axis]
    if old == 1:
        return weight.repeat_interleave(size, dim=axis)
    return weight.mean(axis, keepdim=True) if size == 1 else None


def _count(parameters: int) -> str:
    if parameters < 10_000:
        return f"{parameters} parameters"
    return f"{parameters / 1e6:.2f} M parameters"
