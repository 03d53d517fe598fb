"""The verbs of Python are those of the command line."""

import inspect
import pydoc

import pytest
from typer.main import get_command

import trivox
from trivox.cli import app
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms
from trivox.verbs.texts import TEXTS, text

COMMANDS = dict(get_command(app).commands)
for _name, _command in COMMANDS.pop("pacs").commands.items():
    COMMANDS[f"pacs_{_name}"] = _command
ONLY_PYTHON = {"console"}
ONLY_COMMAND = {"help", "json", "as_json"}
JOINED = {"predict": {"model", "input"}}
"""Arguments that the command line has in one list: `MODEL... INPUT`."""


def option_names(verb):
    """Names of a command's options as they are typed, without dashes in front."""
    command = COMMANDS[verb]
    names = set()
    for name, below in getattr(command, "commands", {}).items():
        flags = [each for each in below.params if each.opts[0].startswith("--")]
        names |= {name, *(flag.name for flag in flags)}
    for parameter in command.params:
        flags = [flag for flag in parameter.opts if flag.startswith("--")]
        name = flags[0].removeprefix("--") if flags else parameter.name
        names.add(name.replace("-", "_"))
    return names - ONLY_COMMAND


@pytest.mark.parametrize("verb", trivox.VERBS)
def test_a_verb_has_the_options_of_its_command(verb):
    parameters = set(inspect.signature(getattr(trivox, verb)).parameters)
    expected = option_names(verb) | JOINED.get(verb, set())
    assert parameters - ONLY_PYTHON == expected


@pytest.mark.parametrize("verb", trivox.VERBS)
def test_defaults_are_those_of_the_command(verb):
    parameters = inspect.signature(getattr(trivox, verb)).parameters
    for option in COMMANDS[verb].params:
        name = option.opts[0].removeprefix("--").replace("-", "_")
        if name not in parameters or option.required or name in ("views", "secondary"):
            continue
        ours = parameters[name].default
        given = option.get_default(None) if callable(option.default) else option.default
        if name == "scales":
            given = (float(given),)
        assert (given or None) == (ours or None), name


@pytest.mark.parametrize("verb", trivox.VERBS)
def test_help_in_python_reads_like_the_commands_page(verb):
    page = pydoc.plain(pydoc.render_doc(getattr(trivox, verb)))
    page = " ".join(page.split())
    command = COMMANDS[verb]
    summary = " ".join(command.help.split("\n\n")[0].split())
    assert summary.split(";")[0] in page
    for name in inspect.signature(getattr(trivox, verb)).parameters:
        assert f"{name}: {' '.join(text(verb, name).split())}" in page


def test_options_that_are_no_choice_are_refused_with_the_right_ones(
    tiny_run, tiny_data, tmp_path
):
    model = tiny_run
    with pytest.raises(trivox.TrivoxError, match="choose one of segmentation, multi"):
        trivox.train(tiny_data, tmp_path / "run", task="dreaming")
    with pytest.raises(trivox.TrivoxError, match="'ones' does not exist"):
        trivox.predict(model, tiny_data, tmp_path, missing_channels="ones")
    with pytest.raises(trivox.TrivoxError, match="'doubt' does not exist"):
        trivox.predict(model, tiny_data, tmp_path, uncertainty=["entropy", "doubt"])
    with pytest.raises(trivox.TrivoxError, match="'fp8' does not exist"):
        trivox.predict(model, tiny_data, tmp_path, precision="fp8")
    assert not list(tmp_path.iterdir())


def test_every_text_is_of_an_option():
    used = set()
    for verb in trivox.VERBS:
        for name in inspect.signature(getattr(trivox, verb)).parameters:
            used.add(f"{verb}.{name}" if f"{verb}.{name}" in TEXTS else name)
    assert used == set(TEXTS)


def test_public_names_are_there_and_listed():
    assert dir(trivox) == sorted(trivox.__all__)
    for name in trivox.__all__:
        assert getattr(trivox, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = trivox.nothing


def test_ten_lines_train_predict_and_evaluate(tmp_path, tiny_settings):
    data = write_phantoms(tmp_path / "data", PhantomSettings(cases=4, shape=(16,) * 3))

    run = trivox.train(data, tmp_path / "run", preset="quick_test", set=tiny_settings)
    predictions = trivox.predict(run.folder, data, tmp_path / "out", device="cpu")
    evaluation = trivox.evaluate(tmp_path / "out", data, tmp_path / "metrics.json")

    assert run.metrics["task"] == "segmentation"
    assert (run.bundle / "bundle.json").exists()
    assert len(predictions.records) == 4
    assert not predictions.failed
    assert evaluation.headline.startswith("Dice: ")
    assert len(evaluation.metrics["cases"]) == 4
    assert evaluation.file.exists()
