"""A real Triton server gives what `trivox predict` gives."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from triton_server import VARIABLE, environment, serving
from trivox.exporting.export import ExportOptions, export_model
from trivox.inference.predictor import Predictor
from trivox.volumes.formats import read_labels, read_volume, write_volume
from trivox.volumes.volume import Volume, affine_from_spacing
from untrained_models import write_scans, write_untrained

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(
        environment() is None,
        reason=f"needs a Triton server ({VARIABLE}); run: make test-triton",
    ),
]


TURNED = np.array(
    [[0, 0, -1.1, 30], [1.6, 0, 0, -5], [0, 1.3, 0, 2], [0, 0, 0, 1]], np.float64
)
"""From voxel x, y, z to mm."""


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return tmp_path_factory.mktemp("triton")


@pytest.fixture(scope="module")
def bundle(room):
    return write_untrained(room / "model", balanced=True)


@pytest.fixture(scope="module")
def cases(room):
    """The second one lies turned in space, with another spacing along each axis."""
    straight, turned = write_scans(room / "scans", (20, 25, 18), (31, 20, 24))
    image = read_volume(turned.images[0]).array
    write_volume(turned.images[0], Volume(image, TURNED))
    return [straight, turned]


@pytest.fixture(scope="module")
def exported(bundle, cases, room):
    """An ensemble of two."""
    out = room / "export"
    options = ExportOptions("triton", verification=cases[:1], whose="scans")
    card = export_model([bundle, bundle], out, options).card
    assert card.verified["runtime"] == "onnxruntime CPU"
    assert [other["runtime"] for other in card.verified["others"]] == ["openvino CPU"]
    return out


@pytest.fixture(scope="module")
def server(exported, room):
    """Of the networks by the Python backend, which is the only one of this server."""
    models = room / "by-python"
    shutil.copytree(exported / "models", models)
    for file in models.glob("*/config.pbtxt"):
        text = re.sub(
            r'^backend: ".*"$', 'backend: "python"', file.read_text(), flags=re.M
        )
        file.write_text(text)
    folder = room / "server"
    folder.mkdir()
    with serving(models, folder) as running:
        running.wait("health/ready")
        yield running


def run_client(exported, server, scan, out, *options):
    program = [environment() / "bin" / "python", exported / "client.py"]
    command = [*program, scan, "--out", out, "--url", server.url, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "options", [[], ["--runtime", "openvino"], ["--volume"]], ids=lambda o: "-".join(o)
)
def test_the_round_trip_gives_the_labels_of_predict(
    exported, server, bundle, cases, tmp_path, options
):
    predictor = Predictor.load([bundle, bundle], device="cpu", precision="fp32")
    for case in cases:
        out = tmp_path / f"{case.name}.nii.gz"
        done = run_client(exported, server, case.images[0], out, *options)
        assert done.returncode == 0, done.stderr
        expected = predictor.predict_case(case).labels
        assert len(np.unique(expected.array)) == 4
        labels = read_labels(out)
        assert np.array_equal(labels.array, expected.array)
        assert np.allclose(labels.affine, expected.affine, atol=1e-3)


def test_windows_are_batched_on_the_server(exported, server, cases, tmp_path):
    out = tmp_path / "labels.nii.gz"
    run_client(exported, server, cases[0].images[0], out)
    (stats,) = server.get("models/untrained-0/stats")["model_stats"]
    sizes = {int(each["batch_size"]) for each in stats["batch_stats"]}
    assert max(sizes) > 1
    assert int(stats["execution_count"]) < int(stats["inference_count"])


def test_the_server_reads_what_is_written(server):
    network = server.get("models/untrained-1/config")
    assert network["max_batch_size"] == 8
    assert network["dynamic_batching"]["preferred_batch_size"] == [4, 8]
    assert network["input"][0]["dims"] == [1, 16, 16, 16]
    assert network["output"][0]["dims"] == [4, 16, 16, 16]
    volume = server.get("models/untrained-volume/config")
    assert volume["parameters"]["networks"]["string_value"] == "untrained-0,untrained-1"


def test_a_bad_scan_is_said_in_one_line_and_the_server_stays(
    exported, server, cases, tmp_path
):
    bad = tmp_path / "bad.nii.gz"
    image = np.full((1, 20, 20, 20), np.nan, np.float32)
    write_volume(bad, Volume(image, affine_from_spacing((1.4,) * 3)))
    done = run_client(exported, server, bad, tmp_path / "bad-labels.nii.gz", "--volume")
    assert done.returncode == 1
    assert "NaN" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "bad-labels.nii.gz").exists()
    out = tmp_path / "labels.nii.gz"
    done = run_client(exported, server, cases[0].images[0], out, "--volume")
    assert done.returncode == 0, done.stderr


def test_a_server_that_is_not_there_is_said_in_one_line(exported, cases, tmp_path):
    class Nowhere:
        url = "127.0.0.1:9"

    out = tmp_path / "labels.nii.gz"
    done = run_client(exported, Nowhere, cases[0].images[0], out)
    assert done.returncode == 1
    assert done.stderr.startswith("127.0.0.1:9: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_backends_that_this_server_lacks_are_all_it_misses(exported, tmp_path):
    """Files as they are written: read by the server up to the backend's library."""
    with serving(exported / "models", tmp_path, "--exit-on-error=false") as running:
        running.wait("health/live")
        running.wait("models/untrained-volume/ready")
        said = running.log.read_text()
    for name in ("untrained-0", "untrained-1"):
        assert "unable to find backend library for backend 'onnxruntime', try " in said
        assert name in said
    assert "unable to find backend library for backend 'openvino'" in said
