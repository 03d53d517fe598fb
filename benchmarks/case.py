"""One case from file to file: read, preprocess, predict by sliding windows, restore,
write; against nnU-Net's predictor.

The same plan, network and weights on both sides, mirroring off. Theirs:
`predict_from_files_sequential` (no child processes, so that all its work is counted).
Ours: `Predictor.predict_case` and `write_volume`, by torch in the precision that it
chooses for this CPU (and in fp32 with --fp32), and with --engines by OpenVINO in fp32,
bf16 and int8 (calibrated on windows of the scan itself) and by ONNX Runtime. The network
is nnU-Net's plain U-Net, trained for some steps on the synthetic scan itself at the
plan's spacing, so that the predicted labels are no noise.
"""

import argparse
import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

from _engines import predictor_of
from _measure import Race, cells, equal_share, header, timed
from _peak import multiplying_rates
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.importing.nnunet import nnunet_name
from trivox.inference.bundle import write_bundle
from trivox.inference.descriptions import LabelDescription
from trivox.inference.windows import window_starts
from trivox.learning.losses.fused import dice_cross_entropy
from trivox.learning.runtime import cpu_has_bf16
from trivox.networks.counting import count_operations
from trivox.networks.registry import build_network
from trivox.networks.unet import UNet
from trivox.planning.memory import forecast_memory
from trivox.planning.plan import Normalisation, Plan
from trivox.planning.topology import Topology, pooling
from trivox.volumes.formats import read_labels, write_volume
from trivox.volumes.resampling import resize_image, resize_labels
from trivox.volumes.volume import Volume, affine_from_spacing

TARGET = 1.5
"""Spacing of the plan in mm."""
SCENES = {
    "3": (3, (100, 160, 160), 1.875),
    "60": (60, (100, 160, 160), 1.875),
    "60-fine": (60, (200, 320, 320), 0.75),
}
"""Classes, voxels and spacing of the source in mm.

The last is TotalSegmentator's kind: CT at 0.75, network at 1.5 mm.
"""
TISSUES = 12
"""Kinds of tissue with an intensity of their own; with more classes than that, some win
nowhere.
"""


def scan_of(shape: tuple[int, int, int], kinds: int) -> tuple[np.ndarray, np.ndarray]:
    """An image `(z, y, x)` and its tissues: each has its own mean, blurred and with
    noise.
    """
    tissues = cells(shape, kinds)
    means = np.random.default_rng(3).permutation(kinds).astype(np.float32)
    noise = np.random.default_rng(4).normal(size=shape).astype(np.float32)
    return gaussian_filter(means[tissues], 0.6) + 0.1 * noise + 1, tissues


def plan_of(
    patch: tuple[int, int, int],
    shape: tuple[int, int, int],
    classes: int,
    features: int,
) -> Plan:
    kernels, strides, padded = pooling(patch, (TARGET,) * 3)
    stages = len(strides)
    topology = Topology(
        kernels=kernels,
        strides=strides,
        features=tuple(min(features * 2**s, 10 * features) for s in range(stages)),
        encoder_blocks=(2,) * stages,
        decoder_blocks=(2,) * (stages - 1),
    )
    return Plan(
        dataset="benchmark",
        task="segmentation",
        channels=("MRI",),
        labels=LabelScheme(labels={f"organ_{i}": i for i in range(1, classes)}),
        normalisations=(Normalisation(scheme="z-score"),),
        spacing=(TARGET,) * 3,
        median_shape=shape,
        patch_size=padded,
        batch_size=2,
        batch_dice=False,
        network="nnunet-plain",
        topology=topology,
        memory=forecast_memory(topology, padded, batch=2, channels=1, outputs=classes),
    )


def network_of(plan: Plan, image: np.ndarray, tissues: np.ndarray, steps: int) -> UNet:
    """A network trained briefly on random windows of a normalised scan."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = build_network(
        plan.network,
        plan.topology,
        channels=1,
        outputs=plan.labels.output_channels,
        deep_supervision=False,
    )
    assert isinstance(network, UNet)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    normal = torch.from_numpy(image)[None, None]
    labels = torch.from_numpy(tissues)[None]
    size = [max(32, d) for d in plan.topology.divisor]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        z, y, x = (
            int(rng.integers(0, n - s + 1))
            for n, s in zip(image.shape, size, strict=True)
        )
        box = (slice(z, z + size[0]), slice(y, y + size[1]), slice(x, x + size[2]))
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bf16()):
            logits = network(normal[(..., *box)])
        loss = dice_cross_entropy(logits, labels[(..., *box)])
        optimizer.zero_grad()
        loss.backward()
        if torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0).isfinite():
            optimizer.step()
    return network.eval()


def at_the_plans_spacing(
    image: np.ndarray, tissues: np.ndarray, shape: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """What the network sees in a prediction, and its tissues: training data."""
    small = resize_image(torch.from_numpy(image)[None], (shape[0], shape[1], shape[2]))[
        0
    ]
    labels = resize_labels(torch.from_numpy(tissues), (shape[0], shape[1], shape[2]))
    return ((small - small.mean()) / small.std()).numpy(), labels.numpy()


def their_state(network: UNet) -> dict[str, torch.Tensor]:
    """Our parameters under nnU-Net's names."""
    return {
        nnunet_name(name, network.topology): value
        for name, value in network.state_dict().items()
    }


def their_plans(plan: Plan) -> dict:
    topology = plan.topology
    kind, blocks = (
        ("ResidualEncoderUNet", "n_blocks_per_stage")
        if topology.residual
        else ("PlainConvUNet", "n_conv_per_stage")
    )
    arch = {
        "n_stages": topology.stages,
        "features_per_stage": list(topology.features),
        "conv_op": "torch.nn.Conv3d",
        "kernel_sizes": [list(k) for k in topology.kernels],
        "strides": [list(s) for s in topology.strides],
        blocks: list(topology.encoder_blocks),
        "n_conv_per_stage_decoder": list(topology.decoder_blocks),
        "conv_bias": True,
        "norm_op": "torch.nn.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    resampling = {"order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "benchmark",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(plan.patch_size),
        "median_image_size_in_voxels": list(plan.median_shape),
        "spacing": list(plan.spacing),
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": False,
        **{
            f"resampling_fn_{kind}": "resample_data_or_seg_to_shape"
            for kind in ("data", "seg", "probabilities")
        },
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **resampling},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **resampling},
        "resampling_fn_probabilities_kwargs": {
            "is_seg": False,
            "order": 1,
            **resampling,
        },
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
            "arch_kwargs": arch,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": "Dataset001_Benchmark",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "experiment_planner_used": "ExperimentPlanner",
        "foreground_intensity_properties_per_channel": {"0": {}},
        "configurations": {"3d_fullres": configuration},
    }


def their_predictor(
    plan: Plan, network: UNet, *, mirror: bool = False, device: str = "cpu"
):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(their_plans(plan))
    configuration = manager.get_configuration("3d_fullres")
    outputs = plan.labels.output_channels
    other = nnUNetTrainer.build_network_architecture(
        manager, configuration, 1, outputs, enable_deep_supervision=False
    )
    unknown = other.load_state_dict(their_state(network), strict=False).unexpected_keys
    assert not unknown, unknown
    other.eval()
    with torch.inference_mode():
        probe = torch.randn(1, 1, *(2 * size for size in plan.topology.divisor))
        difference = (network(probe) - other(probe)).abs().max().item()
    assert difference < 1e-3, f"the networks differ by {difference}"
    dataset = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, **plan.labels.labels},
        "file_ending": ".nii.gz",
    }
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(
            use_mirroring=mirror, device=torch.device(device), allow_tqdm=False
        )
    weights = [other.state_dict()]
    predictor.manual_initialization(
        other, manager, configuration, weights, dataset, "nnUNetTrainer", (0, 1, 2)
    )
    return predictor


@contextlib.contextmanager
def in_full_precision() -> Iterator[None]:
    """nnU-Net weighs windows and sums them in fp16; for once in fp32."""
    from nnunetv2.inference import predict_from_raw_data as module

    weights = partial(module.compute_gaussian, dtype=torch.float32)
    weights.cache_clear = module.compute_gaussian.cache_clear
    with (
        mock.patch.object(module, "compute_gaussian", weights),
        mock.patch.object(torch, "half", torch.float32),
    ):
        yield


def compare(
    shape: tuple[int, int, int],
    patch: tuple[int, int, int],
    classes: int,
    spacing: float,
    *,
    features: int,
    steps: int,
    kinds: list[str],
    profile: bool,
) -> None:
    image, tissues = scan_of(shape, min(classes, TISSUES))
    plan = plan_of(patch, shape, classes, features)
    resampled = [round(n * spacing / TARGET) for n in shape]
    network = network_of(plan, *at_the_plans_spacing(image, tissues, resampled), steps)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "scan_0000.nii.gz"
        write_volume(
            source,
            Volume(image[None].astype(np.float32), affine_from_spacing((spacing,) * 3)),
        )
        save_file(network.state_dict(), folder / "weights.safetensors")
        write_bundle(
            folder / "bundle",
            LabelDescription(task=plan.task, plan=plan),
            {"0": folder / "weights.safetensors"},
        )
        predictors = {
            kind: predictor_of(
                kind, folder / "bundle", [Case(name="scan", images=(source,))]
            )
            for kind in kinds
        }
        peer = their_predictor(plan, network)

        def ours(kind: str) -> np.ndarray:
            prediction = predictors[kind].predict_case(
                Case(name="scan", images=(source,))
            )
            write_volume(folder / f"{kind}.nii.gz", prediction.labels)
            return prediction.labels.array

        def theirs(name: str = "theirs") -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                peer.predict_from_files_sequential(
                    [[str(source)]], [str(folder / name)]
                )

        if profile:
            _profile(lambda: ours("auto"))
        calls = {**{kind: partial(ours, kind) for kind in kinds}, "theirs": theirs}
        best = {kind: timed(call)[0] for kind, call in calls.items()}
        with in_full_precision():
            theirs("theirs-fp32")
        labels = {
            kind: read_labels(folder / f"{kind}.nii.gz").array
            for kind in (*calls, "theirs-fp32")
        }
    windows = np.prod(
        [
            len(window_starts(n, p, 0.5))
            for n, p in zip(resampled, plan.patch_size, strict=True)
        ]
    )
    if "openvino bf16" in kinds:
        show_bound(plan, int(windows), best["theirs"].cpu)
    for kind in kinds:
        engine = predictors[kind].members[0].windows.engines[0]
        precision = f"{engine.name} {engine.precision}"
        Race(best[kind], best["theirs"], None, None).show(
            f"case {'x'.join(map(str, shape))} at {spacing} mm, plan at {TARGET} mm, C={classes}, "
            f"{windows} windows of {'x'.join(map(str, patch))}, "
            f"{features} features, {precision}; wall {best['theirs'].wall / best[kind].wall:.1f}x",
            f"{equal_share(labels[kind], labels['theirs']):.5f} equal, "
            f"{len(np.unique(labels['theirs']))} labels found; "
            f"{equal_share(labels[kind], labels['theirs-fp32']):.5f} to nnU-Net with "
            "fp32 sums, which equals nnU-Net as it is by "
            f"{equal_share(labels['theirs'], labels['theirs-fp32']):.5f}",
        )


def show_bound(plan: Plan, windows: int, theirs: float) -> None:
    """What the network's own operations would take if all of them went as fast as
    products of large matrices.
    """
    counted = count_operations(
        plan.network,
        plan.topology,
        len(plan.channels),
        plan.labels.output_channels,
        plan.patch_size,
    )
    operations = 1e9 * counted["gflop"] * windows
    print(
        f"the network: {operations / 1e12:.2f} TFLOP in {windows} windows", flush=True
    )
    for precision, rate in multiplying_rates().items():
        seconds = operations / rate
        print(
            f"  {precision} at the {rate / 1e9:.0f} GFLOP/s of matrices of this CPU: "
            f"{seconds:.1f} s, {theirs / seconds:.1f}x",
            flush=True,
        )


def _profile(call) -> None:
    import cProfile
    import pstats

    with cProfile.Profile() as measured:
        call()
    pstats.Stats(measured).sort_stats("tottime").print_stats(14)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a small scan and a lean network, under 20 s",
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of torch on both sides"
    )
    parser.add_argument(
        "--scenes", nargs="+", default=list(SCENES), choices=list(SCENES)
    )
    parser.add_argument(
        "--steps", type=int, default=1000, help="of the training on the scan"
    )
    parser.add_argument(
        "--features", type=int, default=32, help="of the first stage; nnU-Net: 32"
    )
    parser.add_argument(
        "--engines", action="store_true", help="also by OpenVINO and ONNX Runtime"
    )
    parser.add_argument("--fp32", action="store_true", help="also ours in fp32")
    parser.add_argument(
        "--profile", action="store_true", help="also print where our time goes"
    )
    given = parser.parse_args()
    os.environ |= {
        "nnUNet_def_n_proc": str(given.threads)
    }  # nnU-Net sets torch's threads to this while it exports
    os.environ |= dict.fromkeys(
        ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), tempfile.gettempdir()
    )
    torch.set_num_threads(given.threads)
    header()
    kinds = ["auto", "fp32"] if given.fp32 else ["auto"]
    if given.engines:
        kinds += ["openvino fp32", "openvino bf16", "openvino int8", "onnx fp32"]
    for scene in given.scenes:
        classes, shape, spacing = SCENES[scene]
        if given.quick:
            shape = tuple(round(n * TARGET / spacing) for n in (40, 60, 60))
            compare(
                shape,
                (32, 32, 32),
                classes,
                spacing,
                features=8,
                steps=20,
                kinds=kinds,
                profile=given.profile,
            )
        else:
            compare(
                shape,
                (64, 64, 64),
                classes,
                spacing,
                features=given.features,
                steps=given.steps,
                kinds=kinds,
                profile=given.profile,
            )


if __name__ == "__main__":
    main()
