"""The demo: the whole way from a folder to a report in a few minutes, on generated phantoms or on the user's own data."""

from pathlib import Path

from trivox.datasets import PhantomSettings, load_dataset, load_inputs, write_phantoms
from trivox.errors import RecipeError
from trivox.evaluation import evaluate_folders
from trivox.files import write_json
from trivox.inference.folder import predict_cases
from trivox.inference.predictor import Predictor
from trivox.tasks.console import Console
from trivox.tasks.reporting import headline
from trivox.tasks.training import RunRequest, train

DEMOS = ("segmentation",)
PHANTOMS = PhantomSettings(cases=30, test_cases=6, shape=(32, 64, 64), channels=2)


def run_demo(what: str, out: Path, *, minutes: float, data: Path | None, device: str, console: Console) -> None:
    """Generate (or take) data, train, predict cases that training never saw, measure them, and point to the report."""
    if what not in DEMOS:
        raise RecipeError(f"demo '{what}' does not exist; choose one of {', '.join(DEMOS)}")
    source = data
    if source is None:
        source = out / "phantoms"
        console.say(f"generating {PHANTOMS.cases} phantoms in {source} (drawn ellipsoids, no patients)")
        write_phantoms(source, PHANTOMS)
    run = out / "run"
    resume = any(run.glob("checkpoints/latest*"))
    request = RunRequest(
        source, run, "quick_test", {} if resume else {"minutes": minutes}, device=device, resume=resume
    )
    metrics = train(request, console=console)
    console.say(f"validation {headline(metrics)}")
    _predict_unseen(source, run, out, device, console)
    console.say(f"open {run / 'report.html'} in a browser; the model is {run / 'bundle'}")


def _predict_unseen(source: Path, run: Path, out: Path, device: str, console: Console) -> None:
    """Predict from files, as with any other data: the declared test cases, or the fold's validation cases."""
    dataset = load_dataset(source)
    test = {case.name for case in dataset.cases if case.split == "test" and case.label is not None}
    held_out = test or {
        path.name.removesuffix(".nii.gz") for path in (run / "validation" / "predictions").glob("*.nii.gz")
    }
    predictor = Predictor.load(run, device=device)
    cases = [case for case in load_inputs(source, channels=predictor.channels) if case.name in held_out]
    predictions = out / "predictions"
    predict_cases(
        predictor, cases, predictions, say=console.say,
        progress=lambda items, total: console.track(items, total, "predicting"),
    )  # fmt: skip
    metrics = evaluate_folders(predictions, source)
    write_json(out / "metrics.json", metrics)
    console.say(f"{'test' if test else 'validation (from files)'} {headline(metrics)}")
