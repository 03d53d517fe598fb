"""A model repository for Triton: networks that batch windows of all who ask, and a model
that makes label maps of whole scans inside the server.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trivox.exporting.card import CARD, ExportCard, Pipeline, Runtime
from trivox.exporting.programs import PROGRAM, STANDALONE, rendered
from trivox.files import write_text
from trivox.planning.plan import Plan

MODELS = "models"
VERSION = "1"
DELAY = 5000
"""Microseconds for which windows are gathered."""
ROOM_GIB = 8
MOST_AT_ONCE = 8
"""Windows; more bring no speed with these networks."""
BACKENDS: Mapping[str, str] = {"onnx": "onnxruntime", "openvino": "openvino"}
SUFFIXES: Mapping[str, str] = {"onnx": "", "openvino": "-openvino"}
SPECIAL = re.compile(r"[^A-Za-z0-9_-]+")
"""What stands in no name of a served model: it is part of an address."""


def served_name(dataset: str) -> str:
    """The name of a model that was trained on a dataset."""
    return SPECIAL.sub("-", dataset).strip("-") or "model"


def network_folder(dataset: str, runtime: Runtime, number: int, count: int) -> str:
    """Where the file of a network lies in an export."""
    which = f"-{number}" if count > 1 else ""
    name = served_name(dataset) + which + SUFFIXES[runtime]
    return f"{MODELS}/{name}/{VERSION}"


Networks = Mapping[Runtime, Sequence[str]]
"""Files of the networks, for each runtime."""
Served = dict[str, tuple[str, ...]]


def served_models(plan: Plan, networks: Networks) -> Served:
    """Names of the models of a repository that holds these files."""
    served: Served = {"volume": (f"{served_name(plan.dataset)}-volume",)}
    for runtime, names in networks.items():
        folders = [Path(name).parents[1] for name in names]
        served[runtime] = tuple(folder.name for folder in folders)
    return served


def batches(plan: Plan) -> tuple[int, int, int]:
    """Fewest, usual and most windows at once: as many as keep below `ROOM_GIB`.

    What training keeps of a window for the way back is more than inference needs.
    """
    window = max(1, plan.memory.activations // plan.batch_size)
    most = max(1, min(MOST_AT_ONCE, ROOM_GIB * 2**30 // window))
    return 1, max(1, most // 2), most


def write_repository(
    folder: Path, card: ExportCard, _assets: Path | None = None
) -> None:
    """Write what a server needs beside the networks, and a client."""
    for runtime, names in card.served.items():
        if runtime in BACKENDS:
            for name in names:
                _write_network(folder / MODELS / name, card, runtime)
    _write_volume(folder, card)
    shutil.copyfile(STANDALONE / "client.py", folder / "client.py")


def _write_network(folder: Path, card: ExportCard, runtime: str) -> None:
    """Write how a network is served."""
    pipeline = card.pipeline
    fewest, usual, most = card.batches
    if runtime == "openvino":
        # on CPUs a batch is no faster than its windows one by one
        usual = most = fewest
    facts: dict[str, Any] = {
        "name": folder.name,
        "backend": BACKENDS[runtime],
        "precision": card.precision,
        "input": pipeline.input,
        "output": pipeline.output,
        "inputs": (len(pipeline.inputs), *pipeline.patch_size),
        "outputs": (pipeline.outputs, *pipeline.patch_size),
        "most": most,
        "preferred": sorted({usual, most}),
        "delay": DELAY,
        "room_gib": ROOM_GIB,
    }
    write_text(folder / "config.pbtxt", rendered("config.pbtxt.j2", facts))
    shutil.copyfile(STANDALONE / "triton_network.py", folder / VERSION / "model.py")


def _write_volume(folder: Path, card: ExportCard) -> None:
    """Write the model that takes whole scans."""
    (name,) = card.served["volume"]
    place = folder / MODELS / name
    (place / VERSION).mkdir(parents=True)
    networks = {runtime: card.served.get(runtime, ()) for runtime in BACKENDS}
    facts = {
        "name": name,
        "channels": len(card.pipeline.channels),
        "kind": kind_of(card.pipeline),
        "networks": networks[card.runtime],
        "other": networks["openvino"] if card.runtime == "onnx" else (),
        "in_flight": 2 * card.batches[2],
    }
    write_text(place / "config.pbtxt", rendered("volume.pbtxt.j2", facts))
    shutil.copyfile(STANDALONE / "triton_volume.py", place / VERSION / "model.py")
    for program in (*PROGRAM, CARD):
        shutil.copyfile(folder / program, place / VERSION / program)


def kind_of(pipeline: Pipeline) -> str:
    """What Triton calls the smallest type that holds the values of the labels."""
    kinds = [np.min_scalar_type(value) for value in pipeline.values]
    return f"TYPE_{np.result_type(*kinds).name.upper()}"
