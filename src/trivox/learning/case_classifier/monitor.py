"""Watches a classifier during training: figures of each epoch, and warnings that say
what to try.

A classifier beside a segmentation fails silently: the loss falls while every case is
answered with the most frequent class. What gives it away are the answers themselves,
class by class, and the logits behind them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]

FAR = 0.3
"""Difference of the share of answers and the share of cases that is worth a warning."""
IMBALANCE = 2.0
"""Distance of the highest from the lowest mean logit, in standard deviations of a
logit, that is worth a warning.
"""

COLLAPSE = (
    "try classification.imbalance=balanced_sampler, more patches on lesions "
    "(classification.lesion_fraction), another classification.weight or "
    "classification.learning_rate_factor, or let classification.classifier=lda answer"
)
NEVER = (
    "try classification.imbalance=balanced_sampler or logit_adjustment, "
    "classification.class_weights=effective_number, classification.loss=focal, or let "
    "classification.classifier=lda answer"
)
LEANING = (
    "try classification.imbalance=logit_adjustment, "
    "classification.class_weights=inverse_frequency, or a smaller "
    "classification.weight while it lasts"
)
LOGITS = (
    "try classification.label_smoothing=0.1, a smaller "
    "classification.learning_rate_factor, or classification.dropout"
)


@dataclass(eq=False)
class ClassMonitor:
    """Of a training with these classes.

    A warning comes once, when its cause has lasted `patience` epochs in a row, and
    again only after an epoch without the cause. All that is kept are the epochs that
    each cause has lasted.
    """

    classes: Sequence[str]
    patience: int = 5
    lasted: dict[str, int] = field(default_factory=dict, init=False)

    def figures(
        self,
        confusion: Numbers,
        logit_sums: Numbers,
        number: float,
        *,
        logit_squares: Numbers | None = None,
    ) -> dict[str, float]:
        """Figures of an epoch from counts over its validation patches; none if there
        were no patches.

        confusion: `(k, k)`, rows are the truth, columns the answers; logit_sums,
        logit_squares: of each class's logit and of its square, `(k,)`; number: of
        patches. A class without patches has no recall; in macro-F1 it counts as 0 if it
        was answered or not, as scikit-learn does with `zero_division=0`. Without
        squares the logits' spread is not known, and their imbalance not judged.
        """
        if number <= 0:
            return {}
        cases = confusion.sum(1)
        answers = confusion.sum(0)
        hits = np.diag(confusion)
        f1 = 2 * hits / np.maximum(cases + answers, 1)
        recall = self._recall(hits, cases)
        figures = {
            "validation_macro_f1": float(np.mean(f1)),
            "validation_balanced_accuracy": sum(recall.values()) / len(recall),
            **self._by_class("class_share", answers / number),
            **self._by_class("class_cases", cases / number),
            **{f"class_recall/{name}": value for name, value in recall.items()},
            **self._by_class("class_logit", logit_sums / number),
        }
        if logit_squares is not None:
            variance = logit_squares / number - (logit_sums / number) ** 2
            spread = np.sqrt(np.maximum(variance, 0).mean())
            figures["class_logit_spread"] = float(spread)
        return figures

    def _recall(self, hits: Numbers, cases: Numbers) -> dict[str, float]:
        """Of each class that has cases."""
        numbers = zip(self.classes, hits.tolist(), cases.tolist(), strict=True)
        return {name: hit / count for name, hit, count in numbers if count}

    def warnings(self, figures: Mapping[str, float]) -> list[str]:
        """What is wrong since `patience` epochs and was not said before; call it once
        an epoch with its figures.
        """
        causes = self._causes(figures)
        self.lasted = {cause: self.lasted.get(cause, 0) + 1 for cause in causes}
        return [
            text
            for cause, text in causes.items()
            if self.lasted[cause] == self.patience
        ]

    def _causes(self, figures: Mapping[str, float]) -> dict[str, str]:
        """What is wrong in this epoch, and how to say it; the root of all others alone,
        if it is there.
        """
        shares = self._of("class_share", figures)
        cases = self._of("class_cases", figures)
        if sum(share > 0 for share in cases.values()) < 2:
            return {}
        answered = [name for name in self.classes if shares[name] > 0]
        if len(answered) == 1:
            return {"collapse": self._collapse(answered[0], cases)}
        causes: dict[str, str] = {}
        for name in self.classes:
            if cases[name] > 0 and shares[name] == 0:
                causes[f"never {name}"] = self._never(name, cases)
        if not causes:
            causes |= self._leaning(shares, cases)
        return causes | self._logits(figures)

    def _collapse(self, name: str, cases: Mapping[str, float]) -> str:
        frequent = (
            ", the most frequent class" if cases[name] == max(cases.values()) else ""
        )
        return (
            f"classes: all answers have been '{name}'{frequent}, for {self.patience} "
            f"epochs: the classifier has collapsed; {COLLAPSE}"
        )

    def _never(self, name: str, cases: Mapping[str, float]) -> str:
        return (
            f"classes: '{name}' was never answered in {self.patience} epochs, although "
            f"{cases[name]:.0%} of the patches belong to it; {NEVER}"
        )

    def _leaning(
        self, shares: Mapping[str, float], cases: Mapping[str, float]
    ) -> dict[str, str]:
        name = max(self.classes, key=lambda name: shares[name] - cases[name])
        if shares[name] - cases[name] <= FAR:
            return {}
        text = (
            f"classes: '{name}' gets {shares[name]:.0%} of the answers, but "
            f"{cases[name]:.0%} of the patches belong to it; {LEANING}"
        )
        return {f"leaning to {name}": text}

    def _logits(self, figures: Mapping[str, float]) -> dict[str, str]:
        logits = self._of("class_logit", figures)
        spread = figures.get("class_logit_spread", float("inf"))
        high = max(self.classes, key=lambda name: logits[name])
        low = min(self.classes, key=lambda name: logits[name])
        distance = logits[high] - logits[low]
        if distance <= IMBALANCE * spread:
            return {}
        text = (
            f"classes: the mean logit of '{high}' lies {distance:.2g} above that of "
            f"'{low}', while logits differ by {spread:.2g} between patches: the answer "
            f"hardly depends on the patch; {LOGITS}"
        )
        return {"logits": text}

    def _by_class(self, figure: str, values: Numbers) -> dict[str, float]:
        return {
            f"{figure}/{name}": float(value)
            for name, value in zip(self.classes, values, strict=True)
        }

    def _of(self, figure: str, figures: Mapping[str, float]) -> dict[str, float]:
        return {name: figures.get(f"{figure}/{name}", 0.0) for name in self.classes}
