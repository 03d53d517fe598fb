import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thoraxes import chest, exam_of_chest
from trivox.errors import GeometryError
from trivox.evaluation.metrics.volumes import (
    METRICS,
    WINDOW,
    OwnVoxels,
    body_mask,
    convention,
    measure_arrays,
    measure_volume,
    on_one_grid,
    projection_rmse,
    psnr_slices_x2ct,
)
from trivox.projection.geometry import Grid
from trivox.projection.grids import on_grid, placed
from trivox.volumes.volume import Volume, affine_from_spacing

GRID = Grid((24, 24, 24), (320 / 24,) * 3)


def psnr_in(window, prediction, reference):
    return measure_arrays(prediction, reference, window=window)["psnr_db"]


def noisy(hounsfield, sigma=40.0):
    return hounsfield + np.random.default_rng(0).normal(
        0, sigma, hounsfield.shape
    ).astype(np.float32)


def test_a_volume_against_itself_is_perfect():
    reference = chest(GRID)
    row = measure_arrays(reference, reference, window=WINDOW)
    assert (
        row["psnr_db"],
        row["mae_hu"],
        row["mae_body_hu"],
        row["psnr_slice4095_x2ct_db"],
    ) == (100, 0, 0, 100)
    assert (row["ssim"], row["lung_dice"], row["bone_dice"]) == pytest.approx((1, 1, 1))


def test_psnr_is_that_of_the_definition():
    reference = np.clip(chest(GRID), -900, 1300)
    decibels = psnr_in(WINDOW, reference + 25, reference)
    assert decibels == pytest.approx(20 * math.log10(2500 / 25), abs=1e-3)


def test_a_peak_of_4095_instead_of_2500_is_worth_429_hundredths_of_a_decibel():
    rng = np.random.default_rng(0)
    reference = rng.uniform(-1000, 1400, (12, 12, 12)).astype(np.float32)
    prediction = reference + 30 * rng.choice([-1, 1], reference.shape).astype(
        np.float32
    )  # every slice has one MSE
    gain = psnr_slices_x2ct(prediction, reference) - psnr_in(
        WINDOW, prediction, reference
    )
    assert gain == pytest.approx(20 * math.log10(4095 / 2500), abs=1e-3)
    assert gain == pytest.approx(4.29, abs=0.005)


def test_a_volume_of_air_scores_twenty_decibels_in_the_convention_of_the_literature():
    reference = chest(GRID)
    air = np.full_like(reference, -1024)
    row = measure_arrays(air, reference, window=WINDOW)
    assert row["psnr_slice4095_x2ct_db"] > row["psnr_db"] + 6
    assert 18 < row["psnr_slice4095_x2ct_db"] < 30
    assert (row["lung_dice"], row["bone_dice"]) == (0, 0)
    assert row["mae_body_hu"] > 2 * row["mae_hu"]


def test_slices_without_error_count_100_decibels_in_that_convention():
    reference = np.zeros((4, 4, 4), np.float32)
    prediction = reference.copy()
    prediction[0] = (
        4095 / 1000
    )  # one slice of z is off by 60 dB; in y and x every slice by 66.02
    expected = ((60 + 3 * 100) / 4 + 2 * (60 + 10 * math.log10(4))) / 3
    assert psnr_slices_x2ct(prediction, reference) == pytest.approx(expected, abs=1e-4)


def test_what_lies_outside_the_window_does_not_count():
    reference = chest(GRID)
    prediction = noisy(reference)
    clipped = measure_arrays(
        np.clip(prediction, -160, 240),
        np.clip(reference, -160, 240),
        window=(-160, 240),
    )
    raw = measure_arrays(prediction, reference, window=(-160, 240))
    for metric in ("psnr_db", "ssim", "mae_hu"):
        assert clipped[metric] == raw[metric]


def test_a_narrower_window_scores_lower_for_the_same_volume():
    reference = chest(GRID)
    prediction = noisy(np.roll(reference, 1, axis=2), 10)
    scores = [
        psnr_in(window, prediction, reference)
        for window in (WINDOW, (-1000, 1024), (-160, 240))
    ]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] - scores[-1] > 3


def test_the_body_is_the_patient_with_the_lungs_and_without_air_or_table():
    reference = chest(GRID)
    reference[:, 0, :] = 100  # a table below the patient
    body = body_mask(reference)
    assert not body[:, 0].any()
    inside = np.zeros_like(body)
    inside[4:20, 9:15, 9:15] = True
    assert body[inside].all()
    assert not body_mask(np.full((5, 6, 7), -1000.0)).any()


def test_gas_in_the_body_belongs_to_it():
    reference = np.full((9, 20, 20), -1000.0)
    reference[:, 3:17, 3:17] = 40
    reference[2:7, 7:13, 7:13] = -1000
    body = body_mask(reference)
    assert body[:, 4:16, 4:16].all()
    assert body.sum() == 9 * 14 * 14


def test_lungs_are_what_holds_air_inside_the_body():
    reference = chest(GRID)
    lungless = np.where(body_mask(reference) & (reference < -400), 0, reference)
    row = measure_arrays(lungless, reference, window=WINDOW)
    assert row["lung_dice"] < 0.1
    assert row["bone_dice"] == 1


def test_both_empty_means_that_nothing_is_known():
    air = np.full((12, 12, 12), -1000, np.float32)
    row = measure_arrays(air, air, window=WINDOW)
    assert [row[metric] for metric in ("lung_dice", "bone_dice", "mae_body_hu")] == [
        None
    ] * 3


def test_arrays_of_different_size_are_refused():
    with pytest.raises(GeometryError, match="one grid"):
        measure_arrays(np.zeros((4, 4, 4)), np.zeros((4, 4, 5)), window=WINDOW)


# -- grids -----------------------------------------------------------------------------
@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.booleans()] * 3),
    swap=st.booleans(),
)
def test_orientation_does_not_matter(order, flips, swap):
    reference = Volume(
        chest(GRID)[None], affine_from_spacing(GRID.spacing, (5, -20, 30))
    )
    prediction = reference.with_array(noisy(reference.array))
    plain = measure_volume(prediction, reference, window=WINDOW)
    turned = turn(prediction if swap else reference, order, flips)
    pair = (turned, reference) if swap else (prediction, turned)
    metrics = measure_volume(*pair, window=WINDOW)
    assert rounded(metrics) == rounded(plain)


def rounded(metrics):
    return {name: value and round(value, 4) for name, value in metrics.items()}


def turn(volume, order, flips):
    """The same volume, stored with other axes."""
    array = volume.array
    affine = volume.affine.copy()
    for axis, flip in enumerate(flips):  # (z, y, x)
        if flip:
            array = np.flip(array, axis + 1)
            column = affine[:3, 2 - axis].copy()
            affine[:3, 3] += column * (array.shape[axis + 1] - 1)
            affine[:3, 2 - axis] = -column
    array = array.transpose(0, *(axis + 1 for axis in order))
    affine[:, :3] = affine[:, [2 - order[2 - column] for column in range(3)]]
    return Volume(np.ascontiguousarray(array), affine)


def test_a_reference_on_a_finer_grid_is_averaged_onto_that_of_the_prediction():
    fine = GRID.resized((48, 48, 48))
    isocentre = (10.0, -20.0, 30.0)
    reference = placed(chest(fine), fine, isocentre=isocentre)
    prediction = placed(
        on_grid(reference, GRID, isocentre=isocentre), GRID, isocentre=isocentre
    )
    row = measure_volume(prediction, reference, window=WINDOW)
    assert row["psnr_db"] == 100
    assert 15 < row["psnr_ceiling_db"] < 40
    pair = on_one_grid(prediction, reference, window=WINDOW)
    blocks = reference.array[0].reshape(24, 2, 24, 2, 24, 2).mean((1, 3, 5))
    np.testing.assert_allclose(pair.reference, blocks, atol=0.01)


def test_the_ceiling_is_the_score_of_a_perfect_volume_and_rises_with_the_grid():
    fine = GRID.resized((48, 48, 48))
    reference = placed(chest(fine), fine, isocentre=(0, 0, 0))
    ceilings = [ceiling_on(fine.resized((n, n, n)), reference) for n in (12, 24, 48)]
    assert ceilings == sorted(ceilings)
    assert ceilings[1] < 40
    assert ceilings[2] == 100
    same = measure_volume(reference, reference, window=WINDOW)
    assert same["psnr_ceiling_db"] is None


def test_the_ceiling_of_what_every_grid_can_show_is_perfect_up_to_the_border():
    fine = GRID.resized((48, 48, 48))
    reference = placed(np.zeros(fine.shape, np.float32), fine, isocentre=(0, 0, 0))
    assert ceiling_on(GRID, reference) == 100


def ceiling_on(grid, reference):
    isocentre = (0.0, 0.0, 0.0)
    fine = OwnVoxels.of(reference, grid, WINDOW, isocentre=isocentre)
    return fine.score(on_grid(reference, grid, isocentre=isocentre))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(noise=st.floats(0, 200), size=st.sampled_from([8, 12, 16, 24, 30]))
def test_no_prediction_scores_above_the_ceiling_of_its_grid(noise, size):
    fine = GRID.resized((48, 48, 48))
    reference = placed(chest(fine), fine, isocentre=(0, 0, 0))
    grid = fine.resized((size, size, size))
    perfect = on_grid(reference, grid, isocentre=(0.0, 0.0, 0.0))
    error = np.random.default_rng(size).normal(0, noise, perfect.shape)
    row = measure_volume(
        placed((perfect + error).astype(np.float32), grid, isocentre=(0, 0, 0)),
        reference,
        window=WINDOW,
    )
    assert row["psnr_reference_grid_db"] <= row["psnr_ceiling_db"] + 0.05
    assert row["psnr_db"] >= row["psnr_reference_grid_db"]


def test_an_oblique_prediction_is_refused():
    affine = affine_from_spacing((2, 2, 2))
    affine[:3, :3] = affine[:3, :3] @ np.array(
        [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]
    )
    oblique = Volume(np.zeros((1, 8, 8, 8), np.float32), affine)
    with pytest.raises(GeometryError, match="oblique"):
        measure_volume(oblique, oblique, window=WINDOW)


# -- X-rays ----------------------------------------------------------------------------
def test_projections_of_the_very_volume_that_was_rendered_agree_and_others_do_not():
    reference, exam = exam_of_chest(GRID)
    assert projection_rmse(reference, GRID, exam) == pytest.approx(0, abs=1e-4)
    one = projection_rmse(np.full_like(reference, reference.mean()), GRID, exam)
    assert one > projection_rmse(noisy(reference), GRID, exam) > 1e-3


def test_the_projection_error_is_the_root_mean_square_over_the_views_that_are_there():
    reference, exam = exam_of_chest(GRID)
    images = exam.xrays.images.clone()
    images[:, 0] += 0.3
    images[:, 1] = 77
    seen = exam.with_views(images, [True, False])
    assert projection_rmse(reference, GRID, seen) == pytest.approx(0.3, abs=1e-3)
    assert (
        projection_rmse(reference, GRID, exam.with_views(images, [False, False]))
        is None
    )
    assert (
        projection_rmse(
            reference, GRID, exam.with_views(images, [True, True], kind="uncalibrated")
        )
        is None
    )


def test_the_isocentre_places_the_prediction_in_front_of_the_x_rays():
    reference, exam = exam_of_chest(GRID, isocentre=(10.0, -20.0, 30.0))
    placed_right = placed(reference, GRID, isocentre=exam.isocentre)
    placed_wrong = placed(reference, GRID, isocentre=(60.0, -20.0, 30.0))
    scores = [
        measure_volume(volume, volume, window=WINDOW, projections=exam)[
            "projection_rmse"
        ]
        for volume in (placed_right, placed_wrong)
    ]
    assert scores[0] == pytest.approx(0, abs=1e-4)
    assert scores[1] > 0.1


def test_every_metric_has_its_convention_in_words():
    reference, exam = exam_of_chest(GRID)
    volume = placed(reference, GRID, isocentre=exam.isocentre)
    row = measure_volume(volume, volume, window=WINDOW, projections=exam)
    assert set(row) == set(METRICS) <= set(convention(WINDOW))
    assert "R = 2500 HU" in convention(WINDOW)["psnr_db"]
    assert "R = 2024 HU" in convention((-1000, 1024))["psnr_db"]
