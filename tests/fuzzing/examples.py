"""Small whole examples of every kind of file that is read, to be spoilt afterwards."""

import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK

import segmentation_files
from class_trees import write_tree
from dicom_slices import save, slice_of
from nnunet_folder import model_folder, plans_of
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

ARCHIVES = Path(__file__).parents[1] / "golden" / "0.1.0"
SHAPE = (4, 5, 6)
SPACING = (2.0, 1.5, 1.0)
AFFINE = affine_from_spacing(SPACING, (1.0, 2.0, 3.0))


def scan(seed: int = 0) -> Volume:
    """A noisy image."""
    rng = np.random.default_rng(seed)
    return Volume(rng.integers(1, 900, (1, *SHAPE)).astype(np.int16), AFFINE)


def mask(seed: int = 0) -> Volume:
    """Two labels."""
    array = np.zeros((1, *SHAPE), np.uint8)
    array[:, 1:3, 1:4, 1:5] = 1
    array[:, 2, 2, 2 + seed % 2] = 2
    return Volume(array, AFFINE)


def write(file: Path, content: object) -> None:
    """JSON or text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    file.write_text(text, encoding="utf-8")


def write_pairs(images: Path, labels: Path, names: list[str], number: str = "") -> None:
    """Images and masks of the same names."""
    for seed, name in enumerate(names):
        write_volume(images / f"{name}{number}.nii.gz", scan(seed))
        write_volume(labels / f"{name}.nii.gz", mask(seed))


# -- datasets --------------------------------------------------------------------------
NAMES = ["a1", "a2", "b1"]


def nnunet_raw(folder: Path) -> None:
    """nnU-Net's raw layout with everything that may lie beside it."""
    write_pairs(folder / "imagesTr", folder / "labelsTr", NAMES, "_0000")
    write_volume(folder / "imagesTs" / "t1_0000.nii.gz", scan(9))
    content = {
        "name": "small",
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": 3,
        "file_ending": ".nii.gz",
        "trivox": {
            "label_names": {"1": "organ"},
            "nested": False,
            "patients": {"a1": "p1", "a2": "p1"},
            "classes": {"a1": "HGG"},
            "splits": {"a2": "validation"},
        },
    }
    write(folder / "dataset.json", content)
    folds = [{"train": ["a1"], "val": ["b1"]}]
    write(folder / "splits_final.json", folds)
    write(folder / "classification_labels.csv", "case,class\na1,HGG\na2,LGG\nb1,HGG\n")


def nnunet_listed(folder: Path) -> None:
    """nnU-Net's raw layout whose files are listed, with regions."""
    write_pairs(folder / "x", folder / "y", NAMES)
    entries = {
        name: {"images": [f"x/{name}.nii.gz"], "label": f"y/{name}.nii.gz"}
        for name in NAMES
    }
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "whole": [1, 2], "core": [2]},
        "regions_class_order": [1, 2],
        "file_ending": ".nii.gz",
        "dataset": entries,
    }
    write(folder / "dataset.json", content)


def msd(folder: Path) -> None:
    """Medical Segmentation Decathlon."""
    write_pairs(folder / "imagesTr", folder / "labelsTr", NAMES)
    pairs = [
        {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"}
        for n in NAMES
    ]
    content = {
        "name": "small",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "organ", "2": "lesion"},
        "training": pairs,
        "test": ["./imagesTs/none.nii.gz"],
    }
    write(folder / "dataset.json", content)


def folders(folder: Path) -> None:
    """Images and labels by name, and a note."""
    write_pairs(folder / "images", folder / "labels", NAMES)
    write(folder / "NOTE.txt", "drawn, not scanned\n")


def manifest_csv(folder: Path) -> None:
    """A table of cases with their labels beside it."""
    write_pairs(folder / "x", folder / "y", NAMES)
    rows = [f"{n},x/{n}.nii.gz,y/{n}.nii.gz,p{n[0]},train,{n[0]}" for n in NAMES]
    lines = ["case,image:CT,label,patient,split,class", *rows]
    write(folder / "manifest.csv", "\n".join(lines) + "\n")
    content = {"name": "small", "channels": ["CT"], "labels": {"organ": 1, "lesion": 2}}
    write(folder / "manifest.json", content)


def manifest_json(folder: Path) -> None:
    """The same in one JSON file, with regions."""
    write_pairs(folder / "x", folder / "y", NAMES)
    cases = [
        {
            "case": name,
            "images": {"CT": f"x/{name}.nii.gz"},
            "label": f"y/{name}.nii.gz",
            "patient": name[0],
            "split": "train",
            "class": name[0],
        }
        for name in NAMES
    ]
    content = {
        "name": "small",
        "channels": ["CT"],
        "labels": {"organ": 1, "lesion": 2},
        "regions": {"whole": [1, 2], "core": [2]},
        "region_order": [1, 2],
        "classes": ["a", "b"],
        "cases": cases,
    }
    write(folder / "manifest.json", content)


def brats(folder: Path) -> None:
    """Two BraTS cases."""
    for number in (0, 1):
        case = f"BraTS-GLI-0000{number}-000"
        for seed, ending in enumerate(("t1n", "t1c", "t2w", "t2f")):
            image = scan(seed + 10 * number)
            write_volume(folder / case / f"{case}-{ending}.nii.gz", image)
        write_volume(folder / case / f"{case}-seg.nii.gz", mask(number))


def class_folders(folder: Path) -> None:
    """A folder a class."""
    write_tree(folder, train=(2, 2), validation=(1, 1), test=1)


def exams(folder: Path) -> None:
    """X-rays with their geometry and CT, of 0.1.0."""
    unpacked("reconstruction", folder, "data")


def class_tables(folder: Path) -> None:
    """Classes of cases in three spellings."""
    write(folder / "classes.csv", "case,class\na1,HGG\na2,LGG\nb1_0000.nii.gz,HGG\n")
    write(folder / "mapping.csv", "Names;Grade;Age\na1;1.0;50\na2;2.0;60\nb1;NA;70\n")
    write(folder / "classes.json", {"a1": "HGG", "a2": 1, "b1": None})


# -- what trivox wrote -----------------------------------------------------------------
def unpacked(task: str, folder: Path, part: str) -> None:
    """A part of what 0.1.0 wrote for a task, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(ARCHIVES / f"{task}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    inside = folder / task
    for file in (inside / part).iterdir():
        shutil.move(file, folder / file.name)
    data = inside / "data"
    if data.exists() and part != "data":
        shutil.move(data, folder / "data")
    shutil.rmtree(inside)
    for file in folder.rglob("*.json"):
        text = file.read_text(encoding="utf-8")
        text = text.replace(f"/elsewhere/{task}", str(folder))
        file.write_text(text, encoding="utf-8")


def run(task: str) -> Callable[[Path], None]:
    """A finished run and its data."""
    return lambda folder: unpacked(task, folder, "run")


def predictions(folder: Path) -> None:
    """Predictions of classes, and the data that they are of."""
    unpacked("multitask", folder, "predictions")


def metrics(folder: Path) -> None:
    """What was measured in three tasks, under the names of their models."""
    for task in ("segmentation", "multitask", "reconstruction"):
        with tarfile.open(ARCHIVES / f"{task}.tar.xz") as archive:
            member = archive.extractfile(f"{task}/metrics.json")
            assert member is not None
            content = member.read().decode()
        write(folder / f"{task}.json", content)
    shutil.copy(folder / "segmentation.json", folder / "other.json")


# -- what others wrote -----------------------------------------------------------------
def nnunet_model(folder: Path) -> None:
    """A model of nnU-Net."""
    model_folder(folder)


def nnunet_old_plans(folder: Path) -> None:
    """Plans of nnU-Net before 2.5."""
    model_folder(folder)
    plans = plans_of("plain")
    base = plans["configurations"]["base"]
    arguments = base.pop("architecture")["arch_kwargs"]
    base |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "pool_op_kernel_sizes": arguments["strides"],
        "conv_kernel_sizes": arguments["kernel_sizes"],
        "n_conv_per_stage_encoder": arguments["n_conv_per_stage"],
        "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
    }
    write(folder / "plans.json", plans)


def archives(folder: Path) -> None:
    """BraTS as downloaded, in three kinds of archive."""
    brats(folder / "cases")
    files = sorted(path for path in (folder / "cases").rglob("*") if path.is_file())
    with zipfile.ZipFile(folder / "brats.zip", "w") as target:
        for file in files:
            target.write(file, file.relative_to(folder / "cases"))
    for name, mode in (("brats.tar", "w"), ("brats.tar.gz", "w:gz")):
        with tarfile.open(folder / name, mode) as target:
            for file in files:
                target.add(file, file.relative_to(folder / "cases"))
    shutil.rmtree(folder / "cases")


def bench(folder: Path) -> None:
    """What commands are tried on."""
    unpacked("segmentation", folder / "old", "run")
    shutil.move(folder / "old" / "bundle", folder / "bundle")
    shutil.move(folder / "old" / "data", folder / "data")
    shutil.rmtree(folder / "old")
    shutil.copy(
        folder / "data" / "images" / "phantom_000.nii.gz", folder / "scan.nii.gz"
    )
    metrics(folder)
    (folder / "segmentation.json").rename(folder / "metrics1.json")
    (folder / "other.json").rename(folder / "metrics2.json")
    for seed, name in enumerate(NAMES):
        write_volume(folder / "labels" / f"{name}.nii.gz", mask(seed))
    write_volume(folder / "ct.nii.gz", scan())
    nnunet_model(folder / "nnunet")
    brats(folder / "brats")
    class_folders(folder / "classes")


# -- volumes ---------------------------------------------------------------------------
def volumes(folder: Path) -> None:
    """A scan in every format of one file or a pair of files."""
    image = scan()
    for suffix in (".nii", ".nii.gz", ".nrrd", ".mha", ".npy", ".npz", ".h5"):
        volume = image
        if suffix == ".npy":
            volume = Volume(image.array, affine_from_spacing((1.0, 1.0, 1.0)))
        write_volume(folder / f"scan{suffix}", volume)
    picture = SimpleITK.GetImageFromArray(image.array[0])
    picture.SetSpacing(SPACING[::-1])
    for name in ("pair.hdr", "pair.nhdr", "pair.mhd", "pair.nii"):
        SimpleITK.WriteImage(picture, str(folder / name))
    SimpleITK.WriteImage(picture, str(folder / "packed.nrrd"), useCompression=True)
    SimpleITK.WriteImage(picture, str(folder / "packed.mha"), useCompression=True)


def dicom(folder: Path) -> None:
    """A series."""
    save(folder / "series", [slice_of(number) for number in range(3)])


def segmentations(folder: Path) -> None:
    """What marks segments, in every form, beside the series that it was drawn on; and a
    report, which marks none.
    """
    grid = np.diag([-1.0, -1.5, 2.0, 1.0])
    uids = segmentation_files.series(folder / "series", grid, SHAPE)
    labels = mask().array[0]
    masks = np.stack([labels == 1, labels == 2])
    names = ["organ", "lesion"]
    forms = {
        "binary": {},
        "apart": {"per_frame_geometry": True, "order": 1},
        "fractions": {"type_": "FRACTIONAL"},
        "runs": {"type_": "FRACTIONAL", "rle": True},
    }
    for name, options in forms.items():
        segmentation_files.seg(
            folder / f"{name}.dcm", masks, grid, names=names, images=uids, **options
        )
    for bits in (8, 16):
        segmentation_files.seg(
            folder / f"map{bits}.dcm",
            labels[None],
            grid,
            names=names,
            images=uids,
            type_="LABELMAP",
            bits=bits,
            rle=bits == 8,
        )
    corners = np.array([[0.5, 0.5, 1], [4.5, 0.5, 1], [4.5, 3.5, 1], [0.5, 3.5, 1]])
    contour = corners @ grid[:3, :3].T
    rois = [
        ("organ", [contour, np.add(contour, [0, 0, 2])]),
        ("lesion", [("POINT", contour[:1])]),
    ]
    segmentation_files.rtstruct(folder / "structures.dcm", rois, images=uids)
    segmentation_files.report(folder / "report.dcm", images=uids)
    segments = [("organ", 0, 1), ("lesion", 0, 2)]
    layers = labels[None]
    segmentation_files.slicer_file(folder / "one.seg.nrrd", layers, grid, segments)
    segments = [("organ", 0, 1), ("lesion", 1, 1)]
    segmentation_files.slicer_file(folder / "two.seg.nrrd", masks, grid, segments)
