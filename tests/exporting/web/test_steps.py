"""The page's steps give what Python's give, on cases drawn by chance."""

import numpy as np

from page_cases import affine_of, drawn
from page_node import PageError, needs_node, of_page, only, run
from trivox.inference.windows import window_starts
from trivox.volumes.geometry import canonical_orientation
from trivox.volumes.resampling import spline_matrix

pytestmark = needs_node
CASES = 16


def test_splines_of_every_order_are_scipys():
    sizes = [(1, 5), (2, 7), (5, 2), (35, 50), (50, 35), (7, 7), (3, 40), (90, 71)]
    asked = [(*pair, order) for pair in sizes for order in range(6)]
    calls = [
        {"call": "rows", "size": size, "newSize": new, "order": order}
        for size, new, order in asked
    ]
    for (size, new, order), rows in zip(asked, run(*calls), strict=True):
        wanted = spline_matrix(size, new, order).numpy()
        np.testing.assert_allclose(rows.reshape(new, size), wanted, atol=3e-7)


def test_half_precision_is_rounded_as_numpy_rounds_it():
    draw = np.random.default_rng(1)
    values = draw.normal(size=5000) * 10.0 ** draw.integers(-9, 6, 5000)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    between = (halves[:-1] + halves[1:]) / 2
    values = np.concatenate([values, halves, between, -between]).astype(np.float32)
    with np.errstate(over="ignore"):
        wanted = values.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(only("halves", values=values), wanted)


def test_windows_begin_where_pythons_begin():
    draw = np.random.default_rng(2)
    asked = [
        (int(draw.integers(1, 200)), int(draw.integers(1, 90)), overlap)
        for overlap in (0, 0.25, 0.5, 0.75)
        for _ in range(40)
    ]
    calls = [
        {"call": "starts", "size": size, "patch": patch, "overlap": overlap}
        for size, patch, overlap in asked
    ]
    assert run(*calls) == [window_starts(*each) for each in asked]


def test_axes_are_turned_as_pythons_are():
    draw = np.random.default_rng(3)
    affines = [affine_of(draw, draw.uniform(0.5, 4, 3)) for _ in range(60)]
    affines += [affine_of(draw, np.ones(3), sheared=True) for _ in range(20)]
    calls = [{"call": "orientation", "affine": each.tolist()} for each in affines]
    for affine, turned in zip(affines, run(*calls), strict=True):
        wanted = canonical_orientation(affine)
        assert tuple(turned["axes"]) == wanted.axes
        assert tuple(turned["flips"]) == wanted.flips


def test_images_are_prepared_and_segmented_as_in_python():
    cases = [drawn(seed) for seed in range(CASES)]
    calls = []
    for case in cases:
        shared = {"volume": of_page(case.volume), "pipeline": case.pipeline}
        calls += [{"call": "prepared", **shared}]
        calls += [{"call": "segmented", **shared, "toys": case.toys}]
    results = run(*calls)
    for number, case in enumerate(cases):
        prepared, segmented = results[2 * number : 2 * number + 2]
        wanted = case.prepared().image.numpy()
        assert tuple(prepared["shape"]) == wanted.shape[1:]
        for channel, values in zip(prepared["channels"], wanted, strict=True):
            spread = max(1.0, float(np.abs(values).max()))
            apart = np.abs(channel.reshape(values.shape) - values).max()
            assert apart < 2e-6 * spread, number
        labels = case.labels()
        found_labels = segmented["labels"]["data"].reshape(labels.shape)
        assert found_labels.dtype == labels.dtype
        # voxels where two classes are equal but for rounding may fall either way
        assert (found_labels != labels).sum() <= 1, number
        assert segmented["labels"]["affine"] == case.volume.affine.tolist()


def test_the_drawn_cases_cover_what_pipelines_can_say():
    cases = [drawn(seed) for seed in range(CASES)]
    assert {case.plan.labels.exclusive for case in cases} == {True, False}
    assert {case.plan.grid.sums for case in cases} == {"single", "half"}
    assert {case.plan.grid.axes for case in cases} == {"canonical", "stored"}
    assert {case.plan.grid.slices for case in cases} == {"resampled", "kept"}
    assert {case.plan.grid.image is None for case in cases} == {True, False}
    assert {case.plan.mask_channel for case in cases} == {True, False}
    assert {len(case.engines) for case in cases} == {1, 2}
    ruled = [case.rules.model_dump(exclude_defaults=True) for case in cases]
    assert {name for rules in ruled for name in rules} >= {
        "largest_of_regions",
        "remove_small",
        "replace_small",
        "largest_of",
    }
    records = [case.prepared().record for case in cases]
    assert {record.image_axis is None for record in records} == {True, False}


def test_volumes_are_those_of_the_label_map():
    case = drawn(2)
    segmented = only(
        "segmented",
        volume=of_page(case.volume),
        pipeline=case.pipeline,
        toys=case.toys,
    )
    labels = case.labels()
    values = case.plan.labels.values
    for row in segmented["volumes"]:
        voxels = np.isin(labels, [values[index] for index in row["indices"]]).sum()
        assert row["voxels"] == voxels
        assert row["ml"] == float(voxels) * case.volume.voxel_ml
    assert segmented["stages"] == ["preparing", "computing", "finishing"]


def test_images_that_cannot_be_segmented_are_refused_in_a_line():
    case = drawn(2)
    page = of_page(case.volume)
    shared = {"call": "segmented", "pipeline": case.pipeline, "toys": case.toys}
    missing = {**page, "channels": page["channels"] * 4}
    broken = [each.copy() for each in page["channels"]]
    broken[0][3] = np.nan
    huge = {**page, "affine": np.diag([400.0, 400.0, 400.0, 1]).tolist()}
    results = run(
        {**shared, "volume": missing},
        {**shared, "volume": {**page, "channels": broken}},
        {**shared, "volume": huge},
    )
    lines = [str(each) for each in results]
    kinds = [each.kind for each in results if isinstance(each, PageError)]
    assert kinds == ["Problem"] * 3
    assert "channels, the model needs" in lines[0]
    assert "NaN" in lines[1]
    assert "GB" in lines[2]


def test_an_empty_image_gives_a_label_map():
    case = drawn(4)
    page = of_page(case.volume)
    page["channels"] = [np.zeros_like(each) for each in page["channels"]]
    segmented = only("segmented", volume=page, pipeline=case.pipeline, toys=case.toys)
    assert segmented["labels"]["data"].size == page["channels"][0].size


def test_memory_that_ran_out_is_said_as_such_whoever_says_it():
    calls = [
        {"call": "line", "message": message}
        for message in (
            "Array buffer allocation failed",
            "Invalid typed array length: 9999999999",
            "WebAssembly.Memory(): could not allocate memory",
            "std::bad_alloc",
            "Out of memory",
        )
    ]
    for line in run(*calls):
        assert line.startswith("The memory of this browser does not suffice")
    other = only("line", message="x is not a function\n  at y")
    assert other == "The page failed (x is not a function); reload it and try again."
