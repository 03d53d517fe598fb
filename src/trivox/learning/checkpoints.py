"""Checkpoints, written atomically: safetensors weights, optimizer state (loaded with
`weights_only=True`), facts as JSON.

    latest/          weights, state.json, and what resuming needs: optimizer.pt, raw
                     and objective weights where they differ
    best/ best-2/    the best so far by the smoothed score: weights and state.json alone
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trivox.errors import BundleError, ResourceError, TrivoxError
from trivox.files import (
    atomic_path,
    read_json,
    replace_folder,
    surviving_folder,
    write_json,
)

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.pt", "state.json"
RAW, OBJECTIVE = "raw.safetensors", "objective.safetensors"
"""Weights as trained where `WEIGHTS` holds their moving average, and those that the
objective trains.
"""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint holds; `optimizer`, `raw` and `objective` only where it was
    saved with them.
    """

    weights: dict[str, Tensor]
    state: dict[str, Any]
    optimizer: dict[str, Any] | None = None
    raw: dict[str, Tensor] | None = None
    objective: dict[str, Tensor] | None = None


def save_checkpoint(
    folder: Path,
    network: nn.Module,
    state: dict[str, Any],
    optimizer: dict[str, Any] | None = None,
    *,
    raw: nn.Module | None = None,
    objective: nn.Module | None = None,
) -> None:
    """Replace `folder` by a new checkpoint; a crash leaves the old or the new one,
    never a mixture.
    """
    new = folder.with_name(f".tmp-{os.getpid()}-{folder.name}")
    for leftover in folder.parent.glob(
        f".tmp-*-{folder.name}"
    ):  # of a process killed while saving
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        for name, module in ((WEIGHTS, network), (RAW, raw), (OBJECTIVE, objective)):
            if module is not None:
                save_weights(module, new / name)
        if optimizer is not None:
            torch.save(optimizer, new / OPTIMIZER)
        write_json(new / STATE, state)
        replace_folder(new, folder)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(new, ignore_errors=True)
        raise ResourceError(
            f"{folder}: checkpoint cannot be written ({error}); check the free disk space"
        ) from error


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint that survived at `folder`; None if there is none."""
    found = surviving_folder(folder)
    if found is None:
        return None
    optimizer = None
    if (found / OPTIMIZER).exists():
        try:
            optimizer = torch.load(
                found / OPTIMIZER, map_location="cpu", weights_only=True
            )
        except Exception as error:
            raise BundleError(
                f"{found / OPTIMIZER}: damaged ({error}); delete the run to start again"
            ) from error
    raw, objective = (
        load_weights(found / x) if (found / x).exists() else None
        for x in (RAW, OBJECTIVE)
    )
    return Checkpoint(
        load_weights(found / WEIGHTS),
        read_json(found / STATE),
        optimizer,
        raw,
        objective,
    )


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the state of a network as safetensors."""
    save_file(
        {
            name: value.detach().cpu().contiguous()
            for name, value in network.state_dict().items()
        },
        path,
    )


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; raises `BundleError` naming it if it is missing or
    damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise BundleError(
            f"{path}: weights not found; train first, or check the path"
        ) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(
            f"{path}: not readable as safetensors ({error}); copy or train it again"
        ) from error


# -- the best --------------------------------------------------------------------------
def best_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints `best*` in `folder`, best first.

    Their states say how good they are, not their names: a process killed while renaming
    leaves names in disorder.
    """
    ranked = []
    for path in folder.glob("best*"):
        try:
            progress = read_json(path / STATE)["progress"]
            if (path / WEIGHTS).exists():
                ranked.append((-progress["smoothed"], progress["epoch"], path))
        except (TrivoxError, KeyError, TypeError):  # half removed
            continue
    return [path for *_, path in sorted(ranked)]


def keep_best(
    folder: Path, save: Callable[[Path], None], *, score: float, epoch: int, count: int
) -> bool:
    """Save among the `count` best in `folder` (`best`, `best-2` ...) if `score` is high
    enough; returns whether it was.

    A checkpoint of the same epoch, left by an attempt that was killed and is now
    repeated, is replaced.
    """
    _settle(
        folder, best_checkpoints(folder)[:count]
    )  # what a killed process left in disorder
    known = [
        (path, read_json(path / STATE)["progress"]) for path in best_checkpoints(folder)
    ]
    others = [
        (path, float(progress["smoothed"]))
        for path, progress in known
        if progress["epoch"] != epoch
    ]
    place = sum(kept >= score for _, kept in others)
    if place >= count:
        return False
    new, ordered = folder / "best-new", [path for path, _ in others]
    save(new)
    _settle(folder, [*ordered[:place], new, *ordered[place:]][:count])
    return True


def _settle(folder: Path, ordered: Sequence[Path]) -> None:
    """Name the folders `best`, `best-2` ... in their order and remove all others."""
    names = [
        folder / ("best" if rank == 1 else f"best-{rank}")
        for rank in range(1, len(ordered) + 1)
    ]
    wrong = [
        (path, name) for path, name in zip(ordered, names, strict=True) if path != name
    ]
    for path in folder.glob("best*"):
        if path not in ordered:
            shutil.rmtree(path, ignore_errors=True)
    moved = [
        (path.rename(folder / f"best-{token_hex(4)}"), name) for path, name in wrong
    ]
    for path, name in moved:
        path.rename(name)


def final_weights(folder: Path, which: Literal["latest", "best", "average"]) -> Path:
    """The weights that become the model; the latest where no best was kept, since Dice
    could never be measured.

    average: written to `folder/average.safetensors`. Raises `BundleError` if there is
    no checkpoint.
    """
    best = best_checkpoints(folder)
    if which == "average" and best:
        average_checkpoints(best, folder / "average.safetensors")
        return folder / "average.safetensors"
    latest = surviving_folder(folder / "latest")
    if latest is None:
        raise BundleError(f"{folder.parent}: no checkpoint; train it first")
    return (best[0] if which == "best" and best else latest) / WEIGHTS


def average_checkpoints(folders: Sequence[Path], out: Path) -> None:
    """Write the arithmetic mean of the checkpoints' weights to `out`; whole numbers are
    those of the first.
    """
    first = load_weights(folders[0] / WEIGHTS)
    total = {
        name: value.double()
        for name, value in first.items()
        if value.is_floating_point()
    }
    for folder in folders[1:]:
        weights = load_weights(folder / WEIGHTS)
        for name, value in total.items():
            value += weights[name]
    mean = {
        name: (value / len(folders)).to(first[name].dtype)
        for name, value in total.items()
    }
    with atomic_path(out) as temporary:
        save_file({**first, **mean}, temporary)
