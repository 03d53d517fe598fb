"""The kinds of containers: what each asks of a model, and where its files lie.

docker: `/input` to `/output`, any format. mercure: a module of the DICOM router
(github.com/mercure-imaging/mercure, docs/modules.rst). map: a MONAI Application Package
(github.com/Project-MONAI/monai-deploy, guidelines/monai-application-package.md). brats
and grand-challenge: see `trivox.exporting.containers`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trivox.datasets.channels import sequence_of
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.brats import family_of
from trivox.errors import BundleError, RecipeError
from trivox.exporting.contract import Target

SLUG = re.compile(r"[A-Za-z0-9_-]+")
DICOM_FORMATS = ("dicom-seg",)
"""What routers of DICOM are given unless told otherwise."""


@dataclass(frozen=True)
class Asked:
    """What the user says of grand-challenge's sockets."""

    input_slugs: Mapping[str, str] = field(default_factory=dict)
    output_slug: str = ""
    mounted_weights: bool = False


Facts = Callable[[Sequence[str], LabelScheme, Asked], dict[str, Any]]
"""Fields of the contract for a model's channels and labels; raises `BundleError` for a
model that does not fit, `RecipeError` for slugs that do not.
"""


@dataclass(frozen=True)
class Kind:
    """One kind of container.

    entry: file of the entry point; facts: what joins the contract; home, models: where
    the entry point and the bundles lie in the image; extra: optional packages that it
    needs; sockets: whether it has those of grand-challenge; classes: whether it takes
    models that also answer with a class; inputs, outputs: folders that are mounted.
    """

    entry: str
    facts: Facts
    home: str = "/opt/trivox"
    models: str = "/opt/trivox/models"
    extra: str = ""
    sockets: bool = False
    classes: bool = False
    inputs: str = "/input"
    outputs: str = "/output"


def _for_brats(
    channels: Sequence[str], labels: LabelScheme, asked: Asked
) -> dict[str, Any]:
    """Examples of the family that knows the model's labels, and the values that its
    label maps may hold.
    """
    sequences = [sequence_of(channel) for channel in channels]
    if not all(sequences) or len(set(sequences)) < len(sequences):
        raise BundleError(
            f"the model reads {', '.join(channels)}, BraTS gives T1, T1ce, T2 and "
            "FLAIR once each; train on a BraTS dataset"
        )
    cavity = "100" if "RC" in labels.labels else "000"
    examples = (f"BraTS-GLI-00001-{cavity}", f"BraTS-GLI-00002-{cavity}")
    family = family_of(examples[0])
    assert family is not None, "the examples are BraTS cases"
    unknown = [name for name in labels.labels if name not in family.labels.labels]
    if unknown:
        known = ", ".join(family.labels.labels)
        raise BundleError(
            f"the model's labels {', '.join(unknown)} are not those of BraTS "
            f"({known}); name them so in the dataset and train again"
        )
    return {"example_cases": examples, "values": family.labels.values}


def _for_grand_challenge(
    channels: Sequence[str], labels: LabelScheme, asked: Asked
) -> dict[str, Any]:
    """Checked slugs and the label values, which have to fit into a byte."""
    for slug in (*asked.input_slugs, asked.output_slug):
        _require_slug(slug)
    if sorted(asked.input_slugs.values()) != sorted(channels):
        named = ", ".join(asked.input_slugs.values()) or "none"
        raise RecipeError(
            f"--input-slug names the channels {named}, the model reads "
            f"{', '.join(channels)}; give --input-slug SLUG=CHANNEL once for each"
        )
    if min(labels.values) < 0 or max(labels.values) > 255:
        raise BundleError(
            f"label values {sorted(labels.values)} do not fit into the unsigned bytes "
            "of a grand-challenge label map; "
            "number the labels from 0 to 255 and train again"
        )
    return {
        "input_slugs": dict(asked.input_slugs),
        "output_slug": asked.output_slug,
        "mounted_weights": asked.mounted_weights,
        "values": labels.values,
    }


def _require_slug(slug: str) -> None:
    if SLUG.fullmatch(slug):
        return
    wrong = f"'{slug}' is no slug of a socket (letters, digits, - and _)"
    raise RecipeError(
        f"{wrong if slug else 'a socket has no name'}; name them with "
        "--input-slug SLUG=CHANNEL for each channel, and --output-slug SLUG"
    )


def _for_docker(
    channels: Sequence[str], labels: LabelScheme, asked: Asked
) -> dict[str, Any]:
    return {"values": labels.values}


def _for_router(
    channels: Sequence[str], labels: LabelScheme, asked: Asked
) -> dict[str, Any]:
    """For what hands on one DICOM series at a time."""
    if len(channels) > 1:
        raise BundleError(
            f"the model reads {', '.join(channels)}, and a router hands on one series; "
            "package it with --target docker"
        )
    return {"values": labels.values, "formats": DICOM_FORMATS}


KINDS: dict[Target, Kind] = {
    "brats": Kind("brats.py", _for_brats),
    "grand-challenge": Kind("grand_challenge.py", _for_grand_challenge, sockets=True),
    "docker": Kind("docker.py", _for_docker, extra="dicom", classes=True),
    "mercure": Kind(
        "mercure.py",
        _for_router,
        extra="dicom",
        classes=True,
        inputs="/data",
    ),
    "map": Kind(
        "monai_package.py",
        _for_router,
        home="/opt/holoscan/app",
        models="/opt/holoscan/models",
        extra="dicom",
        classes=True,
        inputs="/var/holoscan/input",
        outputs="/var/holoscan/output",
    ),
}


def require_no_sockets(target: Target, asked: Asked) -> None:
    """Raise `RecipeError` where sockets are named for a container that has none."""
    if asked.input_slugs or asked.output_slug or asked.mounted_weights:
        raise RecipeError(
            "slugs and mounted weights are for --target grand-challenge; "
            f"leave them out for {target}"
        )
