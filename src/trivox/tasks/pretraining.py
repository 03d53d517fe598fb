"""Pretraining without labels: hidden blocks of an image are restored from what is left
visible (masked image modelling).

The whole U-Net learns, with one output a channel, by the squared error of normalised
intensities in the hidden voxels alone (MAE, He et al. 2022; with dense convolutions and
residual U-Nets, Wald et al. 2024, arXiv 2410.23132). Afterwards `trivox train
--pretrained` takes everything but the heads.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Dataset
from trivox.datasets.layouts.choice import load_dataset, load_inputs
from trivox.datasets.listing import CHANNEL_SUFFIX, channel_names
from trivox.errors import DataError, FormatError, RecipeError
from trivox.files import atomic_path, write_json
from trivox.inference.bundle import PRETRAINED
from trivox.learning.checkpoints import final_weights, load_weights
from trivox.learning.losses.targets import taking_part
from trivox.learning.objective import Objective
from trivox.learning.runtime import Runtime, rank, widest_type
from trivox.learning.tracking import read_records
from trivox.networks.registry import build_network
from trivox.planning.plan import ImagePlan, read_image_plan
from trivox.preparation.masking import Masked, Masking
from trivox.preparation.store import Store
from trivox.schema import Frozen, stamped
from trivox.tasks.console import Console
from trivox.tasks.images import ImageTask
from trivox.tasks.task import Prepared, RunRequest
from trivox.version import NOTICE

CONVENTION = (
    "validation_r2: 1 - squared error / squared deviation from the channel's mean, over "
    "the hidden voxels of all validation patches; 1 is perfect, 0 no better than always "
    "saying the mean"
)
NOTHING_TO_LEARN = dict.fromkeys(("noise", "blur", "low_resolution"), 0.0)
"""Changes that cannot be foretold from what is visible; moving, mirroring and contrast
can.
"""

UnlabelledImages = Prepared[ImagePlan, Store]
"""Images ready to train on."""


class PretrainingFile(Frozen):
    """What pretraining.json says beside its task and version.

    cases: that it learnt from; held_out: names of those that it was measured on;
    left_out: tensors of the heads; validation_r2: R2 of hidden voxels, None where it was
    not measured.
    """

    notice: str = NOTICE
    network: str
    channels: tuple[str, ...]
    cases: int
    held_out: tuple[str, ...]
    left_out: tuple[str, ...]
    validation_r2: float | None
    convention: str = CONVENTION
    recipe: Recipe


class MaskedObjective(Objective):
    """Squared error in the hidden voxels; targets `(b, c, z, y, x)` are NaN where
    nothing was hidden.
    """

    @property
    def repeats(self) -> bool:
        """Every step computes the same."""
        return True

    def loss(self, outputs: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        """Mean over hidden voxels and channels, of the finest output."""
        finest, *others = [outputs] if isinstance(outputs, Tensor) else outputs
        hidden = ~labels.isnan()
        error = torch.where(hidden, finest.float() - labels, 0)
        idle = torch.stack([taking_part(output) for output in (finest, *others)])
        return error.square().sum() / hidden.sum().clamp(min=1) + idle.sum()

    def count(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """For each channel `(c, 4)`: hidden voxels, sum and sum of squares of their
        intensities, squared error.
        """
        hidden = ~labels.isnan()
        kind = widest_type(labels.device)
        truth = torch.where(hidden, labels, 0).to(kind)
        error = torch.where(hidden, outputs.float() - labels, 0).to(kind)
        parts = [hidden.to(kind), truth, truth.square(), error.square()]
        return torch.stack([part.sum((0, 2, 3, 4)) for part in parts], dim=1)

    def summary(self, figures: Mapping[str, float]) -> str:
        """See `CONVENTION`."""
        return f"R2 {figures['validation_r2']:.2f}"

    def score(self, counts: Tensor) -> dict[str, float]:
        """See `CONVENTION`."""
        voxels, total, squares, errors = counts.T
        deviation = (squares - total**2 / voxels.clamp(min=1)).sum()
        explained = float(1 - errors.sum() / deviation)
        return {"validation_r2": explained if deviation > 0 else float("nan")}


class PretrainingTask(ImageTask[ImagePlan]):
    """What training needs to know about images that have no labels."""

    name = "pretraining"
    verb = "pretrain"
    labelled = False

    def overrides(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The user's settings over those of pretraining."""
        augmentation: Any = given.get("augmentation", {})
        if isinstance(augmentation, dict):
            augmentation = {**NOTHING_TO_LEARN, **augmentation}
        return {"foreground_fraction": 0.0, **given, "augmentation": augmentation}

    def require_possible(self, recipe: Recipe) -> None:
        """Nothing stops early by Dice, and there are no weights to start from."""
        begun = recipe.pretrained is not None or recipe.freeze_encoder > 0
        if recipe.early_stopping is not None or begun:
            raise RecipeError(
                "pretraining has no Dice and no weights to start from; leave "
                "early_stopping, pretrained and freeze_encoder out"
            )
        if recipe.distillation.teachers:
            raise RecipeError(
                "pretraining learns from images alone; leave distillation out"
            )

    def load(self, path: Path, classes: Path | None = None) -> Dataset:
        """The images at `path`: a folder of them, or any dataset.

        Raises `FormatError` if there are none, `DataError` if files and channels do not
        match.
        """
        try:
            dataset = load_dataset(path)
        except FormatError:
            # no dataset: loose images, or an error that says what is wrong with the path
            dataset = _loose_images(path)
        return self.dataset(dataset, classes)

    def dataset(self, dataset: Dataset, classes: Path | None = None) -> Dataset:
        """The images of a dataset, without labels; declared test cases are left out."""
        if dataset.holds_exams:
            raise DataError(
                f"{dataset.root}: holds X-rays, no images to restore; train on them "
                "with --task reconstruction"
            )
        cases = tuple(
            case.model_copy(update={"label": None})
            for case in dataset.cases
            if case.split == "train"
        )
        changes = {
            "task": self.name,
            "labels": None,
            "layout": "images",
            "folds": (),
            "cases": cases,
        }
        return dataset.model_copy(update=changes)

    def plan(
        self,
        dataset: Dataset,
        recipe: Recipe,
        *,
        runtime: Runtime,
        fingerprint: Path,
        console: Console,
    ) -> ImagePlan:
        """As for labelled images."""
        return self.decide(
            dataset,
            recipe,
            runtime=runtime,
            fingerprint=fingerprint,
            console=console,
        )

    def read_plan(self, file: Path) -> ImagePlan:
        """Read a plan of images."""
        return read_image_plan(file)

    def network(
        self, prepared: UnlabelledImages, recipe: Recipe, names: Sequence[str]
    ) -> nn.Module:
        """A network that gives back its inputs."""
        return _network(prepared.plan, outputs=len(prepared.plan.inputs))

    def objective(
        self, prepared: UnlabelledImages, recipe: Recipe, names: Sequence[str]
    ) -> Objective:
        """Squared error where something was hidden."""
        return MaskedObjective()

    def source(
        self,
        prepared: UnlabelledImages,
        recipe: Recipe,
        names: Sequence[str],
        *,
        training: bool,
    ) -> Masked:
        """Batches of patches with hidden blocks."""
        source = self.patches(prepared, recipe, names, training=training)
        return Masked(source, Masking())

    def finish(
        self,
        request: RunRequest,
        recipe: Recipe,
        prepared: UnlabelledImages,
        folders: Mapping[int, Path],
        console: Console,
    ) -> Mapping[str, Any]:
        """Write the weights without the heads, and what they are."""
        if rank() != 0:
            return {}
        (fold, folder), *_ = folders.items()
        weights = load_weights(final_weights(folder / "checkpoints", "latest"))
        heads = head_names(prepared.plan)
        body = {name: value for name, value in weights.items() if name not in heads}
        with atomic_path(request.out / PRETRAINED) as temporary:
            save_file(body, temporary)
        records = read_records(folder / "metrics.jsonl")
        scores = [r["validation_r2"] for r in records if "validation_r2" in r]
        said = PretrainingFile(
            network=prepared.plan.network,
            channels=prepared.plan.channels,
            cases=len(prepared.splits[fold].train),
            held_out=prepared.splits[fold].validation,
            left_out=tuple(sorted(heads)),
            validation_r2=scores[-1] if scores else None,
            recipe=recipe,
        )
        facts = said.model_dump(mode="json")
        write_json(request.out / "pretraining.json", stamped(facts, self.name))
        return facts


def _loose_images(path: Path) -> Dataset:
    """Images that lie in a folder without being a dataset."""
    cases = load_inputs(path, channels=("image",))
    channels = channel_names(cases)
    numbers = [CHANNEL_SUFFIX.fullmatch(case.name) for case in cases]
    if all(numbers):  # nnU-Net's files, one a channel
        count = 1 + max(int(parts["channel"]) for parts in numbers if parts)
        channels = tuple(f"channel_{number}" for number in range(count))
        cases = load_inputs(path, channels=channels)
    root = path.absolute()
    return Dataset(
        name=root.name, root=root, layout="images", channels=channels, cases=cases
    )


def _network(plan: ImagePlan, outputs: int) -> nn.Module:
    return build_network(
        plan.network,
        plan.topology,
        channels=len(plan.inputs),
        outputs=outputs,
        options=plan.network_options,
    )


def head_names(plan: ImagePlan) -> set[str]:
    """Parameters whose shape follows the number of outputs, whatever the network calls
    them.
    """
    one = _network(plan, len(plan.inputs)).state_dict()
    other = _network(plan, len(plan.inputs) + 1).state_dict()
    return {name for name, value in one.items() if value.shape != other[name].shape}
