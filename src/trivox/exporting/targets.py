"""What is written for each target: which runtimes compute its networks, where their
files lie, and what lies beside them.
"""

import importlib.util
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trivox.config.choices import ExportTarget
from trivox.errors import UsageError
from trivox.exporting.card import ExportCard, Runtime
from trivox.exporting.networks import PRECISIONS
from trivox.exporting.tensorrt import write_build_script
from trivox.exporting.triton import (
    Networks,
    Served,
    network_folder,
    served_models,
    write_repository,
)
from trivox.planning.plan import Plan


@dataclass(frozen=True)
class Place:
    """Whose network a file is: the plan's, by which runtime, and which one of several."""

    plan: Plan
    runtime: Runtime
    number: int
    count: int


@dataclass(frozen=True)
class Target:
    """runtimes: each that is installed and has the precision gets its files, the first
    one is that of `run.py`; stem: where a network lies; served: names of the models of
    a server; finish: writes what else is needed; readme: its template.
    """

    runtimes: tuple[Runtime, ...]
    stem: Callable[[Place], str] = lambda place: f"network{place.number}"
    served: Callable[[Plan, Networks], Served] = lambda _plan, _networks: {}
    finish: Callable[[Path, ExportCard], None] = lambda _folder, _card: None
    readme: str = "README.md.j2"

    def chosen(self, target: str, precision: str) -> tuple[Runtime, ...]:
        """The runtimes of an export; raises `UsageError` where none has the precision."""
        fitting = [name for name in self.runtimes if precision in PRECISIONS[name]]
        if not fitting:
            each = [PRECISIONS[name] for name in self.runtimes]
            known = dict.fromkeys(itertools.chain.from_iterable(each))
            raise UsageError(
                f"--precision {precision} is none of --to {target}; choose one of "
                f"{', '.join(known)}"
            )
        first, *others = fitting
        there = [name for name in others if importlib.util.find_spec(name)]
        return (first, *there)


def _in_repository(place: Place) -> str:
    folder = network_folder(
        place.plan.dataset, place.runtime, place.number, place.count
    )
    return f"{folder}/model"


TARGETS: Mapping[ExportTarget, Target] = {
    "onnx": Target(("onnx",)),
    "openvino": Target(("openvino",)),
    "tensorrt": Target(
        ("tensorrt",), finish=write_build_script, readme="README-tensorrt.md.j2"
    ),
    "triton": Target(
        ("onnx", "openvino"),
        stem=_in_repository,
        served=served_models,
        finish=write_repository,
        readme="README-triton.md.j2",
    ),
    "web": Target(("onnx",)),
}
