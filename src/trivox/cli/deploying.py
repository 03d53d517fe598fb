"""Verbs that put models to work elsewhere: package."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Target(StrEnum):
    """Where a container goes."""

    BRATS = "brats"
    GRAND_CHALLENGE = "grand-challenge"


def package(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...", help="run or bundle folder(s); several vote"
        ),
    ],
    target: Annotated[
        Target, typer.Option("--target", help="whose container contract to keep")
    ],
    out: Annotated[Path, typer.Option("--out", help="folder to write, new or empty")],
    input_slug: Annotated[
        list[str] | None,
        typer.Option(
            "--input-slug",
            help="grand-challenge: SLUG=CHANNEL, input socket of a channel; repeatable",
        ),
    ] = None,
    output_slug: Annotated[
        str,
        typer.Option(
            "--output-slug",
            help="grand-challenge: folder of the result in /output/images",
        ),
    ] = "",
    mounted_weights: Annotated[
        bool,
        typer.Option(
            "--mounted-weights",
            help="grand-challenge: weights come from /opt/ml/model, not the image",
        ),
    ] = False,
    missing_channels: Annotated[
        str,
        typer.Option(
            "--missing-channels",
            help="cases that lack a channel: refuse, or predict with zeros",
        ),
    ] = "refuse",
) -> None:
    """Write a folder that `docker build` turns into a challenge container: entry point,
    model, code, smoke test.
    """
    from trivox.exporting.containers import package_model

    pairs = [text.partition("=") for text in input_slug or []]
    wrong = next(
        (
            f"{slug}{equals}{channel}"
            for slug, equals, channel in pairs
            if not (slug and channel)
        ),
        None,
    )
    if wrong is not None:
        raise typer.BadParameter(
            f"--input-slug {wrong}: give SLUG=CHANNEL, for example brain-t1-mri=T1"
        )
    if len({slug for slug, _, _ in pairs}) < len(pairs):
        raise typer.BadParameter(
            "--input-slug: a socket is named twice; give every channel its own"
        )
    if missing_channels not in ("refuse", "zeros"):
        raise typer.BadParameter(
            f"--missing-channels {missing_channels}: choose refuse or zeros"
        )
    package_model(
        models,
        out,
        target=target.value,
        input_slugs={slug: channel for slug, _, channel in pairs},
        output_slug=output_slug,
        mounted_weights=mounted_weights,
        missing_channels="zeros" if missing_channels == "zeros" else "refuse",
    )
    print(f"written to {out}: README.md has the commands")
    print(f"try it without Docker: python {out / 'smoke_test.py'}")
