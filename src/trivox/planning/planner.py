"""Fingerprint -> plan: nnU-Net's heuristics (Isensee et al. 2021) as arithmetic, with a
reason for each decision.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Dataset
from trivox.errors import PlanError
from trivox.planning.blueprint import Blueprint
from trivox.planning.describe import sized
from trivox.planning.fingerprint import Fingerprint
from trivox.planning.memory import forecast_memory
from trivox.planning.normalisation import normalisation, normalisation_reason
from trivox.planning.plan import IMPOSSIBLE, ImagePlan, Normalisation, Plan
from trivox.planning.search import (
    LOW_RESOLUTION_SHARE,
    PatchChoice,
    Search,
    low_resolution_spacing,
)
from trivox.planning.spacing import TargetGrid, target_grid
from trivox.planning.topology import as_slices, network_reasons, require_halving
from trivox.schema import validated

Dimension = Literal[2, 3]


def make_plan(
    fingerprint: Fingerprint,
    dataset: Dataset,
    recipe: Recipe,
    blueprint: Blueprint,
    *,
    task: str,
    activation_bytes: int,
    gpu: bool = False,
    dimension: Dimension | None = None,
    low_resolution: bool = False,
) -> ImagePlan:
    """Decide spacing, topology, patch, batch and normalisation; no network is built.

    The dials are the recipe's `memory_gb`, `patch_size` and `batch_size`; blueprint: of
    the recipe's network; gpu: whether it learns on one; dimension: None: 2 where the
    recipe's patch has two axes. Gives a `Plan` where the dataset has labels. Raises
    `PlanError` for an impossible patch.
    """
    dimension = dimension or _dimension(recipe)
    inputs = len(dataset.channels) + recipe.mask_channel
    labels = dataset.labels
    outputs = inputs if labels is None else labels.output_channels
    cases = len(fingerprint.cases)
    search = Search(blueprint, outputs, memory_gb=recipe.memory_gb, cases=cases)
    grid = target_grid(fingerprint)
    low_spacing = None
    if dimension == 3:
        low_spacing = low_resolution_spacing(search, grid.spacing, grid.median)
    if low_resolution:
        grid = _coarsened(grid, low_spacing)
    choice = _choose(search, grid, recipe, dimension)
    memory = forecast_memory(
        choice.topology,
        choice.patch,
        batch=choice.batch,
        channels=inputs,
        outputs=outputs,
        optimizer=recipe.optimizer,
        activation_bytes=activation_bytes,
        gpu=gpu,
    )
    normalisations = _normalisations(fingerprint, dataset, recipe)
    decided = {
        "dataset": dataset.name,
        "task": task,
        "dimension": dimension,
        "channels": dataset.channels,
        "normalisations": normalisations,
        "mask_channel": recipe.mask_channel,
        "network": recipe.network,
        "network_options": dict(recipe.network_options),
        "memory": memory,
        "reasons": {
            **_reasons(recipe, grid, choice, low_spacing, activation_bytes),
            **network_reasons(blueprint, choice.topology),
            "normalisation": normalisation_reason(normalisations, fingerprint, recipe),
        },
        **_sizes(grid, choice),
    }
    made: type[ImagePlan] = ImagePlan
    if labels is not None:
        made = Plan
        decided["labels"] = labels
        # nnU-Net: of the configurations that see a part of a case only
        decided["batch_dice"] = dimension == 2 or (
            low_spacing is not None and not low_resolution
        )
    return validated(
        made, decided, where=dataset.root, error=PlanError, advice=IMPOSSIBLE
    )


def student_plan(
    taught_by: Sequence[Plan],
    recipe: Recipe,
    blueprint: Blueprint,
    *,
    cases: int,
    activation_bytes: int,
    gpu: bool = False,
) -> Plan:
    """The plan of a network that learns from others: their grid, patch, inputs and
    labels, with the recipe's network and a batch of its own.

    taught_by: plans with the same preparation, the first decides; cases: to train on.
    The patch grows to what all networks can halve, the dials are those of `make_plan`.
    Raises `PlanError` for an impossible patch.
    """
    plan = taught_by[0]
    first = 3 - plan.dimension
    patch = recipe.patch_size or plan.patch_size[first:]
    search = Search(blueprint, plan.outputs, memory_gb=recipe.memory_gb, cases=cases)
    grid = TargetGrid(plan.axis_order, [*plan.spacing], [*plan.median_shape], {})
    sized_so = recipe.model_copy(update={"patch_size": tuple(patch)})
    choice = _choose(search, grid, sized_so, plan.dimension)
    divisors = [choice.topology.divisor, *(each.topology.divisor for each in taught_by)]
    steps = [math.lcm(*along) for along in zip(*divisors, strict=True)]
    sides = zip(choice.patch, steps, strict=True)
    padded = tuple(math.ceil(size / step) * step for size, step in sides)
    memory = forecast_memory(
        choice.topology,
        padded,
        batch=choice.batch,
        channels=len(plan.inputs),
        outputs=plan.outputs,
        optimizer=recipe.optimizer,
        activation_bytes=activation_bytes,
        gpu=gpu,
    )
    decided = {
        **plan.model_dump(),
        "network": recipe.network,
        "network_options": dict(recipe.network_options),
        "topology": choice.topology,
        "patch_size": padded,
        "batch_size": choice.batch,
        "memory": memory,
        "reasons": {
            **plan.reasons,
            **choice.reasons,
            **network_reasons(blueprint, choice.topology),
            "patch_size": "as the teacher's, padded to the strides of both networks",
        },
    }
    return validated(
        Plan, decided, where=recipe.network, error=PlanError, advice=IMPOSSIBLE
    )


def _dimension(recipe: Recipe) -> Dimension:
    patch = recipe.patch_size
    return 2 if patch is not None and len(patch) == 2 else 3


def _coarsened(grid: TargetGrid, spacing: list[float] | None) -> TargetGrid:
    """The grid at a low-resolution spacing; raises `PlanError` where there is none."""
    if spacing is None:
        raise PlanError(
            "a low-resolution plan is pointless here: the full-resolution patch "
            "already covers a quarter of a case"
        )
    edges = zip(grid.spacing, spacing, grid.median, strict=True)
    coarsened = (
        f"{grid.reasons['spacing']}; coarsened until a patch covers "
        f"{LOW_RESOLUTION_SHARE:.0%} of the median case"
    )
    return replace(
        grid,
        spacing=spacing,
        median=[fine / low * size for fine, low, size in edges],
        reasons={**grid.reasons, "spacing": coarsened},
    )


def _choose(
    search: Search, grid: TargetGrid, recipe: Recipe, dimension: Dimension
) -> PatchChoice:
    """Patch, topology and batch for a grid, slices as volumes one voxel thick; a batch
    size set by hand outweighs the search.
    """
    first = 3 - dimension
    choice = search.run(
        grid.spacing[first:],
        grid.median[first:],
        patch_size=recipe.patch_size,
        voxels=search.cases * math.prod(grid.median),
    )
    require_halving(choice.topology, choice.patch)
    if recipe.batch_size:
        reasons = {**choice.reasons, "batch_size": "as set in the recipe"}
        choice = choice._replace(batch=recipe.batch_size, reasons=reasons)
    if dimension == 2:
        choice = choice._replace(
            patch=(1, *choice.patch), topology=as_slices(choice.topology)
        )
    return choice


def _normalisations(
    fingerprint: Fingerprint, dataset: Dataset, recipe: Recipe
) -> tuple[Normalisation, ...]:
    masked = recipe.masked_normalisation
    return tuple(
        normalisation(name, fingerprint, masked=masked) for name in dataset.channels
    )


def _sizes(grid: TargetGrid, choice: PatchChoice) -> dict[str, object]:
    return {
        "axis_order": grid.order,
        "spacing": tuple(grid.spacing),
        "median_shape": tuple(round(size) for size in grid.median),
        "patch_size": choice.patch,
        "batch_size": choice.batch,
        "topology": choice.topology,
    }


def _reasons(
    recipe: Recipe,
    grid: TargetGrid,
    choice: PatchChoice,
    low_spacing: list[float] | None,
    activation_bytes: int,
) -> dict[str, str]:
    """Why each decision was taken."""
    low_resolution = "not needed"
    if low_spacing is not None:
        low_resolution = f"would help: spacing {sized(low_spacing)} mm"
    inputs = "the channels"
    if recipe.mask_channel:
        inputs += " and, as asked, the mask of what is not zero"
    return {
        **grid.reasons,
        **choice.reasons,
        "low_resolution": low_resolution,
        "inputs": inputs,
        "memory": f"forecast of one {recipe.optimizer} step with "
        f"{activation_bytes * 8}-bit activations",
    }
