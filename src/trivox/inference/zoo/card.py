"""What a person has to know of a model before using it, as data in its `bundle.json`."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from trivox.schema import Frozen

Text = Annotated[str, Field(min_length=1, max_length=2000)]


class Measured(Frozen):
    """A mean over cases with its 95 % interval.

    target: label, region or what else was measured; metric: as `metrics.json` calls it.
    """

    target: Text
    metric: Text
    mean: float
    ci95: tuple[float, float]
    cases: int = Field(ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.ci95
        if not low <= self.mean <= high:
            raise ValueError(f"mean {self.mean} lies outside its interval {self.ci95}")
        return self

    @property
    def line(self) -> str:
        """For people: `Anterior dice 0.891 (0.880 to 0.900)`."""
        low, high = self.ci95
        return f"{self.target} {self.metric} {self.mean:.4g} ({low:.4g} to {high:.4g})"


class Card(Frozen):
    """Of a model that is given to others.

    licence: of the weights, as an SPDX expression; attribution: who must be named;
    provenance: where the weights are from, by name; measured_on: the cases behind
    `metrics`, and whether the weights had seen them.
    """

    summary: Text
    data: Text
    licence: Text
    attribution: tuple[Text, ...] = ()
    provenance: dict[Text, Text] = Field(default_factory=dict)
    intended_use: Text
    failure_modes: tuple[Text, ...] = Field(min_length=1)
    measured_on: Text
    metrics: tuple[Measured, ...] = Field(min_length=1)

    @property
    def lines(self) -> list[tuple[str, str]]:
        """What a list of models shows of it: heading and text."""
        rows = [
            ("data", self.data),
            ("licence", self.licence),
            *(("attribution", each) for each in self.attribution),
            *(("measured", each.line) for each in self.metrics),
            ("measured on", self.measured_on),
            ("use it for", self.intended_use),
            *(("it fails", each) for each in self.failure_modes),
        ]
        return [*rows, *self.provenance.items()]
