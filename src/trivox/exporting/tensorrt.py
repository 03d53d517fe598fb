"""Networks for TensorRT: a script that builds engines where there is a GPU."""

from collections.abc import Sequence
from pathlib import Path

from trivox.exporting.card import ExportCard
from trivox.exporting.programs import rendered
from trivox.files import write_text

SCRIPT = "build_engine.sh"
FLAGS = {"fp32": "--noTF32", "bf16": "--bf16", "fp16": "--fp16", "int8": "--int8"}
"""Of trtexec; without the first, products of fp32 are rounded to 10 bits."""


def write_build_script(
    folder: Path, card: ExportCard, _assets: Path | None = None
) -> None:
    """Write `build_engine.sh`, which calls trtexec for each network."""
    pipeline = card.pipeline
    sizes = (len(pipeline.inputs), *pipeline.patch_size)
    facts = {
        "networks": [Path(name).stem for name in pipeline.networks],
        "shapes": [profile(pipeline.input, count, sizes) for count in card.batches],
        "flag": FLAGS[card.precision],
    }
    file = folder / SCRIPT
    write_text(file, rendered(f"{SCRIPT}.j2", facts))
    file.chmod(0o755)


def profile(name: str, count: int, sizes: Sequence[int]) -> str:
    """`windows:4x1x96x96x96`: `count` windows of these sizes `(c, z, y, x)`."""
    return f"{name}:" + "x".join(str(size) for size in (count, *sizes))
