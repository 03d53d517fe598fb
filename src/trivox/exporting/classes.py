"""The class of a case in an export: encoder and head of each network as a graph of
their own, its classifier as arrays, and what a program does around them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trivox.datasets.lesions import RIM_MM, other_targets
from trivox.errors import UsageError
from trivox.exporting.card import ClassNetwork, ClassSteps, Runtime
from trivox.exporting.networks import FORMATS
from trivox.files import atomic_path
from trivox.inference.bundle import LabelBundle
from trivox.inference.classes.reader import LIKELIEST, ClassReader, features_in_row
from trivox.inference.engines.graph import WINDOWS, exported
from trivox.inference.predictor import Predictor
from trivox.learning.case_classifier.classifier import CaseClassifier
from trivox.networks.class_head import MultitaskNetwork

MASKS = "masks"
CLASSES = "classes"
FEATURES = "features"
"""Names of what goes in beside windows, `(1, m, z, y, x)`, and of what comes out:
logits `(1, k)` and features `(1, f)`, all float32.
"""


class ReadWindow(nn.Module):
    """A window `(1, c, z, y, x)`, and masks `(1, m, z, y, x)` of lesion, organ and other
    targets in it -> logits of the classes `(1, k)`, features inside the masks `(1, f)`.
    """

    def __init__(self, network: MultitaskNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        around = self.network.masks.around(masks)
        logits, moments = self.network.pool(windows, around)
        return logits, features_in_row(moments)[None]


def require_image_alone(bundles: Sequence[LabelBundle]) -> None:
    """Raise `UsageError` for models whose class is also read from a table."""
    for bundle in bundles:
        answers = bundle.description.classification
        if answers is not None and answers.clinical:
            names = ", ".join(column.name for column in answers.clinical)
            raise UsageError(
                f"{bundle.folder}: reads clinical columns ({names}), of which an exported "
                "program has no table; train without --clinical to export it"
            )


def write_classes(
    predictor: Predictor, folder: Path, runtime: Runtime, precision: str
) -> ClassSteps | None:
    """Write what answers with the class of a case; returns what a program does with it,
    None for a model without classes.
    """
    readers = list(_readers(predictor))
    if not readers:
        return None
    networks = [
        _write_network(reader, folder, number, runtime, precision)
        for number, reader in enumerate(readers)
    ]
    first = readers[0]
    return ClassSteps(
        names=predictor.classes,
        lesion=first.lesion,
        others=other_targets(first.plan.labels, first.lesion),
        rim_mm=RIM_MM,
        outputs=first.network.masks.lesion,
        likeliest=LIKELIEST,
        mirror_axes=first.mirror_axes,
        pooled=first.mask_names,
        widths=first.plan.topology.features,
        networks=tuple(networks),
    )


def _readers(predictor: Predictor) -> Iterator[ClassReader]:
    for member in predictor.members:
        yield from member.readers


def _write_network(
    reader: ClassReader, folder: Path, number: int, runtime: Runtime, precision: str
) -> ClassNetwork:
    """Write what one network answers with."""
    network = None
    if reader.needs_network:
        stem = folder / f"{CLASSES}{number}"
        network = _write_graph(reader, stem, runtime, precision).name
    classifier = None
    if reader.classifier is not None:
        classifier = f"classifier{number}.npz"
        write_classifier(folder / classifier, reader.classifier)
    return ClassNetwork(
        network=network, classifier=classifier, temperature=reader.temperature
    )


def _write_graph(
    reader: ClassReader, stem: Path, runtime: Runtime, precision: str
) -> Path:
    """Write what reads windows: in fp32, or with weights in half precision where the
    rest has them, since it looks at a few windows only.
    """
    plan = reader.plan
    inputs = {
        WINDOWS: torch.zeros(1, len(plan.inputs), *plan.patch_size),
        MASKS: torch.zeros(1, len(reader.mask_table), *plan.patch_size),
    }
    module = ReadWindow(reader.network).eval()
    graph = exported(module, inputs, [CLASSES, FEATURES])
    rounded = "fp16" if precision == "fp16" else "fp32"
    return FORMATS[runtime](graph, plan, stem, rounded, ())


def write_classifier(file: Path, classifier: CaseClassifier) -> None:
    """Write a classifier as arrays that numpy reads: `names`, `fill`, `mean`, `scale`,
    `temperature`, and of each network N and layer L `networkN.layerL.weight` and
    `.bias`.
    """
    arrays = {
        "names": np.array(classifier.names),
        "fill": classifier.fill,
        "mean": classifier.mean,
        "scale": classifier.scale,
        "temperature": np.array(classifier.temperature),
    }
    for number, network in enumerate(classifier.networks):
        for layer, (weight, bias) in enumerate(network):
            arrays[f"network{number}.layer{layer}.weight"] = weight
            arrays[f"network{number}.layer{layer}.bias"] = bias
    with atomic_path(file) as temporary, temporary.open("wb") as opened:
        np.savez(opened, allow_pickle=False, **arrays)
