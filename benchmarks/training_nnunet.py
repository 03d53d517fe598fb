"""nnU-Net's own training on the same data, split and minutes as a trivox run: the mean
validation Dice of both compare.

Converts a dataset to nnU-Net's raw layout, lets nnU-Net plan (plain planner,
3d_fullres) and preprocess it, trains `nnUNetTrainer` for M minutes on the CPU (its own
augmentation, patch, batch and optimiser; the poly schedule follows the clock instead of
1000 epochs), predicts the fold's validation cases with its own predictor (mirroring on,
its default) and measures them with `trivox evaluate`'s code. The minutes count training
only, as `trivox train --minutes` does.
"""

import argparse
import json
import os
import shutil
import time
from pathlib import Path

from trivox.datasets.dataset import Dataset
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.splits import make_splits
from trivox.volumes.formats import read_labels, read_volume, write_volume

IDENTITY, CONFIGURATION = 1, "3d_fullres"
ITERATIONS = 5
"""Training steps an epoch, with one of validation: nnU-Net's ratio of 250 to 50, in
epochs that fit into minutes.
"""


def environment(folder: Path, workers: int) -> dict[str, Path]:
    """Set what nnU-Net reads from the environment; must come before its import."""
    paths = {
        key: folder / key.removeprefix("nnUNet_")
        for key in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    }
    for key, path in paths.items():
        path.mkdir(parents=True, exist_ok=True)
        os.environ[key] = str(path)
    os.environ |= {
        "nnUNet_n_proc_DA": str(workers),
        "nnUNet_def_n_proc": str(workers),
        "nnUNet_compile": "f",
    }
    return paths


def convert(dataset: Dataset, folder: Path) -> None:
    """Write nnU-Net's raw layout; labels become consecutive numbers."""
    scheme = dataset.labels
    if scheme is None or scheme.ignore is not None:
        raise SystemExit("this comparison needs labels, without an ignore label")
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for case in dataset.training_cases:
        label = folder / "labelsTr" / f"{case.name}.nii.gz"
        if label.exists():
            continue
        volumes = [read_volume(path) for path in case.images]
        channels = []
        for volume in volumes:
            channels += [volume.with_array(part[None]) for part in volume.array]
        for index, channel in enumerate(channels):
            write_volume(
                folder / "imagesTr" / f"{case.name}_{index:04d}.nii.gz", channel
            )
        truth = read_labels(case.label)
        write_volume(
            label, truth.with_array(scheme.encode(truth.array, where=case.name))
        )
    description = {
        "channel_names": {
            str(index): name for index, name in enumerate(dataset.channels)
        },
        "labels": {
            "background": 0,
            **{
                name: indices[0] if scheme.exclusive else list(indices)
                for name, indices in scheme.targets.items()
            },
        },
        "numTraining": len(dataset.training_cases),
        "file_ending": ".nii.gz",
    }
    if not scheme.exclusive:
        description["regions_class_order"] = [
            scheme.values.index(value) for value in scheme.region_order
        ]
    (folder / "dataset.json").write_text(
        json.dumps(description, indent=2), encoding="utf-8"
    )


def prepare(dataset: Dataset, preprocessed: Path, workers: int) -> Path:
    """Fingerprint, plan, preprocess; then the split of trivox.

    Returns nnU-Net's folder.
    """
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    folder = preprocessed / f"Dataset{IDENTITY:03d}_{dataset.name}"
    if not (folder / "splits_final.json").exists():
        api.extract_fingerprint_dataset(
            IDENTITY, num_processes=workers, verbose=False, show_progress_bar=False
        )
        api.plan_experiment_dataset(IDENTITY)
        api.preprocess_dataset(
            IDENTITY,
            configurations=(CONFIGURATION,),
            num_processes=(workers,),
            show_progress_bar=False,
        )
        splits = [
            {"train": s.train, "val": s.validation}
            for s in make_splits(dataset.training_cases)
        ]
        (folder / "splits_final.json").write_text(
            json.dumps(splits, indent=2), encoding="utf-8"
        )
    return folder


def trainer_for(minutes: float) -> type:
    """nnU-Net's trainer, ended and scheduled by the clock; everything else is its own."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class ClockTrainer(nnUNetTrainer):
        def __init__(
            self, plans: dict, configuration: str, fold: int, dataset_json: dict, device
        ) -> None:
            super().__init__(
                plans, configuration, fold, dataset_json, device
            )  # it inspects these names
            self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = (
                ITERATIONS,
                1,
            )
            self.steps = 0

        def spent(self) -> float:
            return min((time.monotonic() - self.begun) / (60 * minutes), 1.0)

        def train_step(self, batch: dict) -> dict:
            rate = (
                self.initial_lr * (1 - self.spent()) ** 0.9
            )  # nnU-Net's poly, on the clock
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.steps += 1
            return super().train_step(batch)

        def run_training(self) -> None:
            import torch

            self.on_train_start()
            self.begun = time.monotonic()
            while self.spent() < 1:
                self.on_epoch_start()
                self.on_train_epoch_start()
                made = []
                while len(made) < ITERATIONS and (self.spent() < 1 or not made):
                    made.append(self.train_step(next(self.dataloader_train)))
                self.on_train_epoch_end(made)
                with torch.no_grad():
                    self.on_validation_epoch_start()
                    self.on_validation_epoch_end(
                        [self.validation_step(next(self.dataloader_val))]
                    )
                self.on_epoch_end()
            self.minutes_spent = (time.monotonic() - self.begun) / 60
            self.on_train_end()

    return ClockTrainer


def train(folder: Path, fold: int, minutes: float) -> Path:
    """Train and predict the validation cases; returns the folder of predictions."""
    import torch

    plans = json.loads((folder / "nnUNetPlans.json").read_text(encoding="utf-8"))
    description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    plans["continue_training"] = False  # as nnUNetv2_train hands it over
    settings = plans["configurations"][CONFIGURATION]
    print(
        f"nnU-Net plan: patch {settings['patch_size']}, batch {settings['batch_size']}",
        flush=True,
    )
    trainer = trainer_for(minutes)(
        plans=plans,
        configuration=CONFIGURATION,
        fold=fold,
        dataset_json=description,
        device=torch.device("cpu"),
    )
    trainer.run_training()
    print(
        f"trained {trainer.steps} steps in {trainer.minutes_spent:.2f} minutes",
        flush=True,
    )
    started = time.monotonic()
    trainer.perform_actual_validation()
    print(
        f"predicted the validation cases in {(time.monotonic() - started) / 60:.2f} minutes",
        flush=True,
    )
    return Path(trainer.output_folder) / "validation"


def show(predictions: Path, references: Path, dataset: Dataset) -> None:
    """Mean Dice of each label over the validation cases."""
    from trivox.datasets.labels import LabelScheme
    from trivox.evaluation.folders.labels import evaluate_folders

    assert dataset.labels is not None
    values = {
        name: dataset.labels.values.index(value)
        for name, value in dataset.labels.labels.items()
    }
    regions = {} if dataset.labels.exclusive else dict(dataset.labels.targets)
    order = [
        dataset.labels.values.index(value) for value in dataset.labels.region_order
    ]
    scheme = LabelScheme(labels=values, regions=regions, region_order=tuple(order))
    metrics = evaluate_folders(
        predictions, references, task="segmentation", labels=scheme
    )
    print("label | mean Dice | 95 % interval | cases")
    for name, row in metrics["summary"].items():
        dice = row["dice"]
        interval = dice.get("ci95")
        print(f"{name} | {dice['mean']:.4f} | {interval} | {len(metrics['cases'])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "dataset", type=Path, help="MSD folder, or any layout that trivox reads"
    )
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="wall-clock minutes of training"
    )
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument(
        "--workers",
        type=int,
        default=2,
        help="processes of augmentation, preprocessing and export",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="default: benchmarks/results/nnunet-NAME; preprocessing is reused",
    )
    given = parser.parse_args()
    dataset = load_dataset(given.dataset)
    out = given.out or Path(__file__).parent / "results" / f"nnunet-{dataset.name}"
    paths = environment(out.resolve(), given.workers)
    import torch

    torch.set_num_threads(given.threads)
    raw = paths["nnUNet_raw"] / f"Dataset{IDENTITY:03d}_{dataset.name}"
    convert(dataset, raw)
    started = time.monotonic()
    folder = prepare(dataset, paths["nnUNet_preprocessed"], given.workers)
    print(
        f"planned and preprocessed in {(time.monotonic() - started) / 60:.2f} minutes",
        flush=True,
    )
    shutil.rmtree(paths["nnUNet_results"], ignore_errors=True)
    show(train(folder, given.fold, given.minutes), raw / "labelsTr", dataset)


if __name__ == "__main__":
    main()
