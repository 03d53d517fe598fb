"""Mask and class of a pancreas-like CT from file to file, beside nnU-Net's mask alone:
same network, same test-time work.

The bar: at least 10 % faster than the mask alone, without fewer mirrored
copies and without larger steps. Both sides run nnU-Net's residual encoder (M) with the
same weights, eight mirrored copies, windows half a patch apart, and Gaussian weights.
Theirs: `predict_from_files_sequential`, which writes the mask. Ours:
`Predictor.predict_case` and `write_volume`, once for the mask alone and once for mask
and class, in the precision chosen for this CPU (and in fp32 with --fp32). Theirs goes
first, so that nothing that ours sets for the process can change it.

The scan is a phantom; the network is trained on it for some steps, so that its labels
are no noise. The class head is not trained: its answer means nothing, its cost is what
is measured.
"""

import argparse
import contextlib
import io
import os
import tempfile
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from _engines import predictor_of
from _measure import Race, equal_share, header, timed
from case import at_the_plans_spacing, network_of, their_predictor
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.datasets.lesions import lesion_indices
from trivox.datasets.phantoms.abdomens import (
    CLASSES,
    LABELS,
    PancreasPhantomSettings,
    pancreas_phantom,
)
from trivox.inference.bundle import write_bundle
from trivox.inference.describe import Prediction
from trivox.inference.descriptions import ClassDescription, LabelDescription
from trivox.inference.predictor import Predictor
from trivox.inference.windows import window_starts
from trivox.networks.class_head import LesionMasks, MultitaskNetwork, add_class_head
from trivox.networks.registry import PATCH_NETWORKS
from trivox.networks.unet import UNet
from trivox.planning.memory import forecast_memory
from trivox.planning.plan import Normalisation, Plan
from trivox.volumes.formats import read_labels, write_volume

SPACING, FINER = (2.0, 0.73, 0.73), (2.0, 0.7, 0.7)
"""Of the plan and of the scan in mm: the scan is resampled, as nearly all are."""
SCENES = {
    "crop": ((59, 123, 189), (64, 128, 192)),
    "windows": ((40, 100, 150), (32, 64, 96)),
    "quick": ((36, 56, 56), (16, 32, 32)),
}
"""Voxels of scan and patch.

crop: the median of a set of pancreas CTs in the patch that nnU-Net plans for it, a
single window; windows: half the patch along each axis, eight windows.
"""
WIDTH = 64


def plan_of(
    patch: tuple[int, int, int], shape: tuple[int, int, int], features: int
) -> Plan:
    """The residual encoder that nnU-Net plans, `features` wide in its first stage."""
    topology, padded = PATCH_NETWORKS["resenc-m"].shape(patch, SPACING)
    widths = tuple(
        min(features * 2**stage, 10 * features) for stage in range(topology.stages)
    )
    topology = topology.model_copy(update={"features": widths})
    labels = LabelScheme(labels=LABELS)
    return Plan(
        dataset="benchmark",
        task="multitask",
        channels=("CT",),
        labels=labels,
        normalisations=(Normalisation(scheme="z-score"),),
        spacing=SPACING,
        median_shape=shape,
        patch_size=padded,
        batch_size=2,
        batch_dice=False,
        network="resenc-m",
        topology=topology,
        memory=forecast_memory(
            topology, padded, batch=2, channels=1, outputs=labels.output_channels
        ),
    )


def with_class_head(network: UNet, plan: Plan) -> MultitaskNetwork:
    """The network with an untrained class head."""
    masks = LesionMasks.of(plan.labels, lesion_indices(plan.labels), plan.spacing)
    return add_class_head(
        network,
        plan.topology,
        name=plan.network,
        channels=1,
        classes=len(CLASSES),
        masks=masks,
        width=WIDTH,
    ).eval()


def near_the_organ(
    image: np.ndarray, tissues: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels in a box of the organ with a margin: what training soon learns
    from.
    """
    box = tuple(
        slice(max(0, places.min() - 16), max(places.max() + 16, places.min() + 32))
        for places in np.nonzero(tissues)
    )
    return image[box], tissues[box]


@torch.inference_mode()
def see_a_lesion(network: UNet, image: torch.Tensor, plan: Plan) -> None:
    """Raise the bias of the lesion until a tenth of a window is lesion: so short a
    training finds none, and a case without lesion takes another way. Both sides have
    the same weights.
    """
    middle = tuple(
        slice((n - min(n, p)) // 2, (n + min(n, p)) // 2)
        for n, p in zip(image.shape, plan.patch_size, strict=True)
    )
    window = torch.zeros(plan.patch_size)
    part = image[middle]
    window[tuple(slice(n) for n in part.shape)] = (part - part.mean()) / part.std()
    logits = network.eval()(window[None, None])[0]
    ahead = (logits[[0, 1]].amax(0) - logits[2]).flatten().sort().values
    network.heads[0].bias[2] += float(ahead[len(ahead) // 10])


def bundles_of(plan: Plan, network: UNet, folder: Path) -> dict[str, Path]:
    """The model with class head and without."""
    answers = ClassDescription(
        classes=CLASSES, lesion=lesion_indices(plan.labels), width=WIDTH
    )
    for name, weighed, classes in (
        ("mask", network, None),
        ("mask and class", with_class_head(network, plan), answers),
    ):
        save_file(weighed.state_dict(), folder / f"{name}.safetensors")
        description = LabelDescription(
            task=plan.task,
            plan=plan,
            mirror_axes=("z", "y", "x"),
            classification=classes,
        )
        write_bundle(folder / name, description, {"0": folder / f"{name}.safetensors"})
    return {"mask": folder / "mask", "mask and class": folder / "mask and class"}


def compare(scene: str, *, features: int, steps: int, precisions: list[str]) -> None:
    shape, patch = SCENES[scene]
    settings = PancreasPhantomSettings(shape=shape, spacing=FINER, spacing_variation=0)
    scan, reference = pancreas_phantom(settings, 0)
    plan = plan_of(patch, shape, features)
    resampled = [
        round(n * fine / coarse)
        for n, fine, coarse in zip(shape, FINER, SPACING, strict=True)
    ]
    image, tissues = (
        scan.array[0].astype(np.float32),
        reference.array[0].astype(np.int16),
    )
    network = network_of(
        plan, *near_the_organ(*at_the_plans_spacing(image, tissues, resampled)), steps
    )
    see_a_lesion(
        network,
        torch.from_numpy(at_the_plans_spacing(image, tissues, resampled)[0]),
        plan,
    )
    windows = np.prod(
        [
            len(window_starts(n, p, 0.5))
            for n, p in zip(resampled, plan.patch_size, strict=True)
        ]
    )
    print(
        f"# {scene}: {windows} windows of {plan.patch_size}, strides {plan.topology.strides}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "scan_0000.nii.gz"
        write_volume(source, scan)
        peer = their_predictor(plan, network, mirror=True)
        with contextlib.redirect_stdout(io.StringIO()):
            theirs, _ = timed(
                lambda: peer.predict_from_files_sequential(
                    [[str(source)]], [str(folder / "theirs")]
                )
            )
        their_labels = read_labels(folder / "theirs.nii.gz").array
        for (what, bundle), precision in product(
            bundles_of(plan, network, folder).items(), precisions
        ):
            predictor = predictor_of(precision, bundle, [])
            ours, prediction = timed(
                partial(predicted, predictor, source, folder / "ours.nii.gz")
            )
            assert (prediction.classification is None) == (what == "mask")
            found = prediction.labels.array
            Race(ours, theirs, None, None).show(
                f"{what} of {'x'.join(map(str, shape))} against mask alone, "
                f"{windows} windows of {'x'.join(map(str, plan.patch_size))}, "
                f"8 mirrored copies, resenc-m with {features} features, "
                f"{named(predictor)}; "
                f"wall {theirs.wall / ours.wall:.2f}x",
                f"{equal_share(found, their_labels):.5f} equal; "
                "lesion Dice to the reference "
                f"{_dice(found, reference.array):.3f}, "
                f"theirs {_dice(their_labels, reference.array):.3f}"
                + (
                    f"; flags {prediction.classification.flags}"
                    if prediction.classification
                    else ""
                ),
            )


def named(predictor: Predictor) -> str:
    """Engine and precision."""
    engine = predictor.members[0].windows.engines[0]
    return f"{engine.name} {engine.precision}"


def predicted(predictor: Predictor, source: Path, out: Path) -> Prediction:
    prediction = predictor.predict_case(Case(name="scan", images=(source,)))
    write_volume(out, prediction.labels)
    return prediction


def _dice(found: np.ndarray, truth: np.ndarray) -> float:
    one, other = found == LABELS["lesion"], truth == LABELS["lesion"]
    return 2 * float((one & other).sum()) / max(int(one.sum() + other.sum()), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a small scan and a lean network; ratios only indicative",
    )
    parser.add_argument(
        "--engines", action="store_true", help="also by OpenVINO in bf16 and fp32"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of torch on both sides"
    )
    parser.add_argument(
        "--scenes", nargs="+", default=["crop", "windows"], choices=["crop", "windows"]
    )
    parser.add_argument(
        "--steps", type=int, default=150, help="of the training on the scan"
    )
    parser.add_argument(
        "--features", type=int, default=32, help="of the first stage; nnU-Net: 32"
    )
    parser.add_argument("--fp32", action="store_true", help="also ours in fp32")
    given = parser.parse_args()
    os.environ |= {
        "nnUNet_def_n_proc": str(given.threads)
    }  # nnU-Net sets torch's threads to this while it exports
    os.environ |= dict.fromkeys(
        ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), tempfile.gettempdir()
    )
    torch.set_num_threads(given.threads)
    header()
    precisions = ["auto", "fp32"] if given.fp32 else ["auto"]
    if given.engines:
        precisions += ["openvino bf16", "openvino fp32"]
    if given.quick:
        compare("quick", features=8, steps=30, precisions=precisions)
        return
    for scene in given.scenes:
        compare(
            scene, features=given.features, steps=given.steps, precisions=precisions
        )


if __name__ == "__main__":
    main()
