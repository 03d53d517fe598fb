"""nnU-Net model folders: every tensor finds its place, the plan says what nnU-Net's
said, nothing is run from a pickle.

`tests/golden/nnunet_names.json` lists names and shapes of nnU-Net's own networks;
`tests/oracle/test_nnunet_oracle.py` compares the outputs where its package is
installed.
"""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_folder import DATASET, NAMES, plans_of, state_of, write_folder
from trivox.errors import BundleError, DataError, LabelError, TrustError
from trivox.importing.nnunet import import_nnunet
from trivox.inference.bundle import read_bundle
from trivox.inference.members import WindowOptions
from trivox.inference.predictor import Predictor
from trivox.learning.checkpoints import load_weights
from trivox.volumes.volume import Volume, affine_from_spacing

KINDS = list(NAMES)


@pytest.fixture
def model(tmp_path):
    """Write a model folder and import it."""

    def call(kind="plain", *, folds=("0",), plans=None, trust=True, **changes):
        states = {fold: state_of(kind, seed) for seed, fold in enumerate(folds)}
        folder = write_folder(
            tmp_path / "model", states, plans=plans or plans_of(kind), **changes
        )
        return import_nnunet(folder, tmp_path / "bundle", trust=trust)

    return call


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_becomes_a_bundle_that_predicts(model, kind):
    bundle = model(kind, inference_allowed_mirroring_axes=None)
    predictor = Predictor.load(bundle.folder, device="cpu", precision="fp32")
    image = np.random.default_rng(0).normal(50, 30, (2, 12, 20, 18)).astype(np.float32)
    labels = predictor.predict_array(image, (1.5, 3.0, 1.0))
    assert labels.shape == (12, 20, 18)
    assert set(np.unique(labels)) <= {0, 1, 2}
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_the_checkpoint_is_in_the_bundle(model, kind):
    weights = load_weights(model(kind).weight_files()[0])
    state = state_of(kind)
    repeated = [
        name
        for name in state
        if "all_modules" in name or name.startswith("decoder.encoder.")
    ]
    for name in repeated:
        del state[name]
    assert len(weights) == len(state)
    assert sums(weights) == pytest.approx(sums(state))


def sums(state):
    return sorted(float(value.double().sum()) for value in state.values())


def test_the_plan_says_what_nnunets_plans_say(model):
    plan = model("residual").description.plan
    assert (plan.spacing, plan.patch_size, plan.axis_order) == (
        (3.0, 1.5, 1.0),
        (8, 16, 16),
        (1, 0, 2),
    )
    assert plan.batch_size == 3  # inherited
    assert (plan.batch_dice, plan.median_shape) == (True, (10, 20, 18))
    assert plan.channels == ("CT", "T1")
    ct, t1 = plan.normalisations
    assert (ct.scheme, ct.mean, ct.std, ct.low, ct.high) == ("ct", 50, 20, -40, 160)
    assert (t1.scheme, t1.masked) == ("z-score", True)
    topology = plan.topology
    assert topology.strides == ((1, 1, 1), (1, 2, 2), (2, 2, 2))
    assert topology.kernels == ((1, 3, 3), (3, 3, 3), (3, 3, 3))
    assert topology.encoder_blocks == (1, 2, 2)
    assert topology.decoder_blocks == (2, 1)  # finest first
    assert (topology.residual, plan.network) == (True, "resenc-m")


def test_slices_become_volumes_of_one_voxel(model):
    bundle = model("flat", inference_allowed_mirroring_axes=(0,))
    plan = bundle.description.plan
    assert (plan.dimension, plan.patch_size, plan.spacing) == (
        2,
        (1, 16, 16),
        (3.0, 1.5, 1.0),
    )
    assert plan.topology.kernels[0] == (1, 3, 3)
    assert plan.topology.divisor == (1, 4, 4)
    assert bundle.description.mirror_axes == ("y",)
    assert plan.grid.slices == "kept"


def test_all_folds_vote_and_fold_all_only_where_there_is_no_other(model, tmp_path):
    bundle = model(folds=("0", "3", "all"))
    assert [weights.fold for weights in bundle.description.weights] == ["0", "3"]
    states = {"all": state_of("plain")}
    write_folder(
        tmp_path / "single", states, plans=plans_of("plain"), name="checkpoint_best.pth"
    )
    single = import_nnunet(tmp_path / "single", tmp_path / "b2", trust=True)
    assert [weights.fold for weights in single.description.weights] == ["all"]
    assert single.description.training["checkpoints"] == {"all": "checkpoint_best.pth"}


@pytest.mark.parametrize("allowed", [(0, 1, 2), (0, 1), (2,), None])
def test_copies_are_mirrored_along_no_axis_that_nnunet_forbids(model, allowed):
    description = model(inference_allowed_mirroring_axes=allowed).description
    axes = tuple("zyx"[axis] for axis in allowed or ())
    assert description.mirror_axes == axes
    for mirror in (None, True):
        assert WindowOptions(mirror=mirror).axes_of(description) == (allowed or ())
    assert WindowOptions(mirror=False).axes_of(description) == ()


def test_regions_and_ignored_voxels_keep_their_meaning(model):
    dataset = {
        **DATASET,
        "labels": {
            "background": 0,
            "whole": [1, 2, 3],
            "core": [2, 3],
            "enhancing": 3,
            "ignore": 4,
        },
        "regions_class_order": [1, 2, 3],
    }
    labels = model(dataset=dataset).description.plan.labels
    assert labels.regions == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert (labels.region_order, labels.ignore, labels.output_channels) == (
        (1, 2, 3),
        4,
        3,
    )


def test_lists_of_one_value_are_labels_as_in_nnunet(model):
    dataset = {
        **DATASET,
        "labels": {"background": 0, "organ": [1], "lesion": [2]},
        "regions_class_order": [1, 2],
    }
    assert model(dataset=dataset).description.plan.labels.exclusive


def test_plans_from_before_nnunet_2_5_are_understood(model):
    plans = plans_of("plain")
    new = plans["configurations"]["base"].pop("architecture")["arch_kwargs"]
    plans["configurations"]["base"] |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": new["n_conv_per_stage"],
        "conv_kernel_sizes": new["kernel_sizes"],
        "n_conv_per_stage_decoder": new["n_conv_per_stage_decoder"],
        "pool_op_kernel_sizes": new["strides"],
        "num_pool_per_axis": [1, 2, 2],
    }
    assert model(plans=plans).description.plan.topology.features == (4, 8, 8)


def test_the_checkpoint_that_is_taken_is_said_and_can_be_chosen(tmp_path):
    plans = plans_of("plain")
    folder = tmp_path / "model"
    for seed, name in enumerate(("final", "latest")):
        for fold in ("0", "1") if name == "latest" else ("0",):
            state = {fold: state_of("plain", seed)}
            file = f"checkpoint_{name}.pth"
            write_folder(folder, state, plans=plans, name=file)
    both = import_nnunet(folder, tmp_path / "both", trust=True)
    assert both.description.training["checkpoints"] == {
        "0": "checkpoint_final.pth",
        "1": "checkpoint_latest.pth",
    }
    assert both.description.training["notes"][0] == (
        "fold 1: has no checkpoint_final.pth; checkpoint_latest.pth is taken"
    )
    final = import_nnunet(folder, tmp_path / "a", trust=True, checkpoint="final")
    assert set(final.description.training["checkpoints"]) == {"0"}
    latest = import_nnunet(folder, tmp_path / "b", trust=True, checkpoint="latest")
    assert set(latest.description.training["checkpoints"]) == {"0", "1"}
    with pytest.raises(
        BundleError, match=r"no fold_X/checkpoint_best.*there is checkpoint_final"
    ):
        import_nnunet(folder, tmp_path / "c", trust=True, checkpoint="best")


def test_numpys_numbers_and_arrays_may_stand_in_a_checkpoint(model):
    kinds = ("float64", "float32", "float16", "int64", "int16", "uint8", "bool")
    arrays = {kind: np.arange(6).reshape(2, 3).astype(kind) for kind in kinds}
    state = {name: value.numpy() for name, value in state_of("plain").items()}
    bundle = model(logging=arrays, network_weights=state)
    assert len(bundle.weight_files()) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("says", ["plans", "trainer"])
def test_batch_norm_is_read_from_plans_and_weights(kind, says, tmp_path):
    plans = plans_of(kind)
    network = plans["configurations"]["base"]["architecture"]["arch_kwargs"]
    dimension = len(network["strides"][0])
    if says == "plans":
        network["norm_op"] = f"torch.nn.modules.batchnorm.BatchNorm{dimension}d"
    state = state_of(kind)
    for name in list(state):
        if name.endswith("norm.weight"):
            stem = name.removesuffix("weight")
            state[f"{stem}running_mean"] = torch.randn(len(state[name]))
            state[f"{stem}running_var"] = torch.rand(len(state[name])) + 0.5
            state[f"{stem}num_batches_tracked"] = torch.tensor(7)
    folder = write_folder(tmp_path / "model", {"0": state}, plans=plans)
    bundle = import_nnunet(folder, tmp_path / "bundle", trust=True)
    assert bundle.description.plan.network_options == {"norm": "batch"}
    predictor = Predictor.load(bundle.folder, device="cpu", precision="fp32")
    network = predictor.members[0].windows.engines[0].network
    norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm3d)]
    assert norms
    assert all(norm.running_var.min() >= 0.5 for norm in norms)


def test_dropout_of_training_changes_nothing(model):
    plans = plans_of("plain")
    network = plans["configurations"]["base"]["architecture"]["arch_kwargs"]
    network["dropout_op"] = "torch.nn.modules.dropout.Dropout3d"
    network["dropout_op_kwargs"] = {"p": 0.2, "inplace": True}
    options = model(plans=plans).description.plan.network_options
    assert options == {"norm": "torch-instance"}


@pytest.mark.parametrize("planner", ["M", "L", "XL"])
def test_presets_of_the_residual_encoder_keep_their_names(model, planner):
    plans = plans_of("residual") | {"plans_name": f"nnUNetResEncUNet{planner}Plans"}
    plan = model("residual", plans=plans).description.plan
    assert plan.network == f"resenc-{planner.lower()}"


def test_channels_may_stand_under_modality_as_in_nnunets_first_version(model):
    dataset = {**DATASET, "modality": DATASET["channel_names"]}
    del dataset["channel_names"]
    assert model(dataset=dataset).description.plan.channels == ("CT", "T1")


READERS = {
    "SimpleITKIO": "stored",
    "NibabelIO": "stored",
    "Tiff3DIO": "stored",
    "NaturalImage2DIO": "stored",
    "SimpleITKIOWithReorient": "canonical",
    "NibabelIOWithReorient": "canonical",
}


@pytest.mark.parametrize("reader", READERS)
def test_voxels_are_read_as_stored_unless_the_reader_turns_them(model, reader):
    plans = plans_of("plain") | {"image_reader_writer": reader}
    bundle = model(plans=plans)
    description = bundle.description
    axes = READERS[reader]
    assert description.plan.grid.axes == axes
    notes = " ".join(description.training["notes"])
    assert ("as they are stored" in notes) == (axes == "stored")
    predictor = Predictor.load(bundle.folder, device="cpu", precision="fp32")
    array = np.random.default_rng(1).normal(50, 30, (2, 12, 14, 10)).astype(np.float32)
    affine = affine_from_spacing((1.5, 3.0, 1.0))
    turned = affine @ np.diag([-1.0, -1.0, 1.0, 1.0])
    first = predictor.predict_volume(Volume(array, affine)).labels.array
    second = predictor.predict_volume(Volume(array, turned)).labels.array
    assert np.array_equal(first, second) == (axes == "stored")


def test_compiled_and_parallel_networks_carry_prefixes(tmp_path):
    state = {f"_orig_mod.{name}": value for name, value in state_of("plain").items()}
    folder = write_folder(tmp_path / "model", {"0": state}, plans=plans_of("plain"))
    assert import_nnunet(folder, tmp_path / "bundle", trust=True).weight_files()


def test_the_label_map_is_the_same_whether_or_not_doubt_is_asked_for(model):
    predictor = Predictor.load(model().folder, device="cpu")
    assert (
        predictor.settings["precision"] == "fp32"
    )  # as nnU-Net, also with bf16 at hand
    array = np.random.default_rng(1).normal(50, 30, (2, 12, 14, 10)).astype(np.float32)
    volume = Volume(array, affine_from_spacing((1.5, 3.0, 1.0)))
    usual = predictor.predict_volume(volume).labels.array
    asked = predictor.predict_volume(
        volume, probabilities=True, uncertainty=["entropy"]
    ).labels.array
    np.testing.assert_array_equal(usual, asked)


# -- trust -----------------------------------------------------------------------------
def test_without_trust_no_checkpoint_is_opened(model, monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(
        TrustError, match=r"fold_0.checkpoint_final\.pth: is a Python pickle.*--trust"
    ):
        model(trust=False)
    assert not (tmp_path / "bundle").exists()


class Payload:
    """What a malicious checkpoint does: it calls something when it is read."""

    def __reduce__(self):
        return (Path.touch, (Path("owned"),))


def test_a_checkpoint_that_carries_code_is_refused_and_the_code_not_run(
    model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        BundleError, match=r"holds a Python object \(\w+\), which is not read"
    ):
        model(logging=Payload())
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "bundle").exists()


# -- what cannot be imported -----------------------------------------------------------
def changed(path, value):
    plans = deepcopy(plans_of("plain"))
    *parents, last = path
    place = plans
    for key in parents:
        place = place[key]
    place[last] = value
    return plans


BASE = ("configurations", "base")
ARCHITECTURE = (*BASE, "architecture")
WRONG = {
    "other network": (
        (*ARCHITECTURE, "network_class_name"),
        "x.Primus",
        "network 'Primus' of nnUNetTrainer is not supported",
    ),
    "other norm": (
        (*ARCHITECTURE, "arch_kwargs", "norm_op"),
        "torch.nn.LayerNorm",
        "norm_op",
    ),
    "norm with statistics": (
        (*ARCHITECTURE, "arch_kwargs", "norm_op_kwargs"),
        {"eps": 1e-5, "affine": True, "track_running_stats": True},
        "no statistics of their own",
    ),
    "other reader": (
        ("image_reader_writer",),
        "MyReader",
        "image_reader_writer 'MyReader' is not supported; known: SimpleITKIO",
    ),
    "other preprocessor": (
        (*BASE, "preprocessor_name"),
        "MyPreprocessor",
        "preprocessor_name 'MyPreprocessor' is not supported",
    ),
    "other label manager": (("label_manager",), "Mine", "label_manager"),
    **{
        f"other function {key}": (
            (*BASE, key),
            "resample_my_way",
            f"{key} 'resample_my_way' is not supported; known: resample_data_or",
        )
        for key in ("resampling_fn_data", "resampling_fn_probabilities")
    },
    "other argument": (
        (*BASE, "resampling_fn_data_kwargs"),
        {"order": 3, "padding": 1},
        "resampling_fn_data_kwargs: padding",
    ),
    "order 7": (
        (*BASE, "resampling_fn_data_kwargs"),
        {"order": 7},
        "resampling_fn_data_kwargs: order",
    ),
    "labels' function": (
        (*BASE, "resampling_fn_data_kwargs"),
        {"order": 1, "is_seg": True},
        "meant for label maps",
    ),
    "cubic answers": (
        (*BASE, "resampling_fn_probabilities_kwargs"),
        {"order": 3},
        "order 3 with order_z 0 is not supported",
    ),
    "answers left behind": (
        (*BASE, "resampling_fn_probabilities"),
        "no_resampling_hack",
        "leaves answers on another grid",
    ),
    "no bias": ((*ARCHITECTURE, "arch_kwargs", "conv_bias"), False, "conv_bias"),
    "unknown argument": ((*ARCHITECTURE, "arch_kwargs", "squeeze"), True, "squeeze"),
    "other slope": (
        (*ARCHITECTURE, "arch_kwargs", "nonlin_kwargs"),
        {"negative_slope": 0.2},
        "slope 0.01",
    ),
    "own normalisation": (
        (*BASE, "normalization_schemes"),
        ["Mine", "Mine"],
        "normalisation 'Mine' is not supported",
    ),
    "no intensities": (
        ("foreground_intensity_properties_per_channel",),
        {},
        "no intensities of channel 0",
    ),
    "no such configuration": (
        ("configurations",),
        {"2d": {}},
        "no configuration 'small'",
    ),
    "heir of itself": ((*BASE, "inherits_from"), "small", "no configuration 'small'"),
    "missing key": ((*BASE, "spacing"), None, "spacing"),
    "wrong patch": ((*BASE, "patch_size"), [9, 9, 9], "multiple of"),
    "wrong stages": (
        (*ARCHITECTURE, "arch_kwargs", "strides"),
        [[1, 1, 1]],
        "one entry a stage",
    ),
    "strided stem": (
        (*ARCHITECTURE, "arch_kwargs", "strides"),
        [[2, 2, 2], [1, 2, 2], [2, 2, 2]],
        "full resolution",
    ),
    "other widths": (
        (*ARCHITECTURE, "arch_kwargs", "features_per_stage"),
        [4, 8, 16],
        "different networks",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_imported_is_said_in_one_line(model, what, tmp_path):
    path, value, message = WRONG[what]
    with pytest.raises(BundleError, match=message) as caught:
        model(plans=changed(path, value))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_a_network_that_its_trainer_changed_is_refused(tmp_path):
    state = {**state_of("plain"), "encoder.attention.weight": torch.zeros(4)}
    folder = write_folder(
        tmp_path / "m",
        {"0": state},
        plans=plans_of("plain"),
        trainer_name="MyAttentionTrainer",
    )
    with pytest.raises(
        BundleError, match=r"attention.weight has no place.*MyAttentionTrainer"
    ):
        import_nnunet(folder, tmp_path / "bundle", trust=True)


def test_incomplete_and_damaged_folders_are_named(model, tmp_path):
    with pytest.raises(BundleError, match=r"plans\.json: not found; give the folder"):
        import_nnunet(tmp_path / "nowhere", tmp_path / "bundle", trust=True)
    model()
    with pytest.raises(DataError, match="is not empty"):
        model()
    file = tmp_path / "model" / "fold_0" / "checkpoint_final.pth"
    for content in (b"", b"PK\x03\x04 no zip", file.read_bytes()[:3000]):
        file.write_bytes(content)
        with pytest.raises(
            BundleError, match=r"checkpoint_final\.pth: .* copy it again"
        ):
            import_nnunet(tmp_path / "model", tmp_path / "b2", trust=True)
    torch.save({"state_dict": {}}, file)
    with pytest.raises(
        BundleError, match="has no 'network_weights'; only checkpoints of nnU-Net v2"
    ):
        import_nnunet(tmp_path / "model", tmp_path / "b2", trust=True)
    torch.save([1, 2], file)
    with pytest.raises(BundleError, match=r"checkpoint_final\.pth"):
        import_nnunet(tmp_path / "model", tmp_path / "b2", trust=True)
    file.unlink()
    with pytest.raises(BundleError, match="no fold_X/checkpoint_final"):
        import_nnunet(tmp_path / "model", tmp_path / "b2", trust=True)


def test_labels_that_contradict_each_other_are_named(model):
    with pytest.raises(LabelError, match=r"dataset\.json"):
        model(dataset={**DATASET, "labels": {"background": 0}})


def test_an_imported_bundle_is_an_ordinary_one(model):
    bundle = model()
    assert read_bundle(bundle.folder).description == bundle.description
    assert not list(bundle.folder.rglob("*.pth"))
