"""Looking inside a model: `trivox.explain`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trivox.tasks.console import Console
from trivox.tasks.labels.explanation import ExplainFile, explain_case
from trivox.verbs.settings import series_choice
from trivox.verbs.texts import described


@dataclass(frozen=True)
class Explanation:
    """Content of `explain.json`, and the files that stand in a folder."""

    folder: Path
    facts: ExplainFile = field(repr=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """Figures and numbers."""
        return tuple(self.folder / name for name in self.facts["files"])


@described
def explain(
    model: Path | str,
    input: Path | str,
    out: Path | str,
    *,
    case: str | None = None,
    point: tuple[int, int, int] | None = None,
    layers: Sequence[int] | None = None,
    device: str = "auto",
    series: str | None = None,
    slice_tolerance: float | None = None,
    console: Console | None = None,
) -> Explanation:
    """Look inside a model at one case: feature maps, where attention looks, which
    voxels matter; figures and numbers.

    Raises `BundleError` for a model that gives no label maps, `DataError` where the
    case is not clear or not there.
    """
    facts = explain_case(
        Path(model),
        Path(input),
        Path(out),
        case=case,
        point=point,
        layers=layers,
        device=device,
        choice=series_choice(series, slice_tolerance),
        console=console,
    )
    return Explanation(Path(out), facts)
