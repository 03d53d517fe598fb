"""Commands that bring a trained model to those who use it."""

from pathlib import Path
from typing import Annotated

import typer

from trivox.cli.options import option
from trivox.cli.terminal import Terminal, say
from trivox.config.choices import ExportPrecision, ExportTarget


def export(
    model: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="run(s), bundle(s) or names that 'trivox models' lists; several vote",
        ),
    ],
    to: Annotated[ExportTarget, option("export", "to")],
    out: Annotated[Path, option("export", "out")],
    precision: Annotated[ExportPrecision, option("export", "precision")] = "fp32",
    calibrate: Annotated[Path | None, option("export", "calibrate")] = None,
    verify: Annotated[Path | None, option("export", "verify")] = None,
    accept_loss: Annotated[bool, option("export", "accept_loss")] = False,
    assets: Annotated[Path | None, option("export", "assets")] = None,
) -> None:
    """Write a model for programs that know nothing of trivox, tried before it is kept."""
    from trivox.verbs.release.export import export as run

    exported = run(
        model,
        out,
        to=to,
        precision=precision,
        calibrate=calibrate,
        verify=verify,
        accept_loss=accept_loss,
        assets=assets,
        console=Terminal(),
    )
    for line in exported.lines:
        say(line)
