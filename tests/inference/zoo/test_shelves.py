"""A model is called by a path that exists or by a name, everywhere alike."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import trivox
from releases import NAME, described
from trivox import caches
from trivox.errors import BundleError
from trivox.exporting.containers import package_model
from trivox.inference.bundle import read_any_bundle
from trivox.inference.predictor import Predictor
from trivox.inference.zoo import shelves
from trivox.inference.zoo.shelves import RELEASED, model_folder, ready_models
from trivox.networks.registry import NETWORKS
from trivox.tasks.start import find_weights
from untrained_models import write_scans


@pytest.fixture
def shelf(whole_release, home):
    """The shelf of fetched models, with one model."""
    trivox.models(NAME, source=whole_release)
    return home


@pytest.fixture
def checkout(tmp_path, monkeypatch, whole_release):
    """A checkout with the same model."""
    folder = tmp_path / "checkout"
    (folder / "src" / "trivox").mkdir(parents=True)
    shutil.copytree(whole_release, folder / "models")
    monkeypatch.setattr(shelves, "CHECKOUT", folder)
    return folder / "models"


def test_a_name_is_the_model_that_it_names(shelf, tmp_path):
    (case,) = write_scans(tmp_path / "scans", (12, 14, 13))
    by_name, by_path = (
        Predictor.load(model, device="cpu").predict_case(case).labels.array
        for model in (NAME, shelf / NAME)
    )
    assert np.array_equal(by_name, by_path)


def test_every_verb_that_takes_a_model_takes_a_name(shelf, tmp_path):
    (case,) = write_scans(tmp_path / "scans", (12, 14, 13))
    scan = case.images[0]
    predictions = trivox.predict(NAME, scan, tmp_path / "out", device="cpu")
    assert not predictions.failed
    voted = trivox.predict([NAME, shelf / NAME], scan, tmp_path / "two", device="cpu")
    assert not voted.failed
    assert trivox.info(NAME)["card"]["licence"] == "MIT"
    assert trivox.info(NAME)["bundle"] == str(shelf / NAME)
    assert find_weights(Path(NAME)).parent == shelf / NAME


@pytest.mark.slow
def test_explain_and_package_take_a_name(shelf, tmp_path):
    (case,) = write_scans(tmp_path / "scans", (12, 14, 13))
    assert trivox.explain(NAME, case.images[0], tmp_path / "why", device="cpu").files
    package_model(
        [Path(NAME)],
        tmp_path / "box",
        target="grand-challenge",
        input_slugs={"mri": "MRI"},
        output_slug="labels",
    )
    assert (tmp_path / "box" / "models").is_dir()


def test_a_path_that_exists_wins(shelf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    with pytest.raises(BundleError, match=f"no model.*of that name is {shelf / NAME}"):
        read_any_bundle(model_folder(Path(NAME)))
    shutil.copytree(shelf / NAME, tmp_path / NAME, dirs_exist_ok=True)
    described(tmp_path / NAME, notice="mine")
    assert read_any_bundle(Path(NAME)).description.notice == "mine"


@pytest.mark.parametrize(
    "name", ["", "liver", "./liver", "a/b", "/no/where", "LIVER", "..x", "x" * 300]
)
def test_what_is_neither_path_nor_name_lists_the_names(home, name, tmp_path):
    with pytest.raises(BundleError, match="brain-phantom, hippocampus, xray-phantom"):
        trivox.predict(name or "none", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", RELEASED)
def test_a_model_that_is_not_here_yet_says_how_to_get_it(home, name, tmp_path):
    with pytest.raises(BundleError, match=f"'trivox models fetch {name}'"):
        trivox.predict(name, tmp_path, tmp_path / "out")


def test_what_was_fetched_goes_before_the_checkout(shelf, checkout):
    assert ready_models() == {NAME: shelf / NAME}
    shutil.rmtree(shelf / NAME)
    assert ready_models() == {NAME: checkout / NAME}


def test_a_model_whose_replacement_was_killed_is_still_there(shelf):
    (shelf / NAME).rename(shelf / f".{NAME}.old")
    assert ready_models() == {NAME: shelf / f".{NAME}.old"}
    assert model_folder(Path(NAME)) == shelf / f".{NAME}.old"


def test_a_user_without_a_home_has_the_checkout(checkout, monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(caches.Path, "home", nowhere)
    assert ready_models() == {NAME: checkout / NAME}
    with pytest.raises(trivox.TrivoxError, match="user's cache, and there is no home"):
        trivox.models(NAME)


def test_no_ready_model_has_the_name_of_a_network():
    assert not {*RELEASED} & {*NETWORKS}
