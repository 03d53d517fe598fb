"""How much the votes of a prediction doubt and contradict each other, from running sums
that do not grow with them.

Entropies are in nats. Predictive entropy H[mean p] is all doubt; mutual information
H[mean p] - mean H[p] is the part on which the votes contradict each other (Houlsby et
al. 2011, Gal and Ghahramani 2016). Softmax outputs have one entropy a voxel, at most
ln(classes); regions are independent yes-or-no answers, whose entropies (at most ln 2)
are averaged.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from trivox.errors import BundleError, RecipeError, UsageError
from trivox.inference.doubt.kinds import KINDS
from trivox.inference.engines.room import MEMORY
from trivox.volumes.volume import Array, Shape


def probabilities_of(
    logits: Tensor, *, exclusive: bool, temperature: float = 1.0
) -> Tensor:
    """Softmax, or sigmoid for regions, of `(c, ...)` logits divided by the temperature
    (Guo et al. 2017).
    """
    scaled = logits / temperature
    chance: Tensor = scaled.softmax(0) if exclusive else scaled.sigmoid()
    return chance


def entropy(probabilities: Tensor, *, exclusive: bool) -> Tensor:
    """Entropy in nats of `(c, ...)` probabilities; for regions the mean of their binary
    entropies.
    """
    surprise: Tensor = torch.special.entr(probabilities)  # -p ln p, and 0 at 0
    if exclusive:
        return surprise.sum(0)
    other: Tensor = torch.special.entr(1 - probabilities)
    return (surprise + other).mean(0)


def require_kinds(kinds: Iterable[str], *, votes: int) -> None:
    """Raise `RecipeError` for an unknown kind, `UsageError` for one that so few votes
    cannot give.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise RecipeError(
                f"uncertainty '{kind}' does not exist; choose from {', '.join(KINDS)}"
            )
        if kind != "entropy" and votes < 2:
            raise UsageError(
                f"uncertainty '{kind}' compares votes, and one network alone has a "
                "single vote; add --tta, --mc-samples 10, --scales 0.9,1,1.1 or "
                "another model, or ask for entropy"
            )


def wake_dropout(network: nn.Module) -> None:
    """Let only the dropout of a network in eval mode draw at random (Gal and Ghahramani
    2016); norms stay as they are.

    Raises `BundleError` if the network has none.
    """
    random = [module for module in network.modules() if _drops(module)]
    if not random:
        raise BundleError(
            "the network has no dropout, so all its Monte Carlo passes would be equal; "
            "train one with --set network_options.dropout=0.1, or use --tta or several "
            "models"
        )
    for module in random:
        module.train()


def _drops(module: nn.Module) -> bool:
    """Whether it is a dropout of units or of residual paths with a probability above 0."""
    names = {kind.__name__ for kind in type(module).__mro__}
    if names.isdisjoint(("_DropoutNd", "DropPath", "StochasticDepth")):
        return False
    known = (getattr(module, name, None) for name in ("p", "probability", "rate"))
    chance = next((value for value in known if value is not None), 0)
    return float(chance) > 0


class Sums:
    """Sums over votes, on the ordered and cropped source grid: of p, and only if a kind
    needs it, of p squared and H[p]. place: where they lie.
    """

    def __init__(
        self,
        channels: int,
        shape: Shape,
        *,
        exclusive: bool,
        kinds: Sequence[str] = (),
        place: torch.device = MEMORY,
    ) -> None:
        self.exclusive = exclusive
        self.kinds = tuple(kinds)
        self.votes = 0
        self._square: Tensor | None = None
        self._entropy: Tensor | None = None
        self._sum = torch.zeros(channels, *shape, device=place)
        if "variance" in kinds:
            self._square = torch.zeros(channels, *shape, device=place)
        if "mutual_information" in kinds:
            self._entropy = torch.zeros(shape, device=place)

    def add(self, start: int, chance: Tensor, axes: Sequence[int] = (0, 1, 2)) -> None:
        """Add rows from `start` of a vote `(c, rows, y, x)`; axis i of its grid is axis
        `axes[i]` here.
        """
        rows = slice(start, start + chance.shape[1])
        channelled = (0, *(axis + 1 for axis in axes))
        self._sum.permute(channelled)[:, rows] += chance
        if self._square is not None:
            self._square.permute(channelled)[:, rows] += chance**2
        if self._entropy is not None:
            each = entropy(chance, exclusive=self.exclusive)
            self._entropy.permute(*axes)[rows] += each

    def mean(self) -> Tensor:
        """Mean probabilities `(c, z, y, x)`."""
        return self._sum / self.votes

    def maps(self) -> dict[str, Array]:
        """The kinds asked for, each `(z, y, x)` float32."""
        planes: dict[str, list[Tensor]] = {kind: [] for kind in self.kinds}
        for z in range(self._sum.shape[1]):  # no second copy of classes x volume
            plane = self._plane(z)
            for kind in self.kinds:
                planes[kind].append(plane[kind])
        stacked = {kind: torch.stack(parts) for kind, parts in planes.items()}
        return {kind: volume.cpu().numpy() for kind, volume in stacked.items()}

    def _plane(self, z: int) -> dict[str, Tensor]:
        mean = self._sum[:, z] / self.votes
        doubt = {"entropy": entropy(mean, exclusive=self.exclusive)}
        if self._entropy is not None:
            within = self._entropy[z] / self.votes
            doubt["mutual_information"] = (doubt["entropy"] - within).clamp(min=0)
        if self._square is not None:
            variance = self._square[:, z] / self.votes - mean**2
            doubt["variance"] = variance.clamp(min=0).mean(0)
        return doubt


class Agreement:
    """How much the label maps of the votes overlap, without holding them all.

    Dice over all pairs of votes, pooled: of each label twice the voxels that both have
    over those that each has, summed over pairs; then the mean over labels.
    """

    def __init__(self, labels: int, shape: Shape) -> None:
        self._counts = np.zeros((labels + 1, int(np.prod(shape))), dtype=np.uint16)
        self._joint = np.zeros(labels + 1)
        self._sizes = np.zeros(labels + 1)
        self._votes = 0

    @staticmethod
    def bytes_of(labels: int, shape: Shape) -> int:
        """Memory that counting takes."""
        return 2 * (labels + 1) * int(np.prod(shape))

    def add(self, labels: Array) -> None:
        """Count one vote's label indices `(z, y, x)`."""
        flat = labels.reshape(-1)
        at = np.flatnonzero(flat > 0)
        which = flat[at]
        before = self._counts[which, at]
        self._joint += np.bincount(which, weights=before, minlength=len(self._joint))
        self._sizes += np.bincount(which, minlength=len(self._sizes))
        self._counts[which, at] = before + 1
        self._votes += 1

    def dice(self) -> float | None:
        """0..1; None for fewer than two votes or if none found anything."""
        present = self._sizes > 0
        if self._votes < 2 or not present.any():
            return None
        pairs = (self._votes - 1) * self._sizes[present]
        return float(np.mean(2 * self._joint[present] / pairs))
