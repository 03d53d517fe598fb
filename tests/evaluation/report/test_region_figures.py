from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn_case import view
from trivox.evaluation.report.charts import training_curves
from trivox.evaluation.report.region_figures import (
    MISSED,
    MISTAKEN,
    RIGHT,
    SPURIOUS,
    channels_figure,
    comparison_figure,
    error_figure,
    label_errors,
    region_errors,
)

FIGURES = [channels_figure, comparison_figure, error_figure]
ORANGE = (0xE6, 0x9F, 0)
BLUE = (0x56, 0xB4, 0xE9)
MISSED_COLOUR = (0xF0, 0xE4, 0x42)
SPURIOUS_COLOUR = (0xD5, 0x5E, 0)


def picture(png):
    from PIL import Image

    with Image.open(BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def near(shown, colour, tolerance=6):
    return np.abs(shown - colour).max(axis=2) <= tolerance


@pytest.mark.parametrize("figure", [channels_figure, comparison_figure])
def test_each_region_is_outlined_in_its_colour(figure):
    shown = picture(figure(view(count=4), title="case $1"))
    assert near(shown, ORANGE).sum() > 200
    assert near(shown, BLUE).sum() > 60
    no_core = view(count=4, targets={"whole": (1, 2)})
    assert near(picture(figure(no_core, title="x")), BLUE).sum() == 0


def test_reference_and_prediction_have_rows_of_their_own():
    case = view(count=1)
    with_reference, without = (
        channels_figure(v, title="x") for v in (case, view(count=1, reference=None))
    )
    assert picture(with_reference).shape[0] > picture(without).shape[0] + 100
    empty = view(count=1, reference=case.reference * 0)
    rows = near(picture(channels_figure(empty, title="x")), ORANGE).any(axis=1)
    both = near(picture(with_reference), ORANGE).any(axis=1)
    assert 0 < rows.sum() < both.sum(), (
        "an empty reference has no outline, the prediction has"
    )


def test_any_number_of_channels_has_a_place():
    heights = [
        picture(channels_figure(view(count=n), title="x")).shape[0] for n in (5, 20)
    ]
    assert heights[0] < heights[1] < 3000


def test_a_hit_is_green_a_miss_yellow_and_a_spurious_voxel_red():
    case = view(count=1, image=np.full((1, 12, 20, 16), 1.0))
    exact = picture(
        error_figure(
            view(count=1, image=case.image, prediction=case.reference), title="x"
        )
    )
    wrong = picture(error_figure(case, title="x"))
    legend = [
        near(exact, colour, 30).sum() for colour in (MISSED_COLOUR, SPURIOUS_COLOUR)
    ]
    for colour, least in zip((MISSED_COLOUR, SPURIOUS_COLOUR), legend, strict=True):
        assert near(wrong, colour, 30).sum() > least + 500


def test_errors_need_a_reference():
    assert error_figure(view(reference=None), title="x") is None
    assert picture(comparison_figure(view(reference=None), title="x")).size


def code_of(predicted, expected):
    """The error of a voxel, by the definition of each."""
    if expected < 0 or predicted == expected == 0:
        return 0
    if predicted == expected:
        return RIGHT
    if predicted == 0:
        return MISSED
    return SPURIOUS if expected == 0 else MISTAKEN


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999))
def test_error_codes_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    prediction = rng.integers(0, 4, 200)
    reference = rng.integers(-1, 4, 200)
    pairs = zip(prediction.tolist(), reference.tolist(), strict=True)
    codes = label_errors(prediction, reference)
    assert codes.tolist() == [code_of(*pair) for pair in pairs]
    predicted = np.isin(prediction, (1, 3))
    expected = np.isin(reference, (1, 3))
    codes = region_errors(prediction, reference, (1, 3))
    known = reference >= 0
    assert np.array_equal(codes == RIGHT, predicted & expected)
    assert np.array_equal(codes == MISSED, expected & ~predicted)
    assert np.array_equal(codes == SPURIOUS, predicted & ~expected & known)


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("shape", [(1, 20, 30), (3, 200, 6), (1, 1, 1)])
def test_odd_shapes_are_drawn(figure, shape):
    ones = np.ones(shape, np.int16)
    shown = picture(
        figure(
            view(
                shape, image=np.ones((2, *shape)), prediction=ones, reference=ones * 2
            ),
            title="x",
        )
    )
    assert shown.shape[1] == 1100
    assert shown.shape[0] < 2500


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("empty", ["prediction", "both", "not a number", "ignored"])
def test_empty_things_are_drawn(figure, empty):
    case = view()
    image = case.image * (np.nan if empty == "not a number" else 0)
    prediction = case.prediction * (empty not in ("prediction", "both"))
    reference = case.reference * (empty != "both")
    reference = reference - 1 if empty == "ignored" else reference
    assert picture(
        figure(view(image=image, prediction=prediction, reference=reference), title="x")
    ).size


@pytest.mark.parametrize("figure", FIGURES)
def test_sixty_labels_are_drawn(figure):
    labels = np.random.default_rng(0).integers(0, 61, (6, 12, 12)).astype(np.int16)
    targets = {f"label $_{i}$ <b>": (i,) for i in range(1, 61)}
    many = view(
        labels.shape,
        image=np.ones((2, *labels.shape)),
        prediction=labels,
        reference=labels[::-1],
        labels=list(targets),
        targets=targets,
        dice={},
    )
    assert picture(figure(many, title="x")).shape[0] < 1400


def test_equal_views_have_equal_bytes():
    assert comparison_figure(view(), title="x") == comparison_figure(view(), title="x")


def test_training_curves_show_each_region():
    def record(epoch, names):
        dice = {f"validation_dice/{n}": 0.1 * (epoch + k) for k, n in enumerate(names)}
        return {"kind": "epoch", "epoch": epoch, **dice}

    def lines(*names):
        shown = picture(training_curves([record(i, names) for i in range(5)]))
        return [near(shown, colour).sum() for colour in (ORANGE, BLUE)]

    assert min(lines("WT", "TC")) > 100
    assert lines("one") == [0, 0], "it would repeat the mean"
    assert lines(*(f"label_{i}" for i in range(60))) == [0, 0]
