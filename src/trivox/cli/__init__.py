"""The command line: one thin function a verb.

Nothing heavy is imported before a verb runs.
"""

import sys
from typing import Annotated

import typer

from trivox.cli import data, deploying, learning, results
from trivox.errors import InterruptedTrainingError, TrivoxError
from trivox.version import __version__

app = typer.Typer(
    name="trivox",
    help="From folders of 3D medical scans to trained, measured, deployable models.\n\n"
    "Research use only, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

importers = typer.Typer(
    help="Bring in models and data of others.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(importers, name="import")
importers.command("nnunet")(learning.import_nnunet)
importers.command("brats")(data.import_brats)
importers.command("class-folders")(data.import_class_folders)
for verb in (
    data.check,
    data.plan,
    data.preprocess,
    data.drr,
    learning.train,
    learning.pretrain,
    results.predict,
    results.evaluate,
    results.rank,
    results.report,
    results.explain,
    results.info,
    results.doctor,
    deploying.package,
    learning.demo,
):
    app.command()(verb)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: one clear line and exit 1 for a known problem, 130 for Ctrl-C;
    tracebacks only with --debug.
    """
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except SystemExit as stop:
        if stop.code == 130:  # what typer makes of Ctrl-C
            print(
                "interrupted; the same command continues where it can", file=sys.stderr
            )
        raise
    except InterruptedTrainingError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(130)
    except TrivoxError as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except (OSError, MemoryError) as error:
        if debug:
            raise
        print(
            f"error: {error or 'out of memory'}; run again with --debug for details",
            file=sys.stderr,
        )
        sys.exit(1)
