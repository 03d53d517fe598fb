"""Targets that a network has stopped to predict, or never began to: background
everywhere is a cheap answer where foreground is sparse.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trivox.config.recipe import Recipe

VALIDATIONS = 3
"""In a row, at least."""
SHARE = 0.05
"""Of the training, at least: a rare target is unseen at the very beginning, and what is
said at twice this share is said early enough to begin anew.
"""


@dataclass(eq=False)
class UnseenTargets:
    """Takes note of validations in which the reference has a target and the prediction
    nowhere.

    since: target -> share of training spent at the first of these validations, and how
    many there were in a row; said: targets that were warned of.
    """

    remedy: str = ""
    spent: float = 0.0
    since: dict[str, tuple[float, int]] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    @classmethod
    def under(cls, recipe: Recipe) -> "UnseenTargets":
        """With remedies for a training under this recipe."""
        more = min(1.0, max(0.67, recipe.foreground_fraction + 0.3))
        remedy = (
            f"more foreground (--set foreground_fraction={more:.2g} instead of "
            f"{recipe.foreground_fraction:.2g}), a loss for small targets (--set "
            "loss=dice+focal), a smaller --patch-size, or a lower --lr "
            f"({recipe.learning_rate / 3:.2g} instead of {recipe.learning_rate:.2g})"
        )
        return cls(remedy)

    def note(self, targets: Mapping[str, tuple[float, float]]) -> None:
        """Take note of a validation: predicted and reference voxels of each target."""
        for name, (predicted, reference) in targets.items():
            if predicted:
                self.since.pop(name, None)
            elif reference:
                first, count = self.since.get(name, (self.spent, 0))
                self.since[name] = (first, count + 1)

    def remarks(self) -> list[str]:
        """A warning, once, for each target that stays unseen."""
        lines = []
        for name, (first, count) in self.since.items():
            long = count >= VALIDATIONS and self.spent - first >= SHARE
            if long and name not in self.said:
                self.said.add(name)
                lines.append(
                    f"{name} was predicted nowhere in the last {count} validations, "
                    f"though the reference has it (Dice 0); it may stay so: try "
                    f"{self.remedy}"
                )
        return lines

    def state(self) -> dict[str, object]:
        """For checkpoints."""
        since = {name: list(value) for name, value in self.since.items()}
        return {"since": since, "said": sorted(self.said)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        since = state.get("since", {})
        self.since = {name: (first, count) for name, (first, count) in since.items()}
        self.said = set(state.get("said", ()))
