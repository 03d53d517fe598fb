"""Single operations, forward and backward, in the layouts and types that a step may use:
which is fastest decides how networks are built.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_parts.meters import kernel_seconds
from gpu_parts.record import Record, Row
from trivox.learning.losses.distance import boundary
from trivox.learning.losses.fused import dice_cross_entropy
from trivox.networks.depthwise import DepthwiseConv3d
from trivox.networks.layers import instance_norm
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.projector import Projector

LAYOUTS = {"NCDHW": torch.contiguous_format, "NDHWC": torch.channels_last_3d}
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
EPS = 1e-5
CLASSES = 4

Operation = Callable[[Tensor], Tensor]


def run(record: Record) -> None:
    """The full resolution of a U-Net, and its bottom."""
    fine, coarse = (2, 32, 128), (2, 320, 8)
    if record.pretended:
        fine, coarse = (2, 16, 8), (2, 16, 4)
    for batch, channels, edge in (fine, coarse):
        shape = (batch, channels, edge, edge, edge)
        _each(record, shape, _norms(channels))
        _each(record, shape, {"conv 3^3": _convolution(channels)})
        _each(record, shape, _depthwise(channels))
    batch, _, edge = fine
    _sums(record, (batch, CLASSES, edge, edge, edge))
    _projector(record, edge)


def _each(
    record: Record, shape: tuple[int, ...], operations: dict[str, Operation]
) -> None:
    """All of some operations in all layouts and types."""
    size = f"{shape[0]}x{shape[1]}x{shape[2]}^3"
    for what, operation in operations.items():
        for layout, memory_format in LAYOUTS.items():
            for kind, dtype in TYPES.items():
                work = partial(_both_ways, operation, shape, memory_format, dtype)
                record.measure(f"{what}, {size}, {layout}, {kind}", work)


def _both_ways(
    operation: Operation,
    shape: tuple[int, ...],
    layout: torch.memory_format,
    dtype: torch.dtype,
) -> Row:
    """Seconds of forward, and of forward and backward."""
    torch.manual_seed(0)
    x = torch.randn(shape, device="cuda", dtype=dtype).contiguous(memory_format=layout)
    x.requires_grad_()
    gradient = torch.randn_like(x)

    def forward() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=dtype != torch.float32):
            return operation(x)

    def both() -> None:
        x.grad = None
        out = forward()
        out.backward(gradient.to(out.dtype))

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    both()
    extra = torch.cuda.max_memory_allocated() - before
    return {
        "forward_seconds": kernel_seconds(forward),
        "both_seconds": kernel_seconds(both),
        "extra_bytes": extra,
    }


def _parameters(*shape: int) -> Tensor:
    return torch.full(shape, 0.1, device="cuda", requires_grad=True)


def _norms(channels: int) -> dict[str, Operation]:
    weight = _parameters(channels)
    bias = _parameters(channels)

    def group(x: Tensor) -> Tensor:
        return F.group_norm(x, channels, weight, bias, EPS)

    def instance(x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=weight, bias=bias, eps=EPS)

    def by_sample(x: Tensor, *, cudnn: bool) -> Tensor:
        samples = [
            torch.batch_norm(part, weight, bias, None, None, True, 0.0, EPS, cudnn)
            for part in x.split(1)
        ]
        return torch.cat(samples)

    def ours(x: Tensor) -> Tensor:
        return instance_norm(x, weight, bias, EPS)

    return {
        "group_norm": group,
        "instance_norm": instance,
        "batch_norm a sample": partial(by_sample, cudnn=False),
        "batch_norm a sample, cuDNN": partial(by_sample, cudnn=True),
        "trivox's norm": ours,
    }


def _convolution(channels: int) -> Operation:
    weight = _parameters(channels, channels, 3, 3, 3)

    def convolution(x: Tensor) -> Tensor:
        return F.conv3d(x, weight, padding=1)

    return convolution


def _depthwise(channels: int) -> dict[str, Operation]:
    weight = _parameters(channels, 1, 3, 3, 3)
    layer = DepthwiseConv3d(channels, (3, 3, 3)).cuda()

    def by_torch(x: Tensor) -> Tensor:
        return F.conv3d(x, weight, padding=1, groups=channels)

    return {"depthwise 3^3": by_torch, "trivox's depthwise 3^3": layer}


# -- sums into a few bins ----------------------------------------------------------------
def _sums(record: Record, shape: tuple[int, ...]) -> None:
    """Two ways to add up probabilities by class, and what contains them."""
    batch, classes, *edges = shape
    torch.manual_seed(0)
    values = torch.rand(batch, 1, *edges, device="cuda").flatten(2)
    index = torch.randint(0, classes, (batch, 1, *edges), device="cuda").flatten(2)
    labels = index.reshape(batch, *edges).to(torch.int16)
    logits = torch.randn(shape, device="cuda", requires_grad=True)

    def scattered() -> Tensor:
        bins = torch.zeros(batch, classes, device="cuda")
        return bins.scatter_add(1, index[:, 0], values[:, 0])

    def one_hot() -> Tensor:
        spread = values.new_zeros(batch, classes, values.shape[2])
        return spread.scatter_(1, index, values).sum(2)

    def masked() -> Tensor:
        bins = [(values * (index == which)).sum((1, 2)) for which in range(classes)]
        return torch.stack(bins, 1)

    def loss() -> None:
        dice_cross_entropy(logits, labels).backward()

    def surface() -> None:
        boundary(logits, labels).backward()

    size = "x".join(map(str, shape))
    work: dict[str, Callable[[], object]] = {
        "sums by scatter_add": scattered,
        "sums by a one-hot map": one_hot,
        "sums by masks": masked,
        "trivox's Dice + CE": loss,
        "trivox's boundary loss": surface,
    }
    for name, call in work.items():
        record.measure(f"{name}, {size}", partial(_seconds, call))


def _seconds(call: Callable[[], object]) -> Row:
    return {"both_seconds": kernel_seconds(call)}


def _projector(record: Record, edge: int) -> None:
    """Four X-rays of a volume, and their gradient."""
    grid = Grid((edge,) * 3, (320 / edge,) * 3)
    detector = (edge, edge)
    geometry = Geometry.orbit(
        [0, 45, 90, 135], detector=detector, pixel_mm=600.0 / edge
    )
    volume = torch.rand(1, edge, edge, edge, device="cuda", requires_grad=True)
    for method in ("joseph", "siddon"):

        def work(method: str = method) -> Row:
            projector = Projector(geometry.to(volume.device), grid, method=method)

            def both() -> None:
                volume.grad = None
                projector.project(volume).sum().backward()

            forward = kernel_seconds(lambda: projector.project(volume.detach()))
            return {"forward_seconds": forward, "both_seconds": kernel_seconds(both)}

        record.measure(f"projector {method}, {edge}^3, 4 views", work)
