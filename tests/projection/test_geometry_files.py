import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.errors import FormatError, GeometryError
from trivox.projection.geometry import Geometry
from trivox.projection.geometry_files import (
    geometry_from_dicom,
    read_record,
    record_of,
    write_record,
)

GEOMETRY = Geometry.orbit(
    [0, 22.5, -90.1], detector=(8, 12), pixel_mm=(4.1, 3.3), secondary=[0, 10, -20.7]
)
TENSORS = ("primary", "secondary", "sod", "sdd", "pixel_mm", "offset_mm")


def header(**changes):
    usual = {
        "PositionerPrimaryAngle": 0.0,
        "PositionerSecondaryAngle": 0.0,
        "DistanceSourceToDetector": 1000,
        "DistanceSourceToPatient": 700,
        "ImagerPixelSpacing": [0.4, 0.3],
        "Rows": 64,
        "Columns": 32,
    }
    return SimpleNamespace(
        **{
            name: value
            for name, value in (usual | changes).items()
            if value is not None
        }
    )


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    angles=st.lists(st.floats(-360, 360, width=32), min_size=0, max_size=5),
    sod=st.floats(100, 900, width=32),
    offset=st.floats(-50, 50, width=32),
)
def test_a_geometry_written_and_read_is_the_same(tmp_path_factory, angles, sod, offset):
    geometry = Geometry.orbit(
        angles, detector=(8, 12), pixel_mm=(4.1, 3.3), sod=sod, sdd=1020.1
    )
    geometry.offset_mm[...] = offset
    file = tmp_path_factory.mktemp("geometry") / "geometry.json"
    write_record(
        file,
        record_of(
            geometry, isocentre=(1, 2, 3.5), kind="silhouettes", water_per_mm=0.019
        ),
    )
    record = read_record(file)
    assert (record.isocentre_mm, record.kind, record.water_per_mm) == (
        (1, 2, 3.5),
        "silhouettes",
        0.019,
    )
    assert record.geometry.detector == (8, 12)
    assert all(
        torch.equal(getattr(record.geometry, name), getattr(geometry, name))
        for name in TENSORS
    )


def test_numbers_are_written_as_people_write_them(tmp_path):
    write_record(tmp_path / "geometry.json", record_of(GEOMETRY))
    view = json.loads((tmp_path / "geometry.json").read_text())["views"][2]
    assert (view["primary_degrees"], view["secondary_degrees"], view["pixel_mm"]) == (
        -90.1,
        -20.7,
        [4.1, 3.3],
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.pop("views"), "views: Field required"),
        (lambda g: g.update(detector=[0, 4]), "detector.0"),
        (lambda g: g.update(kind="photographs"), "kind"),
        (lambda g: g.update(isocentre_mm=[0, 0, float("nan")]), "isocentre_mm.2"),
        (
            lambda g: g["views"][1].update(source_detector_mm=500),
            r"views.1: the isocentre must lie between",
        ),
        (lambda g: g["views"][1].update(secondary_degrees=90), "between -90 and 90"),
        (lambda g: g["views"][0].update(pixel_mm=[1, -1]), r"views.0.pixel_mm.1"),
        (lambda g: g["views"][0].update(pixel_mm=[1, 1e30]), r"views.0.pixel_mm.1"),
        (lambda g: g["views"][0].update(offset_mm=[1, -1e300]), r"offset_mm.1"),
        (lambda g: g["views"][1].update(source_detector_mm=1e39), "detector_mm"),
        (lambda g: g["views"][1].update(primary_degrees=1e300), "primary_degrees"),
        (lambda g: g.update(isocentre_mm=[0, 0, 1e38]), "isocentre_mm.2"),
        (
            lambda g: g["views"][0].update(primary_degrees="left"),
            r"views.0.primary_degrees",
        ),
        (lambda g: g["views"][0].update(angle=3), r"views.0.angle"),
    ],
)
def test_an_impossible_geometry_is_refused_in_one_line(tmp_path, change, message):
    content = record_of(GEOMETRY).model_dump(mode="json")
    change(content)
    file = tmp_path / "geometry.json"
    file.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=message) as failure:
        read_record(file)
    assert str(failure.value).startswith(str(file))
    assert "\n" not in str(failure.value)


def test_a_batch_is_no_exam():
    with pytest.raises(GeometryError, match="one exam"):
        record_of(Geometry.stack([GEOMETRY, GEOMETRY]))


# -- DICOM -----------------------------------------------------------------------------
def test_dicom_zero_is_pa_with_the_source_behind_the_patient():
    geometry = geometry_from_dicom([header()])
    assert geometry.primary.tolist() == [180]
    assert geometry.source[0].tolist() == pytest.approx([0, -700, 0], abs=1e-3)
    assert (geometry.detector, geometry.pixel_mm.tolist()) == (
        (64, 32),
        [[pytest.approx(0.4), pytest.approx(0.3)]],
    )


def test_left_anterior_oblique_has_the_detector_on_the_left_front():
    geometry = geometry_from_dicom([header(PositionerPrimaryAngle=45)])
    detector = -geometry.source[0]
    assert detector[0] < -100, "left is -x"
    assert detector[1] > 100, "front is +y"


def test_cranial_has_the_detector_towards_the_head():
    geometry = geometry_from_dicom([header(PositionerSecondaryAngle=30)])
    assert geometry.source[0, 2] < -100


@pytest.mark.parametrize(
    ("dicom", "ours"),
    [(0, 180), (-180, 0), (180, 0), (30, -150), (-30, 150), (-90, 90)],
)
def test_dicom_angles_stay_within_half_a_turn(dicom, ours):
    assert geometry_from_dicom(
        [header(PositionerPrimaryAngle=dicom)]
    ).primary.tolist() == [ours]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"DistanceSourceToPatient": None},
            "X-ray image 2: no DistanceSourceToPatient",
        ),
        (
            {"ImagerPixelSpacing": None},
            "ImagerPixelSpacing.*PixelSpacing may be scaled",
        ),
        ({"DistanceSourceToDetector": 500}, "between source and detector"),
        ({"Rows": 65}, "2 sizes"),
    ],
)
def test_dicom_without_geometry_is_refused(changes, message):
    with pytest.raises(GeometryError, match=message):
        geometry_from_dicom([header(), header(**changes)])
