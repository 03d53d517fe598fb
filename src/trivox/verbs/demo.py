"""The demo: the whole way from a folder to a report in a few minutes, on generated
phantoms or on the user's own data.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trivox.config.choices import USUAL_DEMO, DemoName, PresetName, TaskName
from trivox.datasets.dataset import Case
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.abdomens import (
    PancreasPhantomSettings,
    write_pancreas_phantoms,
)
from trivox.datasets.phantoms.brains import BrainPhantomSettings, write_brain_phantoms
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms
from trivox.datasets.phantoms.thoraxes import ThoraxSettings, write_thoraxes
from trivox.errors import RecipeError
from trivox.files import read_object, write_json, write_text
from trivox.schema import Frozen, stamped
from trivox.tasks.console import Console, Quiet
from trivox.tasks.stages import started
from trivox.verbs.evaluate import Evaluation, evaluate
from trivox.verbs.folders import RECORD, require_demo
from trivox.verbs.predict import predict
from trivox.verbs.train import TrainedRun, train

PHANTOMS = PhantomSettings(cases=30, test_cases=6, shape=(32, 64, 64), channels=2)
BRAINS = BrainPhantomSettings(cases=30, test_cases=6, shape=(48, 60, 52))
ABDOMENS = PancreasPhantomSettings(cases=75, test_cases=15, shape=(24, 48, 48))
THORAXES = ThoraxSettings(cases=120, test_cases=20, size=64)


class DemoFile(Frozen):
    """What demo.json says beside its task and version: which demo it is."""

    demo: str


@dataclass(frozen=True)
class Demonstration(Evaluation):
    """What was measured on cases that training never saw, and the run itself."""

    run: TrainedRun


@dataclass(frozen=True)
class Demo:
    """What a demo shows: the data that it generates in a folder of this name, what they
    are, recipe and task for them.
    """

    folder: str
    write: Callable[[Path], Path]
    data: str
    recipe: str | None = None
    task: TaskName = "segmentation"


DEMOS: dict[str, Demo] = {
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
        f"{ABDOMENS.cases} abdominal CTs whose lesions have one of three textures "
        "(drawn, no patients)",
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

SMALL: Mapping[str, object] = {
    "memory_gb": 1.0,
    "batch_size": 2,
    "iterations_per_epoch": 10,
    "validation_iterations": 2,
    "checkpoint_minutes": 2.0,
}
SCALED_DOWN: dict[str, Mapping[str, object]] = {
    "quick_test": {},
    "production": SMALL,
    # the network of quick_test, whose weights it starts from
    "fine_tuning": {**SMALL, "network": "unet-small"},
    "large": SMALL,
}
"""What lets a preset made for days on a GPU show its way within minutes on a CPU;
nothing of this reaches 'train'.
"""


def demo(
    what: DemoName = USUAL_DEMO,
    *,
    out: Path | str = Path("runs/demo"),
    minutes: float = 2.0,
    data: Path | str | None = None,
    preset: PresetName = "quick_test",
    device: str = "auto",
    console: Console | None = None,
) -> Demonstration:
    """Generate (or take) data, train, predict cases that training never saw, measure
    them, and point to the report.

    The preset is scaled down; fine_tuning first trains something to start from, in half
    of the minutes.
    """
    if what not in DEMOS:
        known = ", ".join(DEMOS)
        raise RecipeError(f"demo '{what}' does not exist; choose one of {known}")
    if preset not in SCALED_DOWN:
        known = ", ".join(SCALED_DOWN)
        raise RecipeError(f"preset '{preset}' does not exist; choose one of {known}")
    shown = DEMOS[what]
    folder = Path(out)
    console = console or Quiet()
    require_demo(folder, shown.folder, data)
    write_json(folder / RECORD, stamped(DemoFile(demo=what).model_dump(), shown.task))
    source = Path(data) if data is not None else _generate(shown, folder, console)
    settings = dict(SCALED_DOWN[preset])
    trained = partial(
        _train, source, task=shown.task, recipe=shown.recipe, device=device
    )
    if preset == "fine_tuning":
        minutes /= 2
        first = folder / "first"
        settings["pretrained"] = str(first.absolute())
        console.say("first, weights to start from:")
        trained(
            first, preset="quick_test", settings={"minutes": minutes}, console=console
        )
        console.say("now, fine-tuning:")
    run = trained(
        folder / "run",
        preset=preset,
        settings={"minutes": minutes, **settings},
        console=console,
    )
    console.say(f"validation {run.headline}")
    evaluation = _measure_unseen(source, run, folder, device, console)
    console.say(f"open {run.report} in a browser; the model is {run.bundle}")
    return Demonstration(evaluation.file, evaluation.metrics, evaluation.headline, run)


def _generate(shown: Demo, out: Path, console: Console) -> Path:
    source = out / shown.folder
    console.say(f"generating {shown.data} in {source}")
    shown.write(source)
    return source


def _train(
    source: Path,
    run: Path,
    *,
    task: TaskName,
    preset: PresetName,
    settings: Mapping[str, object],
    recipe: str | None,
    device: str,
    console: Console,
) -> TrainedRun:
    """Train, or go on where an earlier demo in the same folder stopped."""
    resume = started(run)
    if resume:
        _require_same_demo(run, source, preset)
    return train(
        source,
        run,
        task=task,
        preset=preset,
        recipe=recipe,
        device=device,
        resume=resume,
        set={} if resume else settings,
        console=console,
    )


def _require_same_demo(run: Path, source: Path, preset: str) -> None:
    """Raise `RecipeError` if a run is of another preset or other data."""
    saved = read_object(run / "recipe.json").get("preset")
    if saved != preset:
        raise RecipeError(
            f"{run}: holds a demo of preset {saved}, not {preset}; choose another --out"
        )
    root = read_object(run / "dataset.json").get("root")
    if root != str(load_dataset(source).root):
        raise RecipeError(
            f"{run}: holds a demo on {root}, not {source}; choose another --out"
        )


def _measure_unseen(
    source: Path, run: TrainedRun, out: Path, device: str, console: Console
) -> Evaluation:
    """Predict from files, as with any other data: the declared test cases, or the
    fold's validation cases.
    """
    cases = load_dataset(source).cases
    names = [case.name for case in cases if case.split == "test" and _is_known(case)]
    what = "test"
    if not names:
        what = "validation (from files)"
        maps = (run.folder / "validation" / "predictions").glob("*.nii.gz")
        names = sorted(path.name.removesuffix(".nii.gz") for path in maps)
    listed = out / "unseen-cases.txt"
    write_text(listed, "".join(f"{name}\n" for name in names))
    predict(
        run.folder,
        source,
        out / "predictions",
        cases=listed,
        device=device,
        console=console,
    )
    evaluation = evaluate(out / "predictions", source, out / "metrics.json")
    console.say(f"{what} {evaluation.headline}")
    return evaluation


def _is_known(case: Case) -> bool:
    """Whether there is something to measure a prediction against."""
    return case.label is not None or case.volume is not None
