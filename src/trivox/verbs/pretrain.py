"""Pretraining without labels: hidden blocks of an image are restored from what is left
visible (masked image modelling).

The whole U-Net learns, with one output a channel, by the squared error of normalised
intensities in the hidden voxels alone (MAE, He et al. 2022; with dense convolutions and
residual U-Nets, Wald et al. 2024, arXiv 2410.23132). Afterwards `trivox train
--pretrained` takes everything but the heads.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Dataset
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.choice import load_dataset, load_inputs, save_dataset
from trivox.datasets.listing import CHANNEL_SUFFIX, channel_names
from trivox.errors import DataError, FormatError, RecipeError
from trivox.files import atomic_path, write_json
from trivox.inference.bundle import PRETRAINED
from trivox.learning.checkpoints import final_weights, load_weights
from trivox.learning.objective import Objective
from trivox.learning.progress import Progress
from trivox.learning.runtime import (
    Runtime,
    make_runtime,
    process_group,
    rank,
    seed_everything,
    world_size,
)
from trivox.learning.tracking import read_records, run_log
from trivox.learning.trainer import Trainer
from trivox.networks.registry import build_network
from trivox.planning.plan import Plan, read_plan, write_plan
from trivox.preparation.masking import Masked, Masking
from trivox.preparation.preprocess import preprocess
from trivox.tasks.console import Console, Quiet
from trivox.tasks.labels.forecast import forecast_training
from trivox.tasks.labels.segmentation import batch_source
from trivox.tasks.stages import (
    Prepared,
    checked,
    fingerprint_of,
    plan_for,
    require_fitting,
    splits_of,
)
from trivox.tasks.task import RunRequest
from trivox.verbs.train import asked_recipe, settle_recipe

CONVENTION = (
    "validation_r2: 1 - squared error / squared deviation from the channel's mean, over the hidden voxels of all "
    "validation patches; 1 is perfect, 0 no better than always saying the mean"
)
NOTHING_TO_LEARN = dict.fromkeys(("noise", "blur", "low_resolution"), 0.0)
"""Changes that cannot be foretold from what is visible; moving, mirroring and contrast
can.
"""
UNNAMED = LabelScheme(labels={"unlabelled": 1})
"""What a plan needs to be one; no voxel has the label."""


class MaskedObjective(Objective):
    """Squared error in the hidden voxels; targets `(b, c, z, y, x)` are NaN where
    nothing was hidden.
    """

    def loss(self, outputs: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        """Mean over hidden voxels and channels, of the finest output."""
        finest, *others = [outputs] if isinstance(outputs, Tensor) else outputs
        hidden = ~labels.isnan()
        error = torch.where(hidden, finest.float() - labels, 0)
        # coarser heads still take part, with gradient zero: DDP waits for every
        # parameter
        idle = torch.stack(
            [finest.sum() * 0, *(other.sum() * 0 for other in others)]
        ).sum()
        return error.square().sum() / hidden.sum().clamp(min=1) + idle

    def count(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """For each channel `(c, 4)`: hidden voxels, sum and sum of squares of their
        intensities, squared error.
        """
        hidden = ~labels.isnan()
        kind = torch.float32 if labels.device.type == "mps" else torch.float64
        truth = torch.where(hidden, labels, 0).to(kind)
        error = torch.where(hidden, outputs.float() - labels, 0).to(kind)
        parts = [hidden.to(kind), truth, truth.square(), error.square()]
        return torch.stack([part.sum((0, 2, 3, 4)) for part in parts], dim=1)

    def score(self, counts: Tensor) -> dict[str, float]:
        """See `CONVENTION`."""
        voxels, total, squares, errors = counts.T
        deviation = (squares - total**2 / voxels.clamp(min=1)).sum()
        return {
            "validation_r2": float(1 - errors.sum() / deviation)
            if deviation > 0
            else float("nan")
        }


def pretrain(request: RunRequest, *, console: Console | None = None) -> dict[str, Any]:
    """From a folder of images, or a dataset whose labels are left aside, to weights for
    `--pretrained`.

    Writes `pretrained.safetensors` and `pretraining.json` beside the usual files of a
    run and returns the content of the latter. Cases are held out by patient to measure
    on; declared test cases take no part.
    """
    dataset = unlabelled(request.dataset)  # before anything is written
    request = replace(
        request, task="pretraining", overrides=overrides_of(request.overrides or {})
    )
    asked = asked_recipe(request)
    if (
        asked.early_stopping is not None
        or asked.pretrained is not None
        or asked.freeze_encoder > 0
    ):
        raise RecipeError(
            "pretraining has no Dice and no weights to start from; leave early_stopping, pretrained and freeze_encoder out"
        )
    recipe = settle_recipe(request)
    runtime = make_runtime(request.device, recipe.precision)
    with process_group(runtime.device):
        console = console if console is not None and rank() == 0 else Quiet()
        if rank() != 0:  # rank 0 works, the others wait and then read what it left
            dist.barrier()
        prepared = _prepare(dataset, request.out, recipe, runtime, console)
        if rank() == 0 and world_size() > 1:
            dist.barrier()
        _fit(prepared, recipe, request.out, runtime, console)
        return _finish(prepared, recipe, request.out) if rank() == 0 else {}


def overrides_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The user's settings over those of pretraining."""
    ours = {"foreground_fraction": 0.0, "augmentation": NOTHING_TO_LEARN}
    changes = given.get("augmentation", {})
    return {
        **ours,
        **given,
        "augmentation": {**NOTHING_TO_LEARN, **changes}
        if isinstance(changes, dict)
        else changes,
    }


def unlabelled(path: Path) -> Dataset:
    """The images at `path` (a folder of them or any dataset) without labels and
    declared test cases.

    Raises `FormatError` if there are none, `DataError` if files and channels do not
    match.
    """
    try:
        dataset = load_dataset(path)
    except (
        FormatError
    ):  # no dataset; what is wrong with the path itself is said by the next line
        cases = load_inputs(path, channels=("image",))
        numbers = [CHANNEL_SUFFIX.fullmatch(case.name) for case in cases]
        channels = channel_names(cases)
        if all(numbers):  # nnU-Net's files, one a channel
            count = 1 + max(int(parts["channel"]) for parts in numbers if parts)
            channels = tuple(f"channel_{number}" for number in range(count))
            cases = load_inputs(path, channels=channels)
        dataset = Dataset(
            name=path.absolute().name,
            root=path.absolute(),
            layout="images",
            channels=channels,
            cases=cases,
        )
    if dataset.task == "reconstruction":
        raise DataError(
            f"{path}: holds X-rays, no images to restore; train on them with --task reconstruction"
        )
    images = tuple(
        case.model_copy(update={"label": None})
        for case in dataset.cases
        if case.split == "train"
    )
    return dataset.model_copy(
        update={"labels": None, "layout": "images", "cases": images}
    )


def _prepare(
    dataset: Dataset, out: Path, recipe: Recipe, runtime: Runtime, console: Console
) -> Prepared:
    """Check, measure, plan and preprocess as for training; what is there already is
    used.
    """
    checked(dataset, out / "check.json", console)
    save_dataset(dataset, out / "dataset.json")
    fingerprint = fingerprint_of(
        dataset, out / "fingerprint.json", console, labelled=False
    )
    named, file = dataset.model_copy(update={"labels": UNNAMED}), out / "plan.json"
    if file.exists():
        plan = read_plan(file)
        require_fitting(plan, named, file)
    else:
        plan = plan_for(
            fingerprint, named, recipe, activation_bytes=runtime.activation_bytes
        )
        plan = plan.model_copy(update={"task": "pretraining"})
        write_plan(plan, file)
    console.say(
        f"plan: {plan.network}, patch {plan.patch_size}, batch {recipe.batch_size or plan.batch_size}"
    )
    store = preprocess(
        dataset,
        plan,
        out / "prepared",
        workers=max(1, recipe.workers),
        progress=lambda names, total: console.track(names, total, "preprocessing"),
    )
    return Prepared(dataset, plan, splits_of(dataset, out), store)


def _network(plan: Plan, outputs: int) -> nn.Module:
    return build_network(
        plan.network,
        plan.topology,
        channels=len(plan.inputs),
        outputs=outputs,
        options=plan.network_options,
    )


def _fit(
    prepared: Prepared, recipe: Recipe, out: Path, runtime: Runtime, console: Console
) -> None:
    """Train on four fifths of the patients, from the latest checkpoint if there is one."""
    seed_everything(recipe.seed, deterministic=recipe.deterministic)
    plan, split, masking = prepared.plan, prepared.splits[0], Masking()
    training = batch_source(prepared, recipe, split.train, training=True)
    validation = batch_source(prepared, recipe, split.validation, training=False)
    with run_log(out, recipe, say=console.say) as log:
        micro_batch = forecast_training(
            plan, recipe, runtime, batch=len(training.positions), log=log
        )
        trainer = Trainer(
            network=_network(plan, len(plan.inputs)),
            objective=MaskedObjective(),
            training=Masked(training, masking),
            validation=Masked(validation, masking),
            recipe=recipe,
            folder=out,
            runtime=runtime,
            log=log,
            progress=Progress(micro_batch=micro_batch),
            show_steps=lambda steps, what: iter(console.track(steps, len(steps), what)),
        )
        begun = "continuing" if trainer.resume() else "pretraining"
        log.line(
            f"{begun} at step {trainer.progress.step}: {len(split.train)} cases, {len(split.validation)} held out, "
            f"{masking.share:.0%} of each patch hidden, {runtime.device} {runtime.precision}"
        )
        trainer.fit()


def _finish(prepared: Prepared, recipe: Recipe, out: Path) -> dict[str, Any]:
    """Write the weights without the heads, and what they are."""
    weights, heads = (
        load_weights(final_weights(out / "checkpoints", "latest")),
        head_names(prepared.plan),
    )
    with atomic_path(out / PRETRAINED) as temporary:
        save_file(
            {name: value for name, value in weights.items() if name not in heads},
            temporary,
        )
    records = [
        record
        for record in read_records(out / "metrics.jsonl")
        if "validation_r2" in record
    ]
    facts = {
        "notice": "Research use only, not a medical device.",
        "network": prepared.plan.network,
        "channels": list(prepared.plan.channels),
        "cases": len(prepared.splits[0].train),
        "held_out": list(prepared.splits[0].validation),
        "left_out": sorted(heads),
        "validation_r2": records[-1]["validation_r2"] if records else None,
        "convention": CONVENTION,
        "recipe": recipe.model_dump(mode="json"),
    }
    write_json(out / "pretraining.json", facts)
    return facts


def head_names(plan: Plan) -> set[str]:
    """Parameters whose shape follows the number of outputs, whatever the network calls
    them.
    """
    one, other = (
        _network(plan, outputs).state_dict()
        for outputs in (len(plan.inputs), len(plan.inputs) + 1)
    )
    return {name for name, value in one.items() if value.shape != other[name].shape}
