"""Commands that work beside a hospital's archive."""

from pathlib import Path
from typing import Annotated, Any

import typer

from trivox.cli.answers import answers
from trivox.cli.options import argument, option
from trivox.cli.terminal import Terminal, say

archives = typer.Typer(
    help="Search archives (PACS), fetch from and send to them, and answer what comes in.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Profiles = Annotated[Path | None, option("pacs", "profiles")]
Pacs = Annotated[str | None, option("pacs", "pacs")]
RulesFile = Annotated[Path, option("pacs", "rules")]
Station = Annotated[Path, option("pacs_watch", "out")]


@archives.command()
@answers("pacs echo")
def echo(profiles: Profiles = None, pacs: Pacs = None) -> Any:
    """Ask an archive whether it answers."""
    from trivox.verbs.clinic.pacs import pacs_echo as run

    says = run(profiles=profiles, pacs=pacs)
    say(says)
    return {"says": says}


@archives.command()
@answers("pacs find")
def find(
    profiles: Profiles = None,
    pacs: Pacs = None,
    patient_id: Annotated[str, option("pacs_find", "patient_id")] = "",
    patient_name: Annotated[str, option("pacs_find", "patient_name")] = "",
    dates: Annotated[str, option("pacs_find", "dates")] = "",
    modality: Annotated[str, option("pacs_find", "modality")] = "",
    description: Annotated[str, option("pacs_find", "description")] = "",
    accession: Annotated[str, option("pacs_find", "accession")] = "",
    study: Annotated[str, option("pacs_find", "study")] = "",
    series: Annotated[bool, option("pacs_find", "series")] = False,
) -> Any:
    """Search an archive for studies."""
    from trivox.verbs.clinic.pacs import pacs_find as run

    listed = run(
        profiles=profiles,
        pacs=pacs,
        patient_id=patient_id,
        patient_name=patient_name,
        dates=dates,
        modality=modality,
        description=description,
        accession=accession,
        study=study,
        series=series,
    )
    for line in listed.lines:
        say(line)
    return listed


@archives.command()
@answers("pacs fetch")
def fetch(
    study: Annotated[str, argument("pacs_fetch", "study", metavar="STUDY")],
    out: Annotated[Path, option("pacs_fetch", "out")],
    profiles: Profiles = None,
    pacs: Pacs = None,
    series: Annotated[list[str] | None, option("pacs_fetch", "series")] = None,
) -> Any:
    """Fetch a study, or some of its series, and count what came."""
    from trivox.verbs.clinic.pacs import pacs_fetch as run

    fetched = run(
        study,
        out,
        profiles=profiles,
        pacs=pacs,
        series=series or (),
        console=Terminal(),
    )
    for line in fetched.lines:
        say(line)
    fetched.require_all()
    return fetched


@archives.command()
@answers("pacs send")
def send(
    objects: Annotated[
        list[Path], argument("pacs_send", "objects", metavar="DICOM...")
    ],
    profiles: Profiles = None,
    pacs: Pacs = None,
) -> Any:
    """Send DICOM files to an archive, and look whether they are there afterwards."""
    from trivox.verbs.clinic.pacs import pacs_send as run

    sent = run(objects, profiles=profiles, pacs=pacs)
    say(sent.summary)
    sent.require_all()
    return sent


@archives.command()
def watch(
    rules: RulesFile,
    out: Station,
    profiles: Profiles = None,
    pacs: Pacs = None,
    once: Annotated[bool, option("pacs_watch", "once")] = False,
) -> None:
    """Watch an archive: series go through the model of their rule, and results back."""
    from trivox.verbs.clinic.service import pacs_watch as run

    said = run(rules, out, profiles=profiles, pacs=pacs, once=once, console=Terminal())
    say(said)


def node(
    rules: RulesFile,
    out: Annotated[Path, option("node", "out")] = Path("trivox-node"),
    profiles: Profiles = None,
    bind: Annotated[str | None, option("node", "bind")] = None,
    port: Annotated[int | None, option("node", "port")] = None,
    aet: Annotated[str | None, option("node", "aet")] = None,
) -> None:
    """Be a DICOM node: what peers send goes through the model of its rule, and the
    results where the rule says.
    """
    from trivox.verbs.clinic.service import node as run

    said = run(
        rules,
        out,
        profiles=profiles,
        bind=bind,
        port=port,
        aet=aet,
        console=Terminal(),
    )
    say(said)
