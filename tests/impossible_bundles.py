"""A `bundle.json` with one field set to what it cannot be."""

import copy
import json
import math

from trivox.errors import TrivoxError
from trivox.tasks.choice import task_of
from trivox.tasks.options import PredictOptions

VALUES = (0, -1, math.nan, math.inf, 1e308, "x", None, [], {})


def places(content, place=()):
    """Every field of a JSON object, and every entry of its lists."""
    if place:
        yield place
    parts = ()
    if isinstance(content, dict):
        parts = content.items()
    elif isinstance(content, list):
        parts = enumerate(content)
    for name, part in parts:
        yield from places(part, (*place, name))


def altered(content, place, value):
    """The content with another value at a place."""
    changed = copy.deepcopy(content)
    inner = changed
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return changed


def predicts_or_refuses(bundle, content, case):
    """Predict a case with a bundle that says `content`; what an error says, or None."""
    (bundle / "bundle.json").write_text(json.dumps(content))
    try:
        task = task_of(bundle)
        options = PredictOptions(device="cpu", precision="fp32")
        task.predictor([bundle], options).predict_case(case)
    except TrivoxError as refusal:
        return str(refusal)
    return None
