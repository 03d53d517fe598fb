"""Plans as `trivox plan` makes them, from the settings of a recipe."""

from trivox.config.recipe import Recipe
from trivox.networks.registry import patch_family
from trivox.planning.planner import make_plan


def planned(described, *, activation_bytes=4, dimension=None, low=False, **settings):
    """The plan for a fingerprint and its dataset."""
    recipe = Recipe().model_copy(update=settings)  # impossible ones are let through
    fingerprint, dataset = described
    return make_plan(
        fingerprint,
        dataset,
        recipe,
        patch_family(recipe.network).blueprint,
        task="drawn",
        activation_bytes=activation_bytes,
        dimension=dimension,
        low_resolution=low,
    )
