"""Verbs that use models and look at results: predict, evaluate, rank, report, explain,
info, doctor.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from trivox.cli.options import Device, Out, Terminal, named, numbers
from trivox.errors import DataError


def predict(
    model: Annotated[
        list[Path],
        typer.Argument(
            help="run or bundle folder(s), then the input: image, folder, dataset"
        ),
    ],
    out: Out,
    tta: Annotated[
        bool | None,
        typer.Option(
            "--tta/--no-tta", help="average mirrored copies; default: as trained"
        ),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="also write class probabilities")
    ] = False,
    uncertainty: Annotated[
        list[str] | None,
        typer.Option(
            "--uncertainty",
            help="also write entropy, mutual_information or variance; repeatable",
        ),
    ] = None,
    mc_samples: Annotated[
        int,
        typer.Option(
            "--mc-samples",
            min=0,
            help="passes with random dropout, if the network was trained with it",
        ),
    ] = 0,
    scales: Annotated[
        str,
        typer.Option(
            "--scales", help="average over these sizes, for example 0.9,1,1.1"
        ),
    ] = "1",
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="of the random dropout")
    ] = 0,
    missing: Annotated[
        str,
        typer.Option(
            "--missing-channels",
            help="cases that lack a channel: refuse, or take zeros for it",
        ),
    ] = "refuse",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="predict finished cases again")
    ] = False,
    subtype_results: Annotated[
        bool,
        typer.Option(
            "--subtype-results",
            help="also write the classes as numbers: columns Names,Subtype",
        ),
    ] = False,
    only: Annotated[
        Path | None,
        typer.Option(
            "--cases", help="text file with the names of the cases to predict"
        ),
    ] = None,
    device: Device = "auto",
    precision: Annotated[
        str, typer.Option("--precision", help="auto, fp32, bf16 or fp16")
    ] = "auto",
) -> None:
    """Predict label maps for an image, a folder of images or a dataset, or volumes for
    X-rays; several models vote.
    """
    from trivox.datasets.layouts.choice import load_inputs
    from trivox.inference.bundle import task_of
    from trivox.inference.folder import predict_cases
    from trivox.inference.predictor import Extras, Predictor

    if len(model) < 2:
        raise typer.BadParameter(
            "give at least one model and one input: trivox predict MODEL INPUT --out DIR"
        )
    if missing not in ("refuse", "zeros"):
        raise typer.BadParameter(
            f"--missing-channels {missing}: choose refuse or zeros"
        )
    *models, source = model
    if task_of(models[0]) == "reconstruction":
        given = {
            "--tta": tta,
            "--probabilities": probabilities,
            "--uncertainty": uncertainty,
            "--mc-samples": mc_samples,
            "--subtype-results": subtype_results,
            "--scales": scales != "1",
        }
        strange = next((name for name, value in given.items() if value), None)
        if strange is not None:
            raise typer.BadParameter(
                f"{strange} is of models that give label maps; leave it out for a reconstruction"
            )
        _reconstruct(
            models,
            source,
            out,
            only=only,
            overwrite=overwrite,
            device=device,
            precision=precision,
        )
        return
    predictor = Predictor.load(
        models,
        device=device,
        precision=precision,
        mirror=tta,
        mc_samples=mc_samples,
        scales=numbers(scales),
        seed=seed,
        missing="zeros" if missing == "zeros" else "refuse",
    )
    extras = Extras(
        probabilities=probabilities,
        uncertainty=tuple(uncertainty or ()),
        numbered_classes=subtype_results,
    )
    predictor = replace(predictor, extras=extras)
    cases = load_inputs(source, channels=predictor.channels)
    if only is not None:
        cases = named(cases, only)
    terminal = Terminal()
    records = predict_cases(
        predictor,
        cases,
        out,
        overwrite=overwrite,
        say=terminal.say,
        progress=lambda items, total: terminal.track(items, total, "predicting"),
    )
    failed = [name for name, record in records.items() if "error" in record]
    seconds = sum(record["seconds"] for record in records.values())
    for name, record in records.items():
        if record.get("abstain"):
            print(f"look at {name}: {record['reason']}")
    print(
        f"{len(records) - len(failed)} of {len(records)} cases in {out}, {seconds:.1f} s"
    )
    if predictor.classes:
        print(f"classes: {out / 'classes.csv'}")
    if failed:
        raise DataError(
            f"{len(failed)} cases failed: {', '.join(failed[:5])}; reasons are in {out / 'predictions.json'}"
        )


def _reconstruct(
    models: list[Path],
    source: Path,
    out: Path,
    *,
    only: Path | None,
    overwrite: bool,
    device: str,
    precision: str,
) -> None:
    from trivox.tasks.reconstruction.prediction import predict_exams

    records = predict_exams(
        models,
        source,
        out,
        cases=lambda cases: cases if only is None else named(cases, only),
        overwrite=overwrite,
        device=device,
        precision=precision,
        console=Terminal(),
    )
    failed = [name for name, record in records.items() if "error" in record]
    seconds = sum(record["seconds"] for record in records.values())
    print(
        f"{len(records) - len(failed)} of {len(records)} volumes in {out}, {seconds:.1f} s (synthetic CT, not acquired)"
    )
    if failed:
        raise DataError(
            f"{len(failed)} cases failed: {', '.join(failed[:5])}; reasons are in {out / 'predictions.json'}"
        )


def evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(
            help="folder of predicted label maps or volumes, with classes.csv if there is one"
        ),
    ],
    references: Annotated[
        Path,
        typer.Argument(
            help="folder of reference label maps or CTs, a dataset, or a table of classes"
        ),
    ],
    out: Out = Path("metrics.json"),
    convention: Annotated[
        str,
        typer.Option(
            "--convention",
            help="trivox, brats-legacy, brats-lesion-wise or brats-instance",
        ),
    ] = "trivox",
    tolerance_mm: Annotated[
        float | None,
        typer.Option(
            "--tolerance-mm",
            help="of the surface Dice (NSD) of convention trivox; default: 2",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="parameter of the convention as key=value, for example dilation=1; repeatable",
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            help="table of the cases' classes: CSV with columns case and class, or JSON",
        ),
    ] = None,
    whole: Annotated[
        str | None,
        typer.Option(
            "--whole",
            help="also measure all labels together, under this name: --whole pancreas",
        ),
    ] = None,
) -> None:
    """Measure predictions against references, with confidence intervals.

    Dice, HD95 and more of each label or region; macro-F1, AUC and more of the classes,
    if the predictions hold a classes.csv and the classes of the references are known.
    If the references are CTs (volumes that reach below -100 HU, or a dataset of
    X-rays): PSNR, SSIM, MAE and more; --set window=[-1024,1476] says in which HU.
    """
    from trivox.config.recipe import parse_settings
    from trivox.evaluation.conventions.choice import choose_convention
    from trivox.evaluation.folders.labels import evaluate_folders
    from trivox.evaluation.folders.volumes import (
        chosen_window,
        evaluate_reconstructions,
        is_reconstruction,
    )
    from trivox.files import write_json
    from trivox.tasks.report import headline

    chosen = parse_settings(settings or [])
    if is_reconstruction(references):
        if convention != "trivox" or tolerance_mm is not None or classes or whole:
            raise typer.BadParameter(
                f"{references} holds CTs, not label maps; of the options only --set window=... applies"
            )
        metrics = evaluate_reconstructions(
            predictions, references, window=chosen_window(chosen)
        )
    else:
        given = {} if tolerance_mm is None else {"tolerance_mm": tolerance_mm}
        rules = choose_convention(convention, {**chosen, **given})
        metrics = evaluate_folders(
            predictions, references, convention=rules, classes=classes, whole=whole
        )
    write_json(out, metrics)
    for warning in [
        *metrics["warnings"],
        *metrics.get("classification", {}).get("warnings", []),
    ]:
        print(f"warning: {warning}")
    print(headline(metrics))
    print(f"written to {out}")


def rank(
    metrics: Annotated[
        list[Path],
        typer.Argument(
            metavar="METRICS_JSON...", help="what evaluate wrote, a file a model"
        ),
    ],
    out: Out = Path("ranking.json"),
    names: Annotated[
        str | None,
        typer.Option(
            "--names",
            help="of the models, with commas between; default: from the paths",
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help="what to rank by, repeatable; default: as the convention says",
        ),
    ] = None,
    permutations: Annotated[
        int, typer.Option("--permutations", min=100, max=1_000_000, help="of the test")
    ] = 10_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of the permutations")] = 0,
) -> None:
    """Rank models as the BraTS challenge does: by their ranks in each case, region and
    metric; with permutation tests.
    """
    from trivox.evaluation.folders.labels import read_metrics
    from trivox.evaluation.folders.ranking import (
        name_models,
        rank_models,
        ranking_lines,
    )
    from trivox.files import write_json

    contents = [read_metrics(file) for file in metrics]
    models = dict(
        zip(
            name_models(metrics, names.split(",") if names else ()),
            contents,
            strict=True,
        )
    )
    ranking = rank_models(
        models, metrics=by or (), permutations=permutations, seed=seed
    )
    write_json(out, ranking)
    for warning in ranking["warnings"]:
        print(f"warning: {warning}")
    print("\n".join(ranking_lines(ranking)))
    print(f"written to {out}")


def report(
    source: Annotated[Path, typer.Argument(help="a run, or a metrics.json")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="default: report.html beside the source"),
    ] = None,
) -> None:
    """Write the HTML report of a run or of a metrics.json."""
    from trivox.tasks.report import report_metrics, report_run

    if source.is_dir():
        report_run(source, console=Terminal(), out=out)
    else:
        print(f"report: {report_metrics(source, out or source.with_suffix('.html'))}")


def explain(
    model: Annotated[Path, typer.Argument(help="run or bundle folder")],
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="image, folder or dataset")
    ],
    out: Out,
    case: Annotated[
        str | None,
        typer.Option("--case", help="name of the case, if the input holds several"),
    ] = None,
    point: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            "--point",
            help="voxel of the image file, z y x from 0; default: middle of the prediction",
        ),
    ] = None,
    layers: Annotated[
        list[int] | None,
        typer.Option(
            "--layers",
            help="encoder stage to draw, 0 the finest; repeatable; default: all",
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Look inside a model at one case: feature maps, where attention looks, which
    voxels matter; figures and numbers.
    """
    from trivox.verbs.explain import explain as run

    found = run(
        model,
        source,
        out,
        case=case,
        point=point,
        layers=layers,
        device=device,
        console=Terminal(),
    )
    print(f"written to {out}: {', '.join(found['files'])}")


def info(
    what: Annotated[str, typer.Argument(help="a run, a bundle, or a network name")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    size: Annotated[
        tuple[int, int, int, int],
        typer.Option("--input", help="channels z y x, for a network name"),
    ] = (
        1,
        128,
        128,
        128,
    ),
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="option of a network as key=value, for example attention=none"
        ),
    ] = None,
) -> None:
    """Describe a model or a network: parameters, operations, memory.

    Networks: hybrid-lite, hybrid-base, hybrid-large, nnunet-plain, resenc-m, resenc-l,
    resenc-xl, nvidia-unet, unet-small, unet-tiny; with MONAI installed also
    segresnet-ds, swin-unetr-v2, mednext-s, mednext-b, mednext-l.
    """
    import json

    from trivox.config.recipe import parse_settings
    from trivox.verbs.info import describe

    facts = describe(what, size, parse_settings(settings or []))
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        for key, value in facts.items():
            print(f"{key:24} {value}")


def doctor() -> None:
    """Say what this machine offers: versions, cores, memory, GPUs, optional packages."""
    from trivox.verbs.doctor import examine_machine

    for name, value in examine_machine().items():
        print(f"{name:18} {value}")
