"""Checkpoints, written atomically: safetensors weights, optimizer state (loaded with
`weights_only=True`), facts as JSON.

    latest/          weights, state.json, and what resuming needs: optimizer.pt, raw
                     and objective weights where they differ
    best/ best-2/    the best so far by the smoothed score: weights and state.json alone
"""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal, NotRequired, TypedDict, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trivox.config.recipe import Recipe
from trivox.errors import BundleError, ResourceError, TrivoxError, few
from trivox.files import (
    atomic_path,
    read_json,
    surviving_folder,
    whole_folder,
    write_json,
)
from trivox.learning.ranks.sharing import from_first
from trivox.memory import memory_ran_out, no_memory

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.pt"
STATE = "state.json"
RAW = "raw.safetensors"
"""Weights as trained where `WEIGHTS` holds their moving average."""
OBJECTIVE = "objective.safetensors"
"""Weights that the objective trains."""
NEW = "best-new"
BEST = re.compile(rf"best(?:-\d+|-[0-9a-f]{{8}})?|{NEW}")
"""What the best are called, also while they are renamed; a folder of another name
(`best-backup`) is somebody's copy.
"""


class RunState(TypedDict):
    """Content of `state.json`; progress: where training stands, see
    `trivox.learning.progress.Progress`.
    """

    progress: dict[str, object]


class ResumeState(TypedDict):
    """What resuming needs beside the weights, as `optimizer.pt`: what torch's objects
    and the objective say of themselves.
    """

    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    objective: NotRequired[Mapping[str, object]]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint holds; `optimizer`, `raw` and `objective` only where it was
    saved with them.
    """

    weights: dict[str, Tensor]
    state: RunState
    optimizer: ResumeState | None = None
    raw: dict[str, Tensor] | None = None
    objective: dict[str, Tensor] | None = None


def save_checkpoint(
    folder: Path,
    network: nn.Module,
    state: Mapping[str, object],
    optimizer: Mapping[str, object] | None = None,
    *,
    raw: nn.Module | None = None,
    objective: nn.Module | None = None,
) -> None:
    """Replace `folder` by a new checkpoint; a crash leaves the old or the new one,
    never a mixture.
    """
    try:
        with whole_folder(folder) as new:
            save_weights(network, new / WEIGHTS)
            if raw is not None:
                save_weights(raw, new / RAW)
            if objective is not None:
                save_weights(objective, new / OBJECTIVE)
            if optimizer is not None:
                torch.save(optimizer, new / OPTIMIZER)
            write_json(new / STATE, state)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ResourceError(
            f"{folder}: checkpoint cannot be written ({error}); "
            "check the free disk space"
        ) from error


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint that survived at `folder`; None if there is none."""
    whole = surviving_folder(folder)
    if whole is None:
        return None
    optimizer = None
    if (whole / OPTIMIZER).exists():
        optimizer = _load_optimizer(whole / OPTIMIZER)
    return Checkpoint(
        weights=load_weights(whole / WEIGHTS),
        state=cast(RunState, read_json(whole / STATE)),
        optimizer=optimizer,
        raw=_load_if_there(whole / RAW),
        objective=_load_if_there(whole / OBJECTIVE),
    )


def _load_optimizer(file: Path) -> ResumeState:
    try:
        content: ResumeState = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        if memory_ran_out(error):
            raise no_memory(error) from error
        raise BundleError(
            f"{file}: damaged ({error}); delete the run to start again"
        ) from error
    return content


def _load_if_there(file: Path) -> dict[str, Tensor] | None:
    return load_weights(file) if file.exists() else None


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the state of a network as safetensors."""
    values = network.state_dict().items()
    tensors = {name: value.detach().cpu().contiguous() for name, value in values}
    save_file(tensors, path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, what is stored in half precision as fp32; raises
    `BundleError` naming it if it is missing, damaged or holds what is no number.
    """
    try:
        stored = load_file(path)
    except FileNotFoundError as error:
        raise BundleError(
            f"{path}: weights not found; train first, or check the path"
        ) from error
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        if memory_ran_out(error):
            raise no_memory(error) from error
        raise BundleError(
            f"{path}: not readable as safetensors ({error}); copy or train it again"
        ) from error
    weights = {name: _single(value) for name, value in stored.items()}
    wrong = [name for name, value in weights.items() if not value.isfinite().all()]
    if wrong:
        raise BundleError(
            f"{path}: {few(wrong, shown=2)} hold NaN or infinity: what was trained "
            "diverged; train it again with a lower learning rate"
        )
    return weights


def _single(value: Tensor) -> Tensor:
    """fp32 where a tensor is stored with fewer bits."""
    short = value.is_floating_point() and value.element_size() < 4
    return value.float() if short else value


# -- the best --------------------------------------------------------------------------
def best_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints `best`, `best-2` ... in `folder`, best first.

    Their states say how good they are, not their names: a process killed while renaming
    leaves names in disorder.
    """
    ranked = []
    for path in _named_best(folder):
        try:
            progress = read_json(path / STATE)["progress"]
            place = (-float(progress["smoothed"]), int(progress["epoch"]), path)
            if (path / WEIGHTS).exists():
                ranked.append(place)
        except (TrivoxError, KeyError, TypeError, ValueError):  # half removed
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
    # what a killed process left in disorder
    _settle(folder, best_checkpoints(folder)[:count])
    ordered: list[Path] = []
    place = 0
    for path in best_checkpoints(folder):
        progress = read_json(path / STATE)["progress"]
        if progress["epoch"] == epoch:
            continue
        ordered.append(path)
        place += progress["smoothed"] >= score
    if place >= count:
        return False
    new = folder / NEW
    save(new)
    _settle(folder, [*ordered[:place], new, *ordered[place:]][:count])
    return True


def forget_best(folder: Path) -> None:
    """Remove the best of an attempt that is started over."""
    _settle(folder, [])


def _settle(folder: Path, ordered: Sequence[Path]) -> None:
    """Name the folders `best`, `best-2` ... in their order and remove the others."""
    for path in _named_best(folder):
        if path not in ordered:
            shutil.rmtree(path, ignore_errors=True)
    moved: list[tuple[Path, Path]] = []
    for rank, path in enumerate(ordered, start=1):
        final = folder / ("best" if rank == 1 else f"best-{rank}")
        if path != final:
            aside = path.rename(folder / f"best-{token_hex(4)}")
            moved.append((aside, final))
    for aside, final in moved:
        aside.rename(final)


def _named_best(folder: Path) -> list[Path]:
    return [path for path in folder.glob("best*") if BEST.fullmatch(path.name)]


def final_weights(folder: Path, which: Literal["latest", "best", "average"]) -> Path:
    """The weights that become the model; the latest where no best was kept, since no
    score could be measured.

    average: written to `folder/average.safetensors`. Raises `BundleError` if there is
    no checkpoint.
    """
    best = best_checkpoints(folder)
    if which == "average" and best:
        average = folder / "average.safetensors"
        average_checkpoints(best, average)
        return average
    latest = surviving_folder(folder / "latest")
    if latest is None:
        raise BundleError(f"{folder.parent}: no checkpoint; train it first")
    return (best[0] if which == "best" and best else latest) / WEIGHTS


def average_checkpoints(folders: Sequence[Path], out: Path) -> None:
    """Write the arithmetic mean of the checkpoints' weights to `out`; whole numbers are
    those of the first.
    """
    first = load_weights(folders[0] / WEIGHTS)
    fractional = [name for name, value in first.items() if value.is_floating_point()]
    total = {name: first[name].double() for name in fractional}
    for folder in folders[1:]:
        weights = load_weights(folder / WEIGHTS)
        for name in fractional:
            total[name] += weights[name]
    mean = dict(first)
    for name in fractional:
        mean[name] = (total[name] / len(folders)).to(first[name].dtype)
    with atomic_path(out) as temporary:
        save_file(mean, temporary)


def trained_weights(recipe: Recipe, folders: Mapping[int, Path]) -> dict[str, Path]:
    """The weights file of each trained fold that becomes the model, written by the first
    rank; folders: of the folds.
    """

    def write() -> dict[str, Path]:
        return {
            str(fold): final_weights(folder / "checkpoints", recipe.final_weights)
            for fold, folder in folders.items()
        }

    return from_first(write, ())
