"""Packaged models that the tests of containers read and never write into."""

import runpy
import sys

import pytest

from container_inputs import SLUGS, random_model
from trivox.datasets.labels import LabelScheme
from trivox.exporting.containers import package_model


@pytest.fixture(scope="session")
def bundle(tiny_run, tmp_path_factory):
    return random_model(tiny_run, tmp_path_factory.mktemp("models") / "bundle")


@pytest.fixture(scope="session")
def brats(bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp("context") / "brats"
    package_model([bundle], out, target="brats")
    return out


@pytest.fixture(scope="session")
def grand_challenge(bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp("context") / "grand-challenge"
    package_model(
        [bundle],
        out,
        target="grand-challenge",
        input_slugs=SLUGS,
        output_slug="tumour",
    )
    return out


@pytest.fixture(scope="session")
def organs(tiny_run, tmp_path_factory):
    """A model of one channel."""
    out = tmp_path_factory.mktemp("models") / "organs"
    labels = LabelScheme(labels={"liver": 1, "spleen": 2})
    return random_model(tiny_run, out, channels=("CT",), labels=labels)


@pytest.fixture(scope="session")
def contexts(organs, tmp_path_factory):
    """Folders by target, of containers that are for no challenge."""
    root = tmp_path_factory.mktemp("contexts")
    targets = ("docker", "mercure", "map")
    for target in targets:
        package_model([organs], root / target, target=target)
    return {target: root / target for target in targets}


@pytest.fixture
def enter(tmp_path, capsys):
    """Runs the entry point of a context; returns exit code and lines on stderr."""

    def run(context, **options):
        options = {"input": tmp_path / "in", "output": tmp_path / "out"} | options
        command = ["predict.py", "--device", "cpu"]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", command)
            code = 0
            try:
                runpy.run_path(str(context / "predict.py"), run_name="__main__")
            except SystemExit as stop:
                code = stop.code
        return code, capsys.readouterr().err.splitlines()

    return run
