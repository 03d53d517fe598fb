"""Models that are ready to use: list and fetch."""

from typing import Annotated

import typer

from trivox.cli.options import argument, option
from trivox.cli.terminal import Terminal, say

ready_models = typer.Typer(
    help="List the models that are ready to use, with their cards.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@ready_models.callback()
def models(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """List the models that are ready to use, with their cards."""
    import json

    from trivox.schema import stamped
    from trivox.verbs.release.models import models as run

    if context.invoked_subcommand is not None:
        return
    listed = run()
    if as_json:
        content = {"models": [model.to_json() for model in listed]}
        print(json.dumps(stamped(content, None), indent=2))
        return
    for model in listed:
        for line in model.lines:
            say(line)


@ready_models.command()
def fetch(
    names: Annotated[list[str], argument("models", "fetch", metavar="NAME...")],
    source: Annotated[str | None, option("models", "source")] = None,
) -> None:
    """Bring models here from a release: a folder or an address with an index.json."""
    from trivox.verbs.release.models import models as run

    run(names, source=source, console=Terminal())
