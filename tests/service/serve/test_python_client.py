"""`trivox-client` with a service: jobs, errors, repetitions, and what it loads."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pytest
import trivox_client as tc
from hypothesis import given, settings
from hypothesis import strategies as st
from trivox_client import client as clients
from trivox_client.errors import error_of
from trivox_client.nifti import CODES, nifti_bytes, read_nifti

import label_engine
from serve_client import served
from trivox.service.serve.api.limits import ServerLimits
from trivox.service.serve.api.problems import KINDS
from trivox.service.serve.api.security import Gate, token_digest
from trivox.service.serve.settings import JobLimits
from trivox.version import __version__
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume

SOURCE = Path(__file__).parents[3] / "clients" / "python" / "src"
REFERENCE = SOURCE.parents[2] / "docs" / "reference" / "service.md"
TOKEN = "correct-horse-battery"
AFFINE = np.array([[-0.8, 0.1, 0, 3], [0, 0.9, 0, 5], [0, 0, 2.5, 7], [0, 0, 0, 1]])
QUICK = tc.Retries(times=3, pause=0.0)
HEAVY = ("torch", "scipy", "pydicom", "nibabel", "pandas", "trivox")


def drawn(shape=(7, 6, 5), seed=0):
    return np.random.default_rng(seed).normal(0, 30, shape).astype(np.float32)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    changes = {
        "worker": label_engine.WORKER,
        "job_limits": JobLimits(memory=1 << 31, seconds=60.0),
        "gate": Gate((token_digest(TOKEN),)),
    }
    with served(tmp_path_factory.mktemp("client"), **changes) as (http, _):
        yield str(http.base_url)


@pytest.fixture
def client(url):
    with tc.TrivoxClient(url, token=TOKEN, retries=QUICK) as client:
        yield client


def test_the_versions_are_the_same():
    assert tc.__version__ == __version__


def test_nothing_heavy_is_loaded():
    command = (
        f"import sys, trivox_client; print([x for x in {HEAVY} if x in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", command],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_an_array_becomes_a_label_map(client):
    array = drawn()
    stages = []
    labels, affine, record = client.segment(
        array, AFFINE, "one", progress=lambda job: stages.append(job.state)
    )
    assert np.array_equal(labels, array > 0)
    assert np.allclose(affine, AFFINE, atol=1e-6)
    assert record["cases"]["case"]["voxels"] == int((array > 0).sum())
    assert stages[-1] == "done"


def test_channels_are_sent_in_their_order(client):
    array = drawn((2, 4, 5, 6))
    labels, _, _ = client.segment(array, AFFINE, "two")
    assert np.array_equal(labels, array[0] > 0)


def test_files_go_in_and_results_come_out(client, tmp_path):
    file = tmp_path / "Doe_Jane.nii.gz"
    write_volume(file, Volume(drawn((1, 5, 6, 7)), AFFINE))
    job = client.wait(client.submit(file, "one"))
    assert client.results(job) == job.results
    files = client.fetch(job, tmp_path / "out")
    assert [each.name for each in files] == list(job.results)
    assert np.array_equal(read_volume(files[0]).array, drawn((1, 5, 6, 7)) > 0)
    assert {each.name for each in (tmp_path / "out").iterdir()} == set(job.results)
    with pytest.raises(FileExistsError, match="another folder"):
        client.fetch(job, tmp_path / "out")


def test_models_are_listed(client):
    models = {model.name: model for model in client.models()}
    assert models["two"].channels == ("T1", "T2")
    assert client.model("one") == models["one"]


def test_a_key_makes_one_job_of_two(client):
    first = client.submit(drawn(), "one", affine=AFFINE, key="a")
    assert client.submit(drawn(), "one", affine=AFFINE, key="a").id == first.id
    assert client.submit(drawn(), "one", affine=AFFINE).id != first.id


def test_what_is_wrong_has_a_type(client, url):
    with pytest.raises(tc.NotFound):
        client.submit(drawn(), "nobody")
    with pytest.raises(tc.NotFound):
        client.job("0" * 32)
    with pytest.raises(tc.InvalidRequest):
        client.submit(drawn(), "one", format="exe")
    with pytest.raises(FileNotFoundError):
        client.submit("nowhere.nii.gz", "one")
    with pytest.raises(tc.Unauthorized), tc.TrivoxClient(url, token="x") as stranger:
        stranger.models()


def test_a_job_that_fails_says_why(client):
    job = client.submit(np.full((4, 4, 4), -2000.0), "one", affine=AFFINE)
    with pytest.raises(tc.JobFailed, match="damaged") as caught:
        client.wait(job)
    assert caught.value.code == "unusable-input"


def test_a_full_server_says_when_to_come_again(tmp_path):
    limits = ServerLimits(reserve=0, queue=1)
    with served(tmp_path, workers=0, limits=limits) as (http, _):
        client = tc.TrivoxClient(str(http.base_url))
        job = client.submit(drawn(), "one")
        with pytest.raises(tc.ServerAtCapacity) as caught:
            client.submit(drawn(), "one")
        assert caught.value.retry_after > 0
        with pytest.raises(tc.WaitedTooLong):
            client.wait(job, timeout=-1)
        assert client.cancel(job).state == "cancelled"
        with pytest.raises(tc.JobCancelled):
            client.wait(job)
        client.close()


def test_another_version_is_told_which_client_to_take(client, monkeypatch):
    client._transport.http.headers["Trivox-Client"] = "99.0.0"
    with pytest.raises(tc.WrongVersion, match=r"install a client 0\.1"):
        client.models()


class Breaking(httpx.BaseTransport):
    """Breaks some requests; the others reach the service."""

    def __init__(self, breaks):
        self.breaks = breaks
        self.seen = Counter()
        self.keys = []
        self.inner = httpx.HTTPTransport()

    def handle_request(self, request):
        self.keys.append(request.headers.get("Idempotency-Key"))
        number = self.seen[request.method]
        self.seen[request.method] += 1
        self.breaks(request, number, self.inner)
        return self.inner.handle_request(request)

    def close(self):
        self.inner.close()


def broken_client(url, breaks):
    transport = Breaking(breaks)
    arguments = {"token": TOKEN, "retries": QUICK, "transport": transport}
    return tc.TrivoxClient(url, **arguments), transport


def test_what_was_not_sent_is_sent_again(url):
    def breaks(request, number, inner):
        if number < 2:
            raise httpx.ConnectError("no route")

    client, transport = broken_client(url, breaks)
    with client:
        client.submit(drawn(), "one")
    assert transport.seen["POST"] == 3


def test_a_post_whose_answer_is_lost_is_one_job(url):
    def breaks(request, number, inner):
        if request.method == "POST" and number == 0:
            inner.handle_request(request).read()
            raise httpx.ReadTimeout("no answer")

    client, transport = broken_client(url, breaks)
    with client, tc.TrivoxClient(url, token=TOKEN) as other:
        before = len(other._transport.json("GET", "/v1/jobs")["jobs"])
        job = client.submit(drawn(seed=9), "one", affine=AFFINE)
        after = other._transport.json("GET", "/v1/jobs")["jobs"]
    assert len(after) == before + 1
    assert after[0]["id"] == job.id
    assert len(set(transport.keys)) == 1
    assert None not in transport.keys


def test_a_service_that_is_not_there_is_said_to_be_so():
    with (
        tc.TrivoxClient("http://127.0.0.1:1", retries=QUICK) as client,
        pytest.raises(tc.ConnectionLost, match="is the service running"),
    ):
        client.models()


def test_a_job_is_asked_for_where_it_cannot_be_followed(url, monkeypatch):
    def breaks(request, number, inner):
        if request.url.path.endswith("/events"):
            raise httpx.RemoteProtocolError("closed")

    monkeypatch.setattr(clients, "POLL", 0.02)
    client, _ = broken_client(url, breaks)
    with client:
        assert client.wait(client.submit(drawn(), "one")).state == "done"


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "..", "", "a\\b", "C:x"])
def test_a_service_cannot_name_files_elsewhere(tmp_path, name):
    def answer(request):
        return httpx.Response(200, json={"id": "1", "state": "done", "results": [name]})

    with (
        tc.TrivoxClient("http://a", transport=httpx.MockTransport(answer)) as client,
        pytest.raises(tc.ServerFailed),
    ):
        client.fetch("1", tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"{}", b'{"models": 3}'])
def test_something_else_than_a_service_is_noticed(content):
    answer = httpx.MockTransport(lambda request: httpx.Response(200, content=content))
    with tc.TrivoxClient("http://a", transport=answer) as client:
        with pytest.raises(tc.ServerFailed):
            client.job("1")
        with pytest.raises(tc.ServerFailed):
            client.models()


@pytest.mark.parametrize("code", KINDS)
def test_every_problem_of_the_service_has_a_type(code):
    content = {"code": code, "title": "t", "detail": "d", "status": KINDS[code].status}
    error = error_of(KINDS[code].status, content, {"retry-after": "7"})
    assert type(error) is not tc.TrivoxClientError
    assert (error.code, str(error), error.retry_after) == (code, "t: d", 7.0)


@pytest.mark.parametrize("code", KINDS)
def test_every_problem_is_in_the_reference(code):
    rows = REFERENCE.read_text(encoding="utf-8").splitlines()
    row = next(each for each in rows if each.startswith(f"| {KINDS[code].status} |"))
    assert f"`{code}`" in row


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(CODES)),
    st.tuples(*[st.integers(1, 6)] * 3),
    st.integers(0, 1000),
)
def test_an_array_is_read_as_it_was_written(tmp_path_factory, name, shape, seed):
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 100, shape).astype(name)
    affine = np.eye(4)
    affine[:3] = rng.normal(0, 1, (3, 4)) + np.eye(3, 4) * 5
    content = nifti_bytes(array, affine)
    again, placed = read_nifti(content)
    assert again.dtype == array.dtype
    assert np.array_equal(again, array)
    assert np.allclose(placed, affine, atol=1e-5)
    with pytest.raises(tc.UnreadableFile):
        read_nifti(content[: len(content) // 2])


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "b1", "f2"])
def test_others_read_what_is_written(tmp_path, dtype):
    array = (drawn() > 0).astype(dtype)
    (tmp_path / "a.nii.gz").write_bytes(nifti_bytes(array, AFFINE))
    volume = read_volume(tmp_path / "a.nii.gz")
    assert np.array_equal(volume.array[0].T, array)
    assert np.allclose(volume.affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize("quaternion", [False, True])
def test_what_others_write_is_read(tmp_path, quaternion):
    import nibabel as nib

    turned = np.array([[0, -2, 0, 1], [1.5, 0, 0, 2], [0, 0, 3, 4], [0, 0, 0, 1]])
    image = nib.Nifti1Image(drawn(), turned)
    image.set_qform(turned, code=int(quaternion))
    image.set_sform(turned, code=int(not quaternion))
    nib.save(image, tmp_path / "a.nii")
    array, affine = read_nifti((tmp_path / "a.nii").read_bytes())
    assert np.array_equal(array, drawn())
    assert np.allclose(affine, turned, atol=1e-5)


@pytest.mark.parametrize(
    "array",
    [np.zeros(3), np.zeros((2, 2)), np.zeros((0, 1, 1)), np.zeros((1, 1, 1), complex)],
)
def test_arrays_that_are_no_images_are_refused(array):
    with pytest.raises(ValueError):
        nifti_bytes(array, AFFINE)


@pytest.mark.parametrize(
    "affine", [np.eye(3), np.zeros((4, 4)), np.full((4, 4), np.nan)]
)
def test_places_that_are_none_are_refused(affine):
    with pytest.raises(ValueError):
        nifti_bytes(np.zeros((2, 2, 2)), affine)
