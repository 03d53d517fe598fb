"""A small network that learns from a large one's answers, beside the same network that
learns from labels alone for the same minutes: size, seconds and Dice.

A share of the cases, by name, is put aside before anything is trained: no network, no
teacher and no postprocessing has seen them, and all Dice are theirs. One run a fold of
the large network (`--folds`) makes the ensemble that teaches; the first of them alone is
the row "teacher". Both students are trained on the cases of fold 0 and with the same
seed. With `--unlabelled N` the labels of so many training cases are hidden from all
networks; a third student has their images as well. Intervals are bootstrapped over
cases, differences paired by case. Seconds are CPU seconds of one thread a case, reading
and writing included. A finished run is not trained again.
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import trivox
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.layouts.choice import load_dataset, save_dataset
from trivox.evaluation.metrics.claims import claim_text, paired_difference
from trivox.evaluation.metrics.statistics import summarise
from trivox.inference.bundle import read_bundle
from trivox.inference.predictor import Predictor
from trivox.learning.tracking import read_records
from trivox.networks.counting import count_operations
from trivox.volumes.formats import write_volume

ALONE = "student without teacher"
TAUGHT = "student of the ensemble"


@dataclass(frozen=True, eq=False)
class Row:
    """What there is to say of one or several models that vote.

    dice: mean over labels of each held-out case; seconds: CPU, a case.
    """

    megabytes: float
    parameters: int
    steps: str
    seconds: float
    dice: list[float]


def divided(dataset: Dataset, given: argparse.Namespace) -> tuple[Path, Path]:
    """Files of the dataset with a declared test set, and of images without labels."""
    cases = sorted(dataset.training_cases, key=lambda case: case.name)
    order = np.random.default_rng(given.seed).permutation(len(cases)).tolist()
    aside = {cases[index].name for index in order[: given.held_out]}
    hidden = order[given.held_out : given.held_out + given.unlabelled]
    without = {cases[index].name for index in hidden}

    def changed(case: Case) -> Case:
        split = "test" if case.name in aside else "train"
        return case.model_copy(update={"split": split})

    labelled = [changed(case) for case in cases if case.name not in without]
    unlabelled = [case for case in cases if case.name in without]
    files = given.out / "cases.json", given.out / "images.json"
    given.out.mkdir(parents=True, exist_ok=True)
    for file, part in zip(files, (labelled, unlabelled), strict=True):
        changes = {"cases": tuple(part), "folds": ()}
        save_dataset(dataset.model_copy(update=changes), file)
    return files


def is_done(run: Path) -> bool:
    return (run / "bundle" / "bundle.json").is_file()


def trained(data: Path, images: Path, given: argparse.Namespace) -> dict:
    """Train what is missing; returns the models of each row."""
    usual = {
        "preset": given.preset,
        "minutes": None if given.epochs else given.minutes,
        "epochs": given.epochs,
        "device": "cpu",
        "seed": given.seed,
        "set": given.set,
    }
    large = {"network": given.teacher, **usual}
    small = {"network": given.student, **usual}
    how = {"temperature": given.temperature, "teacher_weight": given.weight}
    teachers = [given.out / f"teacher{fold}" for fold in range(given.folds)]
    for fold, run in enumerate(teachers):
        if not is_done(run):
            trivox.train(data, run, fold=fold, **large)
    alone, taught, more = (given.out / name for name in ("alone", "taught", "more"))
    if not is_done(alone):
        trivox.train(data, alone, fold=0, **small)
    if not is_done(taught):
        trivox.distill(teachers, taught, **how, **small)
    models = {
        "teacher": teachers[:1],
        f"ensemble of {given.folds}": teachers,
        ALONE: [alone],
        TAUGHT: [taught],
    }
    if given.unlabelled:
        if not is_done(more):
            trivox.distill(teachers, more, unlabelled=images, **how, **small)
        models[f"{TAUGHT}, {given.unlabelled} more images"] = [more]
    return models


def measured(models: Sequence[Path], cases: Sequence[Case], out: Path) -> Row:
    """Predict the held-out cases with models that vote, and measure."""
    bundles = [read_bundle(model) for model in models]
    predictor = Predictor.load(models, device="cpu")
    out.mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    for case in cases:
        prediction = predictor.predict_case(case)
        write_volume(out / f"{case.name}.nii.gz", prediction.labels)
    seconds = (time.process_time() - started) / len(cases)
    references = out.parent / "cases.json"
    content = trivox.evaluate(out, references, out / "metrics.json").metrics["cases"]
    dice = []
    for case in cases:
        scores = [row["dice"] for row in content[case.name].values()]
        dice.append(float(np.mean([score for score in scores if score is not None])))
    files = [file for bundle in bundles for file in bundle.weight_files()]
    plan = bundles[0].description.plan
    counted = count_operations(
        plan.network,
        plan.topology,
        len(plan.inputs),
        plan.labels.output_channels,
        plan.patch_size,
        plan.network_options,
    )
    logs = [read_records(model / "metrics.jsonl") for model in models]
    return Row(
        megabytes=sum(file.stat().st_size for file in files) / 1e6,
        parameters=int(counted["parameters"]) * len(files),
        steps=", ".join(str(log[-1]["step"]) for log in logs),
        seconds=seconds,
        dice=dice,
    )


def show(rows: dict[str, Row]) -> None:
    """The table, and paired differences to the student that had no teacher."""
    print(
        f"| model | MB | parameters | steps | CPU s a case | Dice (95 % interval) | "
        f"difference to the {ALONE} |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        low, high = summarise(row.dice, "dice")["ci95"] or (math.nan, math.nan)
        text = "-"
        if name != ALONE:
            text = claim_text(paired_difference(row.dice, rows[ALONE].dice))
        print(
            f"| {name} | {row.megabytes:.1f} | {row.parameters / 1e6:.2f} M | "
            f"{row.steps} | {row.seconds:.2f} | {np.mean(row.dice):.4f} "
            f"({low:.4f} to {high:.4f}) | {text} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--teacher", default="unet-small", help="its network")
    parser.add_argument("--student", default="unet-tiny", help="its network")
    parser.add_argument("--folds", type=int, default=2, help="networks that teach")
    parser.add_argument("--minutes", type=float, default=3, help="of each training")
    parser.add_argument(
        "--epochs",
        type=int,
        help="instead of minutes: equal steps, whatever else the machine does",
    )
    parser.add_argument("--held-out", type=int, default=60, help="cases put aside")
    parser.add_argument("--unlabelled", type=int, default=0, help="labels to hide")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--weight", type=float, default=0.5)
    parser.add_argument("--preset", default="quick_test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="of all recipes")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data, images = divided(load_dataset(given.dataset), given)
    models = trained(data, images, given)
    cases = [case for case in load_dataset(data).cases if case.split == "test"]
    rows = {
        name: measured(paths, cases, given.out / f"predictions{number}")
        for number, (name, paths) in enumerate(models.items())
    }
    length = f"{given.minutes:g} minutes"
    if given.epochs:
        length = f"{given.epochs} epochs"
    print(
        f"{given.dataset.name}: {len(cases)} held-out cases, {given.teacher} teaches "
        f"{given.student}, {length} each, temperature "
        f"{given.temperature:g}, weight {given.weight:g}, preset {given.preset}\n"
    )
    show(rows)


if __name__ == "__main__":
    main()
