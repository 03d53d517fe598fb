"""Plans are data: JSON there and back, and an edited plan that contradicts itself is
refused in one line.
"""

import json

import pytest
from pydantic import ValidationError

from planning.plans import planned
from trivox.errors import FormatError, PlanError
from trivox.files import write_json
from trivox.networks.registry import PATCH_NETWORKS
from trivox.planning.plan import ImagePlan, read_image_plan, read_plan


@pytest.fixture
def plan(examples):
    return planned(examples["hippocampus"], network="nnunet-plain")


@pytest.mark.parametrize("network", PATCH_NETWORKS)
@pytest.mark.parametrize("dimension", [2, 3])
def test_a_plan_survives_json(examples, tmp_path, network, dimension):
    if dimension == 2 and PATCH_NETWORKS[network].blueprint.uniform:
        with pytest.raises(PlanError, match="3-D only"):
            planned(examples["acdc"], network=network, dimension=2)
        return
    plan = planned(examples["acdc"], network=network, dimension=dimension)
    write_json(tmp_path / "plan.json", plan.model_dump(mode="json"))
    assert read_plan(tmp_path / "plan.json") == plan


def edited(plan, tmp_path, **changes):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**plan.model_dump(mode="json"), **changes}))
    return path


def test_a_plan_may_be_edited_by_hand(plan, tmp_path):
    changed = read_plan(edited(plan, tmp_path, batch_size=3, patch_size=[48, 48, 48]))
    assert (changed.batch_size, changed.patch_size) == (3, (48, 48, 48))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"patch_size": [40, 57, 40]},
            r"patch_size \(40, 57, 40\) must be a multiple of \(8, 8, 8\)",
        ),
        ({"patch_size": [40, 56]}, "patch_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"normalisations": []}, "one normalisation"),
        ({"spacing": "fine"}, "spacing"),
        ({"format_version": 99}, "plan format 99 is not 1"),
        ({"colour": "red"}, "colour"),
        ({"labels": {"labels": {}}}, "labels"),
    ],
)
def test_an_edited_plan_that_is_wrong_is_a_plan_error_in_one_line(
    plan, tmp_path, changes, named
):
    with pytest.raises(PlanError, match=named) as error:
        read_plan(edited(plan, tmp_path, **changes))
    assert "\n" not in str(error.value)
    assert "plan.json" in str(error.value)


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_json_that_is_no_plan_is_a_plan_error(tmp_path, content):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(PlanError, match="make the plan again"):
        read_plan(tmp_path / "plan.json")


def test_a_missing_plan_is_a_format_error(tmp_path):
    with pytest.raises(FormatError, match="file not found"):
        read_plan(tmp_path / "plan.json")


def test_a_plan_is_frozen(plan):
    with pytest.raises(ValidationError):
        plan.batch_size = 7


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"batch_size": 3}, True),
        ({"network": "resenc-m"}, True),
        ({"reasons": {}}, True),
        ({"spacing": (2.0, 1.0, 1.0)}, False),
        ({"axis_order": (1, 0, 2)}, False),
    ],
)
def test_only_what_changes_a_stored_case_changes_the_preparation_key(
    plan, change, same
):
    assert (
        plan.model_copy(update=change).preparation_key == plan.preparation_key
    ) == same


# -- images without labels -------------------------------------------------------------
@pytest.fixture
def image_plan(examples):
    fingerprint, dataset = examples["brats"]
    images = dataset.model_copy(update={"labels": None})
    return planned((fingerprint, images), network="unet-tiny")


def test_a_plan_of_images_survives_json(image_plan, tmp_path):
    write_json(tmp_path / "plan.json", image_plan.model_dump(mode="json"))
    assert read_image_plan(tmp_path / "plan.json") == image_plan
    assert "labels" not in image_plan.preparation_key
    with pytest.raises(PlanError, match="labels: Field required"):
        read_plan(tmp_path / "plan.json")


def test_labels_that_an_earlier_version_made_up_are_left_out(image_plan, tmp_path):
    unnamed = {
        "labels": {"unlabelled": 1},
        "regions": {},
        "background": "background",
        "ignore": None,
    }
    path = edited(image_plan, tmp_path, labels=unnamed, batch_dice=False)
    plan = read_image_plan(path)
    assert type(plan) is ImagePlan
    assert plan == image_plan


def test_a_wrong_plan_of_images_is_refused_in_one_line(image_plan, tmp_path):
    with pytest.raises(PlanError, match=r"plan\.json: colour: Extra inputs") as error:
        read_image_plan(edited(image_plan, tmp_path, colour="red"))
    assert "\n" not in str(error.value)
    with pytest.raises(PlanError, match="plan format 99 is not 1"):
        read_image_plan(edited(image_plan, tmp_path, format_version=99))
