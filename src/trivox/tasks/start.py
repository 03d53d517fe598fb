"""The weights that a run starts from: found by path, put into its network, reported in
its folder.
"""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from trivox.config.recipe import Recipe
from trivox.errors import BundleError, RecipeError
from trivox.files import write_json
from trivox.inference.bundle import PRETRAINED, read_bundle
from trivox.learning.runtime import rank
from trivox.learning.transfer import load_pretrained
from trivox.schema import stamped

PICKLES = (".pth", ".pt", ".ckpt", ".pkl", ".bin")


def find_weights(path: Path) -> Path:
    """The safetensors file of a run, a bundle or ready model (its first network) or a
    pretraining; a safetensors file is itself.

    Raises `BundleError` for anything else, checksums included.
    """
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise BundleError(f"{path}: weights not found; check the path")
        return path
    if path.suffix in PICKLES or (path / "plans.json").is_file():
        raise BundleError(
            f"{path}: weights are taken from trivox runs, bundles and safetensors "
            "files; bring in an nnU-Net model first: trivox import nnunet MODEL_FOLDER "
            "--out BUNDLE --trust"
        )
    pretrained = path / PRETRAINED
    return pretrained if pretrained.is_file() else read_bundle(path).weight_files()[0]


def require_start(recipe: Recipe) -> None:
    """Raise before anything is computed if the weights to start from are missing."""
    if recipe.pretrained is not None:
        find_weights(Path(recipe.pretrained))
    elif recipe.freeze_encoder > 0:
        raise RecipeError(
            "freeze_encoder keeps pretrained weights; add --pretrained, or leave it at 0"
        )


def start_from(
    network: nn.Module,
    path: Path,
    folder: Path,
    *,
    task: str,
    channels: int,
    say: Callable[[str], None],
) -> None:
    """Load what fits into a new network; the report goes to the log and to
    `folder/transfer.json`.
    """
    file = find_weights(path)
    report = load_pretrained(network, file, channels=channels)
    for line in report.lines():
        say(line)
    if rank() == 0:
        content = report.to_file(str(file)).model_dump(mode="json")
        write_json(folder / "transfer.json", stamped(content, task))
