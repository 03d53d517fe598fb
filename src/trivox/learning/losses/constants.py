"""Small tensors that never change, on the device where they are used."""

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_PLACED: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def on_device(constant: Tensor, device: torch.device) -> Tensor:
    """`constant` on `device`, sent there once: sending it at every step would make the
    program wait for the device.
    """
    if constant.device == device:
        return constant
    placed: dict[torch.device, Tensor] = _PLACED.setdefault(constant, {})
    if device not in placed:
        placed[device] = constant.to(device)
    return placed[device]
