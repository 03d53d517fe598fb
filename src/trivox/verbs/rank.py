"""Models compared as a challenge does: `trivox.rank`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trivox.evaluation.folders.labels import read_metrics
from trivox.evaluation.folders.measured import changed_since
from trivox.evaluation.folders.ranking import (
    RankingFile,
    name_models,
    rank_models,
    ranking_lines,
)
from trivox.files import write_json
from trivox.verbs.texts import described


@dataclass(frozen=True)
class Ranking:
    """Content of ranking.json, and the same as lines for people."""

    file: Path
    content: RankingFile = field(repr=False)
    lines: tuple[str, ...]

    @property
    def warnings(self) -> list[str]:
        """What a reader of the ranks has to know."""
        return list(self.content["warnings"])


@described
def rank(
    metrics: Sequence[Path | str],
    out: Path | str = Path("ranking.json"),
    *,
    names: str | Sequence[str] | None = None,
    metric: Sequence[str] | None = None,
    permutations: int = 10_000,
    seed: int = 0,
) -> Ranking:
    """Rank models as the BraTS challenge does: by their ranks in each case, region and
    metric; with permutation tests.

    Raises `DataError` for metrics of different cases, labels or conventions.
    """
    files = [Path(file) for file in metrics]
    given = names.split(",") if isinstance(names, str) else list(names or ())
    contents = [read_metrics(file) for file in files]
    models = dict(zip(name_models(files, given), contents, strict=True))
    content = rank_models(
        models, metrics=metric or (), permutations=permutations, seed=seed
    )
    for name, metrics_of in models.items():
        content["warnings"] += [f"{name}: {line}" for line in changed_since(metrics_of)]
    write_json(Path(out), content)
    return Ranking(Path(out), content, tuple(ranking_lines(content)))
