"""Datasets of PNG and TIFF, as nnU-Net's readers of 2-D images take them."""

import json

import numpy as np
import pytest
from PIL import Image

from trivox import predict, train
from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.layouts.choice import load_dataset, load_inputs
from trivox.datasets.listing import survey
from trivox.errors import FormatError
from trivox.volumes.formats import read_labels, write_volume
from trivox.volumes.volume import Volume

SIZE = (40, 36)


def picture(seed):
    """A bright square in noise, and where it is."""
    rng = np.random.default_rng(seed)
    image = rng.normal(80, 10, SIZE)
    label = np.zeros(SIZE, np.uint8)
    y, x = rng.integers(4, 20, 2)
    label[y : y + 12, x : x + 12] = 1
    image[label == 1] += 90
    return image.clip(0, 255).astype(np.uint8), label


def save(path, image, *, colours):
    if colours:
        image = np.stack([image, image // 2, 255 - image], axis=-1)
    Image.fromarray(image).save(path)


def write_dataset(root, *, colours, cases=6):
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (root / folder).mkdir(parents=True)
    for number in range(cases):
        image, label = picture(number)
        other, _ = picture(number + cases)
        save(root / "imagesTr" / f"c{number}_0000.png", image, colours=colours)
        save(root / "imagesTs" / f"t{number}_0000.png", other, colours=colours)
        save(root / "labelsTr" / f"c{number}.png", label, colours=False)
    names = ("red", "green", "blue") if colours else ("grey",)
    content = {
        "channel_names": {str(i): name for i, name in enumerate(names)},
        "labels": {"background": 0, "square": 1},
        "numTraining": cases,
        "file_ending": ".png",
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("colours", [False, True])
def test_png_datasets_of_nnunet_are_checked_trained_and_predicted(
    tmp_path, tiny_settings, colours
):
    data = write_dataset(tmp_path / "data", colours=colours)
    report = check_dataset(load_dataset(data))
    assert not report.errors
    if not colours:
        return
    settings = {**tiny_settings, "patch_size": (1, 16, 16)}
    run = train(data, tmp_path / "run", preset="quick_test", device="cpu", set=settings)
    out = tmp_path / "out"
    done = predict(run.folder, data / "imagesTs" / "t0_0000.png", out, device="cpu")
    assert not done.failed
    assert read_labels(out / "t0.nii.gz").shape == (1, *SIZE)


def test_a_colour_picture_fits_no_model_of_one_channel(tmp_path):
    data = write_dataset(tmp_path / "data", colours=True)
    (case, *_) = load_inputs(data / "imagesTs", channels=("red", "green", "blue"))
    assert case.absent == ()
    (grey, *_) = load_inputs(
        write_dataset(tmp_path / "grey", colours=False) / "imagesTs",
        channels=("red", "green", "blue"),
    )
    assert grey.absent == (1, 2)


def test_figures_beside_volumes_are_no_cases(tmp_path):
    image, _ = picture(0)
    volume = Volume(image[None, None], np.diag([1.0, 1, 1, 1]))
    for name in ("a", "b"):
        write_volume(tmp_path / f"{name}.nii.gz", volume)
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    Image.fromarray(image).save(tmp_path / "preview.jpg")
    listing = survey(tmp_path)
    assert [path.name for path in listing.images.values()] == ["a.nii.gz", "b.nii.gz"]
    assert listing.complaints == {}


def write_slices(folder, *, spacing):
    folder.mkdir(parents=True)
    for number in range(3):
        image, _ = picture(number)
        Image.fromarray(image).save(folder / f"slice_{number:02d}.png")
    if spacing:
        (folder / "spacing.json").write_text('{"spacing": [3, 1, 1]}')


def test_folders_of_slices_are_cases_where_their_spacing_is_declared(tmp_path):
    for name in ("p1", "p2"):
        write_slices(tmp_path / "declared" / name, spacing=True)
        write_slices(tmp_path / "not" / name, spacing=False)
    cases = load_inputs(tmp_path / "declared", channels=("grey",))
    assert [case.name for case in cases] == ["p1", "p2"]
    (case,) = load_inputs(tmp_path / "declared" / "p1", channels=("grey",))
    assert case.name == "p1"
    with pytest.raises(FormatError, match=r"folders of pictures \(p1.*spacing\.json"):
        load_inputs(tmp_path / "not", channels=("grey",))
