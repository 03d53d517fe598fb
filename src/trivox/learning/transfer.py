"""Starting from weights that another network learnt: matched by name and shape, resized
where the response stays the same.

Two differences are bridged, each so that an input which does not vary along them gives
the response it gave before:

- input channels of a convolution of the image: every new channel gets the mean over the
  old ones, scaled by old / new, so
  that an image with equal channels is answered alike whatever their number;
- odd kernel sizes: 1x3x3 becomes 3x3x3 by zeros around it (the very same function;
  Carreira & Zisserman 2017 spread the
  weights instead, which changes it at borders), 3x3x3 becomes 1x3x3 by summing the taps (an input constant along z).
  A transposed convolution whose kernel is its stride repeats its taps, or averages them.

Everything else of another shape is skipped, heads for other classes among it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trivox.errors import BundleError
from trivox.learning.checkpoints import load_weights

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

    def lines(self) -> list[str]:
        """A summary for the log: the counts, then the names of what did not fit."""
        parts = {
            "loaded": self.loaded,
            "resized": self.resized,
            "skipped": self.skipped,
            "missing": self.missing,
        }
        counts = ", ".join(
            f"{len(part.names)} {name}"
            + (f" ({_count(part.parameters)})" if part.names else "")
            for name, part in parts.items()
        )
        lines = [
            f"pretrained: {self.share:.1%} of the network's parameters; tensors: {counts}"
        ]
        lines += [
            f"  {name}: {_some(part.names)}"
            for name, part in parts.items()
            if part.names and name != "loaded"
        ]
        return lines

    def to_json(self) -> dict[str, Any]:
        """Counts and names of each part."""
        parts = {
            "loaded": self.loaded,
            "resized": self.resized,
            "skipped": self.skipped,
            "missing": self.missing,
        }
        content = {
            name: {
                "tensors": len(part.names),
                "parameters": part.parameters,
                "names": list(part.names),
            }
            for name, part in parts.items()
        }
        return {"share": self.share, **content}


@torch.no_grad()
def load_pretrained(network: nn.Module, path: Path, *, channels: int) -> TransferReport:
    """Put the weights of a safetensors file into `network` where they fit; the rest
    keeps its values.

    channels: of the images that the network reads. Raises `BundleError` if the file
    cannot be read or nothing fits.
    """
    own = (
        network.state_dict()
    )  # the values of a state dict are the network's own memory
    given = _named_like(load_weights(path), own)
    loaded: list[str] = []
    resized: list[str] = []
    for name in own.keys() & given.keys():
        value = _fitting(given[name], own[name], _owner(network, name), channels)
        if value is not None:
            own[name].copy_(value)
            (loaded if given[name].shape == own[name].shape else resized).append(name)
    taken = {*loaded, *resized}
    report = TransferReport(
        loaded=Tensors.of(sorted(loaded), own),
        resized=Tensors.of(sorted(resized), own),
        skipped=Tensors.of((name for name in given if name not in taken), given),
        missing=Tensors.of((name for name in own if name not in taken), own),
    )
    if not taken:
        raise BundleError(
            f"{path}: none of its {len(given)} tensors fits this network (it has {_some(tuple(given))}, needed are "
            f"{_some(tuple(own))}); choose the --network that it was trained with"
        )
    return report


def _named_like(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Names with or without the part that a class head beside the segmenter brings, as
    the network has them.
    """
    inner = "segmenter."
    has, wants = (
        any(name.startswith(inner) for name in names) for names in (given, own)
    )
    if has == wants:
        return dict(given)
    return {
        name.removeprefix(inner) if has else inner + name: value
        for name, value in given.items()
    }


def _owner(network: nn.Module, name: str) -> nn.Module:
    """The module that holds a parameter."""
    return network.get_submodule(name.rpartition(".")[0])


def _fitting(
    given: Tensor, own: Tensor, module: nn.Module, channels: int
) -> Tensor | None:
    """`given` in the shape of `own`, or None if there is no way that keeps the
    response.
    """
    if given.shape == own.shape:
        return given
    if (
        not isinstance(module, nn.Conv3d | nn.ConvTranspose3d)
        or not given.ndim == own.ndim == 5
    ):
        return None
    given = given.float()  # (o, i, z, y, x); transposed: (i, o, z, y, x)
    if (
        isinstance(module, nn.Conv3d)
        and module.groups == 1
        and own.shape[1] == channels
    ):
        given = resize_channels(given, channels)
    if given.shape[:2] != own.shape[:2]:
        return None
    resize = resize_kernel
    if isinstance(module, nn.ConvTranspose3d):
        if module.kernel_size != module.stride:
            return None
        resize = resize_upsampling
    for axis, size in enumerate(own.shape[2:], start=2):
        if given.shape[axis] != size:
            resized = resize(given, axis, size)
            if resized is None:
                return None
            given = resized
    return given


def resize_channels(weight: Tensor, channels: int) -> Tensor:
    """Weights `(o, i, z, y, x)` for `channels` inputs; an image with equal channels
    gives the response it gave before.
    """
    if weight.shape[1] == channels:
        return weight
    return (weight.sum(1, keepdim=True) / channels).expand(-1, channels, -1, -1, -1)


def resize_kernel(weight: Tensor, axis: int, size: int) -> Tensor | None:
    """An odd kernel made longer by zeros around it, or shorter by adding the outer taps
    to the outermost that stay.
    """
    old = weight.shape[axis]
    if old % 2 == 0 or size % 2 == 0:  # an even kernel has no centre to keep
        return None
    margin = abs(old - size) // 2
    if size > old:
        shape = list(weight.shape)
        shape[axis] = size
        grown = weight.new_zeros(shape)
        grown.narrow(axis, margin, old).copy_(weight)
        return grown
    kept = weight.narrow(axis, margin, size).clone()
    kept.narrow(axis, 0, 1).add_(weight.narrow(axis, 0, margin).sum(axis, keepdim=True))
    kept.narrow(axis, size - 1, 1).add_(
        weight.narrow(axis, margin + size, margin).sum(axis, keepdim=True)
    )
    return kept


def resize_upsampling(weight: Tensor, axis: int, size: int) -> Tensor | None:
    """Taps of a transposed convolution whose kernel is its stride: one tap repeated, or
    all averaged into one.
    """
    old = weight.shape[axis]
    if old == 1:
        return weight.repeat_interleave(size, dim=axis)
    return weight.mean(axis, keepdim=True) if size == 1 else None


def _count(parameters: int) -> str:
    return (
        f"{parameters / 1e6:.2f} M parameters"
        if parameters >= 10_000
        else f"{parameters} parameters"
    )


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
