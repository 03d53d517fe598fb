"""The page's modules, called from Python through node."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import trivox.exporting.web as room

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")
PAGE = Path(room.__file__).parent / "page"
BRIDGE = Path(__file__).with_name("page_bridge.mjs")
TYPES = {
    "f4": "Float32Array",
    "f8": "Float64Array",
    "i1": "Int8Array",
    "i2": "Int16Array",
    "i4": "Int32Array",
    "u1": "Uint8Array",
    "u2": "Uint16Array",
    "u4": "Uint32Array",
}
DTYPES = {name: code for code, name in TYPES.items()}


class PageError(Exception):
    """What a module of the page threw; `kind` is "Problem" for what people read."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


def run(*calls):
    """Results of calls in order; an error comes as a `PageError` in its place."""
    text = json.dumps([packed(call) for call in calls])
    done = subprocess.run(
        [NODE, str(BRIDGE), str(PAGE)],
        input=text,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [outcome(each) for each in json.loads(done.stdout)]


def only(call, **options):
    """The result of one call; raises its error."""
    (result,) = run({"call": call, **options})
    if isinstance(result, PageError):
        raise result
    return result


def outcome(answer):
    if "error" in answer:
        return PageError(answer["kind"], answer["error"])
    return unpacked(answer["result"])


def packed(value):
    if isinstance(value, np.ndarray):
        code = value.dtype.str[1:]
        data = base64.b64encode(np.ascontiguousarray(value).tobytes())
        return {"type": TYPES[code], "base64": data.decode()}
    if isinstance(value, dict):
        return {key: packed(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [packed(each) for each in value]
    return value


def unpacked(value):
    if isinstance(value, list):
        return [unpacked(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "base64" in value:
        data = base64.b64decode(value["base64"])
        return np.frombuffer(data, DTYPES[value["type"]])
    return {key: unpacked(each) for key, each in value.items()}


def of_page(volume):
    """A `Volume` as the page has it."""
    channels = [each.astype(np.float32).reshape(-1) for each in volume.array]
    return {
        "channels": channels,
        "shape": list(volume.shape),
        "affine": volume.affine.tolist(),
        "unitMm": volume.unit_mm,
        "remarks": [],
    }
