"""The demo: every preset goes its whole way on a CPU within a minute, scaled down."""

import json
from dataclasses import replace
from functools import partial

import pytest

from blank_figures import blank_figures
from trivox.config.presets import PRESETS
from trivox.config.recipe import make_recipe
from trivox.datasets.phantoms.brains import BrainPhantomSettings, write_brain_phantoms
from trivox.errors import RecipeError
from trivox.files import read_json
from trivox.learning.tracking import read_records
from trivox.networks.registry import NETWORKS
from trivox.tasks.console import Quiet
from trivox.verbs.demo import BRAINS, DEMOS, SCALED_DOWN, demo


def network_of(preset):
    return make_recipe(preset, SCALED_DOWN[preset]).network


def test_every_preset_has_a_demo():
    assert set(SCALED_DOWN) == set(PRESETS)


@pytest.mark.parametrize(
    "preset",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "large" else name
        for name in PRESETS
    ],
)
def test_every_preset_trains_and_reports(preset, tmp_path, tiny_data):
    if network_of(preset) not in NETWORKS:
        pytest.skip(f"{network_of(preset)} is not there yet")
    demo(
        "segmentation",
        out=tmp_path,
        minutes=0.005,
        data=tiny_data,
        device="cpu",
        console=Quiet(),
        preset=preset,
    )
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (recipe["preset"], recipe["network"]) == (preset, network_of(preset))
    for name, value in PRESETS[
        preset
    ].items():  # scaled down in size, true to the preset in everything else
        if name not in SCALED_DOWN[preset] and name not in ("epochs", "augmentation"):
            assert recipe[name] == value, name
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert records[-1]["step"] >= 1
    assert all(record["train_loss"] is not None for record in records)
    assert "phantom_005" in json.loads((tmp_path / "metrics.json").read_text())["cases"]
    assert (tmp_path / "run" / "report.html").exists()
    if preset == "fine_tuning":
        transfer = json.loads((tmp_path / "run" / "transfer.json").read_text())
        assert transfer["source"].startswith(str(tmp_path / "first"))
        assert transfer["share"] == 1.0


def test_a_demo_does_not_go_on_under_another_preset(tmp_path, tiny_data):
    for _ in ("new", "finished: again"):
        with blank_figures():
            demo(
                "segmentation",
                out=tmp_path,
                minutes=0.005,
                data=tiny_data,
                device="cpu",
                console=Quiet(),
            )
    with pytest.raises(RecipeError, match="demo of preset quick_test, not production"):
        demo(
            "segmentation",
            out=tmp_path,
            minutes=1,
            data=tiny_data,
            device="cpu",
            console=Quiet(),
            preset="production",
        )


def test_the_brats_demo_draws_brains_and_trains_regions_by_its_recipe(
    tmp_path, monkeypatch
):
    brains = BrainPhantomSettings(cases=7, test_cases=1, shape=(24, 26, 28))
    small = replace(
        DEMOS["brats"], write=partial(write_brain_phantoms, settings=brains)
    )
    monkeypatch.setitem(DEMOS, "brats", small)
    with blank_figures():
        demo(
            "brats",
            out=tmp_path,
            minutes=0.005,
            data=None,
            device="cpu",
            console=Quiet(),
        )
    assert read_json(tmp_path / "run" / "recipe.json")[
        "mask_channel"
    ]  # of the recipe brats
    assert read_json(tmp_path / "run" / "dataset.json")["layout"] == "brats"
    cases = read_json(tmp_path / "metrics.json")["cases"]
    assert cases.keys() == {"BraTS20_Training_007"}
    assert cases["BraTS20_Training_007"].keys() == {"WT", "TC", "ET"}
    with pytest.raises(
        RecipeError,
        match=r"holds a demo on .*brains, not .*phantoms; choose another --out",
    ):
        demo(
            "segmentation",
            out=tmp_path,
            minutes=1,
            data=None,
            device="cpu",
            console=Quiet(),
        )


def test_generated_brains_are_many_enough_and_small():
    assert (BRAINS.cases - BRAINS.test_cases, BRAINS.test_cases) == (24, 6)
    assert max(BRAINS.shape) <= 64


@pytest.mark.parametrize(
    ("what", "preset"), [("nonsense", "quick_test"), ("segmentation", "huge")]
)
def test_what_does_not_exist_is_named(tmp_path, what, preset):
    with pytest.raises(RecipeError, match="does not exist; choose one of"):
        demo(
            what,
            out=tmp_path,
            minutes=1,
            data=None,
            device="cpu",
            console=Quiet(),
            preset=preset,
        )


@pytest.mark.slow
def test_the_multitask_demo_draws_textures_and_answers_with_classes(
    tmp_path, monkeypatch
):
    from trivox.datasets.phantoms.abdomens import (
        PancreasPhantomSettings,
        write_pancreas_phantoms,
    )

    abdomens = PancreasPhantomSettings(cases=24, test_cases=3, shape=(16, 32, 32))
    small = replace(
        DEMOS["multitask"], write=partial(write_pancreas_phantoms, settings=abdomens)
    )
    monkeypatch.setitem(DEMOS, "multitask", small)
    demo(
        "multitask",
        out=tmp_path,
        minutes=0.01,
        data=None,
        device="cpu",
        console=Quiet(),
    )
    assert (
        read_json(tmp_path / "run" / "validation" / "metrics.json")["classification"][
            "classes"
        ][0]
        == "subtype0"
    )
    assert (tmp_path / "predictions" / "classes.csv").exists()
    assert "generated phantoms" in (tmp_path / "run" / "report.html").read_text("utf-8")
