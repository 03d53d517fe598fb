"""A class for the whole case beside its segmentation: one encoder, one decoder, and a
head that is part of the module.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivox.datasets.labels import LabelScheme
from trivox.datasets.lesions import RIM_MM, other_targets, outputs_within
from trivox.errors import RecipeError
from trivox.networks.pooling import masked_attention, masked_moments
from trivox.planning.topology import Topology
from trivox.volumes.volume import Spacing

MASKS = ("lesion", "core", "rim", "organ")
"""Where features are pooled: the lesion, its inside, a shell round it, and the whole
foreground; then other targets.
"""


class Outputs(NamedTuple):
    """What one forward pass gives.

    segmentation: logits `(b, c, z, y, x)`, in training a list, finest first; classes:
    logits `(b, classes)`.
    """

    segmentation: Tensor | list[Tensor]
    classes: Tensor


class Pooled(NamedTuple):
    """Feature maps pooled inside masks `(b, mask, feature)` for each map: means,
    standard deviations.
    """

    means: list[Tensor]
    deviations: list[Tensor]


@dataclass(frozen=True)
class LesionMasks:
    """How the masks of `MASKS` and of other targets are made of a segmentation.

    rim: its radii in voxels `(z, y, x)`; lesion, others: the network outputs that each
    is made of; exclusive: outputs are a softmax with the background first.
    """

    lesion: tuple[int, ...]
    exclusive: bool
    rim: tuple[int, int, int]
    others: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(
        cls, labels: LabelScheme, lesion: Sequence[int], spacing: Spacing
    ) -> "LesionMasks":
        """The masks of a dataset whose lesion has label indices `lesion`, for voxels of
        `spacing` mm; the rim is 3 mm.
        """
        z, y, x = (min(max(round(RIM_MM / size), 1), 5) for size in spacing)
        others = other_targets(labels, lesion).values()
        return cls(
            lesion=outputs_within(labels, lesion),
            exclusive=labels.exclusive,
            rim=(z, y, x),
            others=tuple(outputs_within(labels, indices) for indices in others),
        )

    @property
    def count(self) -> int:
        """Number of masks."""
        return len(MASKS) + len(self.others)

    def predicted(self, logits: Tensor) -> Tensor:
        """Soft masks of lesion, organ and other targets `(b, m, z, y, x)` from logits
        `(b, c, z, y, x)`.
        """
        if self.exclusive:
            chance = logits.float().softmax(1)
            organ = 1 - chance[:, :1]
        else:
            chance = logits.float().sigmoid()
            organ = chance.amax(1, keepdim=True)
        lesion, *others = (
            self._joined(chance, outputs) for outputs in (self.lesion, *self.others)
        )
        return torch.cat([lesion, organ, *others], 1)

    def _joined(self, chance: Tensor, outputs: tuple[int, ...]) -> Tensor:
        chosen = torch.stack([chance[:, output] for output in outputs], 1)
        if self.exclusive:
            return chosen.sum(1, keepdim=True)
        return chosen.amax(1, keepdim=True)

    def around(self, known: Tensor) -> Tensor:
        """All masks `(b, mask, z, y, x)` from those of the lesion, the organ and the
        other targets, soft or hard.
        """
        lesion, organ, others = known.tensor_split((1, 2), dim=1)
        rim = (_grow(lesion, self.rim) - lesion).clamp(min=0)
        whole = torch.maximum(organ, lesion)
        return torch.cat([lesion, shrink(lesion), rim, whole, others], 1)


def _grow(mask: Tensor, radii: Sequence[int]) -> Tensor:
    """Maximum over a box of `(b, m, z, y, x)`, a voxel and an axis at a time: pooling
    compares (2 r + 1)^3 voxels each.
    """
    for axis, radius in enumerate(radii, start=2):
        for _ in range(radius):
            grown = mask.clone()
            inner = mask.shape[axis] - 1
            for ahead, behind in ((0, 1), (1, 0)):
                part = grown.narrow(axis, ahead, inner)
                neighbours = mask.narrow(axis, behind, inner)
                torch.maximum(part, neighbours, out=part)
            mask = grown
    return mask


def shrink(mask: Tensor) -> Tensor:
    """A soft mask eroded by a voxel along each axis that has several; itself where
    nothing would be left.
    """
    radii = [int(n > 1) for n in mask.shape[2:]]
    eroded = 1 - _grow(1 - mask, radii)
    left = eroded.flatten(1).amax(1) > 0.5 * mask.flatten(1).amax(1)
    return torch.where(left[:, None, None, None, None], eroded, mask)


def jitter(mask: Tensor) -> Tensor:
    """Each sample of `(b, m, z, y, x)` grown, shrunk or left alone by chance: predicted
    masks are never exact.
    """
    choice = torch.randint(3, (len(mask),), device=mask.device)
    if mask.device.type != "cpu":
        return _changed(mask, choice[:, None, None, None, None])
    grown = choice == 1
    shrunk = choice == 2
    result = mask.clone()
    if grown.any():
        radii = [int(n > 1) for n in mask.shape[2:]]
        result[grown] = _grow(mask[grown], radii)
    if shrunk.any():
        result[shrunk] = shrink(mask[shrunk])
    return result


def _changed(mask: Tensor, choice: Tensor) -> Tensor:
    """Samples grown where the choice is 1 and shrunk where it is 2; both are computed of
    all, since a GPU would have to be waited for to know which.
    """
    radii = [int(n > 1) for n in mask.shape[2:]]
    result = torch.where(choice == 1, _grow(mask, radii), mask)
    return torch.where(choice == 2, shrink(mask), result)


class ClassHead(nn.Module):
    """Logits of the classes from the image and the encoder's maps of all stages, the
    shallow ones included.

    In each mask of every map: mean, standard deviation and an attention-weighted mean
    make a token; a second attention weighs the tokens over scales and masks. The image
    itself is the first map, since instance norms lose absolute intensities; the sizes
    of the masks are one more token. Layer norms only: a batch is small.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        classes: int,
        masks: int = len(MASKS),
        width: int = 64,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.queries = nn.ParameterList(
            nn.Parameter(torch.randn(masks, n) * n**-0.5) for n in widths
        )
        self.norms = nn.ModuleList(nn.LayerNorm(3 * n) for n in widths)
        self.tokens = nn.ModuleList(nn.Linear(3 * n, width) for n in widths)
        self.places = nn.Parameter(torch.randn(len(widths), masks, width) * 0.02)
        self.sizes = nn.Linear(masks, width)
        self.query = nn.Parameter(torch.randn(width) * width**-0.5)
        self.keys = nn.Linear(width, width)
        self.out = nn.Sequential(
            nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, classes)
        )

    def forward(self, maps: Sequence[Tensor], masks: Tensor) -> Tensor:
        """maps: `(b, c, z, y, x)` each, the image first; masks: `(b, mask, z, y, x)`.

        Returns `(b, classes)`, fp32.
        """
        with torch.autocast(masks.device.type, enabled=False):
            tokens = [
                self._token(index, features, masks)
                for index, features in enumerate(maps)
            ]
            share = masks.float().flatten(2).mean(2)
            tokens.append(self.sizes((share + 1e-6).log())[:, None])
            joined = torch.cat(tokens, 1)  # (b, token, width)
            query = self.query[:, None] / joined.shape[2] ** 0.5
            weights = (self.keys(joined) @ query).softmax(1)  # (b, token, 1)
            out: Tensor = self.out((weights.mT @ joined)[:, 0])
        return out

    def _token(self, index: int, features: Tensor, masks: Tensor) -> Tensor:
        mean, deviation = masked_moments(features, masks)
        attended = masked_attention(features, masks, self.queries[index])
        normed = self.norms[index](torch.cat([mean, deviation, attended], 2))
        token: Tensor = F.silu(self.tokens[index](normed) + self.places[index])
        return token


class MultitaskNetwork(nn.Module):
    """Segmentation and class of one encoder.

    `forward` runs encoder and decoder once and returns both `Outputs`.

    encoder_gradient: share of the class loss's gradient that reaches the encoder; 0: it
    learns from segmentation alone.
    """

    def __init__(
        self,
        segmenter: nn.Module,
        head: ClassHead,
        masks: LesionMasks,
        *,
        encoder_gradient: float = 0.0,
    ) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.head = head
        self.masks = masks
        self.encoder_gradient = encoder_gradient

    def forward(
        self, x: Tensor, given: Tensor | None = None, use: Tensor | None = None
    ) -> Outputs:
        """x: `(b, c, z, y, x)`; given: masks of lesion, organ and others `(b, m, z, y,
        x)` for the samples `use` `(b,)`.

        Other samples are pooled inside what is predicted. No gradient flows through the
        masks.
        """
        maps = self.segmenter.encode(x)  # type: ignore[operator]
        segmentation = self.segmenter.decode(maps)  # type: ignore[operator]
        finest = segmentation[0] if isinstance(segmentation, list) else segmentation
        with torch.no_grad():
            known = self._known(finest.detach(), given, use)
            masks = self.masks.around(known)
        return Outputs(segmentation, self.classify(x, maps, masks))

    def _known(
        self, logits: Tensor, given: Tensor | None, use: Tensor | None
    ) -> Tensor:
        """Masks of lesion, organ and others as given, elsewhere as predicted."""
        predicted = self.masks.predicted(logits)
        if given is None:
            return predicted
        if use is None:
            return given.float()
        return torch.where(use[:, None, None, None, None], given.float(), predicted)

    def classify(self, x: Tensor, maps: Sequence[Tensor], masks: Tensor) -> Tensor:
        """Logits of the classes `(b, classes)` from an image and its feature maps."""
        scaled = [
            _scaled_gradient(features, self.encoder_gradient) for features in maps
        ]
        out: Tensor = self.head([x, *scaled], masks)
        return out

    @torch.no_grad()
    def pool(self, x: Tensor, masks: Tensor) -> tuple[Tensor, Pooled]:
        """Logits of the classes, and features pooled inside masks `(b, mask, z, y, x)`;
        the decoder is not run.
        """
        maps = self.segmenter.encode(x)  # type: ignore[operator]
        pooled = Pooled([], [])
        for features in (x, *maps):
            mean, deviation = masked_moments(features, masks)
            pooled.means.append(mean)
            pooled.deviations.append(deviation)
        return self.classify(x, maps, masks), pooled

    def encoder_stages(self) -> list[nn.Module]:
        """The encoder's stages, finest first."""
        stages: list[nn.Module] = self.segmenter.encoder_stages()  # type: ignore[operator]
        return stages

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether the segmenter recomputes activations."""
        return bool(self.segmenter.gradient_checkpointing)

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, wanted: bool) -> None:
        self.segmenter.gradient_checkpointing = wanted  # type: ignore[assignment]


def _scaled_gradient(x: Tensor, factor: float) -> Tensor:
    """The same values, with `factor` times the gradient."""
    if factor == 0:
        return x.detach()
    if factor == 1:
        return x
    return x * factor + (x * (1 - factor)).detach()


def add_class_head(
    segmenter: nn.Module,
    topology: Topology,
    *,
    name: str,
    channels: int,
    classes: int,
    masks: LesionMasks,
    width: int = 64,
    dropout: float = 0.2,
    encoder_gradient: float = 0.0,
) -> MultitaskNetwork:
    """A network that reads patches with a class head; raises `RecipeError` for one
    whose encoder cannot be read.
    """
    if not (hasattr(segmenter, "encode") and hasattr(segmenter, "decode")):
        raise RecipeError(
            f"network '{name}' does not show its encoder's maps, which the class of a "
            "case is read from; choose a U-Net or hybrid, see 'trivox info --help'"
        )
    widths = [channels, *topology.features]
    head = ClassHead(
        widths, classes=classes, masks=masks.count, width=width, dropout=dropout
    )
    return MultitaskNetwork(segmenter, head, masks, encoder_gradient=encoder_gradient)
