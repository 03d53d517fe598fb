import json
from io import BytesIO

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import save_file

from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, phantom_case
from trivox.errors import BundleError, DataError, FormatError, RecipeError
from trivox.files import write_json
from trivox.inference.bundle import write_bundle
from trivox.inference.descriptions import LabelDescription
from trivox.networks.registry import build_network, patch_family
from trivox.planning.plan import Normalisation, read_plan
from trivox.planning.spacing import resampled_shape
from trivox.tasks.labels import explanation_figures
from trivox.tasks.labels.explanation import explain_case
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

ALL = ["feature_maps.png", "attention_rollout.png", "saliency.png", "explain.json"]


def bundle(folder, plan):
    """A bundle of random weights."""
    torch.manual_seed(0)
    network = build_network(
        plan.network,
        plan.topology,
        channels=len(plan.channels),
        outputs=plan.labels.output_channels,
        options=plan.network_options,
    )
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "random.safetensors")
    description = LabelDescription(task=plan.task, plan=plan)
    write_bundle(folder, description, {"0": folder / "random.safetensors"})
    return folder


@pytest.fixture(scope="module")
def plan(tiny_run):
    return read_plan(tiny_run / "plan.json")


def hybrid(plan, **changes):
    topology, patch = patch_family("hybrid-lite").shape((32, 32, 32), (1.0, 1.0, 1.0))
    content = {"network": "hybrid-lite", "topology": topology, "patch_size": patch}
    return plan.model_copy(update={**content, **changes})


@pytest.fixture(scope="module")
def hybrid_bundle(plan, tmp_path_factory):
    return bundle(tmp_path_factory.mktemp("explain") / "hybrid", hybrid(plan))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """One phantom of 14 x 22 x 18 voxels."""
    file = tmp_path_factory.mktemp("explain") / "scan.nii.gz"
    settings = PhantomSettings(cases=1, shape=(14, 22, 18), spacing=(2.0, 1.5, 1.5))
    write_volume(file, phantom_case(settings, 0)[0])
    return file


def check_folder(out, names):
    """The folder holds these files and no others; pictures are pictures, the numbers
    those that were returned.
    """
    assert sorted(file.name for file in out.iterdir()) == sorted(names)
    for name in names[:-1]:
        shown = imread(BytesIO((out / name).read_bytes()))
        assert shown.shape[1] == 1100
        assert shown[..., :3].std() > 0.05
    found = json.loads((out / "explain.json").read_text())
    assert found["files"] == names
    return found


def test_a_trained_unet_is_explained(tiny_run, tiny_data, tmp_path):
    found = explain_case(tiny_run, tiny_data, tmp_path, case="phantom_002")
    stored = check_folder(
        tmp_path, ["feature_maps.png", "saliency.png", "explain.json"]
    )
    assert stored["attention"] is None
    assert stored["notes"] == ["no attention_rollout.png: unet-tiny has no attention"]
    plan = read_plan(tiny_run / "plan.json")
    assert [stage["channels"] for stage in stored["stages"]] == list(
        plan.topology.features
    )
    assert stored["stages"][0]["size"] == list(plan.patch_size)
    assert all(
        0 <= stage["dead_channels"] <= 1 and stage["std"] > 0
        for stage in stored["stages"]
    )
    assert sum(found["saliency"]["share_by_channel"].values()) == pytest.approx(1)
    assert found["saliency"]["maximum"] > 0
    assert load_dataset(tiny_data).cases[2].name == stored["case"]


def test_a_hybrid_shows_its_attention_and_what_it_is_worth(
    hybrid_bundle, image, tmp_path
):
    found = explain_case(hybrid_bundle, image, tmp_path)
    check_folder(tmp_path, ALL)
    blocks = found["attention"]["blocks"]
    assert [(b["stage"], b["block"], b["kind"]) for b in blocks] == [
        (3, 0, "window"),
        (3, 1, "grid"),
        *((4, number, "global") for number in range(6)),
    ]
    for block in blocks:
        assert 0 < block["relative_entropy"] <= 1
        assert 0 < block["distance_mm"] < 100
    worth = found["attention"]["without_attention"]
    for kind in ("mean_foreground_logit", "mean_foreground_probability"):
        numbers = worth[kind]
        assert numbers["change"] == pytest.approx(numbers["without"] - numbers["with"])
        assert abs(numbers["change"]) > 1e-4
    assert 0 <= worth["dice"] < 1
    assert "not trained" in found["convention"]["without_attention"]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("swin", marks=pytest.mark.slow),
        pytest.param("deformable", marks=pytest.mark.slow),
        "none",
    ],
)
def test_other_kinds_of_attention(plan, image, tmp_path, kind):
    model = bundle(
        tmp_path / "model", hybrid(plan, network_options={"attention": kind})
    )
    found = explain_case(model, image, tmp_path / "out")
    check_folder(tmp_path / "out", ALL if kind != "none" else [ALL[0], *ALL[2:]])
    if kind != "none":
        assert {b["kind"] for b in found["attention"]["blocks"]} == {
            "swin": {"window", "shifted", "global"},
            "deformable": {"window", "deformable", "global"},
        }[kind]


def test_overlapping_regions(plan, image, tmp_path):
    scheme = LabelScheme(
        labels={"organ": 7, "lesion": 300},
        regions={"all": (7, 300), "core": (300,)},
        region_order=(7, 300),
    )
    found = explain_case(
        bundle(tmp_path / "model", plan.model_copy(update={"labels": scheme})),
        image,
        tmp_path / "out",
    )
    check_folder(tmp_path / "out", ["feature_maps.png", "saliency.png", "explain.json"])
    assert list(found["window"]["predicted_voxels"]) == ["all", "core"]
    assert found["point"]["label"] in ("all", "core")


def test_a_figure_of_an_earlier_model_does_not_stay(tiny_run, image, tmp_path):
    (tmp_path / "attention_rollout.png").write_bytes(b"of a hybrid")
    earlier = {"trivox": "0.1.0", "files": ["attention_rollout.png", "explain.json"]}
    write_json(tmp_path / "explain.json", earlier)
    explain_case(tiny_run, image, tmp_path)
    check_folder(tmp_path, ["feature_maps.png", "saliency.png", "explain.json"])


def test_two_dimensional_plans_and_thin_images(tiny_data, tiny_settings, tmp_path):
    run_request(
        RunRequest(
            tiny_data,
            tmp_path / "run",
            "quick_test",
            {**tiny_settings, "patch_size": [16, 16]},
        )
    )
    thin = Volume(
        np.random.default_rng(0).random((1, 1, 12, 40), dtype=np.float32),
        affine_from_spacing((5.0, 1.5, 1.5)),
    )
    write_volume(tmp_path / "thin.nii.gz", thin)
    for number, source in enumerate(
        (tmp_path / "thin.nii.gz", tiny_data / "images" / "phantom_001.nii.gz")
    ):
        found = explain_case(tmp_path / "run", source, tmp_path / str(number))
        assert found["window"]["size"][0] == 1
        check_folder(
            tmp_path / str(number), ["feature_maps.png", "saliency.png", "explain.json"]
        )


@pytest.fixture
def scenes(monkeypatch):
    """The scenes that heat figures were asked for; none is drawn."""
    seen = []
    monkeypatch.setattr(
        explanation_figures,
        "heat_figure",
        lambda scene, *_, **__: seen.append(scene) or b"",
    )
    return seen


def test_padding_is_not_shown_as_image(tiny_run, plan, image, tmp_path, scenes):
    explain_case(tiny_run, image, tmp_path)
    source = read_volume(image)
    depth = resampled_shape(source.shape, source.spacing, plan.spacing)[0]
    assert depth < plan.patch_size[0]
    missing = np.isnan(scenes[0].image)
    assert missing.all(axis=(1, 2)).sum() == plan.patch_size[0] - depth
    assert missing.any(axis=(1, 2)).sum() == plan.patch_size[0] - depth


def test_a_point_is_explained_alone_and_shown_where_it_is(plan, tmp_path, scenes):
    """In a file of any orientation, for a network of any axis order: the window's voxel
    has the value of the file's.
    """
    rng = np.random.default_rng(0)
    affine = np.array(
        [[0, 0, 1.5, 5], [-1.5, 0, 0, 9], [0, -2.0, 0, -3], [0, 0, 0, 1.0]]
    )
    scan = Volume(1 + rng.random((1, 20, 24, 18), dtype=np.float32), affine)
    write_volume(tmp_path / "scan.nii.gz", scan)
    turned = plan.model_copy(
        update={
            "axis_order": (2, 0, 1),
            "spacing": (1.5, 2.0, 1.5),
            "normalisations": (Normalisation(scheme="none"),),
            "patch_size": (16, 16, 16),
        }
    )
    model = bundle(tmp_path / "model", turned)
    found = explain_case(
        model, tmp_path / "scan.nii.gz", tmp_path / "out", point=(3, 21, 4)
    )
    (scene,) = scenes
    assert found["point"]["source_voxel"] == (3, 21, 4)
    assert (found["saliency"]["over"], found["saliency"]["voxels"]) == ("voxel", 1)
    assert scene.image[scene.point] == pytest.approx(scan.array[0, 3, 21, 4], rel=1e-5)
    assert scene.spacing == (2.0, 1.5, 1.5)
    assert found["window"]["point"] == scene.point
    # the file's z axis runs to the patient's right
    y, x = scene.point[1], scene.point[2]
    assert scene.image[scene.point[0], y, x - 1] == pytest.approx(
        scan.array[0, 2, 21, 4], rel=1e-5
    )


def test_without_a_point_the_middle_of_the_prediction_is_explained(
    tiny_run, image, tmp_path
):
    found = explain_case(tiny_run, image, tmp_path / "a")
    assert found["point"]["chosen"] == "the middle of the predicted foreground"
    assert found["point"]["label"] in found["window"]["predicted_voxels"]
    again = explain_case(
        tiny_run, image, tmp_path / "b", point=found["point"]["source_voxel"]
    )
    assert again["window"]["point"] == found["window"]["point"]


def test_layers_choose_the_rows_and_not_the_numbers(tiny_run, image, tmp_path):
    whole, part = (
        explain_case(tiny_run, image, tmp_path / name, layers=layers)
        for name, layers in (("a", None), ("b", [1]))
    )
    heights = [
        imread(tmp_path / name / "feature_maps.png").shape[0] for name in ("a", "b")
    ]
    assert heights[1] < heights[0] / 1.5
    assert len(whole["stages"]) == len(part["stages"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, DataError, "holds 6 cases; choose one with --case NAME"),
        (
            {"case": "phantom_9"},
            DataError,
            "has no case 'phantom_9'; its cases: phantom_000",
        ),
        (
            {"case": "phantom_001", "point": (99, 0, 0)},
            DataError,
            r"phantom_001: point \(99, 0, 0\)",
        ),
        (
            {"case": "phantom_001", "layers": [17]},
            RecipeError,
            "layer 17 does not exist; unet-tiny has stages 0 to",
        ),
    ],
)
def test_bad_requests_are_named(tiny_run, tiny_data, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        explain_case(tiny_run, tiny_data, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_no_image_and_no_model(tiny_run, image, tmp_path):
    with pytest.raises(FormatError, match=r"nothing\.nii\.gz: not found"):
        explain_case(tiny_run, tmp_path / "nothing.nii.gz", tmp_path / "out")
    with pytest.raises(BundleError, match="no model"):
        explain_case(tmp_path, image, tmp_path / "out")
