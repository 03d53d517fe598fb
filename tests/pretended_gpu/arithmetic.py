"""Steps without their arithmetic: memory and dtypes are those of the real step, all
values are zero. Convolutions in fp16 alone would take a CPU minutes.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
HEAVY = {
    aten.convolution.default,
    aten.convolution_backward.default,
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
}


def described(tensor):
    """Shape, strides and dtype, without values."""
    return torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta"
    )


def tensors_of(arguments):
    """Those among the arguments of an operator."""
    return [each for each in arguments if isinstance(each, torch.Tensor)]


class WithoutArithmetic(TorchDispatchMode):
    """Convolutions and matrix products give zeros."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        if function not in HEAVY:
            return function(*arguments, **options)
        (device,) = {tensor.device for tensor in tensors_of(arguments)}  # never mixed
        results = function(
            *tree_map_only(torch.Tensor, described, arguments), **options
        )
        return tree_map_only(
            torch.Tensor,
            lambda result: torch.empty_strided(
                result.shape, result.stride(), dtype=result.dtype, device=device
            ).zero_(),
            results,
        )
