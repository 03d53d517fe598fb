"""What is written for Triton and TensorRT says of the networks what they are."""

import json
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbtxt import read_pbtxt
from trivox.errors import UsageError
from trivox.exporting import networks
from trivox.exporting.card import ExportCard
from trivox.exporting.export import ExportOptions, export_model
from trivox.exporting.programs import STANDALONE
from trivox.exporting.targets import TARGETS
from trivox.exporting.triton import batches, served_name
from trivox.inference.engines.graph import graph_of
from untrained_models import plan_of, write_scans, write_untrained

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
pytest.importorskip("openvino", reason="needs the extra 'export'")
RUNTIMES = runpy.run_path(str(STANDALONE / "runtimes.py"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Both targets, of an ensemble; the graph is made once, which takes seconds."""
    room = tmp_path_factory.mktemp("exports")
    bundle = write_untrained(room / "model", balanced=True)
    cases = write_scans(room / "scans", (18, 20, 18))
    graphs = []

    def graph(network, **size):
        if not graphs:
            graphs.append(graph_of(network, **size))
        return graphs[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "graph_of", graph)
        for target in ("triton", "tensorrt"):
            options = ExportOptions(target, verification=cases, whose="scans")
            export_model([bundle, bundle], room / target, options)
    return room


def card_of(folder):
    return ExportCard.model_validate_json((folder / "export.json").read_text())


def test_a_repository_says_of_its_networks_what_they_are(exported):
    folder = exported / "triton"
    card = card_of(folder)
    assert card.served["onnx"] == ("untrained-0", "untrained-1")
    assert card.served["openvino"] == ("untrained-0-openvino", "untrained-1-openvino")
    for name in card.served["onnx"]:
        config = read_pbtxt((folder / "models" / name / "config.pbtxt").read_text())
        file = folder / "models" / name / "1" / "model.onnx"
        session = onnxruntime.InferenceSession(file.read_bytes())
        (windows,) = session.get_inputs()
        (logits,) = session.get_outputs()
        assert config["name"] == [name]
        assert config["backend"] == ["onnxruntime"]
        assert config["max_batch_size"] == [card.batches[2]]
        assert config["input"][0]["name"] == [windows.name]
        assert config["input"][0]["dims"] == windows.shape[1:]
        assert config["output"][0]["name"] == [logits.name]
        assert config["output"][0]["dims"] == logits.shape[1:]
        assert isinstance(windows.shape[0], str), "any number of windows"


def test_openvino_serves_windows_one_by_one(exported):
    models = exported / "triton" / "models"
    config = read_pbtxt((models / "untrained-0-openvino" / "config.pbtxt").read_text())
    assert config["backend"] == ["openvino"]
    assert config["max_batch_size"] == [1]
    assert (models / "untrained-0-openvino" / "1" / "model.bin").is_file()


def test_the_volume_model_has_all_that_it_needs(exported):
    folder = exported / "triton"
    place = folder / "models" / "untrained-volume"
    config = read_pbtxt((place / "config.pbtxt").read_text())
    assert config["backend"] == ["python"]
    assert config["output"][0]["data_type"] == ["TYPE_UINT8"]
    parameters = {each["key"][0]: each["value"][0] for each in config["parameters"]}
    assert parameters["networks"]["string_value"] == ["untrained-0,untrained-1"]
    written = {file.name for file in (place / "1").iterdir()}
    assert written == {"model.py", "run.py", "grids.py", "runtimes.py", "export.json"}
    copy = json.loads((place / "1" / "export.json").read_text())
    assert copy == json.loads((folder / "export.json").read_text())


def test_the_networks_of_both_backends_are_tried(exported):
    card = card_of(exported / "triton")
    assert card.verified["runtime"] == "onnxruntime CPU"
    assert [other["runtime"] for other in card.verified["others"]] == ["openvino CPU"]


def test_every_file_of_the_networks_has_a_sum(exported):
    for target, suffixes in (
        ("triton", {".onnx", ".xml", ".bin"}),
        ("tensorrt", {".onnx"}),
    ):
        folder = exported / target
        found = {
            file.relative_to(folder).as_posix()
            for file in folder.rglob("*")
            if file.suffix in suffixes
        }
        assert {file.file for file in card_of(folder).files} == found


def test_tensorrt_says_that_it_was_not_run(exported):
    folder = exported / "tensorrt"
    card = card_of(folder)
    assert card.verified["runtime"] == "onnxruntime CPU"
    text = (folder / "README.md").read_text()
    assert "No TensorRT was run where this was made" in text


def test_the_engines_are_built_for_the_windows_of_the_network(exported):
    folder = exported / "tensorrt"
    script = folder / "build_engine.sh"
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([shellcheck, script], check=True)
    text = script.read_text()
    fewest, usual, most = card_of(folder).batches
    assert f"--minShapes=windows:{fewest}x1x16x16x16 " in text
    assert f"--optShapes=windows:{usual}x1x16x16x16 " in text
    assert f"--maxShapes=windows:{most}x1x16x16x16 " in text


def test_the_script_calls_trtexec_for_each_network(exported, tmp_path):
    calls = tmp_path / "calls"
    stand_in = tmp_path / "trtexec"
    stand_in.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    stand_in.chmod(0o755)
    script = exported / "tensorrt" / "build_engine.sh"
    subprocess.run(
        [script], env={"TRTEXEC": str(stand_in), "PATH": "/usr/bin:/bin"}, check=True
    )
    first, second = calls.read_text().splitlines()
    assert "--onnx=network0.onnx --saveEngine=network0.plan" in first
    assert "--onnx=network1.onnx --saveEngine=network1.plan" in second
    done = subprocess.run(
        [script],
        env={"TRTEXEC": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "install TensorRT" in done.stderr


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8"])
def test_the_settings_of_the_provider_follow_the_precision(tmp_path, precision):
    export = {
        "precision": precision,
        "batches": [1, 2, 4],
        "pipeline": {"inputs": ["CT", "mask"], "patch_size": [8, 16, 24]},
    }
    settings = RUNTIMES["tensorrt_settings"](tmp_path, export)
    assert settings["trt_profile_max_shapes"] == "windows:4x2x8x16x24"
    enabled = {f"trt_{name}_enable" for name in ("fp16", "bf16", "int8")} & set(
        settings
    )
    assert enabled == ({f"trt_{precision}_enable"} - {"trt_fp32_enable"})


def test_without_tensorrt_the_cpu_computes_the_same_and_it_is_said(exported, capsys):
    folder = exported / "tensorrt"
    export = json.loads((folder / "export.json").read_text())
    file = folder / "network0.onnx"
    by_tensorrt = RUNTIMES["open_tensorrt"](file, export, 1)
    assert "TensorRT is not at hand, CPU computes instead" in capsys.readouterr().err
    assert by_tensorrt.by == "onnxruntime CPU"
    windows = np.random.default_rng(0).normal(size=(3, 1, 1, 16, 16, 16))
    windows = windows.astype(np.float32)
    by_onnx = RUNTIMES["open_onnx"](file, export, 1)
    pairs = zip(by_tensorrt.stream(windows), by_onnx.stream(windows), strict=True)
    for logits, expected in pairs:
        np.testing.assert_array_equal(logits, expected)


def test_with_tensorrt_windows_come_in_batches_of_the_profile(
    exported, capsys, monkeypatch
):
    asked = {}

    class Session:
        def __init__(self, file, options, providers):
            asked["providers"] = [name for name, _ in providers]
            asked["settings"] = providers[0][1]
            asked["batches"] = []

        def get_providers(self):
            return asked["providers"]

        def run(self, names, given):
            asked["batches"].append(len(given["windows"]))
            return [given["windows"] + 1]

    offered = ["CPUExecutionProvider", "TensorrtExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    folder = exported / "tensorrt"
    export = json.loads((folder / "export.json").read_text())
    network = RUNTIMES["open_tensorrt"](folder / "network0.onnx", export, None)
    assert network.by == "onnxruntime Tensorrt"
    assert capsys.readouterr().err == ""
    windows = [np.full((1, 1, 2, 2, 2), n, np.float32) for n in range(19)]
    logits = list(network.stream(windows))
    assert [each.flat[0] for each in logits] == list(range(1, 20))
    assert {each.shape for each in logits} == {(1, 1, 2, 2, 2)}
    assert asked["batches"] == [8, 8, 3]
    assert asked["providers"] == ["TensorrtExecutionProvider", "CPUExecutionProvider"]
    assert asked["settings"]["trt_profile_max_shapes"] == "windows:8x1x16x16x16"


@settings(deadline=None)
@given(st.lists(st.integers()), st.integers(1, 5))
def test_windows_under_way_keep_their_order_and_stay_few(windows, most):
    waiting = []

    def send(window):
        waiting.append(window)
        assert len(waiting) - answered <= most
        return pool.submit(lambda: -window)

    answered = 0
    got = []
    with ThreadPoolExecutor(2) as pool:
        for logits in RUNTIMES["in_flight"](send, most)(windows):
            got.append(logits)
            answered += 1
    assert got == [-window for window in windows]


@given(st.lists(st.integers()), st.integers(1, 5))
def test_batches_hold_every_window_once(windows, most):
    gathered = list(RUNTIMES["batches"](windows, most))
    assert [each for batch in gathered for each in batch] == windows
    assert all(1 <= len(batch) <= most for batch in gathered)


@given(st.text())
def test_a_served_name_stands_in_an_address_and_a_folder(dataset):
    name = served_name(dataset)
    assert name.isascii()
    assert name.replace("-", "").replace("_", "").isalnum() or set(name) <= set("_")


@pytest.mark.parametrize("share", [0, 2**20, 2**33, 2**40])
def test_so_many_windows_as_there_is_room_for(share):
    plan = plan_of()
    memory = plan.memory.model_copy(update={"activations": share * plan.batch_size})
    fewest, usual, most = batches(plan.model_copy(update={"memory": memory}))
    assert 1 == fewest <= usual <= most <= 8
    assert most == 1 or most * share <= 8 * 2**30


def test_a_precision_that_one_backend_has_is_written_for_that_one():
    assert TARGETS["triton"].chosen("triton", "bf16") == ("openvino",)
    assert TARGETS["triton"].chosen("triton", "fp32") == ("onnx", "openvino")
    with pytest.raises(UsageError, match="none of --to onnx"):
        TARGETS["onnx"].chosen("onnx", "bf16")


@pytest.mark.slow
def test_int8_for_tensorrt_is_signed_and_around_zero(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("nncf")
    bundle = write_untrained(tmp_path / "model", balanced=True)
    cases = write_scans(tmp_path, (20, 25, 18), (18, 18, 22))
    options = ExportOptions(
        "tensorrt", "int8", calibration=cases, accept_loss=True, verification=cases[:1]
    )
    export_model([bundle], tmp_path / "export", options)
    graph = onnx.load(tmp_path / "export" / "network0.onnx").graph
    constants = {
        each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer
    }
    nodes = [node for node in graph.node if "quantize" in node.op_type.lower()]
    assert nodes
    for node in nodes:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
