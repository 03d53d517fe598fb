"""What KServe clients probe."""

import pytest

from serve_client import MODELS, served
from trivox.service.serve.api.security import Gate, token_digest

TOKEN = "correct-horse-battery"


@pytest.mark.parametrize(("probe", "key"), [("live", "live"), ("ready", "ready")])
def test_a_server_that_works_says_so(client, probe, key):
    answer = client.get(f"/v2/health/{probe}")
    assert (answer.status_code, answer.json()) == (200, {key: True})


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_model_is_described(client, model):
    content = client.get(f"/v2/models/{model.name}").json()
    assert content["name"] == model.name
    assert [each["name"] for each in content["inputs"]] == model.channels
    assert [each["name"] for each in content["outputs"]] == ["labels"]
    ready = client.get(f"/v2/models/{model.name}/ready")
    assert ready.json() == {"name": model.name, "ready": True}


def test_the_server_is_described(client):
    assert client.get("/v2").json()["name"] == "trivox"


@pytest.mark.parametrize("path", ["", "/ready", "/infer"])
def test_an_unknown_model_is_said_to_be_unknown(client, path):
    method = "POST" if path == "/infer" else "GET"
    answer = client.request(method, f"/v2/models/nobody{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "no-such-model")


def test_inference_is_refused_with_the_way_to_take(client):
    answer = client.post("/v2/models/one/infer", json={"inputs": []})
    assert (answer.status_code, answer.json()["code"]) == (404, "no-inline-inference")
    assert "/v1/jobs" in answer.json()["detail"]


def test_a_server_without_workers_is_alive_but_not_ready(tmp_path):
    with served(tmp_path, workers=0) as (client, _):
        assert client.get("/v2/health/live").status_code == 200
        for path in ("/v2/health/ready", "/v2/models/one/ready"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "not-healthy")


def test_probes_need_no_token_and_models_do(tmp_path):
    gate = Gate((token_digest(TOKEN),))
    with served(tmp_path, workers=0, gate=gate) as (client, _):
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/models/one").status_code == 401
        header = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/v2/models/one", headers=header).status_code == 200
