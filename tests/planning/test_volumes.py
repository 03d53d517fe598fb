"""Plans of volumes from X-rays: there and back, and impossible ones refused."""

import json

import pytest

from trivox.errors import PlanError
from trivox.files import write_json
from trivox.planning.volumes import read_volume_plan


def test_a_plan_comes_back_as_it_was_written(xray_plan, tmp_path):
    write_json(tmp_path / "plan.json", xray_plan.model_dump(mode="json"))
    assert read_volume_plan(tmp_path / "plan.json") == xray_plan


def test_both_grids_show_the_same_field_of_view(xray_plan):
    assert xray_plan.grid.extent_mm == pytest.approx(xray_plan.render_grid.extent_mm)
    assert xray_plan.render_grid.shape == (16, 16, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"render_shape": (12, 16, 16)}, "must be a multiple of shape"),
        ({"render_shape": (16, 16, 24)}, "must be a multiple of shape"),
        ({"window": (100, -100)}, "window needs its lower end first"),
        ({"sod_mm": 2000}, "the isocentre lies between source and detector"),
        ({"spacing": (0, 1, 1)}, r"spacing\.0: .*greater than"),
        ({"network": 3}, "network"),
    ],
)
def test_an_impossible_plan_is_refused_in_one_line(
    xray_plan, tmp_path, change, message
):
    (tmp_path / "plan.json").write_text(
        json.dumps({**xray_plan.model_dump(mode="json"), **change})
    )
    with pytest.raises(PlanError, match=message) as caught:
        read_volume_plan(tmp_path / "plan.json")
    assert "\n" not in str(caught.value)
