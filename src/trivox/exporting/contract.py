"""What a container has to do: `contract.json`, which its entry point and its smoke test
read.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from trivox.config.choices import MissingChannels
from trivox.errors import BundleError
from trivox.files import read_json
from trivox.schema import Frozen, validated

Target = Literal["brats", "grand-challenge", "docker", "mercure", "map"]
Slug = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,200}$")]


class Contract(Frozen):
    """What entry point and smoke test are told.

    models: bundle folders, all of which vote; labels: name -> value in the model;
    values: which may stand in a label map written for the example cases; formats: that
    results are written in, none: as suits each case; input_slugs: socket -> channel.
    """

    task: str | None = None
    format_version: Literal[1] = 1
    target: Target
    models: tuple[str, ...]
    channels: tuple[str, ...]
    labels: dict[str, int]
    values: tuple[int, ...]
    missing_channels: MissingChannels = "refuse"
    formats: tuple[str, ...] = ()
    mounted_weights: bool = False
    input_slugs: dict[Slug, str] = Field(default_factory=dict)
    output_slug: Slug | Literal[""] = ""
    example_cases: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_a_socket_for_each_channel(self) -> "Contract":
        if self.target == "grand-challenge":
            without = [name for name in self.channels if name not in self.slugs]
            if without:
                raise ValueError(f"channel {without[0][:60]!a} has no input socket")
        return self

    @property
    def slugs(self) -> dict[str, str]:
        """Channel -> socket."""
        return {channel: slug for slug, channel in self.input_slugs.items()}


def read_contract(file: Path) -> Contract:
    """Read `contract.json`; raises `BundleError` in one line if it is not one."""
    return validated(
        Contract,
        read_json(file),
        where=file,
        error=BundleError,
        advice="run 'trivox package' again",
    )
