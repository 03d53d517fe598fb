"""One entry a network: names without heavy imports, options of the builders, settings
of recipes, and counts that the documentation quotes.
"""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trivox.config.presets import NETWORK_SETTINGS, PRESETS
from trivox.config.recipe import make_recipe
from trivox.errors import RecipeError
from trivox.networks import hybrid, rivals, unet
from trivox.networks.counting import count_parameters
from trivox.networks.registry import (
    NETWORKS,
    PATCH_NETWORKS,
    XRAY_NETWORKS,
    build_network,
    patch_family,
    xray_family,
)
from trivox.networks.xray2ct.model import HybridCNNViTUNet3D

DOCS = Path(__file__).parents[2] / "docs"
HEAVY = {"torch", "numpy", "scipy", "pydantic", "monai"}
GIVEN_BY_THE_PLAN = {
    *("self", "topology", "channels", "outputs", "size", "grid", "window"),
    *("water_per_mm", "prior", "prior_iterations", "consistency_steps"),
}
BUILDERS = {
    "hybrid": hybrid.hybrid_unet,
    "nnunet": unet.plain_unet,
    "resenc": unet.residual_encoder_unet,
    "nvidia": unet.plain_unet,
    "unet": unet.plain_unet,
    "segresnet": rivals.segresnet_ds,
    "swin": rivals.swin_unetr_v2,
    "mednext": rivals.mednext,
    "xray2ct": HybridCNNViTUNet3D.__init__,
}
MEASURED = {
    name: family.blueprint.measured
    for name, family in PATCH_NETWORKS.items()
    if family.blueprint.measured is not None
}


def need_monai_for(name):
    if name in PATCH_NETWORKS and PATCH_NETWORKS[name].blueprint.uniform:
        pytest.importorskip("monai")


# -- entries ---------------------------------------------------------------------------
def test_names_and_what_they_say_load_nothing_heavy():
    script = (
        "import json, sys; from trivox.networks.registry import NETWORKS; "
        "says = [family.says for family in NETWORKS.values()]; "
        "settings = [family.settings for family in NETWORKS.values()]; "
        "print(json.dumps(sorted(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {module.partition(".")[0] for module in json.loads(done.stdout)}
    assert not loaded & HEAVY


def test_each_entry_says_in_one_line_what_the_network_is():
    assert len(NETWORKS) == len(PATCH_NETWORKS) + len(XRAY_NETWORKS)
    for name, family in NETWORKS.items():
        assert family.name == name
        assert 10 < len(family.says) <= 120
        assert "\n" not in family.says
    assert len({family.says for family in NETWORKS.values()}) == len(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_options_of_an_entry_are_those_of_its_builder(name):
    family = NETWORKS[name]
    taken = set(inspect.signature(BUILDERS[family.kind]).parameters)
    if name in PATCH_NETWORKS:  # there the recipe says it
        taken -= {"deep_supervision"}
    assert taken - GIVEN_BY_THE_PLAN == set(family.options)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(RecipeError, match="nnunet-plain, resenc-m"):
        patch_family("vgg")
    with pytest.raises(RecipeError, match="'xray2ct-tiny' does not exist"):
        patch_family("xray2ct-tiny")
    with pytest.raises(RecipeError, match="xray2ct-tiny, xray2ct-small, xray2ct-base"):
        xray_family("unet-tiny")
    topology, _ = patch_family("unet-tiny").shape((16, 16, 16), (1.0, 1.0, 1.0))
    with pytest.raises(RecipeError, match="nnunet-plain, resenc-m"):
        build_network("vgg", topology, channels=1, outputs=2)


# -- settings --------------------------------------------------------------------------
def test_settings_are_of_kinds_that_exist():
    assert set(NETWORK_SETTINGS) <= {family.kind for family in NETWORKS.values()}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", PATCH_NETWORKS)
def test_a_recipe_takes_the_settings_of_its_network(name, preset):
    recipe = make_recipe(preset, {"network": name}).model_dump()
    asked = PATCH_NETWORKS[name].settings.get(preset, {})
    assert {key: recipe[key] for key in asked} == dict(asked)


# -- counts ----------------------------------------------------------------------------
@pytest.mark.parametrize("name", MEASURED)
def test_the_parameters_of_the_forecast_are_the_networks_to_1_percent(name):
    need_monai_for(name)
    counted = count_parameters(name, (64, 64, 64), channels=4)
    assert MEASURED[name].parameters == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize("name", ["unet-tiny", "hybrid-lite"])
def test_counting_takes_no_memory_and_counts_what_is_built(name):
    topology, _ = PATCH_NETWORKS[name].shape((16, 32, 32), (1.0, 1.0, 1.0))
    built = build_network(name, topology, channels=2, outputs=5)
    counted = count_parameters(name, (16, 32, 32), channels=2, outputs=5)
    assert counted == sum(weights.numel() for weights in built.parameters())
    assert torch.get_default_device().type == "cpu"


def quoted_parameters():
    """Name, options and millions of parameters in the table of costs."""
    text = (DOCS / "explanation" / "networks.md").read_text(encoding="utf-8")
    _, _, table = text.partition("| network | parameters (M) |")
    rows = re.findall(r"^\| ([\w-]+)( without attention)? \| ([\d.]+) \|", table, re.M)
    return [
        (name, {"attention": "none"} if without else {}, float(millions))
        for name, without, millions in rows
        if name in PATCH_NETWORKS and not millions.isdecimal()
    ]


def test_the_table_of_costs_has_all_networks_that_read_patches():
    assert {name for name, _, _ in quoted_parameters()} == set(PATCH_NETWORKS)


@pytest.mark.parametrize(("name", "options", "millions"), quoted_parameters())
def test_the_table_of_costs_quotes_the_parameters(name, options, millions):
    need_monai_for(name)
    counted = count_parameters(name, (64, 64, 64), channels=4, options=options)
    assert round(counted / 1e6, 1) == millions


def test_other_pages_quote_the_parameters():
    xrays = (DOCS / "explanation" / "x-rays-to-ct.md").read_text(encoding="utf-8")
    base, small, tiny = (
        count_parameters(f"xray2ct-{size}") / 1e6 for size in ("base", "small", "tiny")
    )
    assert (
        f"`xray2ct-base` has {base:.1f} million, `-small` {small:.1f}, `-tiny` {tiny:.1f}"
        in xrays
    )
    brains = DOCS / "how-to" / "segment-brain-tumours.md"
    nvidia = count_parameters("nvidia-unet", channels=5) / 1e6
    assert f"{nvidia:.1f} M parameters" in brains.read_text(encoding="utf-8")


def test_every_network_is_named_in_the_documentation():
    pages = ("networks.md", "x-rays-to-ct.md")
    texts = [
        (DOCS / "explanation" / page).read_text(encoding="utf-8") for page in pages
    ]
    named = set(re.findall(r"`(-?[\w-]+)`", "\n".join(texts)))
    named |= {f"xray2ct{size}" for size in named if size.startswith("-")}
    assert set(NETWORKS) <= named
