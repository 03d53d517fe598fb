import pytest

from trivox.evaluation.report.xray_marks import letters, name_lines, view_name
from trivox.projection.geometry import Geometry


def test_views_are_named_as_people_say():
    geometry = Geometry.orbit(
        [0, 180, 90, 45, -30],
        detector=(4, 4),
        pixel_mm=1.0,
        secondary=[0, 0, 0, -10, 20],
    )
    names = [view_name(geometry, view) for view in range(5)]
    assert names == [
        "0° AP",
        "180° PA",
        "90° lateral, source left",
        "45°, 10° caudal",
        "-30°, 20° cranial",
    ]


@pytest.mark.parametrize(
    ("angle", "left", "right"),
    [(0, "R", "L"), (90, "A", "P"), (180, "L", "R"), (45, "RA", "LP")],
)
def test_letters_name_the_side_of_the_patient(angle, left, right):
    geometry = Geometry.orbit([angle], detector=(4, 4), pixel_mm=1.0)
    _, down, across = (axis[0] for axis in geometry.axes())
    assert (letters((-across).tolist()), letters(across.tolist())) == (left, right)
    assert letters((-down).tolist()) == "S"


@pytest.mark.parametrize(
    ("room", "lines"),
    [
        (3.0, ["90° lateral, source left, 10° cranial"]),
        (2.2, ["90° lateral, source left,", "10° cranial"]),
        (1.2, ["90° lateral,", "source left,", "10° cranial"]),
        (0.8, ["90°", "lateral,", "source", "left, 10°", "cranial"]),
    ],
)
def test_names_are_broken_at_commas_where_that_suffices(room, lines):
    broken = name_lines("90° lateral, source left, 10° cranial", room)
    assert [line.replace("\u00a0", " ") for line in broken] == lines
