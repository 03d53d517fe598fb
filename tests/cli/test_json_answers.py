"""What every command answers a program with fits the schema that is published of it."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.main import get_command

from class_trees import write_tree
from classed_phantoms import write_classed_phantoms
from clinic import uid, web_archive, write_profiles, write_series
from json_schemas import ENDING, SCHEMAS, complaints
from nnunet_folder import model_folder
from releases import NAME
from trivox.cli import app
from trivox.cli.answers import FLAG
from trivox.datasets.phantoms.brains import BrainPhantomSettings, write_brain_phantoms
from trivox.verbs.answers.documents import ANSWERS
from untrained_models import write_untrained

pytestmark = pytest.mark.usefixtures("without_figures")

WITHOUT = {"serve", "node", "pacs watch"}
"""Services: they run until they are stopped, and say how they are in other ways."""
BRAIN = BrainPhantomSettings(cases=2, test_cases=0, shape=(16, 18, 17))


@pytest.fixture
def place(tmp_path, tiny_run, tiny_data, tiny_settings, request):
    """What commands are called with, and a folder of their own."""
    options = [f"--set={key}={json.dumps(v)}" for key, v in tiny_settings.items()]
    return SimpleNamespace(
        path=tmp_path,
        run=tiny_run,
        data=tiny_data,
        training=["--preset", "quick_test", "--device", "cpu", *options],
        fixture=request.getfixturevalue,
    )


def predicted(place):
    maps = place.run / "validation" / "predictions"
    shutil.copytree(maps, place.path / "maps")
    return place.path / "maps", place.data


def metrics(place):
    file = place.path / "m.json"
    shutil.copyfile(place.run / "validation" / "metrics.json", file)
    return file


def without_page(place):
    """A copy of the run that draws nothing again."""
    shutil.copytree(place.run, place.path / "verified")
    (place.path / "verified" / "report.html").unlink()
    return place.path / "verified"


def archive(place):
    web = place.fixture("web")
    return ["--profiles", write_profiles(place.path, web), "--pacs", "web"]


def brats(place):
    write_brain_phantoms(place.path / "brains", BRAIN)
    return [place.path / "brains"]


def fetched(place):
    place.fixture("home")
    return [NAME, "--source", place.fixture("whole_release")]


CALLS = {
    "check": lambda at: [at.data, "--out", "check.json"],
    "deidentify": lambda at: [
        write_series(at.path / "scan")[0].parent,
        *("--out", "clean", "--key", "secret"),
    ],
    "doctor": lambda at: [],
    "drr": lambda at: [
        *sorted(at.data.glob("images/*"))[:1],
        *("--out", "xrays", "--detector", 8),
    ],
    "evaluate": lambda at: predicted(at),
    "import brats": lambda at: [*brats(at), "--out", "imported"],
    "import class-folders": lambda at: [
        write_tree(at.path / "tree", (1, 1), (1, 1), 1),
        *("--out", "Dataset777_Pancreas"),
    ],
    "import nnunet": lambda at: [
        model_folder(at.path / "nnunet"),
        *("--out", "bundle", "--trust"),
    ],
    "info": lambda at: [at.run],
    "models": lambda at: [],
    "models fetch": fetched,
    "package": lambda at: [at.run, "--target", "docker", "--out", "image"],
    "pacs echo": archive,
    "pacs fetch": lambda at: [uid("s"), "--out", "fetched", *archive(at)],
    "pacs find": lambda at: ["--series", *archive(at)],
    "pacs send": lambda at: [at.path / "scan", *archive(at)],
    "plan": lambda at: [at.data, "--network", "unet-tiny", "--memory-gb", 1],
    "predict": lambda at: [
        *(at.run, at.data, "--out", "predicted", "--device", "cpu", "--statistics"),
    ],
    "preprocess": lambda at: [
        at.data,
        "--out",
        "preprocessed",
        "--network",
        "unet-tiny",
    ],
    "pretrain": lambda at: [at.data, "--out", "pretrained", *at.training],
    "rank": lambda at: [metrics(at), metrics(at), "--names", "a,b"],
    "report": lambda at: [metrics(at)],
    "train": lambda at: [at.data, "--out", "run", *at.training],
    "verify": lambda at: [without_page(at)],
}
LONG = {
    "demo": lambda at: ["--out", "demo", "--minutes", 0.01, "--data", at.data],
    "distill": lambda at: [at.run, "--out", "student", "--seed", 1, *at.training],
    "explain": lambda at: [
        *(at.run, at.data, "--case", "phantom_001", "--out", "explained"),
    ],
    "export": lambda at: [
        *(write_untrained(at.path / "model"), "--to", "onnx", "--out", "exported"),
    ],
}


WRITES = {
    "check": ["check"],
    "deidentify": ["deidentified"],
    "demo": ["demo", "metrics", "predictions"],
    "distill": ["recipe", "bundle"],
    "drr": ["rendered", "geometry"],
    "evaluate": ["metrics"],
    "explain": ["explain"],
    "export": ["export"],
    "import brats": ["import"],
    "import class-folders": ["import"],
    "import nnunet": ["bundle"],
    "models fetch": ["bundle", "fetched"],
    "package": ["contract", "bundle"],
    "plan": ["plan", "fingerprint"],
    "predict": ["predictions", "statistics"],
    "preprocess": ["check", "dataset", "plan"],
    "pretrain": ["pretraining", "recipe", "plan"],
    "rank": ["ranking"],
    "train": [
        *("recipe", "run", "plan", "metrics", "bundle", "sources", "dataset", "cost"),
        *("splits", "check", "fingerprint"),
    ],
    "verify": ["verified"],
}
"""Files of ours that have a schema."""
ELSEWHERE = {
    "case": "tests/test_old_files.py",
    "codes": "people write it: tests/test_schemas.py",
    "forecast": "takes a while: tests/tasks/cost/test_forecast.py",
    "index": "below",
    "manifest": "tests/test_schemas.py",
    "provenance": "tests/service/serve/test_reviews.py",
    "transfer": "tests/tasks/test_start.py",
}
"""Files that none of these commands writes, and where they are held to their schemas."""
FORMATS_OF_OTHERS = {
    "import class-folders": ("dataset", "splits_final"),
}
"""Files that nnU-Net reads."""
PRIVATE = ("checkpoints", "prepared")
"""Folders that only a run itself reads."""


@pytest.fixture
def web(tmp_path):
    """An archive with a series."""
    with web_archive() as archive:
        archive.load(write_series(tmp_path / "scan"))
        yield archive


def commands(group, before=""):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield f"{before}{name}", command
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def test_every_command_answers_programs_or_is_a_service():
    known = dict(commands(get_command(app)))
    with_json = {
        name
        for name, command in known.items()
        if any(FLAG in parameter.opts for parameter in command.params)
    }
    assert known.keys() - with_json == WITHOUT
    assert with_json == ANSWERS.keys()
    assert with_json == CALLS.keys() | LONG.keys()


def test_every_file_that_has_a_schema_is_written_by_a_command():
    written = {f"{name}-file" for names in WRITES.values() for name in names}
    published = {path.name.removesuffix(ENDING) for path in SCHEMAS.glob("*-file.*")}
    assert published - written == {f"{name}-file" for name in ELSEWHERE}


def test_the_index_of_a_release_fits_its_schema(whole_release):
    content = json.loads((whole_release / "index.json").read_text(encoding="utf-8"))
    assert complaints("index-file", content) == []


def require_answer(asked, verb, arguments):
    status, document = asked(*verb.split(), *arguments)
    assert status == 0, document["error"]
    assert complaints(verb.replace(" ", "-"), document) == []
    assert document["verb"] == verb
    for name in ("file", "folder", "bundle", "weights"):
        if document.get(name) is not None:
            assert Path(document[name]).is_absolute()
            assert Path(document[name]).exists()


def json_files(folder):
    """Those that somebody else than the run itself may read."""
    return {file for file in folder.rglob("*.json") if not {*PRIVATE} & {*file.parts}}


def require_files(files, names):
    """Files have a schema and fit it; there is one of each name at least."""
    assert {file.stem for file in files} >= {*names}
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        assert complaints(f"{file.stem}-file", content) == [], file


@pytest.mark.parametrize("verb", CALLS)
def test_answers_fit_their_schemas(asked, place, verb):
    arguments = CALLS[verb](place)
    before = json_files(place.path)
    require_answer(asked, verb, arguments)
    written = json_files(place.path) - before
    others = FORMATS_OF_OTHERS.get(verb, ())
    files = {file for file in written if file.stem not in others}
    require_files(files, WRITES.get(verb, ()))


@pytest.mark.slow
@pytest.mark.parametrize("verb", LONG)
def test_answers_of_long_work_fit_their_schemas(asked, place, verb):
    arguments = LONG[verb](place)
    before = json_files(place.path)
    require_answer(asked, verb, arguments)
    require_files(json_files(place.path) - before, WRITES[verb])


# -- other tasks -----------------------------------------------------------------------
SMALL = [
    *("--preset", "quick_test", "--device", "cpu", "--epochs", 1),
    *("--set", "iterations_per_epoch=2", "--set", "workers=0"),
]


@pytest.mark.slow
def test_answers_about_x_rays_fit_their_schemas(asked, place, xray_run, xray_data):
    place.run, place.data = xray_run, xray_data
    task = ["--task", "reconstruction"]
    predict = [xray_run, xray_data, "--out", "volumes", "--device", "cpu"]
    for verb, arguments in (
        ("check", [xray_data]),
        ("plan", [xray_data, "--preset", "quick_test"]),
        ("info", [xray_run]),
        ("predict", predict),
        ("evaluate", ["volumes", xray_data]),
        ("train", [xray_data, "--out", "run", *task, *SMALL]),
    ):
        require_answer(asked, verb, arguments)
    names = ["recipe", "plan", "metrics", "bundle", "predictions"]
    files = json_files(place.path)
    require_files({file for file in files if file.stem in names}, names)


@pytest.mark.slow
def test_answers_about_classes_fit_their_schemas(asked, place):
    data = write_classed_phantoms(place.path / "data")
    train = [data, "--task", "multitask", "--network", "unet-tiny", *SMALL]
    patch = ["--set", "patch_size=[16,16,16]"]
    for verb, arguments in (
        ("check", [data]),
        ("train", [*train, *patch, "--out", "run"]),
        ("info", ["run"]),
        ("predict", ["run", data, "--out", "maps", "--device", "cpu"]),
        ("evaluate", ["maps", data]),
        ("report", ["metrics.json"]),
        ("verify", ["metrics.json"]),
    ):
        require_answer(asked, verb, arguments)
    require_files(json_files(place.path), [*WRITES["train"], "predictions"])
