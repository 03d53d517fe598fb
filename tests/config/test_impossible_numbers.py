"""No setting takes NaN, infinity, or a number that no machine holds."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivox.config.recipe import Recipe, make_recipe, parse_settings
from trivox.errors import RecipeError
from trivox.evaluation.conventions.choice import CONVENTIONS, choose_convention
from trivox.schema import LARGEST

NO_NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999")


def leaves(content: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{place}{name}.")
        else:
            yield f"{place}{name}", value


SETTINGS = dict(leaves(Recipe().model_dump(mode="json")))
NUMBERS = [name for name, value in SETTINGS.items() if isinstance(value, int | float)]


@given(name=st.sampled_from(sorted(SETTINGS)), text=st.sampled_from(NO_NUMBERS))
def test_no_setting_is_nan_or_infinite(name: str, text: str) -> None:
    with pytest.raises(RecipeError, match=name.split(".")[0]):
        make_recipe("quick_test", parse_settings([f"{name}={text}"]))


@given(name=st.sampled_from(NUMBERS), digits=st.integers(20, 6000))
def test_whole_numbers_beyond_64_bits_are_refused(name: str, digits: int) -> None:
    with pytest.raises(RecipeError):
        make_recipe("quick_test", parse_settings([f"{name}={'9' * digits}"]))


@given(name=st.sampled_from(sorted(SETTINGS)), sign=st.sampled_from(["", "-"]))
def test_no_setting_overflows_the_numbers_of_arrays(name: str, sign: str) -> None:
    with pytest.raises(RecipeError, match=name.split(".")[0]):
        make_recipe("quick_test", parse_settings([f"{name}={sign}1e308"]))


@given(
    name=st.sampled_from(sorted(SETTINGS)),
    value=st.sampled_from([0, -1, 1e308, LARGEST, "x", None, [], {}, [[]], "²"]),
)
def test_any_value_is_taken_or_refused_in_one_line(name: str, value: object) -> None:
    said = ""
    try:
        recipe = make_recipe(
            "quick_test", parse_settings([f"{name}={json.dumps(value)}"])
        )
    except RecipeError as refusal:
        said = str(refusal)
    else:
        json.dumps(recipe.model_dump(mode="json"), allow_nan=False)
    assert "\n" not in said
    assert "Value error" not in said


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**30])
def test_no_parameter_of_a_convention_is_impossible(name: str, number: float) -> None:
    for field in CONVENTIONS[name].model_fields:
        with pytest.raises(RecipeError, match=field):
            choose_convention(name, {field: number})
