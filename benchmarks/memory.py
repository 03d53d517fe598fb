"""Memory and time of a large CT from file to file, by the number of classes and by the
size of the scan.

A drawn scan of int16 HU, 512 x 512 x 531 voxels of 0.75 mm, and a network of few layers
whose plan asks for 1.5 mm: TotalSegmentator's kind of case. The command itself, `trivox
predict`, runs in a child process, whose resident memory (`VmHWM`) is watched and which
is ended where it takes more than --limit. Then the peak of each step, in a process that
resets the mark (`/proc/self/clear_refs`, Linux) between the steps. The network is
trained for some steps on a part of the scan, so that its labels are no noise.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from unittest import mock

import numpy as np

SPACING, TARGET = 0.75, 1.5
"""Of the scan and of the plan in mm."""
WHOLE = (531, 512, 512)
TISSUES = 12
COARSER = 3
"""The tissues are drawn on a grid that many times coarser."""
MEAN, SPREAD = 0.0, 400.0
STEPS = {
    "read": ("trivox.inference.predictor", "read_image"),
    "crop": ("trivox.inference.prepare", "crop_volume"),
    "normalise and resample": ("trivox.preparation.grid", "_resized"),
    "windows, restore": ("trivox.inference.decide", "label_case"),
    "clean": ("trivox.inference.predictor", "apply_rules"),
    "to source, judge": ("trivox.inference.predictor", "prediction_of"),
    "write": ("trivox.inference.writing", "write_volume"),
}
"""Where the steps of a prediction are called: module and name there."""


def scan_of(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A CT `(z, y, x)` int16 and its tissues int16; outside the body is air."""
    from _measure import cells

    z, y, x = (-(-size // COARSER) for size in shape)
    coarse = cells((z, y, x), TISSUES)
    rng = np.random.default_rng(5)
    means = np.linspace(-900, 600, TISSUES)
    means[1:] = rng.permutation(means[1:])
    means[0] = -1000
    image = np.empty(shape, np.int16)
    tissues = np.empty(shape, np.int16)
    for row in range(shape[0]):
        plane = np.kron(coarse[row // COARSER], np.ones((COARSER,) * 2, np.int16))
        tissues[row] = plane[: shape[1], : shape[2]]
        noise = rng.normal(0, 20, shape[1:])
        image[row] = np.clip(means[tissues[row]] + noise, -1024, 3000)
    return image, tissues


def write_bundles(folder: Path, classes: list[int], given: argparse.Namespace) -> None:
    """A model for each number of classes, trained on a small scan of the same kind."""
    from safetensors.torch import save_file

    from case import network_of, plan_of
    from trivox.inference.bundle import write_bundle
    from trivox.inference.descriptions import LabelDescription
    from trivox.planning.plan import Normalisation

    shape = (96, 96, 96)
    image, tissues = scan_of(shape)
    normal = ((image - MEAN) / SPREAD).astype(np.float32)
    scheme = Normalisation(scheme="ct", low=-1000, high=1000, mean=MEAN, std=SPREAD)
    for count in classes:
        whole = plan_of((given.patch,) * 3, shape, count, given.features)
        plan = whole.model_copy(update={"normalisations": (scheme,)})
        network = network_of(plan, normal, tissues % count, given.steps)
        place = folder / f"model{count}"
        place.mkdir()
        save_file(network.state_dict(), place / "weights.safetensors")
        description = LabelDescription(
            task=plan.task, plan=plan, mirror_axes=("x",) if given.mirror else ()
        )
        write_bundle(
            folder / f"bundle{count}",
            description,
            {"0": place / "weights.safetensors"},
        )


def write_scan(file: Path, shape: tuple[int, int, int]) -> None:
    from trivox.volumes.formats import write_volume
    from trivox.volumes.volume import Volume, affine_from_spacing

    affine = affine_from_spacing((SPACING,) * 3)
    affine[:2] *= -1  # LPS, as scanners store it
    write_volume(file, Volume(scan_of(shape)[0][None], affine))


def status(process: int | str, key: str) -> int:
    """Bytes of a line of /proc/PID/status; 0 of a process that has ended."""
    try:
        text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    rows = (row.split() for row in text.splitlines() if row.startswith(f"{key}:"))
    return next((int(row[1]) * 1024 for row in rows), 0)


def watched(command: list[str], limit: float) -> tuple[int, float, float]:
    """Peak bytes, CPU seconds and wall seconds of a child; ends it above the limit."""
    started = time.monotonic()
    before = os.times()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while child.poll() is None:
        peak = max(peak, status(child.pid, "VmHWM"))
        if peak > limit:
            child.kill()
            child.wait()
            raise SystemExit(f"took more than {limit / 1e9:.2f} GB: ended")
        time.sleep(0.01)
    if child.returncode:
        raise SystemExit(f"{command} failed")
    after = os.times()
    cpu = after.children_user - before.children_user
    cpu += after.children_system - before.children_system
    return peak, cpu, time.monotonic() - started


def in_a_child(call: Callable[[], None]) -> None:
    """What makes the inputs does not stay in this process's memory."""
    child = os.fork()
    if child == 0:
        call()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("the inputs could not be made")


def show_steps(arguments: list[str]) -> None:
    """Run the command in this process and print the peak of each step."""
    from importlib import import_module

    from trivox.cli import main as command_line

    peaks: dict[str, int] = {}
    current = ["start"]

    def note() -> None:
        name = current[-1]
        peaks[name] = max(peaks.get(name, 0), status("self", "VmHWM"))
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    @contextmanager
    def within(name: str) -> Iterator[None]:
        note()
        current.append(name)
        try:
            yield
        finally:
            note()
            current.pop()

    def measured(name: str, call: Callable) -> Callable:
        @wraps(call)
        def inner(*args, **options):
            with within(name):
                return call(*args, **options)

        return inner

    patches = []
    for name, (module, attribute) in STEPS.items():
        place = import_module(module)
        call = measured(name, getattr(place, attribute))
        patches.append(mock.patch.object(place, attribute, call))
    for patch in patches:
        patch.start()
    sys.argv[1:] = arguments
    try:
        command_line()
    except SystemExit as end:
        if end.code:
            raise
    note()
    shown = ", ".join(f"{name} {peak / 1e9:.2f}" for name, peak in peaks.items())
    print(f"GB resident at the peak of each step: {shown}", file=sys.stderr)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        show_steps(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a scan of 1/64")
    parser.add_argument("--limit", type=float, default=3.0, help="GB resident")
    parser.add_argument("--classes", type=int, nargs="+", default=[3, 30, 118])
    parser.add_argument("--patch", type=int, default=64, help="voxels of an edge")
    parser.add_argument("--features", type=int, default=8, help="of the first stage")
    parser.add_argument("--steps", type=int, default=200, help="of the training")
    parser.add_argument("--mirror", action="store_true", help="two mirrored copies")
    parser.add_argument(
        "--halves", action="store_true", help="also a scan of half the rows"
    )
    parser.add_argument(
        "--into", type=Path, help="a folder where scans and models stay for later"
    )
    given = parser.parse_args()
    shape = tuple(size // 4 for size in WHOLE) if given.quick else WHOLE
    limit = given.limit * 1e9
    with tempfile.TemporaryDirectory() as name:
        folder = given.into or Path(name)
        shapes = [shape]
        if given.halves:
            shapes.insert(0, (shape[0] // 2, *shape[1:]))
        for each in shapes:
            file = folder / f"scan{each[0]}.nii.gz"
            if not file.exists():
                in_a_child(partial(write_scan, file, each))
        lacking = [n for n in given.classes if not (folder / f"bundle{n}").exists()]
        if lacking:
            in_a_child(partial(write_bundles, folder, lacking, given))
        compare(folder, given.classes, shapes, limit)


def compare(
    folder: Path, classes: list[int], shapes: list[tuple[int, ...]], limit: float
) -> None:
    """Print peak and seconds of each number of classes and of each size."""
    print("case | peak | seconds", flush=True)

    def options(count: int, shape: tuple[int, ...]) -> list[str]:
        scan = folder / f"scan{shape[0]}.nii.gz"
        out = folder / f"out{count}-{shape[0]}"
        model = str(folder / f"bundle{count}")
        fixed = ["--overwrite", "--device", "cpu"]
        return ["predict", model, str(scan), "--out", str(out), *fixed]

    for count in classes:
        for shape in shapes:
            call = [sys.executable, "-m", "trivox", *options(count, shape)]
            peak, cpu, wall = watched(call, limit)
            voxels = int(np.prod(shape))
            print(
                f"{'x'.join(map(str, shape))}, C={count} | {peak / 1e9:.2f} GB | "
                f"{cpu:.0f} s cpu ({wall:.0f} wall), {1e9 * cpu / voxels:.0f} ns a voxel",
                flush=True,
            )
    most = max(classes)
    child = [sys.executable, __file__, "--child", *options(most, shapes[-1])]
    subprocess.run(child, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
