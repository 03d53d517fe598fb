"""`CASE.png`: where things are, what is said, and that it says it for every image."""

import re
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trivox.datasets.dataset import Case
from trivox.evaluation.report.drawing import PLANES
from trivox.inference.classify import Classification
from trivox.results.case import CaseResult
from trivox.results.identity import ModelIdentity
from trivox.results.pictures import page
from trivox.results.pictures.page import (
    number_text,
    place_text,
    preview_figure,
    volume_text,
)
from trivox.results.pictures.preview import WINDOWS
from trivox.results.pictures.writing import preview_of, write_preview
from trivox.volumes.formats import write_volume
from trivox.volumes.geometry import Orientation, reorient
from trivox.volumes.volume import Volume, affine_from_spacing

MODEL = ModelIdentity("toy", "0", "0" * 64, "segmentation")


def scan(shape=(8, 12, 10), spacing=(3.0, 1.0, 1.5), channels=1):
    image = np.random.default_rng(0).normal(50, 9, (channels, *shape))
    labels = np.zeros((1, *shape), np.uint8)
    z, y, x = (size // 3 for size in shape)
    labels[0, z : z + 2, y : y + 4, x : x + 3] = 1
    labels[0, z, y, x] = 2
    affine = affine_from_spacing(spacing, (-20.0, 5.0, -3.0))
    return Volume(image.astype(np.float32), affine), Volume(labels, affine)


def result_of(folder, image, labels, name="case", **more):
    file = folder / f"{name}.nii.gz"
    write_volume(file, image)
    channels = tuple(f"MR{number}" for number in range(image.channels))
    settings = {
        "channels": channels,
        "segments": {"a": (1,), "b": (2,), "both": (1, 2)},
    }
    case = Case(name=name, images=(file,))
    return CaseResult(case, MODEL, labels=labels, **(settings | more))


def drawn(result):
    return preview_figure(preview_of(result, result.labels))


@settings(max_examples=2)
@given(order=st.permutations(range(3)), flips=st.tuples(*[st.booleans()] * 3))
def test_how_an_image_is_stored_does_not_show(tmp_path_factory, order, flips):
    """Equal bytes: the patient's right is on the left, whatever the order of voxels."""
    folder = tmp_path_factory.mktemp("stored")
    image, labels = scan()
    stored = Orientation(tuple(order), flips)
    turned = [reorient(volume, stored) for volume in (image, labels)]
    other = result_of(folder, *turned, name="case")
    assert drawn(other) == drawn(result_of(folder, image, labels, name="case"))


def test_the_patients_right_is_on_the_left_and_the_front_above(tmp_path, monkeypatch):
    """A bright spot to the right, in front and above, as each plane draws it."""
    image, labels = scan()
    image.array[...] = 0
    image.array[0, -1, -1, -1] = 100
    labels.array[...] = 0
    labels.array[0, -1, -1, -1] = 1
    cuts = []
    monkeypatch.setattr(
        page, "draw_grey_cut", lambda axes, cut, *more: cuts.append(cut)
    )
    drawn(result_of(tmp_path, image, labels))
    axial, coronal, sagittal = cuts[:3]  # rows upwards
    assert axial[-1, 0] == coronal[-1, 0] == sagittal[-1, 0] == 100
    assert [cut.sum() for cut in (axial, coronal, sagittal)] == [100, 100, 100]
    marks = [plane.marks for plane in PLANES]
    assert marks == [tuple("RLAP"), tuple("RLSI"), tuple("APSI")]


def panels_of(result, monkeypatch):
    """Inches of each panel, by the plane that is drawn in it."""
    shapes = []
    monkeypatch.setattr(
        page, "_draw_plane", lambda axes, *more: shapes.append((axes, more[-2]))
    )
    drawn(result)
    return shapes[:3]


def test_voxels_are_drawn_as_long_as_they_are(tmp_path, monkeypatch):
    image, labels = scan(spacing=(7.0, 0.5, 2.0))
    for axes, plane in panels_of(result_of(tmp_path, image, labels), monkeypatch):
        width, height = plane.size_mm(image.shape, image.spacing)
        box = axes.get_window_extent()
        assert box.width / box.height == pytest.approx(width / height)


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (1, 30, 40), (30, 40, 1), (30, 1, 40), (90, 3, 3), (2, 2, 80)],
    ids=str,
)
def test_images_of_every_shape_are_drawn(tmp_path, shape):
    image, labels = scan(shape)
    assert drawn(result_of(tmp_path, image, labels)).startswith(b"\x89PNG")


def test_nothing_found_shows_the_middle_and_says_so(tmp_path):
    image, labels = scan()
    empty = labels.with_array(np.zeros_like(labels.array))
    preview = preview_of(result_of(tmp_path, image, empty), empty)
    assert preview.centre == (4, 6, 5)
    assert preview.notes == ["not found: a, b, both"]
    assert preview_figure(preview).startswith(b"\x89PNG")


def test_equal_results_have_equal_bytes_without_a_text_in_them(tmp_path):
    image, labels = scan()
    result = result_of(tmp_path, image, labels)
    first = tmp_path / "first.png"
    assert write_preview(result, first) == ()
    again = result_of(tmp_path, image, labels)
    assert drawn(again) == first.read_bytes()
    assert set(Image.open(BytesIO(first.read_bytes())).info) == {"dpi"}


def words_of(result, monkeypatch):
    """All that a preview says."""
    from matplotlib.figure import Figure

    seen = []
    save = Figure.savefig

    def look(figure, *args, **more):
        seen.append(figure)
        return save(figure, *args, **more)

    monkeypatch.setattr(Figure, "savefig", look)
    drawn(result)
    (figure,) = seen
    from matplotlib.text import Text

    return " | ".join(
        text.get_text() for text in figure.findobj(Text) if text.get_text()
    )


def test_class_doubt_volumes_and_the_warning_are_in_it(tmp_path, monkeypatch):
    image, labels = scan()
    result = result_of(
        tmp_path,
        image,
        labels,
        trust={
            "abstain": True,
            "reason": "entropy 0.7 is above 0.5",
            "volumes": {"a": {"volume_ml": 1.0, "ci95_ml": [0.05, 0.2]}},
        },
        classification=Classification(
            {"benign": 0.2, "malignant": 0.8}, ("no lesion",)
        ),
    )
    words = words_of(result, monkeypatch)
    assert "RESEARCH USE ONLY - not for diagnosis or treatment" in words
    assert "LOOK AT THIS CASE: entropy 0.7 is above 0.5" in words
    assert "class: malignant 0.80 (benign 0.20)" in words
    assert "class in doubt: no lesion" in words
    assert re.search(r"a  0\.1\d* ml \(0\.05 to 0\.2\)", words), words
    assert "mm" in words


def test_names_that_the_font_lacks_or_that_look_like_mathematics_are_drawn(tmp_path):
    image, labels = scan()
    segments = {"肝臓 $x^{$": (1,), "ü" * 200: (2,), "_": (1, 2)}
    result = result_of(tmp_path, image, labels, name="事例 $a_b$", segments=segments)
    assert drawn(result).startswith(b"\x89PNG")


def test_a_slanted_image_says_so(tmp_path):
    image, labels = scan()
    angle = np.radians(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turned = [Volume(each.array, turn @ each.affine) for each in (image, labels)]
    preview = preview_of(result_of(tmp_path, *turned), turned[1])
    assert preview.notes == [
        "shown along the image's own axes, up to 20° from the patient's"
    ]


def test_hu_are_shown_in_the_window_of_the_largest_structure(tmp_path):
    image, labels = scan()
    for middle, window in ((40, 0), (-800, 1), (700, 2), (3000, 2)):
        values = image.with_array(np.full_like(image.array, middle))
        result = result_of(tmp_path, values, labels, channels=("CT",))
        preview = preview_of(result, labels)
        assert preview.limits == WINDOWS[window]
        assert preview.caption.endswith("HU")


def test_the_channel_that_shows_the_structure_is_chosen(tmp_path):
    image, labels = scan(channels=3)
    image.array[1][labels.array[0] > 0] += 100
    preview = preview_of(result_of(tmp_path, image, labels), labels)
    assert preview.caption.startswith("MR1,")


def test_numbers_are_written_as_people_read_them():
    assert [number_text(n) for n in (1234.5, 99.96, 0.01234, 0)] == [
        "1234",
        "100",
        "0.0123",
        "0",
    ]
    row = {"volume_ml": None, "seen_ml": 2.5}
    assert volume_text(row) == "2.5 ml seen, truncated"


def test_places_are_said_in_the_world(tmp_path):
    image, labels = scan()
    view = preview_of(result_of(tmp_path, image, labels), labels).view
    assert place_text(view, PLANES[0], 0) == "I 20 mm"
    assert place_text(view, PLANES[1], 0) == "A 5 mm"
    assert place_text(view, PLANES[2], 4) == "R 3 mm"
