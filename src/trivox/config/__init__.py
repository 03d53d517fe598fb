"""The recipe: how to train. Typed, frozen settings; presets are values of it, never subclasses.

A plan is about the data, a recipe about learning. Every field can be set from the command line:
`--set learning_rate=0.001 --set augmentation.rotation=0.5`.
"""

from trivox.config.options import Augmentation, ClassificationOptions, LossName, LossOptions
from trivox.config.presets import NAMED_RECIPES, NETWORK_SETTINGS, PRESETS
from trivox.config.recipe import Recipe, make_recipe, parse_settings, read_recipe
from trivox.config.reconstruction import ReconstructionLoss, ReconstructionOptions

__all__ = [
    "NAMED_RECIPES", "NETWORK_SETTINGS", "PRESETS", "Augmentation", "ClassificationOptions", "LossName", "LossOptions",
    "Recipe", "ReconstructionLoss", "ReconstructionOptions", "make_recipe", "parse_settings", "read_recipe",
]  # fmt: skip
