"""Values as bytes, for another rank: plain ones, arrays, and those of classes that the
receiver names. Nothing in them is executed, and no number is rounded.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from safetensors.torch import load, save
from torch import Tensor

Kinds = Sequence[type]
"""Dataclasses and models that may come in a parcel."""
SKELETON = "skeleton"
PLAIN = (bool, int, float, str)


def packed(value: object) -> bytes:
    """A value as bytes; raises `TypeError` for what is no plain value, array, path,
    dataclass or model.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_flat(value, tensors))
    tensors[SKELETON] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    return save(tensors)


def unpacked(content: bytes, kinds: Kinds) -> Any:
    """The value that was packed; raises `TypeError` for one of another class than
    `kinds`.
    """
    tensors = load(content)
    text = tensors.pop(SKELETON).numpy().tobytes()
    known = {kind.__name__: kind for kind in kinds}
    return _whole(json.loads(text), tensors, known)


def _flat(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What JSON can say of a value; arrays go to `tensors`."""
    if value is None or isinstance(value, PLAIN):
        return value
    if isinstance(value, list):
        return [_flat(each, tensors) for each in value]
    return {_kind(value): _content(value, tensors)}


def _kind(value: Any) -> str:
    for kind in (tuple, Path, Mapping, np.ndarray, np.generic, Tensor):
        if isinstance(value, kind):
            return str(kind.__name__)
    return type(value).__name__


def _content(value: Any, tensors: dict[str, Tensor]) -> Any:
    match value:
        case Path():
            return str(value)
        case np.generic():
            return value.item()
        case tuple():
            return [_flat(each, tensors) for each in value]
        case Mapping():
            pairs = list(value.items())
            return _flat(pairs, tensors)
        case np.ndarray():
            return _content(torch.from_numpy(value), tensors)
        case Tensor():
            name = str(len(tensors))
            tensors[name] = value.detach().cpu().clone().contiguous()
            return name
        case BaseModel():
            return value.model_dump(mode="json")
    if not is_dataclass(value):
        raise TypeError(f"a {type(value).__name__} cannot be sent to another rank")
    return {
        field.name: _flat(getattr(value, field.name), tensors)
        for field in fields(value)
    }


def _whole(
    flat: Any, tensors: Mapping[str, Tensor], known: Mapping[str, type[Any]]
) -> Any:
    """The value that was made flat."""
    if isinstance(flat, list):
        return [_whole(each, tensors, known) for each in flat]
    if not isinstance(flat, dict):
        return flat
    ((kind, content),) = flat.items()
    match kind:
        case "Path":
            return Path(content)
        case "generic":
            return content
        case "tuple":
            return tuple(_whole(content, tensors, known))
        case "Mapping":
            return dict(_whole(content, tensors, known))
        case "ndarray":
            return tensors[content].numpy()
        case "Tensor":
            return tensors[content]
    return _of_class(kind, content, tensors, known)


def _of_class(
    kind: str,
    content: Any,
    tensors: Mapping[str, Tensor],
    known: Mapping[str, type[Any]],
) -> Any:
    if kind not in known:
        raise TypeError(f"a {kind} came from another rank, which is not expected")
    wanted = known[kind]
    if issubclass(wanted, BaseModel):
        return wanted.model_validate(content)
    values = {name: _whole(each, tensors, known) for name, each in content.items()}
    return wanted(**values)
