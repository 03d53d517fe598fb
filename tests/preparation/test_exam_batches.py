import dataclasses

import numpy as np
import pytest
import torch

from trivox.config.volumes import ReconstructionOptions
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import DataError
from trivox.preparation.exam_batches import ExamSource, even_views
from trivox.preparation.exam_store import prepare_exams
from trivox.projection.attenuation import attenuation_of
from trivox.projection.geometry import Geometry
from trivox.projection.projector import Projector

CPU = torch.device("cpu")
QUIET = {
    "photons": None,
    "drop_view": 0.0,
    "no_views": 0.0,
    "angle_jitter": 0.0,
    "distance_jitter": 0.0,
}


@pytest.fixture(scope="module")
def store(xray_data, xray_plan, tmp_path_factory):
    return prepare_exams(
        load_dataset(xray_data), xray_plan, tmp_path_factory.mktemp("store")
    )


@pytest.fixture
def make(store, xray_data, xray_plan):
    names = [case.name for case in load_dataset(xray_data).training_cases]

    def made(*, positions=range(2), training=True, names=names, store=store, **options):
        return ExamSource(
            store=store,
            names=names,
            plan=xray_plan,
            options=ReconstructionOptions(**options),
            seed=3,
            positions=positions,
            batch_size=2,
            training=training,
        )

    return made


def test_a_batch_is_a_function_of_its_step(make):
    xrays, targets = make().read(5).finish(CPU)
    again, targets_again = make().read(5).finish(CPU)
    assert torch.equal(xrays.images, again.images)
    assert torch.equal(targets.volume, targets_again.volume)
    other, _ = make().read(6).finish(CPU)
    assert not torch.equal(xrays.images, other.images)


def test_ranks_read_parts_of_one_batch(make):
    whole = make().read(4).finish(CPU)
    parts = [make(positions=[position]).read(4).finish(CPU) for position in (0, 1)]
    assert torch.equal(torch.cat([part[1].volume for part in parts]), whole[1].volume)
    assert torch.equal(parts[0][0].geometry.primary, whole[0].geometry.primary)


def test_every_case_comes_once_before_any_comes_again(make):
    names = ["a", "b", "c", "d", "e", "f"]
    source = make(names=names)
    for sweep in range(3):
        steps = range(3 * sweep, 3 * sweep + 3)
        drawn = [source.name_of(step, 0) for step in steps]
        drawn += [source.name_of(step, 1) for step in steps]
        assert sorted(drawn) == names


def test_the_target_is_the_mean_of_the_voxels_it_covers_within_the_window(
    make, store, xray_plan
):
    source = make(training=False)
    _, target = source.read(0).finish(CPU)
    fine = store.volume(source.name_of(0, 0)).astype(np.float64)
    side = xray_plan.shape[0]
    factor = fine.shape[0] // side
    means = fine.reshape(side, factor, side, factor, side, factor).mean((1, 3, 5))
    low, high = xray_plan.window
    np.testing.assert_allclose(
        target.volume[0, 0], ((means - low) / (high - low)).clip(0, 1), atol=1e-5
    )


def test_rendered_views_are_line_integrals_of_the_fine_volume(make, store, xray_plan):
    source = make(training=False, view_counts=(2,))
    xrays, _ = source.read(0).finish(CPU)
    fine = torch.from_numpy(store.volume(source.name_of(0, 0))).float()
    projector = Projector(even_views(xray_plan, 2), xray_plan.render_grid)
    wanted = projector.project(attenuation_of(fine)[None])
    torch.testing.assert_close(xrays.images[:1], wanted, rtol=1e-4, atol=1e-4)
    assert not xrays.geometry.batched


def test_validation_goes_through_the_numbers_of_views_without_chance(make):
    chance = {"drop_view": 0.9, "no_views": 0.9, "angle_jitter": 40.0}
    source = make(training=False, view_counts=(1, 4), **chance)
    seen = [source.read(step).finish(CPU)[0] for step in range(3)]
    assert [xrays.views for xrays in seen] == [1, 4, 1]
    assert all(bool(xrays.present.all()) for xrays in seen)
    assert seen[1].geometry.primary.tolist() == [0, 90, 45, 135]


def test_even_views_are_nested_and_evenly_spaced(xray_plan):
    for count in range(1, 9):
        angles = sorted(even_views(xray_plan, count).primary.tolist())
        gaps = np.diff([*angles, angles[0] + 180])
        np.testing.assert_allclose(gaps, 180 / count, atol=1e-4)
    four = even_views(xray_plan, 4).primary.tolist()
    assert four[:2] == even_views(xray_plan, 2).primary.tolist()


def test_dropped_views_are_blank_and_one_stays(make):
    source = make(view_counts=(4,), drop_view=0.99, no_views=0.0, photons=None)
    for step in range(4):
        xrays, _ = source.read(step).finish(CPU)
        assert (xrays.present.sum(1) >= 1).all()
        assert not xrays.images[~xrays.present].any()
    nothing, _ = make(view_counts=(4,), no_views=1.0).read(0).finish(CPU)
    assert not nothing.present.any()


def test_noise_is_small_and_grows_as_photons_go(make):
    def images(photons):
        source = make(**{**QUIET, "view_counts": (2,), "photons": photons})
        xrays, _ = source.read(1).finish(CPU)
        return xrays.images

    def error(photons):
        difference = images(photons) - images(None)
        return float(difference.square().mean().sqrt())

    assert 0 < error((1e6, 1e6)) < error((1e4, 1e4)) < 0.2


def test_jitter_turns_and_moves_all_views_of_a_step_alike(make, xray_plan):
    source = make(view_counts=(2,), angle_jitter=5.0, distance_jitter=0.03)
    angles = []
    distances = []
    for step in range(6):
        geometry = source.read(step).finish(CPU)[0].geometry
        angles += (geometry.primary - torch.tensor([0.0, 90.0])).tolist()
        distances.append(float(geometry.sod[0] / xray_plan.sod_mm))
        assert geometry.sod.unique().numel() == 1
    assert 0 < max(map(abs, angles)) <= 5
    assert 0.97 <= min(distances) < 1 < max(distances) <= 1.03


def test_gain_scales_the_views_and_not_the_volume(make):
    plain, target = make(**QUIET, view_counts=(2,)).read(2).finish(CPU)
    loud, same = make(**QUIET, view_counts=(2,), gain_jitter=0.5).read(2).finish(CPU)
    ratios = loud.images.flatten(1).sum(1) / plain.images.flatten(1).sum(1)
    assert ((ratios - 1).abs() > 1e-3).all()
    assert ((ratios - 1).abs() <= 0.5).all()
    assert torch.equal(target.volume, same.volume)


def test_stored_views_are_those_of_the_exam(make, store):
    source = make(views="stored", training=False, view_counts=(2,))
    xrays, _ = source.read(0).finish(CPU)
    wanted = store.views(source.name_of(0, 0)).select([0, 1])
    assert torch.equal(xrays.images[:1], wanted.images)


def test_training_draws_any_of_the_stored_views(make, store):
    source = make(views="stored", view_counts=(2,), drop_view=0, no_views=0)
    drawn = set()
    for step in range(6):
        xrays, _ = source.read(step).finish(CPU)
        drawn |= set(xrays.geometry.primary.flatten().tolist())
    stored = set(store.views(source.names[0]).geometry.primary.tolist())
    assert drawn <= stored
    assert len(drawn) > 2


def test_exams_taken_alike_share_one_geometry_and_others_do_not(make, store):
    class Turned:
        folder = store.folder
        volume = staticmethod(store.volume)

        @staticmethod
        def views(name):
            exam = store.views(name)
            primary = exam.geometry.primary + len(asked)
            moved = dataclasses.replace(exam.geometry, primary=primary)
            asked.append(name)
            return dataclasses.replace(exam, geometry=moved)

    asked = []
    alike = make(views="stored", training=False).read(0).finish(CPU)[0]
    turned = make(views="stored", training=False, store=Turned()).read(0).finish(CPU)[0]
    assert not alike.geometry.batched
    assert turned.geometry.batched
    assert turned[:1].geometry.primary.shape[0] == 1


def test_detectors_of_two_sizes_cannot_share_a_batch(make, store):
    class Mixed:
        folder = store.folder
        volume = staticmethod(store.volume)

        @staticmethod
        def views(name):
            exam = store.views(name)
            if sizes:
                small = Geometry.orbit([0.0], detector=(2, 2), pixel_mm=1.0)
                return type(exam).of(torch.zeros(1, 1, 2, 2), small)
            sizes.append(name)
            return exam

    sizes = []
    with pytest.raises(DataError, match="cannot share a batch; set batch_size=1"):
        make(views="stored", training=False, store=Mixed()).read(0)
