"""Every engine computes what torch computes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from trivox import caches, optional
from trivox.errors import ResourceError, UsageError
from trivox.inference import members
from trivox.inference.bundle import read_bundle
from trivox.inference.engines import choice, kept, runtimes
from trivox.inference.engines.choice import MOST_APART, Trial, fastest_engine, tried
from trivox.inference.engines.graph import UnexportableError, graph_of
from trivox.inference.engines.kept import Source
from trivox.inference.engines.making import made_engine
from trivox.inference.predictor import Predictor
from trivox.learning import runtime
from trivox.learning.runtime import Runtime
from trivox.networks.registry import build_network, patch_family
from untrained_models import plan_of, write_scans, write_untrained

pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
pytest.importorskip("openvino", reason="needs the extra 'openvino'")

CPU = Runtime(torch.device("cpu"), "fp32")
ENGINES = ("onnx", "openvino")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of the tests' own; graphs are made once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "trivox"


@pytest.fixture(scope="module")
def bundle(cache, tmp_path_factory):
    return write_untrained(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def source(cache, tmp_path_factory):
    torch.manual_seed(0)
    plan = plan_of()
    network = build_network(
        plan.network, plan.topology, channels=1, outputs=4, deep_supervision=False
    ).eval()
    weights = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    weights.write_bytes(b"named by these bytes")
    return Source(network, weights, plan)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("count", [1, 3])
def test_an_engine_gives_torchs_logits(source, name, count):
    windows = torch.randn(count, *source.shape[1:])
    with torch.inference_mode():
        expected = source.network(windows)
        logits = made_engine(name, source, CPU).logits(windows)
    assert torch.allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("sums", ["single", "half"])
def test_of_many_classes_an_engine_gives_features_and_the_last_layer(
    source, tmp_path, name, sums
):
    plan = source.plan
    grid = plan.grid.model_copy(update={"sums": sums})
    torch.manual_seed(0)
    network = build_network(
        plan.network, plan.topology, channels=1, outputs=12, deep_supervision=False
    ).eval()
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"others")
    scheme = plan.model_copy(update={"grid": grid})
    many = replace(source, network=network, weights=weights, plan=scheme)
    engine = made_engine(name, many, CPU)
    windows = torch.randn(2, *source.shape[1:])
    with torch.inference_mode():
        expected = network(windows)
        assert torch.allclose(engine.logits(windows), expected, atol=1e-4)
        parts = engine.split()
        assert (parts is None) == (sums == "half" and name != "torch")
        if parts is not None:
            body, layer = parts
            features = body.logits(windows)
            assert features.shape[1] == layer.in_channels < 12
            assert torch.allclose(layer(features), expected, atol=1e-4)
    assert {trial.engine for trial in tried(many, CPU, precision="fp32")} >= {name}


@pytest.mark.parametrize("name", ENGINES)
def test_predictions_do_not_depend_on_the_engine(bundle, tmp_path, name):
    (case,) = write_scans(tmp_path, (20, 25, 18))
    by_torch = Predictor.load(bundle, device="cpu", precision="fp32")
    other = Predictor.load(bundle, device="cpu", precision="fp32", engine=name)
    expected = by_torch.predict_case(case, uncertainty=("entropy",))
    prediction = other.predict_case(case, uncertainty=("entropy",))
    same = expected.labels.array == prediction.labels.array
    assert same.mean() >= 0.999
    doubt = [each.uncertainty["entropy"].array for each in (expected, prediction)]
    np.testing.assert_allclose(*doubt, atol=1e-3)
    assert other.settings["engine"] == name
    assert "engine" not in by_torch.settings


@pytest.mark.slow
def test_the_hybrid_with_moved_points_has_a_graph():
    family = patch_family("hybrid-lite")
    topology, patch = family.shape((16, 16, 24), (1.0, 1.0, 1.0))
    torch.manual_seed(0)
    network = build_network(
        family.name, topology, channels=1, outputs=2, deep_supervision=False
    ).eval()
    for name, parameter in network.named_parameters():
        if "offsets" in name:
            parameter.data += 0.05 * torch.randn_like(parameter)
    engine = runtimes.onnx_engine(
        graph_of(network, channels=1, patch=patch), precision="fp32"
    )
    windows = torch.randn(3, 1, *patch)
    with torch.inference_mode():
        expected = network(windows)
    assert torch.allclose(engine.logits(windows), expected, atol=1e-3)


def test_a_network_without_graph_is_refused_by_what_it_lacks():
    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x[:, 0, 0])

    with pytest.raises(UnexportableError, match=r"Odd.*linalg_eig"):
        graph_of(Odd().eval(), channels=1, patch=(4, 4, 4))


def test_a_damaged_graph_is_made_again(source, cache):
    made_engine("onnx", source, CPU)
    (file,) = cache.glob(f"graphs/{source.key()}.onnx")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    made_engine("onnx", source, CPU)
    assert len(file.read_bytes()) == len(whole)


def test_a_cache_that_cannot_be_written_is_no_problem(source, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(kept, "cache_folder", lambda what: tmp_path / "file" / what)
    monkeypatch.setattr(kept, "graph_of", lambda *args, **more: b"graph")
    assert source.graph() == b"graph"


def test_the_oldest_graphs_leave_the_cache(source, monkeypatch, tmp_path):
    monkeypatch.setattr(kept, "cache_folder", lambda what: tmp_path)
    monkeypatch.setattr(kept, "graph_of", lambda *args, **more: b"graph")
    for number in range(kept.MOST_KEPT + 3):
        (tmp_path / f"{number}.onnx").write_bytes(b"old")
    source.graph()
    left = list(tmp_path.glob("*.onnx"))
    assert len(left) == kept.MOST_KEPT
    assert tmp_path / f"{source.key()}.onnx" in left


def test_auto_takes_the_fastest_that_agrees(source, monkeypatch, tmp_path):
    monkeypatch.setattr(choice, "cache_folder", lambda what: tmp_path)
    trials = [
        Trial("torch", "fp32", 3.0, 0.0),
        Trial("openvino", "bf16", 1.0, 2 * MOST_APART["bf16"]),
        Trial("onnx", "fp32", 2.0, 1e-6),
    ]
    monkeypatch.setattr(choice, "tried", lambda *args, **more: trials)
    assert fastest_engine(source, CPU, precision="auto") == "onnx"
    monkeypatch.setattr(choice, "tried", lambda *args, **more: 1 / 0)  # measured once
    assert fastest_engine(source, CPU, precision="auto") == "onnx"


def test_every_engine_is_tried_and_agrees(source):
    trials = tried(source, CPU, precision="fp32")
    assert [each.engine for each in trials] == ["torch", "openvino", "onnx"]
    assert all(each.agrees and each.seconds > 0 for each in trials)


def test_auto_without_other_engines_is_torch(source, monkeypatch):
    monkeypatch.setattr(choice, "is_installed", lambda name: False)
    assert fastest_engine(source, CPU, precision="auto") == "torch"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"engine": "openvino", "device": "cuda"}, "computes on the CPU"),
        ({"engine": "onnx", "precision": "bf16"}, "fp32 on a CPU"),
        ({"engine": "onnx", "mc_samples": 2}, "no dropout"),
    ],
)
def test_what_an_engine_does_not_have_is_refused(bundle, options, reason):
    with pytest.raises(UsageError, match=reason):
        Predictor.load(bundle, **options)


def test_a_missing_runtime_is_named_with_its_extra(source, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(optional.importlib, "import_module", missing)
    with pytest.raises(ResourceError, match=r"pip install 'trivox\[openvino\]'"):
        made_engine("openvino", source, CPU)


def test_where_no_rounding_is_small_torch_computes(source, monkeypatch, tmp_path):
    monkeypatch.setattr(choice, "cache_folder", lambda what: tmp_path)
    trials = [
        Trial("torch", "bf16", 3.0, 1.0),
        Trial("onnx", "fp32", 2.0, float("nan")),
    ]
    monkeypatch.setattr(choice, "tried", lambda *args, **more: trials)
    assert fastest_engine(source, CPU, precision="auto") == "torch"


def test_a_user_without_a_home_has_no_cache_and_all_engines(source, monkeypatch):
    def homeless():
        raise RuntimeError("no home")

    graph = source.graph()
    made = []

    def again(*args, **options):
        made.append(options)  # it would take seconds each time
        return graph

    monkeypatch.setattr(kept, "graph_of", again)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(caches.Path, "home", homeless)
    assert caches.cache_folder("graphs") is None
    assert source.graph() == graph
    assert made
    assert fastest_engine(source, CPU, precision="fp32") in ("torch", *ENGINES)


@pytest.mark.parametrize(("sums", "precision"), [("single", "auto"), ("half", "fp32")])
def test_engines_are_measured_in_what_the_model_computes_in(
    bundle, monkeypatch, sums, precision
):
    read = read_bundle(bundle)
    plan = read.description.plan
    grid = plan.grid.model_copy(update={"sums": sums})
    plan = plan.model_copy(update={"grid": grid})
    description = read.description.model_copy(update={"plan": plan})
    asked = []

    def note(source, runtime, *, precision):
        asked.append(precision)
        return "torch"

    monkeypatch.setattr(members, "fastest_engine", note)
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: True)
    members.quickest(replace(read, description=description), "cpu", "auto", passes=0)
    assert asked == [precision]
