"""The list of ready models: cards, and models that cannot be used."""

import json

import pytest

import trivox
from releases import CARD, NAME
from trivox.errors import BundleError
from trivox.inference.zoo.shelves import RELEASED
from trivox.verbs.answers.documents import document


def by_name():
    return {model.name: model for model in trivox.models()}


def test_a_model_shows_its_card(whole_release, home):
    trivox.models(NAME, source=whole_release)
    model = by_name()[NAME]
    text = "\n".join(model.lines)
    for said in (CARD["summary"], CARD["licence"], "a dice 0.5 (0.4 to 0.6)", "always"):
        assert said in text
    (listed,) = document("models", {"models": [model]})["models"]
    assert json.loads(json.dumps(listed))["card"] == CARD
    assert model.outputs == ("a", "b", "c")
    assert model.bytes == (home / NAME / "weights-fold0.safetensors").stat().st_size


def test_models_that_are_not_here_are_listed_with_what_to_do(home):
    listed = by_name()
    assert list(listed) == sorted(RELEASED)
    for name, model in listed.items():
        assert model.folder is None
        assert f"trivox models fetch {name}" in model.lines[0]


def test_a_damaged_model_is_listed_and_hides_no_other(whole_release, home):
    trivox.models(NAME, source=whole_release)
    other = home / "second"
    other.mkdir()
    (other / "bundle.json").write_text("{")
    (home / NAME / "weights-fold0.safetensors").write_bytes(b"damaged")
    listed = by_name()
    assert "checksum differs" in listed[NAME].trouble
    assert "not readable as JSON" in listed["second"].trouble
    assert len(listed) == 2 + len(RELEASED)


def test_nothing_is_fetched_if_one_name_is_unknown(whole_release, home):
    with pytest.raises(BundleError, match="no model 'liver'"):
        trivox.models([NAME, "liver"], source=whole_release)
    assert not home.exists()
