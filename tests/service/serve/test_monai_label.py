"""Clients of MONAI Label: the shape of the interface, and the client from PyPI itself."""

import json
import os
import subprocess
from email.parser import BytesParser
from pathlib import Path

import numpy as np
import pytest

import label_engine
from serve_client import served
from trivox.service.serve.api.limits import ServerLimits
from trivox.service.serve.api.protocols.label_answers import nrrd_of
from trivox.service.serve.api.protocols.shelf import Shelf
from trivox.service.serve.api.security import Gate, token_digest
from trivox.service.serve.settings import JobLimits
from trivox.volumes.formats import read_labels, read_volume, write_volume
from trivox.volumes.volume import Volume

VARIABLE = "TRIVOX_CLIENTS"
"""Environment variable: the folder of a virtual environment with `monailabel`."""
TOKEN = "correct-horse-battery"
AFFINE = np.array([[-0.8, 0, 0, 3], [0, 0.9, 0, 5], [0, 0, 2.5, 7], [0, 0, 0, 1]])
DRIVER = Path(__file__).parents[2] / "monai_driver.py"
LIMITS = {"job_limits": JobLimits(memory=1 << 31, seconds=60.0)}


def drawn(seed=0):
    values = np.random.default_rng(seed).normal(0, 30, (1, 5, 6, 7))
    return Volume(values.astype(np.float32), AFFINE)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data folder and a scan outside it."""
    folder = tmp_path_factory.mktemp("labelling")
    write_volume(folder / "scan.nii.gz", drawn())
    (folder / "data" / "inner").mkdir(parents=True)
    write_volume(folder / "data" / "inner" / "there.nii.gz", drawn())
    (folder / "data" / "series").mkdir()
    (folder / "data" / "series" / "a.dcm").write_bytes(b"x")
    (folder / "data" / "outside.nii.gz").symlink_to(folder / "scan.nii.gz")
    return folder


@pytest.fixture(scope="module")
def server(place):
    worker = label_engine.WORKER
    state = place / "state"
    with served(state, worker=worker, data=place / "data", **LIMITS) as (client, desk):
        yield client, desk


@pytest.fixture
def asked(server):
    return server[0]


def parts_of(answer):
    """The parts of a form: name -> content, and the file's name."""
    head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + answer.content)
    parts = {}
    for part in message.get_payload():
        name = part.get_param("name", header="content-disposition")
        parts[name] = part.get_payload(decode=True)
    return parts


def infer(client, files=None, *, output="all", params=None, model="one", **query):
    form = {"params": (None, json.dumps(params or {}))}
    return client.post(
        f"/infer/{model}",
        params={"output": output, **query},
        files={**form, **(files or {})},
    )


def test_the_information_lists_what_viewers_ask_for(asked):
    info = asked.get("/info/").json()
    assert info["labels"] == ["background", "liver"]
    assert set(info["models"]) == {"one", "two"}
    assert info["models"]["one"]["labels"] == {"liver": 1}
    assert info["models"]["one"]["type"] == "segmentation"
    assert info["trainers"] == {}


@pytest.mark.parametrize("output", ["all", "image", "label", "json"])
def test_an_image_that_is_sent_is_answered_with_its_labels(asked, place, output):
    file = ("Doe_Jane.nii.gz", (place / "scan.nii.gz").read_bytes())
    answer = infer(asked, {"file": file}, output=output)
    assert answer.status_code == 200, answer.text
    if output == "all":
        parts = parts_of(answer)
        assert json.loads(parts["params"])["label_names"] == {"liver": 1}
        content = parts["image"]
    elif output == "json":
        assert answer.json()["label_names"] == {"liver": 1}
        return
    else:
        content = answer.content
    result = place / f"result-{output}.nii.gz"
    result.write_bytes(content)
    expected = drawn().array > 0
    assert np.array_equal(read_labels(result).array, expected)


def test_a_label_map_as_nrrd_is_the_same_label_map(asked, place):
    params = {"result_extension": ".nrrd", "result_dtype": "uint16"}
    answer = infer(asked, image="inner/there.nii.gz", output="image", params=params)
    file = place / "result.nrrd"
    file.write_bytes(answer.content)
    volume = read_volume(file)
    assert np.array_equal(volume.array, drawn().array > 0)
    assert np.allclose(volume.affine, AFFINE, atol=1e-6)
    assert b"encoding: raw" in answer.content


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_nrrd_keeps_values_and_place(tmp_path, dtype):
    labels = np.random.default_rng(3).integers(0, 100, (1, 3, 4, 5)).astype(np.uint8)
    write_volume(tmp_path / "a.nii.gz", Volume(labels, AFFINE))
    (tmp_path / "a.nrrd").write_bytes(nrrd_of(tmp_path / "a.nii.gz", dtype))
    volume = read_volume(tmp_path / "a.nrrd")
    assert np.array_equal(volume.array, labels)
    assert volume.array.dtype == dtype
    assert np.allclose(volume.affine, AFFINE, atol=1e-6)


def test_the_data_folder_is_listed_without_links(asked):
    objects = asked.get("/datastore/", params={"output": "all"}).json()["objects"]
    assert {"inner/there.nii.gz", "series"} <= set(objects)
    answer = asked.get("/datastore/image", params={"image": "outside.nii.gz"})
    assert (answer.status_code, answer.json()["code"]) == (404, "no-such-path")


def test_an_image_of_the_data_folder_is_given_out(asked, place):
    answer = asked.get("/datastore/image", params={"image": "inner/there.nii.gz"})
    assert answer.content == (place / "data/inner/there.nii.gz").read_bytes()


@pytest.mark.parametrize(
    "path", ["../scan.nii.gz", "/etc/passwd", "series", "inner/no"]
)
def test_nothing_else_is_given_out(asked, path):
    answer = asked.get("/datastore/image", params={"image": path})
    assert (answer.status_code, answer.json()["code"]) == (404, "no-such-path")


def session_of(client, place, **query):
    files = {"files": ("Doe_Jane.nii.gz", (place / "scan.nii.gz").read_bytes())}
    return client.put("/session/", files=files, params=query)


def test_a_session_lives_until_it_is_ended(asked, place):
    session = session_of(asked, place).json()["session_id"]
    assert infer(asked, session_id=session).status_code == 200
    assert infer(asked, session_id=session).status_code == 200
    image = asked.get(f"/session/{session}", params={"image": True})
    assert image.content == (place / "scan.nii.gz").read_bytes()
    assert asked.delete(f"/session/{session}").status_code == 200
    assert asked.get(f"/session/{session}").json()["code"] == "no-such-session"
    assert infer(asked, session_id=session).json()["code"] == "no-such-session"


def test_a_session_says_when_it_expires(asked, place):
    info = session_of(asked, place, expiry=60).json()["session_info"]
    assert info["expiry"] == 60


def test_a_session_expires_and_its_image_goes(server, place):
    client, desk = server
    session = session_of(client, place, expiry=60).json()["session_id"]
    later = Shelf(desk.folders, desk.limits)
    now = later.clock()
    later.clock = lambda: now + 59
    later.sweep()
    assert later.entry("local", session) is not None
    later.clock = lambda: now + 61
    assert later.entry("local", session) is None
    before = len(list(later.root.iterdir()))
    later.sweep()
    assert len(list(later.root.iterdir())) < before
    assert client.get(f"/session/{session}").status_code == 404


def test_no_client_keeps_more_images_than_it_may(tmp_path, place):
    limits = ServerLimits(reserve=0, per_client=2)
    with served(tmp_path, workers=0, limits=limits) as (client, _):
        codes = [session_of(client, place).status_code for _ in range(3)]
        assert codes == [200, 200, 429]


def test_a_corrected_label_is_a_review_of_the_job(asked, place):
    scan = (place / "scan.nii.gz").read_bytes()
    sent = asked.put(
        "/datastore/", params={"image": "kept"}, files={"file": ("a", scan)}
    )
    assert sent.json() == {"image": "kept"}
    labels = Volume(np.ones((1, 5, 6, 7), np.uint8), AFFINE)
    write_volume(place / "labels.nii.gz", labels)
    label = {"label": ("l.nii.gz", (place / "labels.nii.gz").read_bytes())}
    early = asked.put("/datastore/label", params={"image": "kept"}, files=label)
    assert early.json()["code"] == "no-such-job"
    params = json.loads(parts_of(infer(asked, image="kept"))["params"])
    saved = asked.put("/datastore/label", params={"image": "kept"}, files=label)
    assert saved.json()["job"] == params["job"]
    review = asked.get(f"/v1/jobs/{params['job']}/review").json()
    assert review["reviews"][-1]["decision"] == "edit"
    content = asked.get("/datastore/label", params={"label": "kept"}).content
    (place / "again.nii.gz").write_bytes(content)
    assert np.array_equal(read_labels(place / "again.nii.gz").array, labels.array)


@pytest.mark.parametrize(
    ("params", "query"),
    [
        ("no JSON", {}),
        ("[]", {}),
        ('{"result_extension": ".exe"}', {}),
        ('{"result_dtype": "object"}', {}),
        ("{}", {"output": "dicom_seg"}),
    ],
)
def test_what_is_not_understood_is_refused(asked, params, query):
    form = {"params": (None, params)}
    query = {"image": "inner/there.nii.gz", **query}
    answer = asked.post("/infer/one", params=query, files=form)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")


@pytest.mark.parametrize("image", ["", "nothing", "../scan.nii.gz", "/etc/passwd"])
def test_an_image_that_is_not_there_is_said_to_be_so(asked, image):
    answer = infer(asked, image=image)
    assert (answer.status_code, answer.json()["code"]) == (404, "no-such-path")


def test_a_scan_that_cannot_be_used_is_said_to_be_so(asked):
    answer = infer(asked, {"file": ("a.nii.gz", b"\x1f\x8bno")})
    assert (answer.status_code, answer.json()["code"]) == (409, "job-failed")


def test_images_of_one_token_are_none_of_the_others_business(tmp_path, place):
    gate = Gate((token_digest(TOKEN), token_digest("another-token-entirely")))
    anna, bert = (
        {"Authorization": f"Bearer {each}"}
        for each in (TOKEN, "another-token-entirely")
    )
    with served(tmp_path, workers=0, gate=gate) as (client, _):
        client.headers = anna
        session = session_of(client, place).json()["session_id"]
        assert client.get(f"/session/{session}").status_code == 200
        assert client.get(f"/session/{session}", headers=bert).status_code == 404
        client.headers = {}
        assert client.get("/info/").status_code == 401
        assert client.get("/auth/").json()["enabled"] is True
        form = {"username": "anna", "password": TOKEN}
        given = client.post("/auth/token", data=form).json()
        assert given == {"access_token": TOKEN, "token_type": "Bearer"}
        wrong = client.post("/auth/token", data={**form, "password": "x"})
        assert (wrong.status_code, wrong.json()["code"]) == (401, "unauthorized")


def environment():
    folder = os.environ.get(VARIABLE)
    return Path(folder).absolute() if folder else None


@pytest.mark.clients
@pytest.mark.skipif(environment() is None, reason=f"{VARIABLE} names no environment")
@pytest.mark.parametrize("token", ["", TOKEN])
def test_the_client_from_pypi_is_answered(tmp_path, place, token):
    gate = Gate((token_digest(token),) if token else ())
    changes = {"worker": label_engine.WORKER, "data": place / "data", "gate": gate}
    write_volume(tmp_path / "scan.nii.gz", drawn())
    with served(tmp_path / "state", **changes, **LIMITS) as (client, _):
        python = environment() / "bin" / "python"
        url = str(client.base_url)
        command = [python, "-W", "ignore", DRIVER, url, tmp_path, token]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["auth"] is bool(token)
    if token:
        assert (said["valid before"], said["valid after"]) == (False, True)
    expected = drawn().array > 0
    for name in ("of session", "of folder", "nrrd", "label"):
        assert np.array_equal(read_volume(Path(said[name])).array, expected), name
    file, names = said["file"]
    assert np.array_equal(read_labels(Path(file)).array, expected)
    assert names == {"liver": 1}
    assert said["saved"]["image"] == "kept"
    assert said["datastore"]["kept"]["labels"] == {
        "final": {"ext": ".nii.gz", "info": {}}
    }
    assert said["next"]["id"] in said["datastore"]
    assert "no-such-model" in said["no model"]
    assert "no-such-path" in said["no image"]
    assert "404" in said["no session"]


def test_an_image_without_a_label_is_said_to_have_none(asked, place):
    scan = (place / "scan.nii.gz").read_bytes()
    asked.put("/datastore/", params={"image": "new"}, files={"file": ("a", scan)})
    answer = asked.get("/datastore/label", params={"label": "new"})
    assert (answer.status_code, answer.json()["code"]) == (409, "not-reviewed")
    assert asked.delete("/datastore/", params={"id": "new"}).status_code == 200
    again = asked.delete("/datastore/", params={"id": "new"})
    assert (again.status_code, again.json()["code"]) == (404, "no-such-path")
