"""Verbs that make models: train, pretrain, import, demo."""

from pathlib import Path
from typing import Annotated

import typer

from trivox.cli.options import (
    Classes,
    DatasetPath,
    DemoPreset,
    Device,
    MemoryGb,
    Network,
    PatchSize,
    Preset,
    RecipeName,
    Settings,
    Terminal,
    overrides,
    recipe_name,
)


def train(
    dataset: DatasetPath,
    out: Annotated[Path, typer.Option("--out", help="folder of the run")],
    task: Annotated[
        str, typer.Option("--task", help="segmentation, multitask or reconstruction")
    ] = "segmentation",
    preset: Preset = None,
    network: Network = None,
    fold: Annotated[str, typer.Option("--fold", help="0 to 4, or all")] = "0",
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="length of training in epochs")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", help="or in minutes; the schedule follows"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="patches a step, over all ranks")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="peak learning rate")] = None,
    patch_size: PatchSize = None,
    memory_gb: MemoryGb = None,
    device: Device = "auto",
    seed: Annotated[
        int | None, typer.Option("--seed", help="seed of everything random")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="continue an interrupted run")
    ] = False,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="a plan.json to use")
    ] = None,
    prepared: Annotated[
        Path | None,
        typer.Option("--prepared", help="a folder from 'trivox preprocess'"),
    ] = None,
    recipe: RecipeName = None,
    pretrained: Annotated[
        Path | None,
        typer.Option(
            "--pretrained",
            help="run, bundle, pretraining or safetensors file to start from",
        ),
    ] = None,
    freeze_encoder: Annotated[
        bool,
        typer.Option(
            "--freeze-encoder",
            help="keep the pretrained encoder; 'freeze_encoder' sets for how long",
        ),
    ] = False,
    classes: Classes = None,
    settings: Settings = None,
) -> None:
    """Check, plan, preprocess, train, validate and report: from a folder to a model in
    one command.
    """
    from trivox.tasks.report import headline
    from trivox.tasks.task import RunRequest
    from trivox.verbs.train import train as run

    chosen = overrides(
        settings,
        recipe=recipe,
        network=network,
        epochs=epochs,
        minutes=minutes,
        batch_size=batch_size,
        learning_rate=lr,
        patch_size=patch_size,
        memory_gb=memory_gb,
        seed=seed,
        freeze_encoder=1.0 if freeze_encoder else None,
        pretrained=None if pretrained is None else str(pretrained.absolute()),
    )
    request = RunRequest(
        dataset=dataset,
        out=out,
        preset=preset,
        overrides=chosen,
        fold=fold,
        task=task,
        device=device,
        resume=resume,
        plan=plan_file,
        prepared=prepared,
        named=recipe_name(recipe),
        classes=classes,
    )
    metrics = run(request, console=Terminal())
    if metrics:
        print(headline(metrics))
        print(f"model: {out / 'bundle'}")


def pretrain(
    images: Annotated[
        Path,
        typer.Argument(
            help="folder of images, or a dataset whose labels are left aside"
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", help="folder of the pretraining, for --pretrained later"),
    ],
    preset: Preset = None,
    network: Network = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="length in epochs")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", help="or in minutes; the schedule follows"),
    ] = None,
    patch_size: PatchSize = None,
    memory_gb: MemoryGb = None,
    device: Device = "auto",
    seed: Annotated[
        int | None, typer.Option("--seed", help="seed of everything random")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="continue an interrupted pretraining")
    ] = False,
    settings: Settings = None,
) -> None:
    """Learn from images without labels, by restoring hidden blocks; 'train
    --pretrained' starts from the result.
    """
    from trivox.tasks.task import RunRequest
    from trivox.verbs.pretrain import pretrain as run

    chosen = overrides(
        settings,
        network=network,
        epochs=epochs,
        minutes=minutes,
        patch_size=patch_size,
        memory_gb=memory_gb,
        seed=seed,
    )
    request = RunRequest(
        dataset=images,
        out=out,
        preset=preset,
        overrides=chosen,
        device=device,
        resume=resume,
    )
    facts = run(request, console=Terminal())
    if facts:
        held_out, r2 = len(facts["held_out"]), facts["validation_r2"]
        score = (
            "not measured" if r2 is None else f"{r2:.3f} (1 is perfect, 0 is the mean)"
        )
        print(f"R2 of hidden voxels in {held_out} held-out cases: {score}")
        print(
            f"next: trivox train DATASET --out RUN --network {facts['network']} --pretrained {out}"
        )


def import_nnunet(
    folder: Annotated[
        Path,
        typer.Argument(
            help="folder that nnU-Net v2 trained in: plans.json, dataset.json, fold_X"
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="folder of the bundle")],
    trust: Annotated[
        bool,
        typer.Option("--trust", help="open its checkpoints, which are Python pickles"),
    ] = False,
) -> None:
    """Turn a model of nnU-Net v2 into a bundle: plain and residual-encoder U-Nets, 2-D
    and 3-D, all folds.
    """
    from trivox.importing.nnunet import import_nnunet as run

    bundle = run(folder, out, trust=trust)
    plan, training = bundle.description.plan, bundle.description.training
    folds = ", ".join(training["checkpoints"])
    print(
        f"{plan.dataset} ({training['configuration']}, {training['trainer']}), folds {folds}"
    )
    for note in training["notes"]:
        print(f"note: {note}")
    print(f"model: {out} ({plan.network}; labels {', '.join(plan.labels.targets)})")


def demo(
    what: Annotated[
        str, typer.Argument(help="segmentation, brats, multitask or reconstruction")
    ] = "segmentation",
    out: Annotated[Path, typer.Option("--out", help="folder of the demo")] = Path(
        "runs/demo"
    ),
    minutes: Annotated[float, typer.Option("--minutes", help="of training")] = 2.0,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="a dataset to use instead of generated phantoms"),
    ] = None,
    preset: DemoPreset = "quick_test",
    device: Device = "auto",
) -> None:
    """Show the whole way in a few minutes: generate phantoms (or take --data), train,
    predict, evaluate, report.

    Presets other than quick_test are scaled down to a CPU.
    """
    from trivox.verbs.demo import run_demo

    run_demo(
        what,
        out,
        minutes=minutes,
        data=data,
        device=device,
        console=Terminal(),
        preset=preset,
    )
