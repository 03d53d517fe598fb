"""What each part of the reconstruction loss is worth: one training without each, one
with all, one with L1 alone.

    python benchmarks/xray_ablation.py DATASET --minutes 5

All trainings have the same seed, cases and time. The figures are PSNR (window -1024 to
1476 HU, whole volume) and SSIM of the held-out cases of fold 0 by number of views, and
how sharp the volumes are: their mean Sobel magnitude over that of the CTs.
"""

import argparse
from pathlib import Path

import torch

from trivox.config.volumes import ReconstructionLoss
from trivox.files import read_json
from trivox.learning.losses.volumes import edges
from trivox.tasks.reconstruction.exams import PreparedExams, reference_volume
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest

PARTS = tuple(ReconstructionLoss.model_fields)


def variants() -> dict[str, dict[str, float]]:
    """Weights that are changed in each training."""
    alone = {part: 0.0 for part in PARTS if part != "l1"}
    return {
        "all parts": {},
        "L1 alone": alone,
        **{f"without {part}": {part: 0.0} for part in PARTS if part != "l1"},
    }


def sharpness(run: Path) -> float:
    """Mean Sobel magnitude of the predicted volumes of the held-out cases over that of
    their CTs.
    """
    from trivox.datasets.layouts.choice import read_saved_dataset
    from trivox.planning.volumes import read_volume_plan
    from trivox.preparation.exam_store import ExamStore
    from trivox.volumes.formats import read_volume

    plan = read_volume_plan(run / "plan.json")
    prepared = PreparedExams(
        read_saved_dataset(run / "dataset.json"), plan, (), ExamStore(run / "prepared")
    )
    ours = theirs = 0.0
    for file in sorted((run / "validation" / "predictions").glob("*.nii.gz")):
        volume = torch.from_numpy(read_volume(file).array).float()[None]
        ours += float(edges(volume).mean())
        theirs += float(
            edges(
                reference_volume(prepared, file.name.removesuffix(".nii.gz"))[
                    None, None
                ]
            ).mean()
        )
    return ours / theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument(
        "--epochs",
        type=int,
        help="instead of minutes: the same number of steps on any machine",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/xray-ablation"))
    options = parser.parse_args()
    rows = []
    for name, weights in variants().items():
        run = options.out / name.replace(" ", "-")
        length = (
            {"minutes": options.minutes}
            if options.epochs is None
            else {"epochs": options.epochs}
        )
        settings = {**length, "reconstruction": {"loss": weights}}
        done = (run / "report.html").exists()
        if not done:
            run_request(
                RunRequest(
                    options.dataset, run, "quick_test", settings, task="reconstruction"
                )
            )
        metrics = read_json(run / "validation" / "metrics.json")
        found = {
            section["views"]: section["rows"][-1]["summary"]
            for section in metrics["by_views"]
        }
        decibels = [f"{row['psnr_db']['mean']:.2f}" for row in found.values()]
        similar = [f"{row['ssim']['mean']:.3f}" for row in found.values()]
        rows.append([name, *decibels, *similar, f"{sharpness(run):.2f}"])
    views = list(found)
    head = [
        "loss",
        *(f"PSNR, {v} views" for v in views),
        *(f"SSIM, {v} views" for v in views),
        "sharpness",
    ]
    print(
        f"\nfold 0, {len(metrics['cases'])} held-out cases, {torch.get_num_threads()} threads\n"
    )
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
