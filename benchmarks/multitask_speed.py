"""Mask and class of a pancreas-like CT from file to file, beside nnU-Net's mask alone, with the same network and test-time work.

The fourth seed asks for inference that is at least 10 % faster without fewer mirrored copies and without larger steps. Both
sides run nnU-Net's residual encoder (M) with the same weights, eight mirrored copies, windows half a patch apart and Gaussian
weights. Theirs: `predict_from_files_sequential`, which writes the mask. Ours: `Predictor.predict_case` and `write_volume`,
which write the mask and also answer the class, in the precision chosen for this CPU (and in fp32 with --fp32).

The scan is a phantom; the network is trained on it for some steps, so that its labels are no noise. The class head is
not trained: its answer means nothing, its cost is what is measured.
"""

import argparse
import contextlib
import io
import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from _measure import Cost, Race, equal_share, header, timed
from case import at_the_plans_spacing, network_of, their_predictor
from trivox.datasets import Case, LabelScheme
from trivox.datasets.lesions import lesion_indices
from trivox.datasets.pancreas_phantoms import CLASSES, LABELS, PancreasPhantomSettings, pancreas_phantom
from trivox.inference.bundle import ClassAnswers, write_bundle
from trivox.inference.postprocess import Postprocessing
from trivox.inference.predictor import Predictor
from trivox.inference.windows import window_starts
from trivox.networks import UNet
from trivox.networks.class_head import LesionMasks, MultitaskNetwork, add_class_head
from trivox.planning.families import FAMILIES
from trivox.planning.memory import forecast_memory
from trivox.planning.plan import Normalisation, Plan
from trivox.volumes import read_labels, write_volume

SPACING, FINER = (2.0, 0.73, 0.73), (2.0, 0.7, 0.7)
"""Of the plan and of the scan in mm: the scan is resampled, as nearly all are."""
SCENES = {
    "crop": ((59, 123, 189), (64, 128, 192)),
    "windows": ((40, 104, 156), (32, 64, 96)),
    "quick": ((36, 56, 56), (16, 32, 32)),
}
"""Voxels of scan and patch. crop: the median of the seed's set in the patch that nnU-Net plans for it, a single window;
windows: half the patch along each axis, eight windows."""
WIDTH = 64


def plan_of(patch: tuple[int, int, int], shape: tuple[int, int, int], features: int) -> Plan:
    """The residual encoder that nnU-Net plans, `features` wide in its first stage."""
    topology, padded = FAMILIES["resenc-m"].shape(patch, SPACING)
    widths = tuple(min(features * 2**stage, 10 * features) for stage in range(topology.stages))
    topology = topology.model_copy(update={"features": widths})
    labels = LabelScheme(labels=LABELS)
    return Plan(
        dataset="benchmark", task="multitask", channels=("CT",), labels=labels,
        normalisations=(Normalisation(scheme="z-score"),), spacing=SPACING, median_shape=shape, patch_size=padded,
        batch_size=2, batch_dice=False, network="resenc-m", topology=topology,
        memory=forecast_memory(topology, padded, batch=2, channels=1, outputs=labels.output_channels),
    )  # fmt: skip


def with_class_head(network: UNet, plan: Plan) -> MultitaskNetwork:
    """The network with an untrained class head."""
    masks = LesionMasks.of(plan.labels, lesion_indices(plan.labels), plan.spacing)
    return add_class_head(
        network, plan.topology, name=plan.network, channels=1, classes=len(CLASSES), masks=masks, width=WIDTH
    ).eval()


def compare(scene: str, *, features: int, steps: int, kinds: list[str]) -> None:
    shape, patch = SCENES[scene]
    settings = PancreasPhantomSettings(shape=shape, spacing=FINER, spacing_variation=0)
    scan, reference = pancreas_phantom(settings, 0)
    plan = plan_of(patch, shape, features)
    resampled = [round(n * fine / coarse) for n, fine, coarse in zip(shape, FINER, SPACING, strict=True)]
    image, tissues = scan.array[0].astype(np.float32), reference.array[0].astype(np.int16)
    network = network_of(plan, *at_the_plans_spacing(image, tissues, resampled), steps)
    both = with_class_head(network, plan)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "scan_0000.nii.gz"
        write_volume(source, scan)
        save_file(both.state_dict(), folder / "weights.safetensors")
        write_bundle(
            folder / "bundle", plan=plan, weights={"0": folder / "weights.safetensors"}, overlap=0.5,
            mirror_axes=("z", "y", "x"), postprocessing=Postprocessing(), training={},
            classification=ClassAnswers(classes=CLASSES, lesion=lesion_indices(plan.labels), width=WIDTH),
        )  # fmt: skip
        predictors = {kind: Predictor.load(folder / "bundle", device="cpu", precision=kind) for kind in kinds}
        peer = their_predictor(plan, network, mirror=True)

        def ours(kind: str) -> dict[str, float]:
            prediction = predictors[kind].predict_case(Case(name="scan", images=(source,)))
            write_volume(folder / f"{kind}.nii.gz", prediction.labels)
            assert prediction.classification is not None
            return dict(prediction.classification.probabilities)

        def theirs() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                peer.predict_from_files_sequential([[str(source)]], [str(folder / "theirs")])

        costs: dict[str, Cost] = {}
        for kind, call in {**{kind: partial(ours, kind) for kind in kinds}, "theirs": theirs}.items():
            costs[kind], answer = timed(call)
            print(f"# {kind}: {costs[kind]}; {answer or 'no class'}", flush=True)
        labels = {kind: read_labels(folder / f"{kind}.nii.gz").array for kind in costs}
    windows = np.prod([len(window_starts(n, p, 0.5)) for n, p in zip(resampled, plan.patch_size, strict=True)])
    truth = reference.array
    for kind in kinds:
        precision = predictors[kind].members[0].windows.runtime.precision
        Race(costs[kind], costs["theirs"], None, None).show(
            f"mask and class of {'x'.join(map(str, shape))} against mask alone, {windows} windows of "
            f"{'x'.join(map(str, plan.patch_size))}, 8 mirrored copies, resenc-m with {features} features, {precision}; "
            f"wall {costs['theirs'].wall / costs[kind].wall:.2f}x",
            f"{equal_share(labels[kind], labels['theirs']):.5f} equal; lesion Dice to the reference "
            f"{_dice(labels[kind], truth):.3f}, theirs {_dice(labels['theirs'], truth):.3f}",
        )


def _dice(found: np.ndarray, truth: np.ndarray) -> float:
    one, other = found == LABELS["lesion"], truth == LABELS["lesion"]
    return 2 * float((one & other).sum()) / max(int(one.sum() + other.sum()), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small scan and a lean network; ratios only indicative")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on both sides")
    parser.add_argument("--scenes", nargs="+", default=["crop", "windows"], choices=["crop", "windows"])
    parser.add_argument("--steps", type=int, default=150, help="of the training on the scan")
    parser.add_argument("--features", type=int, default=32, help="of the first stage; nnU-Net: 32")
    parser.add_argument("--fp32", action="store_true", help="also ours in fp32")
    given = parser.parse_args()
    os.environ |= {"nnUNet_def_n_proc": str(given.threads)}  # nnU-Net sets torch's threads to this while it exports
    os.environ |= dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), tempfile.gettempdir())
    torch.set_num_threads(given.threads)
    header()
    kinds = ["auto", "fp32"] if given.fp32 else ["auto"]
    if given.quick:
        compare("quick", features=8, steps=30, kinds=kinds)
        return
    for scene in given.scenes:
        compare(scene, features=given.features, steps=given.steps, kinds=kinds)


if __name__ == "__main__":
    main()
