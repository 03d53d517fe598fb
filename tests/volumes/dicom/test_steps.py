"""What is said of distances between slices that are not even."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_slices import save, slice_of
from trivox.errors import GeometryError
from trivox.volumes.choice import SeriesChoice
from trivox.volumes.dicom.places import SAME_PLACE
from trivox.volumes.dicom.steps import unevenness, usual_step
from trivox.volumes.formats import read_header, read_volume

steps = st.floats(0.5, 5)
counts = st.integers(2, 30)


@given(steps, counts, st.floats(-500, 500))
def test_even_slices_need_no_word(step, count, start):
    assert unevenness(start + step * np.arange(count), None) == ""


@given(steps, st.integers(4, 30), st.data())
def test_missing_slices_are_counted_and_placed(step, count, data):
    heights = step * np.arange(count + 3)
    first = data.draw(st.integers(2, count))
    size = data.draw(st.integers(1, 2))
    # more than half of the steps stay usual, and none makes a run of its own
    left = np.delete(heights, range(first, first + size))
    said = unevenness(left, None)
    verb = "1 slice is" if size == 1 else f"{size} slices are"
    assert said.startswith(f"{verb} missing at {heights[first]:.2f}")


@given(steps, counts, steps, counts)
def test_distances_that_change_are_not_missing_slices(before, first, after, second):
    heights = np.cumsum([0, *[before] * first, *[after] * second])
    said = unevenness(heights, None)
    distances = np.diff(heights)
    usual = usual_step(heights)
    if np.abs(distances - usual).max() <= max(0.01 * usual, SAME_PLACE):
        assert said == ""
        return
    change = f"change from {before:.3g} to {after:.3g} mm at slice {first + 1} "
    assert said.startswith(f"slice distances {change}")


@given(steps, st.integers(4, 30), st.integers(0, 2**32 - 1), st.floats(0.05, 0.4))
def test_the_tolerance_that_is_named_reads_them(step, count, seed, share):
    jitter = np.random.default_rng(seed).uniform(-1, 1, count) * share * step / 2
    heights = np.sort(step * np.arange(count) + jitter)
    said = unevenness(heights, None)
    if "--slice-tolerance" in said:
        named = float(said.split("--slice-tolerance ")[1].split()[0])
        assert unevenness(heights, named) == ""
        assert unevenness(heights, named / 2) != ""


def slices_at(folder, heights):
    return save(
        folder, [slice_of(i, position=(0, 0, z)) for i, z in enumerate(heights)]
    )


def test_missing_slices_are_refused_unless_tolerated(tmp_path):
    folder = slices_at(tmp_path / "s", [0, 2, 4, 10, 12])
    missing = r"2 slices are missing at 6\.00, 8\.00 mm.*complete the series"
    for read in (read_volume, read_header):
        with pytest.raises(GeometryError, match=missing):
            read(folder)
    choice = SeriesChoice(slice_tolerance=4)
    volume = read_volume(folder, choice=choice)
    assert volume.spacing == (3.0, 0.75, 0.5)
    (remark,) = volume.remarks
    assert "read as even, up to 2.00 mm from their place" in remark
    assert read_header(folder, choice=choice).remarks == volume.remarks


@pytest.mark.parametrize(("shift", "accepted"), [(0.01, True), (0.1, False)])
def test_uneven_slices(tmp_path, shift, accepted):
    folder = slices_at(tmp_path / "s", [2.0 * i + shift * (i == 2) for i in range(5)])
    if accepted:
        assert read_volume(folder).spacing == pytest.approx((2, 0.75, 0.5))
    else:
        uneven = r"uneven: 1\.9 to 2\.1 mm, usually 2 mm.*--slice-tolerance 0\.10"
        with pytest.raises(GeometryError, match=uneven):
            read_volume(folder)


def test_a_head_with_two_distances_is_called_so(tmp_path):
    heights = [*range(0, 16, 2), *range(16, 56, 5)]
    with pytest.raises(GeometryError, match=r"from 2 to 5 mm at slice 9 \(16\.00 mm"):
        read_volume(slices_at(tmp_path / "s", heights))
