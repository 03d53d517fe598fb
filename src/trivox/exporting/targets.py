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
from trivox.exporting.card import ExportCard, Pipeline, Runtime
from trivox.exporting.networks import PRECISIONS
from trivox.exporting.programs import PROGRAM
from trivox.exporting.tensorrt import write_build_script
from trivox.exporting.triton import (
    Networks,
    Served,
    network_folder,
    served_models,
    write_repository,
)
from trivox.exporting.web.assets import Archives
from trivox.exporting.web.page_folder import require_page, write_page
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
    a server; begin: has at hand what else is needed, before any work; require: raises
    for a pipeline that the target cannot run; finish: writes what else is needed, with
    the folder of `--assets` if it `takes_assets`; readme: its template; sums_halves:
    whether it sums in half precision as nnU-Net does; classifies: whether it answers
    with the class of a case.
    """

    runtimes: tuple[Runtime, ...]
    stem: Callable[[Place], str] = lambda place: f"network{place.number}"
    served: Callable[[Plan, Networks], Served] = lambda _plan, _networks: {}
    begin: Callable[[Path | None], None] = lambda _assets: None
    require: Callable[[Pipeline], None] = lambda _pipeline: None
    finish: Callable[[Path, ExportCard, Path | None], None] = lambda *_: None
    readme: str = "README.md.j2"
    takes_assets: bool = False
    sums_halves: bool = False
    classifies: bool = True

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


def _have_archives(assets: Path | None) -> None:
    Archives(assets).require()


def _write_page(folder: Path, card: ExportCard, assets: Path | None) -> None:
    for name in PROGRAM:  # the page does what it does, and more
        (folder / name).unlink()
    write_page(folder, card, Archives(assets))


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
        classifies=False,
    ),
    "web": Target(
        ("onnx",),
        begin=_have_archives,
        require=require_page,
        finish=_write_page,
        takes_assets=True,
        sums_halves=True,
        classifies=False,
    ),
}
