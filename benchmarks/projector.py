"""Projection of one view: ours by every method, nanodrr, DiffDRR, RTK and plastimatch,
on one volume in one geometry.

Prints one Markdown table a size and an angle and writes all to results/projector.md.
CPU seconds are those of all threads, the smallest of `--rounds` rounds in turns; "and
back" is a forward and a backward pass (ours and RTK's: projection and back-projection).
Ratio: a peer's seconds over those of our "joseph". Error: relative L2 distance to the
analytic line integrals of a sphere and a box, and to RTK's image. plastimatch is a
process that reads and writes files, which counts. Needs the environment of
setup_xray_peers.sh; peers that are missing there are left out.
"""

import argparse
import importlib
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trivox.projection.geometry import Geometry, Grid
from trivox.projection.projector import Projector
from xray_peers import diffdrr_calls, nanodrr_calls, plastimatch, rtk_calls

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from xray_phantoms import MU, box, chord_of_box, chord_of_sphere, relative, sphere

BALL, HALF = ((60.0, -10.0, 5.0), 40.0), (16.0, 32.0, 48.0)


@dataclass
class Contender:
    """A projector and the least that it took."""

    name: str
    forward: Callable[[], Tensor]
    back: Callable[[], object] | None = None
    image: Tensor | None = None
    seconds: float = float("inf")
    seconds_back: float = float("inf")


def cpu() -> float:
    """CPU seconds of this process and of those that it waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def seconds(call: Callable[[], object]) -> tuple[float, object]:
    before = cpu()
    found = call()
    return cpu() - before, found


def contenders(
    volume: Tensor, geometry: Geometry, grid: Grid, only: list[str]
) -> list[Contender]:
    """All that can run here."""
    made = [
        ours(volume, geometry, grid, method)
        for method in ("joseph", "siddon", "matrix")
    ]
    if grid.shape[0] <= 128:
        made.append(
            Contender(
                "trivox matrix, building it",
                lambda: build_and_project(volume, geometry, grid),
            )
        )
    else:
        made.pop()  # 68 M entries a view
    peers = [
        ("itk", "itk-rtk Joseph", lambda: rtk(volume, geometry, grid)),
        (
            "nanodrr",
            "nanodrr, 256 samples",
            lambda: differentiable(nanodrr_calls(grid, geometry, 256), volume),
        ),
        (
            "nanodrr",
            "nanodrr, 500 samples",
            lambda: differentiable(nanodrr_calls(grid, geometry, 500), volume),
        ),
        (
            "diffdrr",
            "DiffDRR trilinear, 500",
            lambda: differentiable(diffdrr_calls(grid, geometry, "trilinear"), volume),
        ),
        (
            "diffdrr",
            "DiffDRR siddon",
            lambda: differentiable(diffdrr_calls(grid, geometry, "siddon"), volume),
        ),
    ]
    for module, name, calls in peers:
        if importlib.util.find_spec(module):
            made.append(Contender(name, *calls()))
        else:
            print(f"{name} left out: not installed (setup_xray_peers.sh)")
    if shutil.which("plastimatch"):
        made.append(
            Contender("plastimatch exact", lambda: plastimatch(volume, geometry, grid))
        )
    if not only:
        return made
    words = [*only, "trivox joseph", "itk-rtk"]
    return [each for each in made if _has_any(each.name, words)]


def _has_any(name: str, words: list[str]) -> bool:
    return any(word in name for word in words)


def ours(volume: Tensor, geometry: Geometry, grid: Grid, method: str) -> Contender:
    projector = Projector(geometry, grid, method=method)
    return Contender(
        f"trivox {method}",
        lambda: projector.project(volume[None])[0],
        lambda: projector.backproject(projector.project(volume[None])),
    )


def build_and_project(volume: Tensor, geometry: Geometry, grid: Grid) -> Tensor:
    fresh = geometry.select(range(geometry.views))  # a geometry keeps what was built
    return Projector(fresh, grid, method="matrix").project(volume[None])[0]


def rtk(volume: Tensor, geometry: Geometry, grid: Grid) -> tuple[Callable, Callable]:
    forward, backward = rtk_calls(volume, geometry, grid)
    return forward, lambda: backward(forward())


def differentiable(
    render: Callable[[Tensor], Tensor], volume: Tensor
) -> tuple[Callable, Callable]:
    def forward() -> Tensor:
        with torch.no_grad():
            return render(volume)

    def back() -> Tensor:
        leaf = volume.clone().requires_grad_()
        return torch.autograd.grad(render(leaf).square().sum() / 2, leaf)[0]

    return forward, back


def measure(given: list[Contender], rounds: int) -> None:
    """Each round lets all have their turn; what takes over 20 s is not repeated."""
    for number in range(rounds):
        for each in given:
            if number and each.seconds > 20:
                continue
            taken, each.image = seconds(each.forward)
            each.seconds = min(each.seconds, taken)
            if each.back:
                each.seconds_back = min(each.seconds_back, seconds(each.back)[0])


def table(given: list[Contender], analytic: Tensor) -> str:
    """One row each."""
    base = given[0]
    reference = next(
        (each.image for each in given if each.name.startswith("itk-rtk")), None
    )
    lines = [
        "| projector | forward (CPU s) | ratio | and back (CPU s) | ratio "
        "| error to analytic | error to RTK |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in given:
        back = (
            (f"{each.seconds_back:.3f}", f"{each.seconds_back / base.seconds_back:.1f}")
            if each.back
            else ("", "")
        )
        to_rtk = "" if reference is None else f"{relative(each.image, reference):.1e}"
        lines.append(
            f"| {each.name} | {each.seconds:.3f} | {each.seconds / base.seconds:.1f} "
            f"| {back[0]} | {back[1]} | {relative(each.image, analytic):.2e} | {to_rtk} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--sizes", nargs="+", default=["128:128", "256:512"], metavar="VOXELS:PIXELS"
    )
    parser.add_argument("--angles", nargs="+", type=float, default=[0.0, 30.0])
    parser.add_argument(
        "--only",
        nargs="*",
        default=[],
        metavar="WORD",
        help="peers whose name has one of these words",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch and RTK")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if importlib.util.find_spec("itk"):
        import itk

        itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(given.threads)
    told = [
        f"torch {torch.__version__}, {given.threads} thread(s), {time.strftime('%Y-%m-%d')}"
    ]
    for size in given.sizes:
        voxels, pixels = map(int, size.split(":"))
        grid = Grid((voxels,) * 3, (256 / voxels,) * 3)
        body = (box(grid, HALF) + sphere(grid, *BALL)).float()
        for angle in given.angles:
            geometry = Geometry.orbit(
                [angle], detector=(pixels, pixels), pixel_mm=409.6 / pixels
            )
            all_of_them = contenders(body, geometry, grid, given.only)
            measure(all_of_them, given.rounds)
            analytic = (
                chord_of_box(geometry, HALF) + chord_of_sphere(geometry, *BALL)
            ) * MU
            told.append(
                f"{voxels}^3 -> {pixels}^2, one view at {angle:g} degrees:\n\n"
                f"{table(all_of_them, analytic)}"
            )
            print(told[-1], "\n", flush=True)
    out = Path(__file__).parent / "results" / "projector.md"
    out.parent.mkdir(exist_ok=True)
    out.write_text("\n\n".join(told) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
