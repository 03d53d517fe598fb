import numpy as np
import pytest
import torch

from trivox.datasets.exams import Exam, read_exam
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import DataError, FormatError
from trivox.preparation.exam_store import ExamStore, fitted_views, prepare_exams
from trivox.projection.geometry import Geometry
from trivox.projection.grids import on_grid
from trivox.projection.xrays import Xrays
from trivox.volumes.formats import read_volume


@pytest.fixture
def store(xray_data, xray_plan, tmp_path):
    return prepare_exams(load_dataset(xray_data), xray_plan, tmp_path / "store")


def test_the_stored_volume_is_the_ct_on_the_rendering_grid(store, xray_data, xray_plan):
    case = load_dataset(xray_data).training_cases[0]
    isocentre = read_exam(case).isocentre
    ct = read_volume(case.volume)
    wanted = on_grid(ct, xray_plan.render_grid, isocentre=isocentre)
    assert np.abs(store.volume(case.name) - wanted).max() <= 0.5
    assert store.volume(case.name).dtype == np.int16


def test_views_and_geometry_come_back_as_they_were(store, xray_data, xray_plan):
    case = load_dataset(xray_data).training_cases[1]
    wanted = fitted_views(read_exam(case), xray_plan)
    stored = store.views(case.name)
    assert torch.equal(stored.images, wanted.images)
    for name, tensor in wanted.geometry.tensors().items():
        assert torch.equal(getattr(stored.geometry, name), tensor)


def test_test_cases_are_not_prepared(store, xray_data):
    cases = load_dataset(xray_data).cases
    assert {case.split for case in cases} == {"train", "test"}
    assert all(store.has(case.name) == (case.split == "train") for case in cases)


def test_finished_exams_are_kept_and_those_of_another_plan_replaced(
    store, xray_data, xray_plan
):
    dataset = load_dataset(xray_data)
    file = store.folder / f"{dataset.training_cases[0].name}.volume.b2nd"
    before = file.stat().st_mtime_ns
    prepare_exams(dataset, xray_plan, store.folder)
    assert file.stat().st_mtime_ns == before
    (store.folder / "theirs.txt").write_text("not ours")
    other = xray_plan.model_copy(update={"spacing": (25.0, 25.0, 25.0)})
    prepare_exams(dataset, other, store.folder)
    assert file.stat().st_mtime_ns != before
    assert (store.folder / "theirs.txt").exists()


def test_a_damaged_exam_is_named(store, xray_data):
    name = load_dataset(xray_data).training_cases[0].name
    (store.folder / f"{name}.volume.b2nd").write_bytes(b"nothing")
    with pytest.raises(FormatError, match=f"prepared case {name} is damaged"):
        ExamStore(store.folder).volume(name)


def test_cases_that_fail_are_named_after_the_others_are_done(
    xray_data, xray_plan, tmp_path
):
    dataset = load_dataset(xray_data)
    broken = tmp_path / "ct.nii.gz"
    broken.write_bytes(b"no volume")
    first, *others = dataset.cases
    cases = (first.model_copy(update={"volume": broken}), *others)
    dataset = dataset.model_copy(update={"cases": cases})
    with pytest.raises(DataError, match=f"1 of 5 cases failed: {first.name}"):
        prepare_exams(dataset, xray_plan, tmp_path / "store")
    assert ExamStore(tmp_path / "store").has(others[0].name)


def exam(rows, columns, *, water=0.02):
    geometry = Geometry.orbit([0.0, 90.0], detector=(rows, columns), pixel_mm=2.0)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 2, rows, columns, generator=generator)
    return Exam(Xrays.of(images, geometry), (0, 0, 0), "line integrals", water)


def test_pixels_are_joined_down_to_the_planned_detector(xray_plan):
    given = exam(4 * xray_plan.detector[0], 4 * xray_plan.detector[1])
    fitted = fitted_views(given, xray_plan)
    assert fitted.geometry.detector == xray_plan.detector
    assert fitted.geometry.pixel_mm.unique().tolist() == [8.0]
    torch.testing.assert_close(
        fitted.images[0, 0, 0, 0], given.xrays.images[0, 0, :4, :4].mean()
    )


def test_a_detector_that_does_not_divide_stays_as_it_is(xray_plan):
    given = exam(2 * xray_plan.detector[0] + 1, 2 * xray_plan.detector[1])
    assert (
        fitted_views(given, xray_plan).geometry.detector
        == given.xrays.geometry.detector
    )


def test_views_in_other_units_of_water_are_brought_to_the_plans(xray_plan):
    given = exam(*xray_plan.detector, water=0.01)
    torch.testing.assert_close(
        fitted_views(given, xray_plan).images, 2 * given.xrays.images
    )
