"""Commands that use models and look at results: predict, evaluate, rank, report,
explain, info, package, doctor.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from trivox.cli.answers import answers
from trivox.cli.options import (
    Device,
    Out,
    argument,
    numbers,
    option,
)
from trivox.cli.reading_options import Series, SliceTolerance
from trivox.cli.terminal import Terminal, remark, say
from trivox.config.choices import (
    ContainerTarget,
    ConventionName,
    EngineChoice,
    MissedKind,
    MissingChannels,
    PrecisionName,
    SegType,
    Uncertainty,
)


@answers("predict")
def predict(
    model: Annotated[
        list[Path],
        typer.Argument(
            help="run(s), bundle(s) or names that 'trivox models' lists, then the "
            "input: image, folder, dataset",
            metavar="MODEL... INPUT",
        ),
    ],
    out: Out,
    tta: Annotated[
        bool | None,
        typer.Option(
            "--tta/--no-tta", help="average mirrored copies; default: as trained"
        ),
    ] = None,
    probabilities: Annotated[bool, option("predict", "probabilities")] = False,
    uncertainty: Annotated[
        list[Uncertainty] | None, option("predict", "uncertainty")
    ] = None,
    mc_samples: Annotated[int, option("predict", "mc_samples", min=0)] = 0,
    scales: Annotated[str, option("predict", "scales")] = "1",
    seed: Annotated[int, option("predict", "seed", min=0)] = 0,
    missing_channels: Annotated[
        MissingChannels, option("predict", "missing_channels")
    ] = "refuse",
    overwrite: Annotated[bool, option("predict", "overwrite")] = False,
    subtype_results: Annotated[bool, option("predict", "subtype_results")] = False,
    detection: Annotated[str | None, option("predict", "detection")] = None,
    clinical: Annotated[Path | None, option("predict", "clinical")] = None,
    max_missed: Annotated[float | None, option("predict", "max_missed")] = None,
    missed: Annotated[MissedKind, option("predict", "missed")] = "voxels",
    weighted_intervals: Annotated[
        bool, option("predict", "weighted_intervals")
    ] = False,
    cases: Annotated[Path | None, option("predict", "cases")] = None,
    device: Annotated[str, option("predict", "device")] = "auto",
    precision: Annotated[PrecisionName, option("predict", "precision")] = "auto",
    engine: Annotated[EngineChoice, option("predict", "engine")] = "torch",
    series: Series = None,
    slice_tolerance: SliceTolerance = None,
    format: Annotated[str | None, option("predict", "format")] = None,
    seg_type: Annotated[SegType, option("predict", "seg_type")] = "binary",
    statistics: Annotated[bool, option("predict", "statistics")] = False,
) -> Any:
    """Predict label maps for an image, a folder of images or a dataset, or volumes for
    X-rays; several models vote.
    """
    from trivox.verbs.predict import predict as run

    if len(model) < 2:
        raise typer.BadParameter(
            "give at least one model and one input: trivox predict MODEL INPUT --out DIR"
        )
    *models, source = model
    predictions = run(
        models,
        source,
        out,
        tta=tta,
        probabilities=probabilities,
        uncertainty=[kind.value for kind in uncertainty or ()],
        mc_samples=mc_samples,
        scales=numbers("--scales", scales),
        seed=seed,
        missing_channels=missing_channels,
        overwrite=overwrite,
        subtype_results=subtype_results,
        detection=detection,
        clinical=clinical,
        max_missed=max_missed,
        missed=missed,
        weighted_intervals=weighted_intervals,
        cases=cases,
        device=device,
        precision=precision,
        engine=engine,
        series=series,
        slice_tolerance=slice_tolerance,
        format=format,
        seg_type=seg_type,
        statistics=statistics,
        console=Terminal(),
    )
    _say_predicted(predictions, statistics=statistics)
    predictions.require_all()
    return predictions


def _say_predicted(predictions: Any, *, statistics: bool) -> None:
    """Which cases to look at, and where what is."""
    for name, record in predictions.records.items():
        if record.get("abstain"):
            say(f"look at {name}: {record['reason']}")
    if predictions.doubtful:
        say(predictions.doubtful)
    say(predictions.summary)
    if predictions.classes:
        say(f"classes: {predictions.folder / 'classes.csv'}")
    if statistics:
        say(f"statistics: {predictions.folder / 'statistics.csv'}")


@answers("evaluate")
def evaluate(
    predictions: Annotated[Path, argument("evaluate", "predictions")],
    references: Annotated[Path, argument("evaluate", "references")],
    out: Out = Path("metrics.json"),
    convention: Annotated[ConventionName, option("evaluate", "convention")] = "trivox",
    tolerance_mm: Annotated[float | None, option("evaluate", "tolerance_mm")] = None,
    set: Annotated[list[str] | None, option("evaluate", "set")] = None,
    classes: Annotated[Path | None, option("evaluate", "classes")] = None,
    whole: Annotated[str | None, option("evaluate", "whole")] = None,
    reference: Annotated[list[Path] | None, option("evaluate", "reference")] = None,
) -> Any:
    """Measure predictions against references, with confidence intervals.

    Dice, HD95 and more of each label or region; macro-F1, AUC and more of the classes,
    if the predictions hold a classes.csv and the classes of the references are known.
    If the references are CTs (volumes that reach below -100 HU, or a dataset of
    X-rays): PSNR, SSIM, MAE and more; --set window=[-1024,1476] says in which HU.
    With --reference, label maps of the same cases by other raters: how well raters
    agree with one another, with the model, and the model with what they agree on.
    """
    from trivox.verbs.evaluate import evaluate as run

    evaluation = run(
        predictions,
        references,
        out,
        convention=convention,
        tolerance_mm=tolerance_mm,
        set=set,
        classes=classes,
        whole=whole,
        reference=reference or (),
    )
    for warning in evaluation.warnings:
        remark(f"warning: {warning}")
    say(evaluation.headline)
    for line in evaluation.raters:
        say(line)
    say(f"written to {out}")
    return evaluation


@answers("rank")
def rank(
    metrics: Annotated[
        list[Path], argument("rank", "metrics", metavar="METRICS_JSON...")
    ],
    out: Out = Path("ranking.json"),
    names: Annotated[str | None, option("rank", "names")] = None,
    metric: Annotated[list[str] | None, option("rank", "metric")] = None,
    permutations: Annotated[
        int, option("rank", "permutations", min=100, max=1_000_000)
    ] = 10_000,
    seed: Annotated[int, option("rank", "seed", min=0)] = 0,
) -> Any:
    """Rank models as the BraTS challenge does: by their ranks in each case, region and
    metric; with permutation tests.
    """
    from trivox.verbs.rank import rank as run

    ranking = run(
        metrics, out, names=names, metric=metric, permutations=permutations, seed=seed
    )
    for warning in ranking.warnings:
        remark(f"warning: {warning}")
    for line in ranking.lines:
        say(line)
    say(f"written to {out}")
    return ranking


@answers("report")
def report(
    source: Annotated[Path, argument("report", "source")],
    out: Annotated[Path | None, option("report", "out")] = None,
) -> Any:
    """Write the HTML report of a run or of a metrics.json."""
    from trivox.verbs.report import report as run

    return {"file": run(source, out, console=Terminal())}


@answers("explain")
def explain(
    model: Annotated[Path, argument("explain", "model")],
    input: Annotated[Path, argument("explain", "input")],
    out: Annotated[Path, option("explain", "out")],
    case: Annotated[str | None, option("explain", "case")] = None,
    point: Annotated[tuple[int, int, int] | None, option("explain", "point")] = None,
    layers: Annotated[list[int] | None, option("explain", "layers")] = None,
    device: Device = "auto",
    series: Series = None,
    slice_tolerance: SliceTolerance = None,
) -> Any:
    """Look inside a model at one case: feature maps, where attention looks, which
    voxels matter; figures and numbers.
    """
    from trivox.verbs.explain import explain as run

    explanation = run(
        model,
        input,
        out,
        case=case,
        point=point,
        layers=layers,
        device=device,
        series=series,
        slice_tolerance=slice_tolerance,
        console=Terminal(),
    )
    names = ", ".join(file.name for file in explanation.files)
    say(f"written to {out}: {names}")
    return explanation


@answers("info")
def info(
    what: Annotated[str, argument("info", "what")],
    input: Annotated[tuple[int, int, int, int], option("info", "input")] = (
        1,
        128,
        128,
        128,
    ),
    set: Annotated[list[str] | None, option("info", "set")] = None,
) -> Any:
    """Describe a model or a network: parameters, operations, memory."""
    from trivox.verbs.info import info as run

    facts = run(what, input=input, set=set)
    for name, value in facts.items():
        say(f"{name:24} {value}")
    return facts


@answers("package")
def package(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="run(s), bundle(s) or names that 'trivox models' lists; several vote",
        ),
    ],
    target: Annotated[
        ContainerTarget,
        typer.Option(
            "--target",
            help="what the container is for: any machine with Docker (docker), the DICOM "
            "router mercure, a MONAI Application Package (map), or a challenge",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="folder to write, new or empty")],
    input_slug: Annotated[
        list[str] | None,
        typer.Option(
            "--input-slug",
            help="grand-challenge: SLUG=CHANNEL, input socket of a channel; repeatable",
        ),
    ] = None,
    output_slug: Annotated[
        str,
        typer.Option(
            "--output-slug",
            help="grand-challenge: folder of the result in /output/images",
        ),
    ] = "",
    mounted_weights: Annotated[
        bool,
        typer.Option(
            "--mounted-weights",
            help="grand-challenge: weights come from /opt/ml/model, not the image",
        ),
    ] = False,
    missing_channels: Annotated[
        MissingChannels, option("predict", "missing_channels")
    ] = "refuse",
) -> Any:
    """Write a folder that `docker build` turns into a container: entry point, model,
    code, smoke test.
    """
    from trivox.exporting.containers import package_model

    contract = package_model(
        models,
        out,
        target=target,
        input_slugs=_slugs(input_slug or []),
        output_slug=output_slug,
        mounted_weights=mounted_weights,
        missing_channels=missing_channels,
    )
    say(f"written to {out}: README.md has the commands")
    say(f"try it without Docker: python {out / 'smoke_test.py'}")
    return {"folder": out, "contract": contract}


def _slugs(texts: list[str]) -> dict[str, str]:
    """`["brain-t1-mri=T1"]` as channels by socket."""
    channels: dict[str, str] = {}
    for text in texts:
        slug, _, channel = text.partition("=")
        if not slug or not channel:
            raise typer.BadParameter(
                f"--input-slug {text}: give SLUG=CHANNEL, for example brain-t1-mri=T1"
            )
        if slug in channels:
            raise typer.BadParameter(
                "--input-slug: a socket is named twice; give every channel its own"
            )
        channels[slug] = channel
    return channels


@answers("doctor")
def doctor() -> Any:
    """Say what this machine offers: versions, cores, memory, GPUs and whether they will
    be used, optional packages.
    """
    from trivox.verbs.doctor import examine_machine

    facts = examine_machine()
    for name, value in facts.items():
        say(f"{name:18} {value}")
    return {"facts": facts}
