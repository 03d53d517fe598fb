"""Models that are ready to use: list and fetch."""

from typing import Annotated, Any

import typer

from trivox.cli.answers import answers
from trivox.cli.options import argument, option
from trivox.cli.terminal import Terminal, say

ready_models = typer.Typer(
    help="List the models that are ready to use, with their cards.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@ready_models.callback()
@answers("models")
def models(
    context: typer.Context,
) -> Any:
    """List the models that are ready to use, with their cards."""
    from trivox.verbs.release.models import models as run

    if context.invoked_subcommand is not None:
        return None
    listed = run()
    for model in listed:
        for line in model.lines:
            say(line)
    return {"models": listed}


@ready_models.command()
@answers("models fetch")
def fetch(
    names: Annotated[list[str], argument("models", "fetch", metavar="NAME...")],
    source: Annotated[str | None, option("models", "source")] = None,
) -> Any:
    """Bring models here from a release: a folder or an address with an index.json."""
    from trivox.verbs.release.models import models as run

    listed = run(names, source=source, console=Terminal())
    return {"models": [model for model in listed if model.name in names]}
