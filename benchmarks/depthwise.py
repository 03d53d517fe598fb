"""The lean blocks of the hybrid against a dense convolution block of equal FLOP, at
each stage's size; forward + backward.

Ours: depthwise separable and MBConv blocks as the hybrid has them, channels-last.
Theirs: one 3x3x3 convolution, norm and leaky ReLU with as many channels as cost the
same arithmetic. A second line for each stage shows torch's own depthwise convolution in
the default layout in our block: what the block would cost without the layout and the
backward pass of ours.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from _measure import arguments, line, race
from trivox.learning.runtime import make_runtime
from trivox.networks.depthwise import DepthwiseConv3d
from trivox.networks.efficient import DepthwiseSeparableConv3D, MBConvBlock
from trivox.networks.layers import ConvBlock

CUBE = (3, 3, 3)
STAGES = {
    "full resolution, separable": (
        lambda: DepthwiseSeparableConv3D(16, 16, CUBE),
        16,
        64,
    ),
    "1/2, MBConv at its own width": (
        lambda: MBConvBlock(32, CUBE, expansion=2, order="depthwise-first"),
        32,
        32,
    ),
    "1/4, MBConv": (lambda: MBConvBlock(64, CUBE, expansion=3), 64, 16),
    "1/8, MBConv": (lambda: MBConvBlock(96, CUBE, expansion=4), 96, 8),
}


class Plain(nn.Module):
    """A depthwise convolution by torch itself."""

    def __init__(self, layer: DepthwiseConv3d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        return nn.functional.conv3d(
            x, self.layer.weight, padding=self.layer.padding, groups=self.layer.groups
        )


def plain(block: nn.Module) -> nn.Module:
    """Exchange our depthwise convolutions for torch's."""
    for name, child in block.named_children():
        if isinstance(child, DepthwiseConv3d):
            setattr(block, name, Plain(child))
        else:
            plain(child)
    return block


def flop(block: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        block(x)
    return counter.get_total_flops()


def step(block: nn.Module, x: Tensor, runtime) -> None:
    x.grad = None
    block.zero_grad(set_to_none=True)
    with runtime.autocast():
        out = block(x)
    out.float().sum().backward()


def main() -> None:
    given = arguments(__doc__)
    for precision in ("fp32", "bf16"):
        runtime = make_runtime("cpu", precision)
        for name, (build, channels, size) in STAGES.items():
            size = size // 2 if given.quick else size
            x = torch.randn(1, channels, size, size, size)
            last = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_(
                True
            )
            ours = build()
            wanted = flop(ours, last)
            width = max(1, round((wanted / (2 * 27 * size**3)) ** 0.5))
            dense, wide = (
                ConvBlock(width, width, CUBE),
                torch.randn(1, width, *[size] * 3, requires_grad=True),
            )
            found = race(
                partial(step, ours, last, runtime),
                partial(step, dense, wide, runtime),
                rounds=5,
            )
            label = f"{name}, {channels} channels, {size}^3, {precision}; dense: {width} channels"
            found.show(
                label,
                f"{wanted / 1e9:.2f} and {flop(dense, wide) / 1e9:.2f} GFLOP forward",
            )
            slow = plain(build())
            other = race(
                partial(step, ours, last, runtime),
                partial(step, slow, x.requires_grad_(True), runtime),
            )
            line(
                f"  against torch's depthwise, {precision}",
                str(other.ours),
                str(other.theirs),
                other.theirs.cpu / other.ours.cpu,
                "the same block",
            )


if __name__ == "__main__":
    main()
