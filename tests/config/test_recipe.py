"""Recipes: presets are values, settings are typed, errors name the wrong one."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trivox.config.presets import NAMED_RECIPES, PRESETS
from trivox.config.recipe import Recipe, make_recipe, parse_settings, read_recipe
from trivox.errors import RecipeError


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_valid_recipe_that_knows_its_name(preset):
    assert make_recipe(preset).preset == preset


def test_the_production_preset_is_nnunets_recipe():
    recipe = make_recipe()
    assert (
        recipe.optimizer,
        recipe.learning_rate,
        recipe.momentum,
        recipe.weight_decay,
    ) == ("sgd", 1e-2, 0.99, 3e-5)
    assert (recipe.epochs, recipe.iterations_per_epoch, recipe.gradient_clip) == (
        1000,
        250,
        12.0,
    )
    assert (recipe.schedule, recipe.foreground_fraction) == ("poly", 0.33)


def test_overrides_win_over_the_preset_and_keep_its_other_nested_settings():
    recipe = make_recipe("quick_test", {"augmentation": {"rotation": 0.9}, "epochs": 3})
    assert (recipe.epochs, recipe.augmentation.rotation) == (3, 0.9)
    assert recipe.augmentation.blur == PRESETS["quick_test"]["augmentation"]["blur"]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("chance", [0.0, 0.5])
def test_what_is_never_seen_mirrored_is_not_predicted_mirrored(chance, mirrored):
    augmentation = {"mirror": chance, "mirror_axes": ["z", "x"]}
    given = {"augmentation": augmentation, "mirrored_inference": mirrored}
    recipe = make_recipe("production", given)
    assert recipe.mirrored_axes == (("z", "x") if chance else ())
    assert recipe.inference_axes == (recipe.mirrored_axes if mirrored else ())


@pytest.mark.parametrize("preset", PRESETS)
def test_a_recipe_survives_json(preset):
    recipe = make_recipe(preset, {"patch_size": [32, 40, 48], "minutes": 2.5})
    assert read_recipe(recipe.model_dump(mode="json")) == recipe


def test_a_recipe_is_frozen():
    with pytest.raises(ValidationError):
        make_recipe().epochs = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ({"learning_rat": 1}, "learning_rat"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"augmentation": {"rotation": 1.5}}, "augmentation.rotation"),
        ({"augmentation": {"mirror_axes": ["w"]}}, "augmentation.mirror_axes"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"epochs": 0}, "epochs"),
        ({"patch_size": [1, 2, 3, 4]}, "patch_size"),
        ({"patch_size": [0, 8, 8]}, "patch_size"),
        ({"loss": {"dice": 0}}, "loss"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(override, named):
    with pytest.raises(RecipeError, match=named) as error:
        make_recipe("production", override)
    assert "\n" not in str(error.value)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(RecipeError, match="quick_test, production, fine_tuning"):
        make_recipe("fast")


def test_settings_are_json_where_they_parse_and_text_otherwise():
    parsed = parse_settings(
        ["a.b=1", "a.c=x y", "d=[1, 2]", "e=true", "f=0.5", "g=a=b", "h=null"]
    )
    assert parsed == {
        "a": {"b": 1, "c": "x y"},
        "d": [1, 2],
        "e": True,
        "f": 0.5,
        "g": "a=b",
        "h": None,
    }


def test_a_later_setting_wins():
    assert parse_settings(["a.b=1", "a.c=2", "a.b=3"]) == {"a": {"b": 3, "c": 2}}


@pytest.mark.parametrize("text", ["learning_rate", "=1", ""])
def test_a_setting_without_key_or_value_is_refused(text):
    with pytest.raises(RecipeError, match="key=value"):
        parse_settings([text])


def test_code_in_a_setting_stays_text():
    assert parse_settings(["a=__import__('os').getcwd()"]) == {
        "a": "__import__('os').getcwd()"
    }


NUMBERS = [
    name
    for name, field in Recipe.model_fields.items()
    if field.annotation in (int, float)
]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(name=st.sampled_from(NUMBERS), value=st.sampled_from(["abc", [1], {"a": 1}]))
def test_no_number_accepts_text(name, value):
    with pytest.raises(RecipeError, match=name):
        make_recipe("production", {name: value})


@pytest.mark.parametrize("preset", PRESETS)
def test_transformers_are_trained_with_adamw_and_gentle_steps_in_every_preset(preset):
    hybrid = make_recipe(preset, {"network": "hybrid-base"})
    assert (hybrid.optimizer, hybrid.gradient_clip) == ("adamw", 1.0)
    assert hybrid.learning_rate <= 3e-3


def test_what_is_given_outweighs_what_the_network_asks_for():
    assert (
        make_recipe(
            "production", {"network": "hybrid-lite", "optimizer": "sgd"}
        ).optimizer
        == "sgd"
    )
    assert make_recipe("production", {"network": "resenc-m"}).optimizer == "sgd"


@pytest.mark.parametrize("preset", PRESETS)
def test_the_brats_recipe_is_on_top_of_every_preset(preset):
    recipe = make_recipe(preset, named="brats")
    plain = make_recipe(preset)
    assert (recipe.mask_channel, recipe.masked_normalisation, recipe.batch_dice) == (
        True,
        True,
        True,
    )
    assert recipe.preset == preset
    assert not plain.mask_channel
    if preset in ("quick_test", "large"):
        assert (recipe.network, recipe.learning_rate) == (
            plain.network,
            plain.learning_rate,
        )


def test_the_brats_recipe_in_production_is_nvidias_unless_said_otherwise():
    recipe = make_recipe("production", named="brats")
    assert (
        recipe.network,
        recipe.learning_rate,
        recipe.optimizer,
        recipe.schedule,
    ) == (
        "nvidia-unet",
        3e-4,
        "adamw",
        "cosine",
    )
    other = make_recipe(
        "production", {"network": "resenc-m", "mask_channel": False}, named="brats"
    )
    assert (other.network, other.mask_channel) == ("resenc-m", False)


def test_a_recipe_that_does_not_exist_is_refused_with_the_names_that_do():
    with pytest.raises(RecipeError, match=r"recipe 'lits' does not exist; .* brats"):
        make_recipe(named="lits")


def test_every_named_recipe_knows_every_preset():
    for recipe in NAMED_RECIPES.values():
        assert set(recipe) == {"", *PRESETS}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workers": -1}, "'workers': Input should be greater than or equal to 0, or"),
        ({"workers": "many"}, "or Input should be 'auto' (got 'many')"),
        ({"micro_batch": 0}, "'micro_batch': Input should be greater"),
        (
            {"loss_options": {"target_weights": {"left-lung": -1.0}}},
            "'loss_options.target_weights.left-lung': Input should be greater",
        ),
    ],
)
def test_a_wrong_setting_is_called_by_its_name(changes, said):
    with pytest.raises(RecipeError, match=re.escape(said)):
        make_recipe("production", changes)
