"""The GPUs that share the cases of a folder."""

import re
from collections.abc import Sequence
from typing import Any

from trivox.errors import RecipeError
from trivox.inference.many.predictors import CasePredictor
from trivox.learning.runtime import make_runtime

GPU = re.compile(r"(?:cuda:)?([0-9]+)|cuda")


def devices_of(names: str) -> list[str]:
    """The devices that `cuda:0,1` or `cuda:0,cuda:1` names; a single name as it is.

    Raises `RecipeError` for a list that holds anything but GPUs, or one of them twice,
    and `ResourceError` for one that is not here.
    """
    first, *more = (part.strip() for part in names.split(","))
    if not more:
        return [names]
    matches = [GPU.fullmatch(part) for part in (first, *more)]
    if None in matches or not first.startswith("cuda"):
        raise RecipeError(
            f"device '{names}' is no list of GPUs; name one device, or GPUs as in "
            "cuda:0,1"
        )
    numbers = [int(match[1] or 0) for match in matches if match is not None]
    twice = [number for number in numbers if numbers.count(number) > 1]
    if twice:
        raise RecipeError(
            f"device '{names}' names cuda:{twice[0]} twice; name each GPU once"
        )
    devices = [f"cuda:{number}" for number in numbers]
    for device in devices:
        make_runtime(device)
    return devices


def require_same(predictors: Sequence[CasePredictor[Any]]) -> None:
    """Raise `RecipeError` where a model would not predict alike on all of its GPUs."""
    first, *others = predictors
    for other in others:
        if other.about() != first.about():
            raise RecipeError(
                f"{first.device} and {other.device} differ in the precision that is "
                "fastest on them; name one with --precision"
            )
