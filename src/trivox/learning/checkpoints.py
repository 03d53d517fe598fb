"""Checkpoints, written atomically: safetensors weights, optimizer state (loaded with `weights_only=True`), facts as JSON."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trivox.errors import BundleError, ResourceError
from trivox.files import read_json, replace_folder, surviving_folder, write_json

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.pt", "state.json"


def save_checkpoint(
    folder: Path, network: nn.Module, state: dict[str, Any], optimizer: dict[str, Any] | None = None
) -> None:
    """Replace `folder` by a new checkpoint; a crash leaves the old or the new one, never a mixture."""
    new = folder.with_name(f".tmp-{os.getpid()}-{folder.name}")
    for leftover in folder.parent.glob(f".tmp-*-{folder.name}"):  # of a process killed while saving
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        save_weights(network, new / WEIGHTS)
        if optimizer is not None:
            torch.save(optimizer, new / OPTIMIZER)
        write_json(new / STATE, state)
        replace_folder(new, folder)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(new, ignore_errors=True)
        raise ResourceError(f"{folder}: checkpoint cannot be written ({error}); check the free disk space") from error


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any] | None] | None:
    """Weights, state and optimizer state of the checkpoint that survived at `folder`; None if there is none."""
    found = surviving_folder(folder)
    if found is None:
        return None
    optimizer = None
    if (found / OPTIMIZER).exists():
        try:
            optimizer = torch.load(found / OPTIMIZER, map_location="cpu", weights_only=True)
        except Exception as error:
            raise BundleError(f"{found / OPTIMIZER}: damaged ({error}); delete the run to start again") from error
    return load_weights(found / WEIGHTS), read_json(found / STATE), optimizer


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the state of a network as safetensors."""
    save_file({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}, path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; raises `BundleError` naming it if it is missing or damaged."""
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise BundleError(f"{path}: weights not found; train first, or check the path") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(f"{path}: not readable as safetensors ({error}); copy or train it again") from error
