"""Bundles: written, read, damaged, taken for what they are not."""

import json
import pickle
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivox.config.recipe import make_recipe
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, phantom_case
from trivox.errors import BundleError, DataError
from trivox.exporting.half import write_half
from trivox.files import file_hash
from trivox.inference.bundle import (
    read_bundle,
    read_volume_bundle,
    write_bundle,
)
from trivox.inference.descriptions import AXES, LabelDescription
from trivox.inference.doubt.conformal import VolumeBand, VolumeIntervals
from trivox.inference.predictor import Predictor
from trivox.inference.rules.postprocess import Postprocessing
from trivox.learning.runtime import make_runtime
from trivox.planning.plan import read_plan
from trivox.tasks.choice import task_of
from untrained_models import plan_of

IMAGE, _ = phantom_case(
    PhantomSettings(cases=1, shape=(14, 18, 15), spacing=(2.0, 1.5, 1.5)), 0
)


@pytest.fixture(scope="module")
def trained(tiny_run):
    return Predictor.load(tiny_run, device="cpu", precision="fp32")


@pytest.fixture
def bundle(tiny_run, tmp_path):
    return shutil.copytree(tiny_run / "bundle", tmp_path / "bundle")


def alter(bundle, **changes):
    file = bundle / "bundle.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return bundle


def test_run_bundle_folder_and_bundle_file_are_the_same_model(tiny_run, trained):
    for path in (
        tiny_run / "bundle",
        str(tiny_run / "bundle"),
        tiny_run / "bundle" / "bundle.json",
    ):
        other = Predictor.load(path, device="cpu", precision="fp32")
        assert other.identity == trained.identity
        assert np.array_equal(
            other.predict_volume(IMAGE).labels.array,
            trained.predict_volume(IMAGE).labels.array,
        )


def test_models_of_different_labels_cannot_vote(tiny_run, bundle):
    content = json.loads((bundle / "bundle.json").read_text())
    content["plan"]["labels"]["labels"] = {"organ": 1, "lesion": 2}
    alter(bundle, plan=content["plan"])
    with pytest.raises(BundleError, match="cannot vote"):
        Predictor.load([tiny_run, bundle])


# -- damaged models --------------------------------------------------------------------
def test_altered_weights_are_refused(bundle):
    file = bundle / "weights-fold0.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=r"weights-fold0\.safetensors: checksum"):
        Predictor.load(bundle)


def test_missing_weights_are_named(bundle):
    (bundle / "weights-fold0.safetensors").unlink()
    with pytest.raises(
        BundleError, match=r"weights-fold0\.safetensors: weights are missing"
    ):
        Predictor.load(bundle)


def test_a_pickle_in_place_of_weights_is_never_opened(bundle, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    file = bundle / "weights-fold0.safetensors"
    file.write_bytes(pickle.dumps(Evil()))
    entry = json.loads((bundle / "bundle.json").read_text())["weights"][0]
    alter(bundle, weights=[{**entry, "sha256": file_hash(file)}])
    with pytest.raises(BundleError, match="not readable as safetensors"):
        Predictor.load(bundle)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": 99},
        {"overlap": 1.5},
        {"extra": 1},
        {"weights": []},
        {"weights": [{"file": "../../etc/passwd", "fold": "0", "sha256": "x"}]},
        {"weights": [{"file": "/etc/passwd.safetensors", "fold": "0", "sha256": "x"}]},
        {"plan": None},
    ],
)
def test_an_altered_description_is_refused(bundle, change):
    with pytest.raises(BundleError, match=r"bundle\.json"):
        Predictor.load(alter(bundle, **change))


def test_weights_of_another_network_are_refused(bundle):
    content = json.loads((bundle / "bundle.json").read_text())
    content["plan"]["topology"]["features"][0] = 32
    with pytest.raises(BundleError, match="do not fit the plan"):
        Predictor.load(alter(bundle, plan=content["plan"]))


@pytest.mark.parametrize("content", ["{", "[]", "7", ""])
def test_a_description_that_is_no_object_is_refused(bundle, content):
    (bundle / "bundle.json").write_text(content)
    with pytest.raises(
        DataError if content in ("{", "") else BundleError, match=r"bundle\.json"
    ):
        Predictor.load(bundle)


def test_folders_without_a_model_say_so(tmp_path):
    with pytest.raises(BundleError, match="no model"):
        read_bundle(tmp_path)
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(BundleError, match="--resume"):
        read_bundle(tmp_path)
    with pytest.raises(BundleError, match="no model given"):
        Predictor.load([])


def test_written_bundles_read_back(tiny_run, tmp_path):
    weights = tiny_run / "bundle" / "weights-fold0.safetensors"
    plan = read_plan(tiny_run / "plan.json")
    description = LabelDescription(
        task=plan.task,
        plan=plan,
        overlap=0.25,
        mirror_axes=("x",),
        postprocessing=Postprocessing(largest_of=(2,)),
        training={"epochs": 2},
    )
    written = write_bundle(tmp_path / "b", description, {"0": weights, "3": weights})
    found = read_bundle(tmp_path / "b")
    assert found.description == written.description
    assert "Research use only" in found.description.notice
    assert [path.name for path in found.weight_files()] == [
        "weights-fold0.safetensors",
        "weights-fold3.safetensors",
    ]
    assert len(Predictor.load(tmp_path / "b").members[0].windows.engines) == 2


def test_a_predictor_of_loose_weights_is_that_of_their_bundle(tiny_run, trained):
    (description,) = trained.descriptions
    files = read_bundle(tiny_run).weight_files()
    loose = Predictor.of(description, files, make_runtime("cpu", "fp32"))
    assert loose.identity == trained.identity
    assert loose.settings == trained.settings
    assert np.array_equal(
        loose.predict_volume(IMAGE).labels.array,
        trained.predict_volume(IMAGE).labels.array,
    )


def test_what_is_known_of_volumes_lies_in_the_bundle_and_goes_where_it_goes(
    tiny_run, tmp_path
):
    bundle = read_bundle(tiny_run)
    band = VolumeBand(low=-0.2, high=0.1, cases=19)
    intervals = VolumeIntervals(offset_ml=0.01, targets={"organ": band, "lesion": None})
    knows = bundle.description.model_copy(update={"volumes": intervals})
    write_bundle(tmp_path / "b", knows, {"0": bundle.weight_files()[0]})
    again = read_bundle(tmp_path / "b")
    assert again.description.volumes == intervals
    assert write_half(tmp_path / "b", tmp_path / "half").volumes == intervals
    assert read_bundle(tmp_path / "half").description.volumes == intervals
    volumes = Predictor.load(tmp_path / "b").predict_volume(IMAGE).trust["volumes"]
    organ = volumes["organ"]
    bounds = intervals.interval("organ", organ["volume_ml"])
    assert (organ["volume_ml_low"], organ["volume_ml_high"]) == bounds
    # Earlier versions read bundles that know nothing of it.
    assert "volumes" not in bundle.description.model_dump(mode="json")


def test_copies_are_mirrored_only_along_axes_that_training_mirrored(tiny_run, tmp_path):
    recipe = make_recipe("quick_test")
    bundle = read_bundle(tiny_run)
    assert bundle.description.may_mirror == recipe.augmentation.mirror_axes == ("x",)
    windows = Predictor.load(tiny_run, mirror=True).members[0].windows
    assert windows.mirror_axes == (AXES.index("x"),)
    never = bundle.description.model_copy(update={"may_mirror": ()})
    write_bundle(tmp_path / "b", never, {"0": bundle.weight_files()[0]})
    member = Predictor.load(tmp_path / "b", mirror=True).members[0]
    assert member.windows.mirror_axes == ()


@given(axes=st.sets(st.sampled_from(AXES)).map(tuple), known=st.booleans())
def test_older_bundles_may_be_mirrored_as_they_were(axes, known):
    plan = plan_of()
    content = {"task": plan.task, "plan": plan, "mirror_axes": axes}
    if known:
        content["may_mirror"] = AXES
    found = LabelDescription.model_validate(content)
    assert found.mirror_axes == axes
    assert found.may_mirror == (AXES if known or not axes else axes)


@pytest.mark.parametrize("kind", ["labels", "volumes"])
def test_a_bundle_says_what_those_of_0_1_0_said(tiny_run, xray_run, kind):
    """Whoever reads them with that version finds every field, and no other."""
    both = {
        "format_version",
        "trivox_version",
        "notice",
        "task",
        "plan",
        "training",
        "weights",
    }
    labels = {
        "overlap",
        "mirror_axes",
        "postprocessing",
        "temperature",
        "abstention",
        "likeness",
        "classification",
        "may_mirror",  # later; without it copies would be mirrored along all axes
    }
    run = tiny_run if kind == "labels" else xray_run
    content = json.loads((run / "bundle" / "bundle.json").read_text())
    assert set(content) == both | (labels if kind == "labels" else {"views"})
    assert content["notice"].startswith("Research use only, not a medical device.")
    assert task_of(run).name == content["task"] == content["plan"]["task"]
    read = read_bundle if kind == "labels" else read_volume_bundle
    again = read(run).description
    assert again.model_dump(mode="json") == content
