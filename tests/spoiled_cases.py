"""Datasets of every layout in small, and ways to spoil the files of one case."""

import json
import os
import shutil

import numpy as np

from layout_copies import LAYOUT_WRITERS
from trivox.datasets.layouts.brats import FAMILIES, LABEL, SEQUENCES
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

SHAPE = (4, 6, 5)
AFFINE = affine_from_spacing((1, 1, 1))


def image(seed):
    values = np.random.default_rng(seed).integers(1, 90, (1, *SHAPE))
    return Volume(values.astype(np.int16), AFFINE)


def label():
    values = np.zeros((1, *SHAPE), np.uint8)
    values[:, 1:3, 1:3, 1:3] = 1
    values[:, 2:4, 3:5, 3:5] = 2
    return Volume(values, AFFINE)


def as_brats(folder, target):
    family = FAMILIES["2021"]
    for number in range(4):
        case = f"BraTS2021_0000{number}"
        for place, sequence in enumerate(SEQUENCES):
            file = target / case / family.file_name(case, sequence)
            write_volume(file, image(10 * number + place))
        write_volume(target / case / family.file_name(case, LABEL), label())
    return target


def as_class_folders(folder, target):
    for number in range(6):
        place = target / f"grade{number % 2}"
        for channel in (0, 1):
            write_volume(
                place / f"scan{number}_{channel:04d}.nii.gz",
                image(10 * number + channel),
            )
        write_volume(place / f"scan{number}.nii.gz", label())
    return target


def as_json_manifest(folder, target):
    cases = []
    for number in range(4):
        files = {name: f"images/s{number}_{name}.nii.gz" for name in ("T1", "T2")}
        for place, file in enumerate(files.values()):
            write_volume(target / file, image(10 * number + place))
        write_volume(target / f"labels/s{number}.nii.gz", label())
        entry = {"case": f"s{number}", "images": files}
        cases.append({**entry, "label": f"labels/s{number}.nii.gz"})
    content = {"labels": {"a": 1, "b": 2}, "cases": cases}
    (target / "manifest.json").write_text(json.dumps(content))
    return target


def as_named_files(folder, target):
    """`p0_T1.nii.gz` and `p0_T2.nii.gz` with the label map `p0.nii.gz`."""
    for number in range(4):
        for place, name in enumerate(("T2", "T1")):
            file = target / "images" / f"p{number}_{name}.nii.gz"
            write_volume(file, image(10 * number + place))
        write_volume(target / "labels" / f"p{number}.nii.gz", label())
    return target


WRITERS = {
    **LAYOUT_WRITERS,
    "json": as_json_manifest,
    "brats": as_brats,
    "class-folders": as_class_folders,
    "named-files": as_named_files,
}


# -- what goes wrong with a file ----------------------------------------------------------
def cut_off(file):
    file.write_bytes(file.read_bytes()[:60])


def emptied(file):
    file.write_bytes(b"")


def web_page(file):
    file.write_text("<!DOCTYPE html><html>sign in</html>")


def link_to_nothing(file):
    file.unlink()
    file.symlink_to(file.with_name("never-fetched.nii.gz"))


def link_to_itself(file):
    file.unlink()
    file.symlink_to(file)


def removed(file):
    file.unlink()


def twice(file):
    """The same under another ending."""
    shutil.copy(file, file.with_name(file.name.replace(".nii.gz", ".nii")))


def folder_instead(file):
    file.unlink()
    (file / "inside").mkdir(parents=True)


# -- what else may lie beside -----------------------------------------------------------
def no_text_in_name(file):
    beside = os.fsencode(file.parent) + b"/bad\xff_0000.nii.gz"
    shutil.copy(file, beside)


def control_in_name(file):
    shutil.copy(file, file.with_name("bad\x1b[31m_0000.nii.gz"))


def reserved_name(file):
    shutil.copy(file, file.with_name("preparation-key.nii.gz"))


def far_too_long(file):
    shutil.copy(file, file.with_name("x" * 200 + "_0000.nii.gz"))


def circle_of_links(file):
    (file.parent / "circle").symlink_to(file.parent)


OF_A_FILE = (
    cut_off,
    link_to_nothing,
    link_to_itself,
    removed,
    twice,
    folder_instead,
)
ALWAYS_FOUND = (emptied, web_page)
"""What every reader finds out in the same place."""
BESIDE = (control_in_name, reserved_name, far_too_long)
