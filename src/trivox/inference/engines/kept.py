"""Graphs of networks, kept in the user's cache: making one takes seconds."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from trivox.caches import cache_folder
from trivox.files import file_hash, remove_leftovers, write_bytes
from trivox.inference.engines.graph import OPSET, WRITING, graph_of
from trivox.inference.engines.split import narrowing_layer, without_last
from trivox.planning.plan import Plan
from trivox.version import __version__

MOST_KEPT = 16
"""Graphs; those that were not used for longest are removed."""


@dataclass(frozen=True, eq=False)
class Source:
    """A network in eval mode on a CPU, and what names it.

    weights: its file; plan: of its windows; whole: whether it ends with logits, not
    with features.
    """

    network: nn.Module
    weights: Path
    plan: Plan
    whole: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one window, `(1, c, z, y, x)`."""
        return (1, len(self.plan.inputs), *self.plan.patch_size)

    def key(self, *others: object) -> str:
        """A short name for the graph, and for what `others` say besides."""
        plan = self.plan
        said = [
            file_hash(self.weights),
            plan.network,
            plan.network_options,
            plan.topology.model_dump(mode="json"),
            self.shape,
            self.whole,
            OPSET,
            WRITING,
            __version__,
            torch.__version__,
            *others,
        ]
        text = json.dumps(said, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def apart(self) -> "tuple[Source, nn.Conv3d] | None":
        """The network without its last layer, and that layer, where its features are
        summed in place of its logits; None for others.
        """
        layer = narrowing_layer(self.network)
        if layer is None or self.plan.grid.sums == "half":
            return None
        body = replace(self, network=without_last(self.network), whole=False)
        return body, layer

    def graph(self) -> bytes:
        """The graph, as it was made before or made now."""
        folder = cache_folder("graphs")
        if folder is None:
            return self._made()
        file = folder / f"{self.key()}.onnx"
        with suppress(OSError):
            graph = file.read_bytes()
            file.touch()
            return graph
        return self.made_again()

    def made_again(self) -> bytes:
        """The graph made now, and kept if the cache can be written."""
        graph = self._made()
        folder = cache_folder("graphs")
        if folder is None:
            return graph
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / f"{self.key()}.onnx", graph)
            _tidy(folder)
        return graph

    def _made(self) -> bytes:
        plan = self.plan
        return graph_of(self.network, channels=len(plan.inputs), patch=plan.patch_size)


def _tidy(folder: Path) -> None:
    """Remove the graphs that were not used for longest, and halves of killed processes."""
    remove_leftovers(folder)
    graphs: Sequence[Path] = sorted(folder.glob("*.onnx"), key=_used, reverse=True)
    for graph in graphs[MOST_KEPT:]:
        graph.unlink(missing_ok=True)


def _used(file: Path) -> float:
    with suppress(OSError):
        return file.stat().st_mtime
    return 0.0
