"""The command line: one thin function a verb. Nothing heavy is imported before a verb runs."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from trivox.errors import DataError, InterruptedTrainingError, RecipeError, TrivoxError
from trivox.version import __version__

if TYPE_CHECKING:
    from trivox.planning.plan import Plan

T = TypeVar("T")

app = typer.Typer(
    name="trivox",
    help="From folders of 3D medical scans to trained, measured, deployable models.\n\n"
    "Research use only, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DatasetPath = Annotated[
    Path, typer.Argument(help="dataset folder (MSD, nnU-Net raw, images/ + labels/) or manifest file")
]
Out = Annotated[Path, typer.Option("--out", help="where the result goes")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N")]
Network = Annotated[str | None, typer.Option("--network", help="network family; 'trivox info --help' lists them")]
MemoryGb = Annotated[float | None, typer.Option("--memory-gb", help="memory to plan for")]
PatchSize = Annotated[tuple[int, int, int] | None, typer.Option("--patch-size", help="voxels, z y x")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="any recipe setting as key=value; repeatable")]
Preset = Annotated[str, typer.Option("--preset", help="quick_test, production or fine_tuning")]


class Terminal:
    """Lines and progress for people: a bar with the time left on a terminal, single lines when piped."""

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, flush=True)

    def track(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Show how far `items` are."""
        if not sys.stderr.isatty() or total == 0:
            yield from items
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            yield from bar.track(items, total=total, description=what)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="print the version", is_eager=True)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def check(
    dataset: DatasetPath,
    out: Annotated[Path | None, typer.Option("--out", help="also write the findings as JSON")] = None,
) -> None:
    """Look for everything that would make training wrong; exit 1 if there is any."""
    from trivox.datasets import check_dataset, load_dataset
    from trivox.files import write_json

    found = load_dataset(dataset)
    report = check_dataset(found)
    print(f"{found.name}: {len(found.cases)} cases, {len(found.training_cases)} to train on, {found.layout} layout")
    for finding in report.findings:
        print(f"{finding.severity}: {finding}")
    if out is not None:
        write_json(out, report.to_json())
    if report.errors:
        raise DataError(f"{dataset}: {len(report.errors)} problems would make training wrong; they are listed above")
    print(f"ready to train ({len(report.warnings)} warnings)")


@app.command()
def plan(
    dataset: DatasetPath,
    out: Out = Path("plan.json"),
    preset: Preset = "production",
    network: Network = None,
    memory_gb: MemoryGb = None,
    patch_size: PatchSize = None,
    device: Device = "auto",
    settings: Settings = None,
) -> None:
    """Measure a dataset and decide spacing, patch, network and batch, with the reason for each."""
    from trivox.config import make_recipe
    from trivox.datasets import load_dataset
    from trivox.learning.runtime import make_runtime
    from trivox.planning.plan import write_plan
    from trivox.tasks.preparing import fingerprint_of, plan_for

    recipe = make_recipe(preset, _overrides(settings, network=network, memory_gb=memory_gb, patch_size=patch_size))
    found = load_dataset(dataset)
    fingerprint = fingerprint_of(found, out.with_name("fingerprint.json"), Terminal())
    runtime = make_runtime(device, recipe.precision)
    decided = plan_for(fingerprint, found, recipe, activation_bytes=runtime.activation_bytes)
    write_plan(decided, out)
    _print_plan(decided)
    print(f"written to {out}")


@app.command()
def preprocess(
    dataset: DatasetPath,
    out: Out,
    plan_file: Annotated[Path | None, typer.Option("--plan", help="a plan.json; default: plan now")] = None,
    preset: Preset = "production",
    network: Network = None,
    workers: Annotated[int, typer.Option("--workers", help="cases at a time")] = 2,
) -> None:
    """Normalise and resample all training cases; a second call finishes what was interrupted."""
    from trivox.config import make_recipe
    from trivox.learning.runtime import make_runtime
    from trivox.tasks.preparing import prepare_run

    recipe = make_recipe(preset, _overrides(None, network=network, workers=workers))
    prepared = prepare_run(
        dataset, out, recipe, runtime=make_runtime("cpu"), plan_file=plan_file, reuse_plan=False, console=Terminal()
    )
    print(f"{len(prepared.dataset.training_cases)} cases ready in {out}")


@app.command()
def train(
    dataset: DatasetPath,
    out: Annotated[Path, typer.Option("--out", help="folder of the run")],
    task: Annotated[str, typer.Option("--task", help="segmentation")] = "segmentation",
    preset: Preset = "production",
    network: Network = None,
    fold: Annotated[str, typer.Option("--fold", help="0 to 4, or all")] = "0",
    epochs: Annotated[int | None, typer.Option("--epochs", help="length of training in epochs")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="or in minutes; the schedule follows")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="patches a step, over all ranks")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="peak learning rate")] = None,
    patch_size: PatchSize = None,
    memory_gb: MemoryGb = None,
    device: Device = "auto",
    seed: Annotated[int | None, typer.Option("--seed", help="seed of everything random")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue an interrupted run")] = False,
    plan_file: Annotated[Path | None, typer.Option("--plan", help="a plan.json to use")] = None,
    prepared: Annotated[Path | None, typer.Option("--prepared", help="a folder from 'trivox preprocess'")] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="a recipe.json to start from")] = None,
    settings: Settings = None,
) -> None:
    """Check, plan, preprocess, train, validate and report: from a folder to a model in one command."""
    from trivox.tasks.reporting import headline
    from trivox.tasks.training import RunRequest
    from trivox.tasks.training import train as run

    overrides = _overrides(
        settings, recipe=recipe, network=network, epochs=epochs, minutes=minutes, batch_size=batch_size, learning_rate=lr,
        patch_size=patch_size, memory_gb=memory_gb, seed=seed,
    )  # fmt: skip
    request = RunRequest(
        dataset=dataset, out=out, preset=preset, overrides=overrides, fold=fold, task=task, device=device, resume=resume,
        plan=plan_file, prepared=prepared,
    )  # fmt: skip
    metrics = run(request, console=Terminal())
    if metrics:
        print(headline(metrics))
        print(f"model: {out / 'bundle'}")


@app.command()
def predict(
    model: Annotated[
        list[Path], typer.Argument(help="run or bundle folder(s), then the input: image, folder, dataset")
    ],
    out: Out,
    tta: Annotated[
        bool | None, typer.Option("--tta/--no-tta", help="average mirrored copies; default: as trained")
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="also write class probabilities")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="predict finished cases again")] = False,
    only: Annotated[
        Path | None, typer.Option("--cases", help="text file with the names of the cases to predict")
    ] = None,
    device: Device = "auto",
    precision: Annotated[str, typer.Option("--precision", help="auto, fp32, bf16 or fp16")] = "auto",
) -> None:
    """Predict label maps for an image, a folder of images or a dataset; several models vote as an ensemble."""
    from trivox.datasets import load_inputs
    from trivox.inference.folder import predict_cases
    from trivox.inference.predictor import Predictor

    if len(model) < 2:
        raise typer.BadParameter("give at least one model and one input: trivox predict MODEL INPUT --out DIR")
    *models, source = model
    predictor = Predictor.load(models, device=device, precision=precision, mirror=tta)
    cases = load_inputs(source, channels=predictor.channels)
    if only is not None:
        cases = _named(cases, only)
    terminal = Terminal()
    records = predict_cases(
        predictor, cases, out, probabilities=probabilities, overwrite=overwrite, say=terminal.say,
        progress=lambda items, total: terminal.track(items, total, "predicting"),
    )  # fmt: skip
    failed = [name for name, record in records.items() if "error" in record]
    seconds = sum(record["seconds"] for record in records.values())
    print(f"{len(records) - len(failed)} of {len(records)} cases in {out}, {seconds:.1f} s")
    if failed:
        raise DataError(
            f"{len(failed)} cases failed: {', '.join(failed[:5])}; reasons are in {out / 'predictions.json'}"
        )


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="folder of predicted label maps")],
    references: Annotated[Path, typer.Argument(help="folder of reference label maps, or a dataset")],
    out: Out = Path("metrics.json"),
    tolerance_mm: Annotated[float, typer.Option("--tolerance-mm", help="of the surface Dice (NSD)")] = 2.0,
) -> None:
    """Measure predictions against references: Dice, IoU, HD95, NSD and volumes, with confidence intervals."""
    from trivox.evaluation import evaluate_folders
    from trivox.files import write_json
    from trivox.tasks.reporting import headline

    metrics = evaluate_folders(predictions, references, tolerance_mm=tolerance_mm)
    write_json(out, metrics)
    for warning in metrics["warnings"]:
        print(f"warning: {warning}")
    print(headline(metrics))
    print(f"written to {out}")


@app.command()
def report(
    source: Annotated[Path, typer.Argument(help="a run, or a metrics.json")],
    out: Annotated[Path | None, typer.Option("--out", help="default: report.html beside the source")] = None,
) -> None:
    """Write the HTML report of a run or of a metrics.json."""
    from trivox.tasks.reporting import report_metrics, report_run

    if source.is_dir():
        report_run(source, console=Terminal(), out=out)
    else:
        print(f"report: {report_metrics(source, out or source.with_suffix('.html'))}")


@app.command()
def info(
    what: Annotated[str, typer.Argument(help="a run, a bundle, or a network name")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    size: Annotated[tuple[int, int, int, int], typer.Option("--input", help="channels z y x, for a network name")] = (
        1,
        128,
        128,
        128,
    ),
) -> None:
    """Describe a model or a network: parameters, operations, memory.

    Networks: nnunet-plain, resenc-m, resenc-l, resenc-xl, unet-small, unet-tiny.
    """
    import json

    from trivox.tasks.describing import describe

    facts = describe(what, size)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        for key, value in facts.items():
            print(f"{key:24} {value}")


@app.command()
def doctor() -> None:
    """Say what this machine offers: versions, cores, memory, GPUs, optional packages."""
    from trivox.deployment.doctor import examine_machine

    for name, value in examine_machine().items():
        print(f"{name:18} {value}")


@app.command()
def demo(
    what: Annotated[str, typer.Argument(help="segmentation")] = "segmentation",
    out: Annotated[Path, typer.Option("--out", help="folder of the demo")] = Path("runs/demo"),
    minutes: Annotated[float, typer.Option("--minutes", help="of training")] = 2.0,
    data: Annotated[Path | None, typer.Option("--data", help="a dataset to use instead of generated phantoms")] = None,
    device: Device = "auto",
) -> None:
    """Show the whole way in a few minutes: generate phantoms (or take --data), train, predict, evaluate, report."""
    from trivox.tasks.demo import run_demo

    run_demo(what, out, minutes=minutes, data=data, device=device, console=Terminal())


def _overrides(settings: list[str] | None, **options: Any) -> dict[str, Any]:
    """Recipe overrides: a recipe file, then --set, then the options that were given."""
    from trivox.config import parse_settings
    from trivox.files import read_json

    file = options.pop("recipe", None)
    given = {key: value for key, value in options.items() if value is not None}
    content = read_json(file) if file is not None else {}
    if not isinstance(content, dict):
        raise RecipeError(f"{file}: is no recipe; give the recipe.json of a run, or an object of settings")
    base = {key: value for key, value in content.items() if key != "preset"}
    return {**base, **parse_settings(settings or []), **given}


def _named(cases: Iterable[Any], file: Path) -> tuple[Any, ...]:
    from trivox.errors import FormatError

    if not file.exists():
        raise FormatError(f"{file}: file not found; give a text file with one case name a line")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{file}: is not UTF-8 text; give a text file with one case name a line") from error
    wanted = {line.strip() for line in lines if line.strip()}
    chosen = tuple(case for case in cases if case.name in wanted)
    missing = wanted - {case.name for case in chosen}
    if missing:
        raise DataError(f"{file}: cases {sorted(missing)[:5]} are not in the input")
    return chosen


def _print_plan(decided: "Plan") -> None:
    from rich.console import Console
    from rich.table import Table

    from trivox.planning.planner import describe_plan

    table = Table(title=f"Plan for {decided.dataset}")
    for heading in ("what", "decision", "why"):
        table.add_column(heading, overflow="fold")
    for row in describe_plan(decided):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main() -> None:
    """Entry point: one clear line and exit 1 for a known problem, 130 for Ctrl-C; tracebacks only with --debug."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except SystemExit as stop:
        if stop.code == 130:  # what typer makes of Ctrl-C
            print("interrupted; the same command continues where it can", file=sys.stderr)
        raise
    except InterruptedTrainingError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(130)
    except TrivoxError as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except (OSError, MemoryError) as error:
        if debug:
            raise
        print(f"error: {error or 'out of memory'}; run again with --debug for details", file=sys.stderr)
        sys.exit(1)
