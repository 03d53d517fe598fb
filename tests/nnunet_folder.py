"""Model folders as nnU-Net v2 writes them, for small networks; used by the tests of the
importer.
"""

import json
from pathlib import Path

import numpy as np
import torch

NAMES = json.loads(
    (Path(__file__).parent / "golden" / "nnunet_names.json").read_text(encoding="utf-8")
)
"""Names and shapes in nnU-Net's own networks for the kinds below, with two input
channels and three classes.
"""
CLASSES = "dynamic_network_architectures.architectures.unet."
KINDS = {
    "plain": ("PlainConvUNet", 3),
    "residual": ("ResidualEncoderUNet", 3),
    "flat": ("PlainConvUNet", 2),
}
"""Network class and dimensions."""
INTENSITIES = {
    "mean": 50.0,
    "std": 20.0,
    "percentile_00_5": -40.0,
    "percentile_99_5": 160.0,
    "min": -99.0,
}


def arch_kwargs(kind):
    """Three stages whose first pooling leaves z alone."""
    name, dimension = KINDS[kind]
    kernels = [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    blocks = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
    return {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
        "kernel_sizes": [k[3 - dimension :] for k in kernels],
        "strides": [s[3 - dimension :] for s in strides],
        blocks: [1, 2, 2],
        "n_conv_per_stage_decoder": [1, 2],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def plans_of(kind, channels=2):
    """`plans.json` for CT and MRI channels on a grid whose first axis is the image's
    second.
    """
    dimension = KINDS[kind][1]
    flat = 3 - dimension
    configuration = {
        "batch_size": 2,
        "batch_dice": True,
        "patch_size": [8, 16, 16][flat:],
        "spacing": [3.0, 1.5, 1.0][flat:],
        "median_image_size_in_voxels": [10.0, 20.5, 18.0][flat:],
        "use_mask_for_norm": [False, True][:channels],
        "normalization_schemes": ["CTNormalization", "ZScoreNormalization"][:channels],
        "architecture": {
            "network_class_name": CLASSES + KINDS[kind][0],
            "arch_kwargs": arch_kwargs(kind),
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": "Dataset007_Small",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "original_median_spacing_after_transp": [3.0, 1.5, 1.0],
        "original_median_shape_after_transp": [10, 20, 18],
        "transpose_forward": [1, 0, 2],
        "transpose_backward": [1, 0, 2],
        "configurations": {
            "base": configuration,
            "small": {"inherits_from": "base", "batch_size": 3},
        },
        "foreground_intensity_properties_per_channel": {
            "0": INTENSITIES,
            "1": INTENSITIES,
        },
    }


DATASET = {
    "channel_names": {"0": "CT", "1": "T1"},
    "labels": {"background": 0, "organ": 1, "lesion": 2},
    "file_ending": ".nii.gz",
    "numTraining": 20,
}


def checkpoint_of(state, configuration="small", **changes):
    """A checkpoint with what nnU-Net's trainer saves beside the weights: numpy numbers,
    a device, an optimizer.
    """
    return {
        "network_weights": state,
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": None,
        "logging": {
            "mean_fg_dice": [np.float64(0.5)],
            "ema_fg_dice": [np.float32(0.5)],
        },
        "_best_ema": np.float32(0.25),
        "current_epoch": 3,
        "trainer_name": "nnUNetTrainer",
        "init_args": {
            "configuration": configuration,
            "fold": 0,
            "device": torch.device("cpu"),
        },
        "inference_allowed_mirroring_axes": (0, 1, 2),
        **changes,
    }


def write_folder(
    folder, states, *, plans, dataset=DATASET, name="checkpoint_final.pth", **changes
):
    """Write a model folder with one state a fold."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    for fold, state in states.items():
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        torch.save(checkpoint_of(state, **changes), folder / f"fold_{fold}" / name)
    return folder


def state_of(kind, seed=0):
    """Random weights under nnU-Net's names; the second name of a layer holds the same
    tensor, as in nnU-Net.
    """
    torch.manual_seed(seed)
    state = {}
    for name, shape in NAMES[kind].items():
        first = (
            name.removeprefix("decoder.")
            .replace(".all_modules.0.", ".conv.")
            .replace(".all_modules.1.", ".norm.")
        )
        first = first if first in state else name
        scale = 0.05 if name.endswith("bias") else 0.3  # no class wins everywhere
        state[name] = state.get(first, scale * torch.randn(shape))
    return state


def model_folder(folder, *, channels=2):
    """A plain model of one fold for one or two channels."""
    state = {
        name: value[:, :channels] if list(value.shape[:2]) == [4, 2] else value
        for name, value in state_of("plain").items()
    }
    names = dict(list(DATASET["channel_names"].items())[:channels])
    return write_folder(
        folder,
        {"0": state},
        plans=plans_of("plain", channels),
        dataset={**DATASET, "channel_names": names},
    )
