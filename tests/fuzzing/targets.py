"""What reads files that people give: each target is an example, which of its files are
spoilt, and the reading.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from fuzzing import examples
from trivox.errors import InterruptedTrainingError


@dataclass(frozen=True)
class Target:
    """A reader of files.

    example: writes the whole files into a folder; read: reads them there, and is given
    which of them is spoilt; files: patterns of those that are spoilt; writes: the
    reading changes the folder; share: inputs of this target among a hundred of a quick
    one.
    """

    name: str
    example: Callable[[Path], None]
    read: Callable[[Path, Path], object]
    files: tuple[str, ...] = ("**/*",)
    writes: bool = False
    share: int = 100

    def spoilable(self, folder: Path) -> list[str]:
        """Names of the files that are spoilt."""
        paths: set[Path] = set()
        for pattern in self.files:
            paths.update(path for path in folder.glob(pattern) if path.is_file())
        return sorted(str(path.relative_to(folder)) for path in paths)


# -- datasets --------------------------------------------------------------------------
def check(folder: Path, file: Path) -> object:
    """A dataset is read, checked and split."""
    from trivox.datasets.checks.dataset import check_dataset
    from trivox.datasets.layouts.choice import load_dataset
    from trivox.datasets.splits import make_splits

    dataset = load_dataset(folder)
    report = check_dataset(dataset, workers=1)
    if report.errors:
        return str(report.to_json())
    return make_splits(dataset.training_cases, folds=5)


def inputs(folder: Path, file: Path) -> object:
    """The same files as cases to predict on."""
    from trivox.datasets.layouts.choice import load_inputs

    is_brats = any(folder.glob("BraTS*"))
    channels = ("T1", "T1ce", "T2", "FLAIR") if is_brats else ("CT",)
    return load_inputs(folder, channels=channels)


def both(folder: Path, file: Path) -> object:
    """A dataset to train on, and to predict on."""
    from trivox.errors import TrivoxError

    try:
        check(folder, file)
    except TrivoxError:
        inputs(folder, file)
        raise
    return inputs(folder, file)


def saved(folder: Path, file: Path) -> object:
    """The `dataset.json` of a run."""
    from trivox.datasets.layouts.choice import load_dataset

    return load_dataset(folder / "dataset.json")


def class_table(folder: Path, file: Path) -> object:
    """A table of classes."""
    from trivox.datasets.class_tables import class_order, read_class_table
    from trivox.datasets.dataset import Case

    cases = [Case(name=name, images=()) for name in ("a1", "a2", "b1")]
    return class_order(read_class_table(file, cases).classes.values(), where=file)


# -- what was decided ------------------------------------------------------------------
def fingerprint(folder: Path, file: Path) -> object:
    """A plan made from a fingerprint that is there."""
    import trivox

    return trivox.plan(
        folder / "data",
        folder / "new" / "plan.json",
        preset="quick_test",
        network="unet-tiny",
        device="cpu",
    )


def with_fingerprint(folder: Path) -> None:
    """Data that were measured today."""
    examples.run("segmentation")(folder)
    (folder / "new").mkdir()
    fingerprint(folder, folder)


def plan(folder: Path, file: Path) -> object:
    """A plan, what is told of it, and the network that it describes."""
    import torch

    from trivox.networks.registry import build_network
    from trivox.tasks.choice import task_of_run

    task = task_of_run(folder)
    decided = task.read_plan(folder / "plan.json")
    lines = [*task.decisions(decided), task.plan_line(decided), decided.preparation_key]
    if hasattr(decided, "topology"):
        with torch.device("meta"):
            build_network(
                decided.network,
                decided.topology,
                channels=len(decided.inputs),
                outputs=decided.outputs,
                options=decided.network_options,
            )
    return lines


def recipe(folder: Path, file: Path) -> object:
    """A recipe of a run, as one to resume and as one to begin from."""
    from trivox.config.recipe import make_recipe
    from trivox.verbs.settings import overrides

    return make_recipe("quick_test", overrides(file, None))


# -- runs ------------------------------------------------------------------------------
def resume(folder: Path, file: Path) -> object:
    """A run is continued, up to its first step."""
    import trivox

    with patch("trivox.learning.trainer.Trainer.fit", _stop):
        return trivox.train(
            folder / "data",
            folder,
            preset="quick_test",
            network="unet-tiny",
            patch_size=(16, 16, 16),
            device="cpu",
            resume=True,
            recipe=folder / "recipe.json",
        )


def _stop(*_: object, **__: object) -> None:
    raise InterruptedTrainingError("stopped before its first step")


def store(folder: Path, file: Path) -> object:
    """Prepared cases are taken up again, and patches are read."""
    import numpy as np

    from trivox.datasets.layouts.choice import load_dataset
    from trivox.planning.plan import read_plan
    from trivox.preparation.preprocess import preprocess
    from trivox.preparation.sampler import PatchSampler

    decided = read_plan(folder / "plan.json")
    dataset = load_dataset(folder / "dataset.json")
    ready = preprocess(dataset, decided, folder / "prepared", workers=1)
    names = [case.name for case in dataset.training_cases]
    ready.mean_voxels(names, len(decided.labels.values))
    sampler = PatchSampler(
        store=ready,
        cases=names,
        patch_size=decided.patch_size,
        batch_size=2,
        foreground_fraction=0.5,
    )
    rng = np.random.default_rng(0)
    for name in names:
        ready.facts(name)
        ready.read(name)
    for position in range(8):
        sampler.read(sampler.draw(rng, position), decided.patch_size)
    return ready


def prepared(folder: Path) -> None:
    """A run with prepared cases."""
    from trivox.datasets.layouts.choice import load_dataset
    from trivox.planning.plan import read_plan
    from trivox.preparation.preprocess import preprocess

    examples.run("segmentation")(folder)
    dataset = load_dataset(folder / "dataset.json")
    preprocess(dataset, read_plan(folder / "plan.json"), folder / "prepared")


def exam_store(folder: Path, file: Path) -> object:
    """Prepared exams are taken up again."""
    from trivox.datasets.layouts.choice import load_dataset
    from trivox.planning.volumes import read_volume_plan
    from trivox.preparation.exam_store import prepare_exams

    decided = read_volume_plan(folder / "plan.json")
    dataset = load_dataset(folder / "dataset.json")
    ready = prepare_exams(dataset, decided, folder / "prepared", workers=1)
    for case in dataset.training_cases:
        ready.volume(case.name)
        ready.views(case.name)
    return ready


def prepared_exams(folder: Path) -> None:
    """A run with prepared exams."""
    examples.run("reconstruction")(folder)
    shutil.rmtree(folder / "checkpoints")
    exam_store(folder, folder)


def weights(folder: Path, file: Path) -> object:
    """The checkpoints of a run."""
    from trivox.learning.checkpoints import final_weights, load_checkpoint, load_weights

    load_checkpoint(folder / "checkpoints" / "latest")
    return load_weights(final_weights(folder / "checkpoints", "best"))


def pretrained(folder: Path, file: Path) -> object:
    """Weights to start from, of other networks perhaps."""
    from trivox.learning.transfer import load_pretrained
    from trivox.networks.registry import build_network
    from trivox.planning.plan import read_image_plan
    from trivox.tasks.start import find_weights

    decided = read_image_plan(folder / "sound-plan.json")
    network = build_network(decided.network, decided.topology, channels=1, outputs=3)
    return load_pretrained(network, find_weights(folder), channels=1)


def with_sound_plan(folder: Path) -> None:
    """A run, and its plan once more under a name that is not spoilt."""
    examples.run("segmentation")(folder)
    shutil.copy(folder / "plan.json", folder / "sound-plan.json")


def epochs(folder: Path, file: Path) -> object:
    """The record of a training, drawn."""
    from trivox.evaluation.report.charts import epochs_of, training_curves
    from trivox.learning.tracking import read_records

    return training_curves(epochs_of(read_records(folder / "metrics.jsonl")))


def report(folder: Path, file: Path) -> object:
    """The report of a run, without its pictures."""
    import trivox
    from trivox.tasks.task import Pictures

    nothing = Pictures()
    with patch(
        "trivox.tasks.labels.multitask.MultitaskTask.pictures",
        lambda *args, **kwargs: nothing,
    ):
        return trivox.report(folder, folder / "page.html")


# -- models ----------------------------------------------------------------------------
def info(folder: Path, file: Path) -> object:
    """What a model says of itself."""
    import trivox

    return trivox.info(folder)


def predict(folder: Path, file: Path) -> object:
    """One case is predicted; weights that were exchanged have a new checksum."""
    import trivox
    from trivox.files import file_hash

    if file.suffix == ".safetensors" and file.is_file():
        description = folder / "bundle" / "bundle.json"
        text = description.read_text(encoding="utf-8")
        old = (folder / ".sums" / file.name).read_text(encoding="utf-8")
        description.write_text(text.replace(old, file_hash(file)), encoding="utf-8")
    image = next((folder / "data").rglob("*_000.nii.gz"))
    made = trivox.predict(folder, image, folder / "out", device="cpu", precision="fp32")
    return made.records


def bundle(task: str) -> Callable[[Path], None]:
    """A bundle, its checksums and a scan."""

    def write(folder: Path) -> None:
        from trivox.files import file_hash

        examples.run(task)(folder)
        for file in (folder / "bundle").glob("*.safetensors"):
            examples.write(folder / ".sums" / file.name, file_hash(file))
        keep = {"bundle", "data", ".sums"}
        for path in folder.iterdir():
            if path.is_dir() and path.name not in keep:
                shutil.rmtree(path)

    return write


class _Answer:
    """A prediction that costs nothing."""

    def write(self, case: object, out: Path) -> dict[str, object]:
        (out / f"{case.name}.nii.gz").write_bytes(b"")
        return {"output": f"{case.name}.nii.gz", "warnings": []}


class _Predictor:
    """A predictor that predicts nothing."""

    identity = "0123456789ab"

    @property
    def device(self) -> object:
        import torch

        return torch.device("cpu")

    def about(self) -> dict[str, object]:
        return {}

    def files(self, case: object) -> list[str]:
        return [f"{case.name}.nii.gz"]

    def tables(self) -> list[str]:
        return ["classes.csv"]

    def begin(self, case: object) -> None:
        """Nothing is read."""

    def compute(self, begun: object) -> None:
        """Nothing is computed."""

    def complete(self, case: object, computed: object) -> _Answer:
        return _Answer()

    def finish(self, records: object, out: Path) -> None:
        """Nothing is written about all cases."""


def records(folder: Path, file: Path) -> object:
    """Predictions are continued in a folder."""
    from trivox.datasets.dataset import Case
    from trivox.inference.folder import predict_cases

    cases = [Case(name=f"pancreas_{i:03d}", images=()) for i in (0, 1, 20)]
    return predict_cases(_Predictor(), cases, folder, overwrite=True)


def answers(folder: Path, file: Path) -> object:
    """Classes that were predicted are measured."""
    import trivox

    return trivox.evaluate(folder, folder / "table.csv", folder / "metrics.json")


def answered(folder: Path) -> None:
    """Predicted classes and a table of true ones."""
    examples.predictions(folder)
    names = [f"pancreas_{i:03d}" for i in range(9)]
    classes = ("subtype0", "subtype1", "subtype2")
    rows = [f"{name},{classes[i % 3]}" for i, name in enumerate(names)]
    examples.write(folder / "table.csv", "\n".join(["case,class", *rows]) + "\n")


def evaluated(folder: Path, file: Path) -> object:
    """Label maps against label maps of which one is damaged."""
    import trivox

    return trivox.evaluate(folder / "labels", folder / "images", folder / "m.json")


def two_folders(folder: Path) -> None:
    """Label maps twice."""
    for part in ("labels", "images"):
        for seed, name in enumerate(examples.NAMES):
            examples.write_volume(folder / part / f"{name}.nii.gz", examples.mask(seed))


def measured(folder: Path, file: Path) -> object:
    """A metrics.json is told and reported."""
    import trivox
    from trivox.evaluation.folders.labels import read_metrics
    from trivox.tasks.choice import task_of

    metrics = read_metrics(file)
    task_of(metrics).headline(metrics)
    return trivox.report(file, folder / "page.html")


def told(folder: Path, file: Path) -> object:
    """A metrics.json in one line."""
    from trivox.evaluation.folders.labels import read_metrics
    from trivox.tasks.choice import task_of

    metrics = read_metrics(file)
    return task_of(metrics).headline(metrics)


def ranked(folder: Path, file: Path) -> object:
    """Two metrics.json are compared."""
    import trivox

    return trivox.rank(
        [folder / "segmentation.json", folder / "other.json"],
        folder / "ranking.json",
        permutations=100,
    )


# -- what comes from others ------------------------------------------------------------
def nnunet(folder: Path, file: Path) -> object:
    """A model of nnU-Net is imported."""
    from trivox.importing.nnunet import import_nnunet

    return import_nnunet(folder, folder / "out", trust=True)


def nnunet_plan(folder: Path, file: Path) -> object:
    """The plans of nnU-Net alone."""
    from trivox.importing.nnunet_checkpoints import Checkpoint
    from trivox.importing.nnunet_plans import read_nnunet_plan

    checkpoint = Checkpoint(folder / "x.pth", {}, "small", "nnUNetTrainer", ())
    return read_nnunet_plan(folder, checkpoint)


def brats_archive(folder: Path, file: Path) -> object:
    """An archive of BraTS is imported."""
    from trivox.importing.brats_archive import import_brats

    to = "nnunet" if file.suffix == ".zip" else "brats"
    return import_brats(file, folder / "out", to=to)


def class_tree(folder: Path, file: Path) -> object:
    """Class folders are imported."""
    from trivox.importing.class_folders import import_class_folders

    return import_class_folders(folder / "in", folder / "Dataset007_Small")


def nested_tree(folder: Path) -> None:
    """Class folders one folder down."""
    examples.class_folders(folder / "in")


def socket_inputs(folder: Path, file: Path) -> object:
    """What a container is given."""
    from trivox.exporting.container_files.grand_challenge import find_case
    from trivox.exporting.contract import read_contract

    return find_case(folder, read_contract(folder / "contract.json"))


def release(folder: Path) -> None:
    """A release with one model that has a card."""
    from releases import write_release

    write_release(folder)


def fetched(folder: Path, file: Path) -> object:
    """The model of a release is fetched."""
    from trivox.inference.bundle import read_any_bundle
    from trivox.inference.zoo.release import Release, fetch_model

    source = Release.at(folder / "release")
    shelf = folder / "shelf"
    name = source.index.models[0].name if source.index.models else "none"
    return fetch_model(source, name, shelf, require=read_any_bundle, say=str)


def carded(folder: Path, file: Path) -> object:
    """A model with a card is listed."""
    from trivox.inference.bundle import read_any_bundle

    card = read_any_bundle(file).description.card
    return card and card.lines


def container(folder: Path) -> None:
    """A contract and the inputs of a run."""
    contract = {
        "target": "grand-challenge",
        "models": ["a"],
        "channels": ["CT"],
        "labels": {"organ": 1},
        "values": [0, 1],
        "input_slugs": {"ct-image": "CT"},
        "output_slug": "out",
    }
    examples.write(folder / "contract.json", contract)
    entry = {"socket": {"slug": "ct-image", "relative_path": "images/ct"}}
    examples.write(folder / "inputs.json", [entry])
    (folder / "images" / "ct").mkdir(parents=True)
    (folder / "images" / "ct" / "case.mha").write_bytes(b"")


def chosen(folder: Path, file: Path) -> object:
    """A list of cases."""
    from trivox.datasets.dataset import Case
    from trivox.verbs.predict import chosen_cases

    cases = [Case(name=name, images=()) for name in ("a1", "a2")]
    return chosen_cases(cases, file)


def listed(folder: Path) -> None:
    """A list of cases."""
    examples.write(folder / "cases.txt", "a1\na2\n")


# -- volumes ---------------------------------------------------------------------------
def volume(folder: Path, file: Path) -> object:
    """A file is read as an image and as a label map; of a pair, by its header."""
    from trivox.errors import TrivoxError
    from trivox.volumes.formats import read_header, read_labels, read_volume

    if file.suffix in (".raw", ".zraw"):
        file = file.with_suffix(".mhd" if file.suffix == ".zraw" else ".nhdr")
    for reader in (read_header, read_volume):
        try:
            reader(file)
        except TrivoxError:
            continue
    return read_labels(file)


def series(folder: Path, file: Path) -> object:
    """A folder of slices is read."""
    from trivox.volumes.formats import read_header, read_volume

    read_header(folder / "series")
    return read_volume(folder / "series")


def segmentation(folder: Path, file: Path) -> object:
    """A file is read as label map: on its own grid, on that of its image, as a dataset
    means it, and as reference and prediction.
    """
    from trivox.datasets.labels import LabelScheme
    from trivox.errors import TrivoxError
    from trivox.evaluation.folders.labels import evaluate_folders
    from trivox.volumes.formats import read_header, read_labels, segment_values
    from trivox.volumes.segmentations.segments import Grid

    header = read_header(folder / "series")
    grid = Grid(header.shape, header.affine, folder / "series")
    meaning = LabelScheme(labels={"organ": 1, "lesion": 2})
    for onto, means in ((None, None), (grid, None), (grid, meaning)):
        try:
            read_labels(file, onto=onto, meaning=means)
        except TrivoxError:
            continue
    with suppress(TrivoxError):
        evaluate_folders(file, folder / "binary.dcm", task="segmentation")
    return segment_values(file)


# -- options ---------------------------------------------------------------------------
def command(folder: Path, file: Path) -> object:
    """A command is run up to the first step of any training."""
    import io
    import json
    import os
    from contextlib import chdir, redirect_stderr, redirect_stdout

    import typer

    from trivox.cli import app

    arguments = json.loads(file.read_text(encoding="utf-8"))["arguments"]
    given = [os.fsdecode(os.fsencode(argument)) for argument in arguments]
    with (
        chdir(folder),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
        patch("trivox.learning.trainer.Trainer.fit", _stop),
        patch("trivox.verbs.demo.train", _stop),
    ):
        typer.main.get_command(app).main(given, prog_name="trivox")
    return None


def arguments_of(verb: str, *arguments: str) -> Callable[[Path], None]:
    """Right arguments of a command, and the options that it has."""

    def write(folder: Path) -> None:
        import typer

        from trivox.cli import app

        examples.bench(folder)
        found = typer.main.get_command(app)
        for name in verb.split():
            found = found.commands[name]
        options = [
            (option.opts[0], 0 if option.is_flag else option.nargs)
            for option in found.params
            if option.param_type_name == "option"
        ]
        content = {"arguments": [*verb.split(), *arguments], "options": options}
        examples.write(folder / f"{verb}.args", content)

    return write


TRAIN = ("data", "--out", "run", "--network", "unet-tiny", "--device", "cpu")
COMMANDS = {
    "check": ("data", "--out", "check.json"),
    "plan": ("data", "--out", "new-plan.json", "--preset", "quick_test"),
    "preprocess": ("data", "--out", "prepared", "--preset", "quick_test"),
    "drr": ("ct.nii.gz", "--out", "xrays", "--detector", "8"),
    "train": (*TRAIN, "--preset", "quick_test"),
    "pretrain": (*TRAIN, "--preset", "quick_test"),
    "predict": ("bundle", "scan.nii.gz", "--out", "predictions", "--device", "cpu"),
    "evaluate": ("labels", "labels", "--out", "metrics.json"),
    "rank": ("metrics1.json", "metrics2.json", "--permutations", "100"),
    "report": ("metrics1.json", "--out", "page.html"),
    "explain": ("bundle", "scan.nii.gz", "--out", "looks", "--device", "cpu"),
    "info": ("unet-tiny", "--input", "1", "16", "16", "16"),
    "package": (
        *("bundle", "--target", "grand-challenge", "--out", "container"),
        *("--input-slug", "a=contrast_0", "--output-slug", "b"),
    ),
    "demo": ("segmentation", "--out", "demo", "--data", "data"),
    "import nnunet": ("nnunet", "--out", "imported", "--trust"),
    "import brats": ("brats", "--out", "imported"),
    "import class-folders": ("classes", "--out", "Dataset007_Small"),
}
"""Right arguments by command."""
SHARES = {"check": 10, "info": 10, "import brats": 10, "rank": 5, "evaluate": 10}


def command_targets() -> Iterator[Target]:
    """A target a command."""
    for verb, arguments in COMMANDS.items():
        example = arguments_of(verb, *arguments)
        share = SHARES.get(verb, 3)
        yield Target(f"options of {verb}", example, command, ("*.args",), True, share)


TARGETS = (
    Target("nnU-Net raw", examples.nnunet_raw, both, ("*.json", "*.csv")),
    Target("nnU-Net raw, listed", examples.nnunet_listed, both, ("*.json",)),
    Target("nnU-Net raw, images", examples.nnunet_raw, check, ("*Tr/*",), share=50),
    Target("Medical Decathlon", examples.msd, both, ("*.json",)),
    Target("folders and note", examples.folders, both, share=50),
    Target("manifest, CSV", examples.manifest_csv, both, ("*.csv", "*.json")),
    Target("manifest, JSON", examples.manifest_json, both, ("*.json",)),
    Target("BraTS folders", examples.brats, both, share=20),
    Target("class folders", examples.class_folders, both, share=20),
    Target("X-ray exams", examples.exams, both, ("*.csv", "**/*.json", "**/*.npz")),
    Target("saved dataset", examples.run("multitask"), saved, ("dataset.json",)),
    Target("class tables", examples.class_tables, class_table),
    Target("fingerprint", with_fingerprint, fingerprint, ("new/f*.json",), True, 30),
    Target("plan", examples.run("segmentation"), plan, ("plan.json",), share=50),
    Target("plan of X-rays", examples.run("reconstruction"), plan, ("plan.json",)),
    Target("recipe", examples.run("segmentation"), recipe, ("recipe.json",)),
    Target(
        "resumed run",
        examples.run("segmentation"),
        resume,
        ("*.json", "*.jsonl", "checkpoints/**/*"),
        True,
        8,
    ),
    Target("prepared cases", prepared, store, ("prepared/*",), True, 20),
    Target("prepared exams", prepared_exams, exam_store, ("prepared/*",), True, 30),
    Target("checkpoints", examples.run("segmentation"), weights, ("checkpoints/**/*",)),
    Target(
        "pretrained weights",
        with_sound_plan,
        pretrained,
        ("bundle/*", "plan.json"),
        share=30,
    ),
    Target("epochs", examples.run("segmentation"), epochs, ("*.jsonl",), share=10),
    Target(
        "report of a run",
        examples.run("multitask"),
        report,
        ("*.json", "*.jsonl", "validation/*.json"),
        True,
        5,
    ),
    Target("bundle", bundle("multitask"), info, ("bundle/*.json",), share=50),
    Target(
        "bundle of volumes", bundle("reconstruction"), info, ("bundle/*.json",), share=5
    ),
    Target("prediction", bundle("segmentation"), predict, ("bundle/*",), True, 8),
    Target(
        "prediction of classes", bundle("multitask"), predict, ("bundle/*",), True, 8
    ),
    Target("predictions.json", examples.predictions, records, ("*.json",), True),
    Target("classes.csv", answered, answers, ("*.csv",), share=50),
    Target("evaluated label maps", two_folders, evaluated, share=50),
    Target("metrics.json, told", examples.metrics, told),
    Target("metrics.json, page", examples.metrics, measured, ("*.json",), True, 5),
    Target("ranking", examples.metrics, ranked, ("segmentation.json", "other.json")),
    Target("nnU-Net plans", examples.nnunet_model, nnunet_plan, ("*.json",)),
    Target("old nnU-Net plans", examples.nnunet_old_plans, nnunet_plan, ("*.json",)),
    Target("nnU-Net model", examples.nnunet_model, nnunet, writes=True, share=20),
    Target("BraTS archive", examples.archives, brats_archive, writes=True, share=20),
    Target("class folders, import", nested_tree, class_tree, writes=True, share=10),
    Target("container inputs", container, socket_inputs, ("*.json",)),
    Target("release of models", release, fetched, ("release/**/*",), True),
    Target("model with a card", release, carded, ("made/bundle/*.json",)),
    Target("list of cases", listed, chosen, share=30),
    Target("volumes", examples.volumes, volume, share=400),
    Target("DICOM series", examples.dicom, series, share=50),
    Target(
        "segmentations",
        examples.segmentations,
        segmentation,
        ("*.dcm", "*.nrrd"),
        share=100,
    ),
    *command_targets(),
)
"""In the order of the table."""


def named(names: Iterable[str]) -> Iterator[Target]:
    """Targets by their name or a part of it; all for none."""
    wanted = set(names)
    known = {target.name for target in TARGETS}
    for target in TARGETS:
        parts = any(part in target.name for part in wanted - known)
        if not wanted or target.name in wanted or parts:
            yield target
