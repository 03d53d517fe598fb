"""The peers' side of `nnunet_parity.py`: small model folders as nnU-Net's own planners
write them, and what nnU-Net predicts with them.

    PEERS/python nnunet_folders.py ROOT

reads `ROOT/rows.json`, writes `ROOT/ROW/{raw,model,scans,theirs}` for each row. Needs
nnunetv2 and none of trivox. Nothing is trained: weights are random, and the heads are
scaled so that every class wins somewhere.
"""

import contextlib
import importlib
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel
import numpy as np
import torch
from nibabel import orientations
from scipy.ndimage import gaussian_filter

CASES = 4
SCAN = "scan"
SPREAD = 10.0
"""Standard deviation of each class's logits."""
SCALES = (1.0, 1.2, 1.3, 1.1)
"""Spacing of each training case relative to that of the scan."""
FEATURES = 4
RAW = "nnUNet_raw"
PREPROCESSED = "nnUNet_preprocessed"
RESULTS = "nnUNet_results"
"""Variables of the environment by which nnU-Net finds its folders."""
TRAINERS = {
    "nnUNetTrainer": "nnunetv2.training.nnUNetTrainer.nnUNetTrainer",
    "nnUNetTrainerBN": "nnunetv2.training.nnUNetTrainer.variants.network_architecture."
    "nnUNetTrainerBN",
}
PATCH_SHARE = 0.08
"""Of the scan's voxels that a patch has about, so that windows overlap and nnU-Net
plans a low resolution.
"""


def volume(size: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two channels `(2, x, y, z)` of blobs in an ellipsoid of zeros, and four labels."""
    rng = np.random.default_rng(seed)
    channels = []
    for sigma in (2.5, 1.8):
        blobs = gaussian_filter(rng.normal(size=size), sigma)
        channels.append(100 * blobs / blobs.std() + rng.normal(scale=3, size=size))
    axes = [np.linspace(-1.1, 1.1, voxels) ** 2 for voxels in size]
    radius = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    inside = radius < 1
    image = np.stack(channels) * inside
    labels = np.digitize(image[0], (-80, 0, 80)) * inside
    return image.astype(np.float32), labels.astype(np.uint8)


def write(file: Path, array: np.ndarray, spacing: list[float], storage: str) -> None:
    """Write an RAS array `(x, y, z)` as it lies in `storage` order."""
    file.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-17.0, 8.0, 21.0)
    image = nibabel.Nifti1Image(array, affine)
    turn = orientations.ornt_transform(
        orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(storage)
    )
    nibabel.save(image.as_reoriented(turn), file)


def write_dataset(row: dict[str, Any], raw: Path, scans: Path) -> dict[str, Any]:
    """Training cases in `raw`, the scan to predict in `scans`; returns
    `dataset.json`.
    """
    for number, scale in enumerate((*SCALES[:CASES], 1.0)):
        image, labels = volume(tuple(row["size"]), number)
        spacing = [scale * step for step in row["spacing"]]
        is_scan = number == CASES
        folder = scans if is_scan else raw / "imagesTr"
        name = SCAN if is_scan else f"case_{number}"
        storage = row["scan_storage"] if is_scan else row["storage"]
        for channel, array in enumerate(image):
            file = folder / f"{name}_{channel:04d}.nii.gz"
            write(file, array, row["scan_spacing"] if is_scan else spacing, storage)
        if not is_scan:
            write(raw / "labelsTr" / f"{name}.nii.gz", labels, spacing, storage)
    names = {"0": "CT", "1": "T1"}
    dataset = {
        row["channels_key"]: names,
        "labels": row["labels"],
        "numTraining": CASES,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": row["reader"],
    }
    if row["order"]:
        dataset["regions_class_order"] = row["order"]
    (raw / "dataset.json").write_text(json.dumps(dataset))
    return dataset


def write_fingerprint(name: str, raw: Path) -> None:
    """What `DatasetFingerprintExtractor.run` writes, without its child processes."""
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
    from nnunetv2.imageio.reader_writer_registry import (
        determine_reader_writer_from_dataset_json,
    )

    extractor = fingerprint_extractor.DatasetFingerprintExtractor(name, 1)
    cases = list(extractor.dataset.values())
    reader = determine_reader_writer_from_dataset_json(
        extractor.dataset_json, cases[0]["images"][0]
    )
    results = [
        extractor.analyze_case(case["images"], case["label"], reader) for case in cases
    ]
    intensities = {}
    for channel in range(2):
        values = np.concatenate([result[2][channel] for result in results])
        low, median, high = np.percentile(values, (0.5, 50, 99.5))
        intensities[channel] = {
            "mean": float(values.mean()),
            "median": float(median),
            "std": float(values.std()),
            "min": float(values.min()),
            "max": float(values.max()),
            "percentile_99_5": float(high),
            "percentile_00_5": float(low),
        }
    content = {
        "spacings": [[float(step) for step in result[1]] for result in results],
        "shapes_after_crop": [[int(n) for n in result[0]] for result in results],
        "foreground_intensity_properties_per_channel": intensities,
        "median_relative_size_after_cropping": float(
            np.median([result[4] for result in results])
        ),
    }
    folder = Path(os.environ[PREPROCESSED]) / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset_fingerprint.json").write_text(json.dumps(content))


def plan(row: dict[str, Any], name: str) -> dict[str, Any]:
    """The plans of nnU-Net's planner for a network of few features."""
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    package = Path(nnunetv2.__path__[0]) / "experiment_planning"
    planner_class = recursive_find_python_class(
        str(package), row["planner"], "nnunetv2.experiment_planning"
    )
    planner = planner_class(name)
    planner.UNet_base_num_features = FEATURES
    planner.UNet_max_features_2d = planner.UNet_max_features_3d = 2 * FEATURES
    planner.UNet_blocks_per_stage_encoder = (1, 2, 2, 2, 2, 2, 2, 2)
    planner.UNet_vram_target_GB = planner.UNet_reference_val_corresp_GB
    voxels = np.prod(row["size"])
    planner.UNet_reference_val_3d = 6 * FEATURES * voxels * PATCH_SHARE
    planner.UNet_reference_val_2d = 2 * FEATURES * voxels ** (2 / 3)
    return planner.plan_experiment()


def trainer_class(name: str) -> Any:
    """nnU-Net's trainer of that name; its own search imports every variant, some of
    which need packages that are not installed here.
    """
    return getattr(importlib.import_module(TRAINERS[name]), name)


def changed(plans: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The plans with what a user may write into them by hand."""
    for configuration in plans["configurations"].values():
        if "inherits_from" not in configuration:
            configuration.update(row["changes"])
            network = configuration["architecture"]["arch_kwargs"]
            network.update(row["network"])
    return plans


def network_of(
    row: dict[str, Any], folder: Path, configuration: str, inputs: int
) -> torch.nn.Module:
    """The network that nnU-Net's trainer builds, away from its initial weights."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(str(folder / "plans.json"))
    dataset = json.loads((folder / "dataset.json").read_text())
    trainer = trainer_class(row["trainer"])
    outputs = plans.get_label_manager(dataset).num_segmentation_heads
    torch.manual_seed(7)
    network = trainer.build_network_architecture(
        plans, plans.get_configuration(configuration), inputs, outputs, False
    )
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return network.eval()


@torch.inference_mode()
def spread(network: torch.nn.Module, patch: torch.Tensor) -> None:
    """Scale the last layer so that each class has logits round 0 on a patch."""
    logits = network(patch)
    head = network.decoder.seg_layers[-1]
    axes = (0, *range(2, logits.ndim))
    mean = logits.mean(axes)
    factor = SPREAD / logits.std(axes)
    head.bias.sub_(mean).mul_(factor)
    head.weight.mul_(factor.reshape(-1, *[1] * (head.weight.ndim - 1)))


def patch_of(folder: Path, configuration: str, files: list[str], inputs: int):
    """A patch from the middle of the prepared scan, zeros for labels found before."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(str(folder / "plans.json"))
    rules = plans.get_configuration(configuration)
    prepare = rules.preprocessor_class(verbose=False)
    data, _, _ = prepare.run_case(
        files, None, plans, rules, str(folder / "dataset.json")
    )
    data = torch.from_numpy(data)
    if len(rules.patch_size) == 2:
        data = data[:, data.shape[1] // 2]
    for axis, size in enumerate(rules.patch_size, start=1):
        missing = max(0, size - data.shape[axis])
        if missing:
            zeros = list(data.shape)
            zeros[axis] = missing
            data = torch.cat([data, torch.zeros(zeros)], dim=axis)
        data = data.narrow(axis, (data.shape[axis] - size) // 2, size)
    before = torch.zeros(inputs - len(data), *data.shape[1:])
    return torch.cat([data, before])[None]


def predict(
    row: dict[str, Any], root: Path, configuration: str, before: Path | None
) -> Path:
    """Make a model of a configuration and predict the scan with it; returns the folder
    of its labels.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.label_handling.label_handling import (
        determine_num_input_channels,
    )
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    folder = root / "model" / f"{row['trainer']}__nnUNetPlans__{configuration}"
    shutil.copytree(root / "common", folder)
    plans = PlansManager(str(folder / "plans.json"))
    dataset = json.loads((folder / "dataset.json").read_text())
    inputs = determine_num_input_channels(plans, configuration, dataset)
    network = network_of(row, folder, configuration, inputs)
    files = sorted(str(file) for file in (root / "scans").glob("*.nii.gz"))
    spread(network, patch_of(folder, configuration, files, inputs))
    (folder / "fold_0").mkdir()
    dimension = len(plans.get_configuration(configuration).patch_size)
    content = {
        "network_weights": network.state_dict(),
        "trainer_name": row["trainer"],
        "init_args": {"configuration": configuration, "fold": 0},
        "inference_allowed_mirroring_axes": [
            axis for axis in row["mirror"] if axis < dimension
        ]
        or None,
        "logging": {"losses": np.zeros(3), "ema": [np.float64(0.5)]},
    }
    file = f"checkpoint_{row['checkpoint']}.pth"
    torch.save(content, folder / "fold_0" / file)
    search = (
        "nnunetv2.inference.predict_from_raw_data.recursive_find_trainer_class_by_name"
    )
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    with mock.patch(search, trainer_class):
        predictor.initialize_from_trained_model_folder(str(folder), (0,), file)
    out = root / ("theirs" if configuration == row["configuration"] else "before")
    out.mkdir()
    predictor.predict_from_files_sequential(
        [files],
        [str(out / SCAN)],
        folder_with_segs_from_prev_stage=None if before is None else str(before),
    )
    return out


def make(row: dict[str, Any], root: Path, number: int) -> None:
    """Everything of a row."""
    name = f"Dataset{number:03d}_Small"
    raw = Path(os.environ[RAW]) / name
    raw.mkdir(parents=True)
    write_dataset(row, raw, root / "scans")
    write_fingerprint(name, raw)
    plans = changed(plan(row, name), row)
    common = root / "common"
    common.mkdir()
    (common / "plans.json").write_text(json.dumps(plans, default=float))
    shutil.copy(raw / "dataset.json", common)
    before = None
    if "cascade" in row["configuration"]:
        before = predict(row, root, "3d_lowres", None)
    predict(row, root, row["configuration"], before)
    for file in (root / "model").glob("*/plans.json"):
        plans = json.loads(file.read_text())
        for configuration in plans["configurations"].values():
            configuration.update(row["foreign"])
        file.write_text(json.dumps(plans))


def main() -> None:
    """Make all rows; what nnU-Net said of one that it cannot do is printed."""
    root = Path(sys.argv[1])
    torch.set_num_threads(1)
    for key in (RAW, PREPROCESSED, RESULTS):
        os.environ[key] = str(root / key)
    rows = json.loads((root / "rows.json").read_text())
    for number, (name, row) in enumerate(rows.items(), start=1):
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                make(row, root / name, number)
        except Exception:
            print(f"{said.getvalue()[-1500:]}\n{name}:")
            raise


if __name__ == "__main__":
    main()
