"""Presets and recipes for a kind of data: values of a recipe, never subclasses."""

from collections.abc import Mapping

Values = Mapping[str, object]
"""Values of a recipe by name, nested where the recipe is."""

PRESETS: dict[str, Values] = {
    # Minutes on a CPU: a lean network, few iterations an epoch, AdamW (SGD with
    # momentum 0.99 needs ten times the steps), a third of the augmentation: a network
    # that sees its cases a few dozen times does not learn them by heart, and has no time
    # for what patients do not show, such as a body upside down.
    "quick_test": {
        "network": "unet-small",
        "memory_gb": 1.0,
        "epochs": 20,
        "iterations_per_epoch": 40,
        "validation_iterations": 8,
        "optimizer": "adamw",
        "learning_rate": 2e-3,
        "weight_decay": 1e-2,
        "warmup": 0.05,
        "schedule": "cosine",
        "gradient_clip": 2.0,
        "batch_size": 4,
        "checkpoint_minutes": 2.0,
        "validation_smoothing": 0.5,
        "augmentation": {
            "rotation": 0.07,
            "scaling": 0.07,
            "noise": 0.03,
            "blur": 0.03,
            "brightness": 0.05,
            "contrast": 0.05,
            "low_resolution": 0.03,
            "gamma": 0.05,
            "gamma_inverted": 0.03,
            "mirror_axes": ("x",),
        },
    },
    "production": {},
    # Start from --pretrained weights: a tenth of the learning rate, a tenth of the
    # time.
    "fine_tuning": {"learning_rate": 1e-3, "epochs": 100, "warmup": 0.05},
    # The largest hybrid; its depth asks for a moving average of the weights.
    "large": {"network": "hybrid-large", "weights_ema": 0.999},
}

_ADAMW: Values = {
    "optimizer": "adamw",
    "learning_rate": 3e-4,
    "weight_decay": 5e-2,
    "warmup": 0.05,
    "schedule": "cosine",
    "gradient_clip": 1.0,
}
_TRANSFORMER: dict[str, Values] = {
    "quick_test": {"learning_rate": 3e-3, "gradient_clip": 1.0},
    "production": _ADAMW,
    "fine_tuning": {**_ADAMW, "learning_rate": 3e-5},
    "large": _ADAMW,
}
NETWORK_SETTINGS: dict[str, dict[str, Values]] = {
    "hybrid": _TRANSFORMER,
    "swin": _TRANSFORMER,
    "mednext": _TRANSFORMER,
    "segresnet": _TRANSFORMER,
}
"""What networks whose names begin so change in each preset: nnU-Net's SGD does not
train transformers. `trivox.networks.registry` lists the networks.
"""


def network_settings(network: str) -> Mapping[str, Values]:
    """What a network changes in each preset, by the kind that its name begins with."""
    return NETWORK_SETTINGS.get(network.partition("-")[0], {})


NAMED_RECIPES: dict[str, dict[str, Values]] = {
    # Four MRI sequences, nested tumour regions: NVIDIA's recipe (Futrega et al. 2021,
    # arXiv:2110.03352) and what is known to be better since. The mask channel is made
    # before normalisation; small presets keep their own network and rate.
    "brats": {
        "": {
            "mask_channel": True,
            "masked_normalisation": True,
            "batch_dice": True,
            "foreground_fraction": 0.4,
            "loss": {"dice": 1.0, "cross_entropy": 1.0},
            "mirrored_inference": True,
            "overlap": 0.5,
            "augmentation": {
                "rotation": 0.3,
                "scaling": 0.3,
                "elastic": 0.1,
                "noise": 0.15,
                "blur": 0.15,
                "brightness": 0.15,
                "contrast": 0.15,
            },
        },
        "production": {
            "network": "nvidia-unet",
            "batch_size": 2,
            "optimizer": "adamw",
            "learning_rate": 3e-4,
            "weight_decay": 1e-4,
            "schedule": "cosine",
            "warmup": 0.02,
            "gradient_clip": 1.0,
            "epochs": 300,
        },
        "fine_tuning": {
            "network": "nvidia-unet",
            "batch_size": 2,
            "optimizer": "adamw",
            "learning_rate": 3e-5,
            "weight_decay": 1e-4,
            "schedule": "cosine",
            "gradient_clip": 1.0,
        },
        "large": {},
        "quick_test": {
            "augmentation": {
                "low_resolution": 0.1,
                "gamma": 0.15,
                "gamma_inverted": 0.1,
                "mirror_axes": ("z", "y", "x"),
            },
        },
    },
    # X-rays to a volume; what the task itself decides (patches, Dice, augmentation) is
    # without effect.
    "xray2ct": {
        "": {
            "optimizer": "adamw",
            "learning_rate": 1.5e-3,
            "weight_decay": 1e-2,
            "warmup": 0.05,
            "schedule": "cosine",
            "gradient_clip": 1.0,
            "batch_size": 4,
            "network": "xray2ct-base",
            "final_weights": "best",
        },
        "production": {"learning_rate": 3e-4, "epochs": 400},
        "fine_tuning": {"learning_rate": 1e-4, "epochs": 100},
        "large": {"learning_rate": 3e-4, "epochs": 400, "weights_ema": 0.999},
        "quick_test": {
            "network": "xray2ct-tiny",
            "iterations_per_epoch": 50,
            "validation_iterations": 8,
        },
    },
}
"""Recipes for a kind of data: what holds under every preset (""), and what a preset
changes.
"""
