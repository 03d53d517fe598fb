"""The demo: the whole way from a folder to a report in a few minutes, on generated
phantoms or on the user's own data.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from trivox.datasets.layouts.choice import load_dataset, load_inputs
from trivox.datasets.phantoms.abdomens import (
    PancreasPhantomSettings,
    write_pancreas_phantoms,
)
from trivox.datasets.phantoms.brains import BrainPhantomSettings, write_brain_phantoms
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms
from trivox.datasets.phantoms.thoraxes import ThoraxSettings, write_thoraxes
from trivox.errors import RecipeError
from trivox.evaluation.folders.labels import evaluate_folders
from trivox.evaluation.folders.volumes import evaluate_volumes
from trivox.evaluation.metrics.content import MetricsFile
from trivox.files import read_json, write_json
from trivox.inference.folder import predict_cases
from trivox.inference.predictor import Predictor
from trivox.tasks.console import Console
from trivox.tasks.reconstruction.prediction import predict_exams
from trivox.tasks.report import headline
from trivox.tasks.task import RunRequest
from trivox.verbs.train import train

PHANTOMS = PhantomSettings(cases=30, test_cases=6, shape=(32, 64, 64), channels=2)
BRAINS = BrainPhantomSettings(cases=30, test_cases=6, shape=(48, 60, 52))
ABDOMENS = PancreasPhantomSettings(cases=75, test_cases=15, shape=(24, 48, 48))
THORAXES = ThoraxSettings(cases=120, test_cases=20, size=64)


@dataclass(frozen=True)
class Demo:
    """What a demo shows: the data that it generates in a folder of this name, what they
    are, recipe and task for them.
    """

    folder: str
    write: Callable[[Path], Path]
    data: str
    recipe: str | None = None
    task: str = "segmentation"


DEMOS = {
    "segmentation": Demo(
        "phantoms",
        partial(write_phantoms, settings=PHANTOMS),
        f"{PHANTOMS.cases} phantoms (drawn ellipsoids, no patients)",
    ),
    "brats": Demo(
        "brains",
        partial(write_brain_phantoms, settings=BRAINS),
        f"{BRAINS.cases} brains with tumours in four sequences (drawn, no patients)",
        "brats",
    ),
    "multitask": Demo(
        "abdomens",
        partial(write_pancreas_phantoms, settings=ABDOMENS),
        f"{ABDOMENS.cases} abdominal CTs whose lesions have one of three textures (drawn, no patients)",
        None,
        "multitask",
    ),
    "reconstruction": Demo(
        "thoraxes",
        partial(write_thoraxes, settings=THORAXES),
        f"{THORAXES.cases} chests with eight X-rays each (drawn, no patients)",
        None,
        "reconstruction",
    ),
}


SMALL = {
    "memory_gb": 1.0,
    "batch_size": 2,
    "iterations_per_epoch": 10,
    "validation_iterations": 2,
    "checkpoint_minutes": 2.0,
}
SCALED_DOWN: dict[str, dict[str, Any]] = {
    "quick_test": {},
    "production": SMALL,
    "fine_tuning": {
        **SMALL,
        "network": "unet-small",
    },  # the network of quick_test, whose weights it starts from
    "large": SMALL,
}
"""What lets a preset made for days on a GPU show its way within minutes on a CPU;
nothing of this reaches 'train'.
"""


def run_demo(
    what: str,
    out: Path,
    *,
    minutes: float,
    data: Path | None,
    device: str,
    console: Console,
    preset: str = "quick_test",
) -> None:
    """Generate (or take) data, train, predict cases that training never saw, measure
    them, and point to the report.

    The preset is scaled down; fine_tuning first trains something to start from, in half
    of the minutes.
    """
    if what not in DEMOS:
        raise RecipeError(
            f"demo '{what}' does not exist; choose one of {', '.join(DEMOS)}"
        )
    if preset not in SCALED_DOWN:
        raise RecipeError(
            f"preset '{preset}' does not exist; choose one of {', '.join(SCALED_DOWN)}"
        )
    source = data
    if source is None:
        source = out / DEMOS[what].folder
        console.say(f"generating {DEMOS[what].data} in {source}")
        DEMOS[what].write(source)
    settings, run, recipe, task = (
        dict(SCALED_DOWN[preset]),
        out / "run",
        DEMOS[what].recipe,
        DEMOS[what].task,
    )
    if preset == "fine_tuning":
        minutes /= 2
        settings["pretrained"] = str((out / "first").absolute())
        console.say("first, weights to start from:")
        dials = {"minutes": minutes}
        first = RunRequest(
            source,
            out / "first",
            "quick_test",
            dials,
            task=task,
            device=device,
            named=recipe,
        )
        _train(first, console)
        console.say("now, fine-tuning:")
    dials = {"minutes": minutes, **settings}
    request = RunRequest(
        source, run, preset, dials, task=task, device=device, named=recipe
    )
    metrics = _train(request, console)
    console.say(f"validation {headline(metrics)}")
    metrics = (_reconstruct_unseen if task == "reconstruction" else _predict_unseen)(
        source, run, out, device, console, task
    )
    write_json(out / "metrics.json", metrics)
    console.say(
        f"open {run / 'report.html'} in a browser; the model is {run / 'bundle'}"
    )


def _train(request: RunRequest, console: Console) -> Mapping[str, Any]:
    """Train, or go on where an earlier demo in the same folder stopped."""
    run = request.out
    resume = any(run.glob("checkpoints/latest*"))
    if (
        resume
        and (kept := read_json(run / "recipe.json").get("preset")) != request.preset
    ):
        raise RecipeError(
            f"{run}: holds a demo of preset {kept}, not {request.preset}; choose another --out"
        )
    if resume and (kept := read_json(run / "dataset.json").get("root")) != str(
        load_dataset(request.dataset).root
    ):
        raise RecipeError(
            f"{run}: holds a demo on {kept}, not {request.dataset}; choose another --out"
        )
    return train(
        replace(request, overrides={}, resume=True) if resume else request,
        console=console,
    )


def _reconstruct_unseen(
    source: Path, run: Path, out: Path, device: str, console: Console, task: str
) -> MetricsFile:
    """Reconstruct the declared test cases, or the fold's validation cases, from their
    files.
    """
    test = {
        case.name
        for case in load_dataset(source).cases
        if case.split == "test" and case.volume is not None
    }
    held_out = test or {
        path.name.removesuffix(".nii.gz")
        for path in (run / "validation" / "predictions").glob("*.nii.gz")
    }
    predictions = out / "predictions"
    predict_exams(
        [run],
        source,
        predictions,
        cases=lambda cases: [case for case in cases if case.name in held_out],
        device=device,
        console=console,
    )
    metrics = evaluate_volumes(predictions, source, task=task)
    console.say(f"{'test' if test else 'validation (from files)'} {headline(metrics)}")
    return metrics


def _predict_unseen(
    source: Path, run: Path, out: Path, device: str, console: Console, task: str
) -> MetricsFile:
    """Predict from files, as with any other data: the declared test cases, or the
    fold's validation cases.
    """
    dataset = load_dataset(source)
    test = {
        case.name
        for case in dataset.cases
        if case.split == "test" and case.label is not None
    }
    held_out = test or {
        path.name.removesuffix(".nii.gz")
        for path in (run / "validation" / "predictions").glob("*.nii.gz")
    }
    predictor = Predictor.load(run, device=device)
    cases = [
        case
        for case in load_inputs(source, channels=predictor.channels)
        if case.name in held_out
    ]
    predictions = out / "predictions"
    predict_cases(
        predictor,
        cases,
        predictions,
        say=console.say,
        progress=lambda items, total: console.track(items, total, "predicting"),
    )
    metrics = evaluate_folders(predictions, source, task=task)
    console.say(f"{'test' if test else 'validation (from files)'} {headline(metrics)}")
    return metrics
