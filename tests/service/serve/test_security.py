"""Who may ask, and what every answer says."""

import re

import pytest

from serve_client import ended, send, served, until
from serve_engine import scan
from trivox.service.serve.api.security import Gate, host_name, is_loopback, token_digest
from trivox.version import __version__

TOKENS = ("correct-horse-battery", "another-token-entirely")
ANNA, BERT = ({"Authorization": f"Bearer {token}"} for token in TOKENS)


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    """A server that asks for a token."""
    gate = Gate(tuple(map(token_digest, TOKENS)))
    with served(tmp_path_factory.mktemp("closed"), gate=gate) as (client, _):
        yield client


PATHS = ("/v1/models", "/v1/jobs", f"/v1/jobs/{'0' * 32}", "/metrics", "/nothing")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKENS[0]}"},
        {"Authorization": f"Bearer {TOKENS[0]}x"},
        {"Authorization": f"Bearer {TOKENS[0][:-1]}"},
    ],
)
def test_nobody_without_a_token_learns_anything(closed, path, header):
    answer = closed.get(path, headers=header)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


SAYING_NOTHING = {
    *("/healthz", "/v2/health/live", "/v2/health/ready"),
    *("/auth/", "/auth/token"),
}


def test_every_operation_asks_for_a_token_but_those_that_say_nothing(closed):
    paths = closed.get("/openapi.json").json()["paths"]
    assert len(paths) > 25
    for path, operations in paths.items():
        for method, operation in operations.items():
            answer = closed.request(method, re.sub(r"{\w+}", "0" * 32, path))
            is_open = answer.json().get("code") != "unauthorized"
            is_described_as_open = "security" not in operation
            # a wrong password is answered as a wrong token is
            is_open = is_open or path == "/auth/token"
            expected = path in SAYING_NOTHING
            assert (is_open, is_described_as_open) == (expected, expected), path


def test_whoever_has_a_token_is_answered(closed):
    assert closed.get("/v1/models", headers=ANNA).status_code == 200
    assert closed.get("/v1/models", headers=BERT).status_code == 200
    assert closed.get("/healthz").status_code == 200


def test_jobs_of_one_token_are_none_of_the_others_business(closed):
    job = send(closed, scan(), headers=ANNA).json()
    path = f"/v1/jobs/{job['id']}"
    assert ended(closed, job["id"], headers=ANNA)["state"] == "done"
    for tail in ("", "/events", "/results/case.nii.gz"):
        assert closed.get(path + tail, headers=BERT).status_code == 404
    assert closed.delete(path, headers=BERT).status_code == 404
    assert closed.get("/v1/jobs", headers=BERT).json()["jobs"] == []
    assert len(closed.get("/v1/jobs", headers=ANNA).json()["jobs"]) == 1


def test_a_key_of_one_client_is_not_that_of_another(closed):
    key = {"Idempotency-Key": "1"}
    anna = send(closed, scan(), headers={**ANNA, **key}).json()
    bert = send(closed, scan(), headers={**BERT, **key}).json()
    assert anna["id"] != bert["id"]


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8470", "127.0.0.1.evil.example", "10.0.0.1", ""],
)
def test_a_name_that_is_not_the_servers_is_refused(client, host):
    answer = client.get("/v1/models", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (400, "host-not-allowed")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8470"]
)
def test_the_names_of_this_machine_are_the_servers(client, host):
    assert client.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_pages_of_others_may_not_ask(client, headers):
    answer = send(client, scan(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "cross-origin")


def test_a_page_of_this_server_may_ask(client):
    origin = {"Origin": str(client.base_url).rstrip("/")}
    answer = client.get("/v1/models", headers=origin)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/healthz", "/v1/models", "/v1/jobs/0", "/nothing", "/metrics", "/openapi.json"],
)
def test_every_answer_forbids_what_browsers_might_do(client, path):
    headers = client.get(path).headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Trivox-Version"] == __version__
    assert not any(name.startswith("access-control") for name in headers)
    assert "server" not in headers


def test_a_client_of_another_version_is_told_which_to_take(client):
    answer = client.get("/v1/models", headers={"Trivox-Client": "0.0.9"})
    assert (answer.status_code, answer.json()["code"]) == (426, "client-version")
    wanted = ".".join(__version__.split(".")[:2])
    assert f"{wanted}.*" in answer.json()["detail"]
    assert answer.headers["Upgrade"] == f"trivox/{wanted}"
    same = client.get("/v1/models", headers={"Trivox-Client": f"{wanted}.77"})
    assert same.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/jobs/not-an-id", 422),
        ("GET", f"/v1/jobs/{'0' * 32}", 404),
        ("GET", "/v1/models/none", 404),
        ("GET", "/v1/jobs?limit=x", 422),
        ("PUT", f"/v1/jobs/{'0' * 32}", 405),
        ("GET", "/docs", 404),
    ],
)
def test_every_error_is_a_problem(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    if status == 405:
        assert answer.headers["Allow"] == "DELETE, GET"


def test_a_bug_is_said_without_what_it_says(client, desk, monkeypatch, caplog):
    def fail(*_):
        raise KeyError("Doe^Jane")

    monkeypatch.setattr(desk.store, "jobs", fail)
    answer = client.get("/v1/jobs")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    until(lambda: "KeyError at test_security.py" in caplog.text)
    assert "Doe" not in answer.text + caplog.text


def test_figures_are_there_for_prometheus(client):
    ended(client, send(client, scan()).json()["id"])
    text = client.get("/metrics").text
    assert 'trivox_jobs_total{model="one",state="done"}' in text
    assert (
        'trivox_http_seconds_count{method="POST",route="/v1/jobs",status="202"}' in text
    )
    assert "trivox_workers 1.0" in text


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.4", False),
        ("scans.hospital", False),
        ("", False),
    ],
)
def test_only_this_machine_is_local(host, local):
    assert is_loopback(host) is local


def test_hosts_are_read_as_browsers_write_them():
    assert host_name("[::1]:80") == "::1"
    assert host_name("Scans.Hospital.:443") == "scans.hospital"
    assert host_name("user@evil:80") == "evil"
    assert host_name("[::1") == ""
