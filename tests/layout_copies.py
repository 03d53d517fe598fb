"""Phantoms copied from the layout that they are written in to others."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np

from trivox.volumes.formats import read_volume, write_volume

NAMES = [f"phantom_{i:03d}" for i in range(4)]
"""Cases; the last one is to test on."""


def as_csv(folder: Path, target: Path) -> Path:
    entries = json.loads((folder / "manifest.json").read_text())["cases"]
    target.mkdir()
    with (target / "dataset.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        images = ("image:contrast_0", "image:contrast_1")
        writer.writerow(("case", *images, "label", "patient", "split"))
        for entry in entries:
            files = (*entry["images"], entry["label"])
            paths = [f"../{folder.name}/{path}" for path in files]
            writer.writerow([entry["case"], *paths, entry["patient"], entry["split"]])
    return target


def as_msd(folder: Path, target: Path) -> Path:
    for split, cases in (("Tr", NAMES[:3]), ("Ts", NAMES[3:])):
        for name in cases:
            first = read_volume(folder / "images" / f"{name}_0000.nii.gz")
            second = read_volume(folder / "images" / f"{name}_0001.nii.gz")
            both = first.with_array(np.concatenate([first.array, second.array]))
            write_volume(target / f"images{split}" / f"{name}.nii.gz", both)
    shutil.copytree(folder / "labels", target / "labelsTr")
    (target / "imagesTr" / "._phantom_000.nii.gz").write_bytes(b"junk")
    pairs = [
        {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"}
        for n in ["._phantom_000", *NAMES[:3]]
    ]
    content = {
        "name": "phantoms",
        "modality": {"1": "contrast_1", "0": "contrast_0"},
        "labels": {"0": "background", "1": "organ", "2": "lesion", "3": "neighbour"},
        "training": pairs,
        "test": [f"./imagesTs/{NAMES[3]}.nii.gz"],
    }
    (target / "dataset.json").write_text(json.dumps(content))
    return target


def as_nnunet(folder: Path, target: Path, *, describe: bool = True) -> Path:
    for split, cases in (("Tr", NAMES[:3]), ("Ts", NAMES[3:])):
        for kind in ("images", "labels"):
            (target / f"{kind}{split}").mkdir(parents=True)
        for name in cases:
            for i in (0, 1):
                image = folder / "images" / f"{name}_{i:04d}.nii.gz"
                shutil.copy(image, target / f"images{split}")
            shutil.copy(folder / "labels" / f"{name}.nii.gz", target / f"labels{split}")
    content = {
        "channel_names": {"0": "contrast_0", "1": "contrast_1"},
        "labels": {"background": 0, "organ": 1, "lesion": 2, "neighbour": 3},
        "file_ending": ".nii.gz",
    }
    if describe:
        (target / "dataset.json").write_text(json.dumps(content))
    return target


def as_folders(folder: Path, target: Path) -> Path:
    return as_nnunet(folder, target, describe=False)


LAYOUT_WRITERS = {
    "manifest": as_csv,
    "msd": as_msd,
    "nnunet": as_nnunet,
    "folders": as_folders,
}
