"""The command line: one thin function a verb. Nothing heavy is imported before a verb
runs.
"""

import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from trivox.cli import after_training, before_training, clinic, pacs, release, training
from trivox.cli.answers import ASKED, failures_answered, is_asked, print_answer
from trivox.cli.failures import message_of
from trivox.cli.options import split_triples
from trivox.cli.ready_models import ready_models
from trivox.cli.runtime import is_first_rank, let_the_first_rank_speak
from trivox.cli.streams import Steady, steady_streams
from trivox.errors import (
    InterruptedTrainingError,
    TrivoxError,
    UsageError,
)
from trivox.version import NOTICE, __version__


class Commands(TyperGroup):
    """All commands; `--patch-size 96,96,96` is understood as three numbers."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Split options of three numbers that come as one."""
        ctx.meta[ASKED] = is_asked(args)
        with failures_answered(ctx.meta):
            return super().parse_args(ctx, split_triples(args))

    def invoke(self, ctx: Any) -> Any:
        """Run a command, and print its answer where JSON is asked for."""
        with failures_answered(ctx.meta):
            result = self._invoke(ctx)
            print_answer(ctx.meta, result)
            return result

    def _invoke(self, ctx: Any) -> Any:
        """Run a command; what pydantic puts before a complaint is left out."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as wrong:
            wrong.message = wrong.message.removeprefix("Value error, ")
            raise


app = typer.Typer(
    cls=Commands,
    name="trivox",
    help="From folders of 3D medical scans to trained, measured, deployable models.\n\n"
    + NOTICE,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class WithNetworks(TyperCommand):
    """A command whose help lists the networks."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the names of the networks and what they are."""
        from trivox.networks.registry import NETWORKS

        with formatter.section("Networks"):
            formatter.write_dl([(name, each.says) for name, each in NETWORKS.items()])


importers = typer.Typer(
    help="Bring in models and data of others.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(importers, name="import")
importers.command("nnunet")(before_training.import_nnunet)
importers.command("brats")(before_training.import_brats)
importers.command("class-folders")(before_training.import_class_folders)
app.add_typer(ready_models, name="models")
app.add_typer(pacs.archives, name="pacs")
COMMANDS = (
    before_training.check,
    before_training.plan,
    before_training.preprocess,
    before_training.drr,
    training.train,
    training.pretrain,
    after_training.predict,
    after_training.evaluate,
    after_training.rank,
    after_training.report,
    after_training.explain,
    after_training.doctor,
    after_training.package,
    release.verify,
    release.export,
    release.distill,
    clinic.serve,
    pacs.node,
    clinic.deidentify,
    training.demo,
)
for command in COMMANDS:
    app.command()(command)
app.command(cls=WithNetworks)(after_training.info)


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


INTERRUPTED = "interrupted; the same command continues where it can"


def main() -> None:
    """Entry point: one clear line and exit 1 for a known problem, 2 for options that do
    not go together, 130 for Ctrl-C; tracebacks only with --debug.
    """
    output = steady_streams(alone=is_asked(sys.argv[1:]))
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    if not is_first_rank():
        warnings.simplefilter("ignore")
    try:
        app()
    except SystemExit as stop:
        if stop.code == 130:  # what typer makes of Ctrl-C
            print(INTERRUPTED, file=sys.stderr)
        _require_output(output)
        raise
    except KeyboardInterrupt:  # before typer hears of it
        _fail(INTERRUPTED, 130)
    except InterruptedTrainingError as error:
        _fail(message_of(error), 130)
    except (TrivoxError, OSError, MemoryError) as error:
        if debug:
            raise
        _fail(f"error: {message_of(error)}", 2 if isinstance(error, UsageError) else 1)
    except Exception:
        let_the_first_rank_speak()
        raise


def _require_output(output: Steady | None) -> None:
    """Fail if what was printed did not arrive where somebody waits for it."""
    sys.stdout.flush()
    if output is not None and output.lost is not None:
        _fail(f"error: standard output cannot be written ({output.lost.strerror})", 1)


def _fail(line: str, code: int) -> Any:
    let_the_first_rank_speak()
    print(line, file=sys.stderr)
    sys.exit(code)
