"""What is sent: limits, damage, repetition."""

import hashlib
import shutil
import socket

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_client import LIMITS, ended, send, served
from serve_engine import SECRET, scan
from trivox.service.serve.api.uploads import format_suffix

BOUNDARY = "b0undary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(name, data, filename=None):
    shown = "" if filename is None else f'; filename="{filename}"'
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n\r\n'
    )
    return head.encode() + data + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
MODEL = part("model", b"one")
WHOLE = MODEL + part("file", scan(), "x.mha") + END


def post(client, body, **headers):
    return client.post("/v1/jobs", content=body, headers={**FORM, **headers})


def code(answer):
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert content.keys() == {"type", "title", "status", "code", "detail"}
    assert content["status"] == answer.status_code
    return content["code"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 422, "invalid-request"),
        (END, 422, "invalid-request"),
        (MODEL + END, 422, "invalid-request"),
        (part("file", b"x", "x.nii") + END, 422, "invalid-request"),
        (WHOLE[:-10], 422, "invalid-request"),
        (WHOLE[:60], 422, "invalid-request"),
        (b"x" * 1000, 422, "invalid-request"),
        (part("other", b"1") + WHOLE, 422, "invalid-request"),
        (MODEL + WHOLE, 422, "invalid-request"),
        (MODEL + part("file", b"", "x.nii") + END, 422, "invalid-request"),
        (MODEL + part("path", b"\xff") + END, 422, "invalid-request"),
        (part("format", b"pdf") + WHOLE, 422, "invalid-request"),
        (part("series", b"1.2.840.113619") + WHOLE, 422, "invalid-request"),
        (part("path", b"x") + WHOLE, 422, "invalid-request"),
        (part("format", b"x" * 5000) + WHOLE, 422, "invalid-request"),
        (MODEL + part("file", bytes(1 << 21), "x.nii") + END, 413, "too-large"),
        (MODEL + part("file", bytes(3 << 21), "x.nii") + END, 413, "too-large"),
    ],
)
def test_a_form_that_is_none_is_refused_and_leaves_nothing(
    client, desk, body, status, said
):
    answer = post(client, body)
    assert (answer.status_code, code(answer)) == (status, said)
    assert not list(desk.folders.uploads.iterdir())


def test_what_is_announced_as_too_large_is_refused_before_it_comes(client):
    url = client.base_url
    lines = ("POST /v1/jobs HTTP/1.1", "Host: localhost", f"Content-Length: {1 << 40}")
    kind = f"Content-Type: {FORM['Content-Type']}"
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, kind, "", ""]).encode())
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"too-large" in answer


def test_what_is_not_announced_is_counted(client, desk):
    def endless():
        yield MODEL + part("file", b"", "x.nii")[:-2]
        while True:
            yield bytes(1 << 16)

    try:
        answer = client.post("/v1/jobs", content=endless(), headers=FORM)
    except httpx.TransportError:
        pass  # the server hung up before its answer was read
    else:
        assert (answer.status_code, code(answer)) == (413, "too-large")
    assert not list(desk.folders.uploads.iterdir())


@settings(max_examples=25)
@given(st.binary(max_size=300), st.integers(0, len(WHOLE)))
def test_no_bytes_make_the_server_fail(shared, noise, place):
    client, desk = shared
    answer = post(client, WHOLE[:place] + noise + WHOLE[place:])
    assert answer.status_code in (202, 400, 404, 413, 415, 422)
    if answer.status_code == 202:
        client.delete(f"/v1/jobs/{answer.json()['id']}")
    assert not list(desk.folders.uploads.iterdir())


def test_other_kinds_of_bodies_are_refused(client):
    for kind in ("application/json", "multipart/form-data", "text/plain; boundary=x"):
        answer = client.post("/v1/jobs", content=WHOLE, headers={"Content-Type": kind})
        assert (answer.status_code, code(answer)) == (415, "unsupported-media-type")


def test_a_repeated_request_is_one_job(client):
    key = {"Idempotency-Key": "9f2c"}
    first = send(client, scan(), headers=key).json()
    assert send(client, scan(), headers=key).json()["id"] == first["id"]
    other = send(client, scan(note="other"), headers=key)
    assert (other.status_code, code(other)) == (422, "idempotency-key-reused")
    assert send(client, scan()).json()["id"] != first["id"]
    wrong = send(client, scan(), headers={"Idempotency-Key": "x" * 300})
    assert code(wrong) == "invalid-request"


def test_the_bytes_on_the_disk_are_those_that_were_sent(client, desk):
    data = scan(note="x" * 50_000)
    job = send(client, data, name=f"{SECRET}.mha").json()
    (file,) = desk.folders.parts(job["id"])
    assert file.name == "0000.mha"
    assert file.read_bytes() == data
    assert desk.folders.root.stat().st_mode & 0o077 == 0
    ended(client, job["id"])


def test_more_jobs_than_the_queue_holds_are_refused_with_a_time_to_come_back(tmp_path):
    limits = LIMITS.model_copy(update={"queue": 3, "per_client": 2})
    with served(tmp_path, limits=limits) as (client, _):
        send(client, scan("sleep", 30))
        send(client, scan())
        answer = send(client, scan())
        assert (answer.status_code, code(answer)) == (429, "too-many-jobs")
        assert int(answer.headers["Retry-After"]) > 0
        for job in client.get("/v1/jobs").json()["jobs"]:
            client.delete(f"/v1/jobs/{job['id']}")


def test_nothing_is_taken_when_the_disk_is_nearly_full(desk, client, monkeypatch):
    usage = shutil.disk_usage(desk.folders.root)
    full = LIMITS.model_copy(update={"reserve": usage.total})
    monkeypatch.setattr(desk, "limits", full)
    answer = send(client, scan())
    assert (answer.status_code, code(answer)) == (507, "no-space")
    assert answer.headers["Retry-After"]


@pytest.mark.parametrize(
    ("head", "name", "suffix"),
    [
        (b"\x1f\x8b\x08", "", ".nii.gz"),
        (b"NRRD0004", "x.nii", ".nrrd"),
        (b"PK\x03\x04", "", ".zip"),
        (bytes(128) + b"DICM", "IM0001", ".dcm"),
        (b"\x5c\x01\x00\x00", "", ".nii"),
        (b"\x00\x00\x02\x1c", "", ".nii"),
        (b"ObjectType = Image", "", ".mha"),
        (b"damaged", "x.NII.GZ", ".nii.gz"),
        (b"damaged", "x.pdf", ".bin"),
        (b"damaged", "../../x.mha", ".mha"),
    ],
)
def test_formats_are_told_by_content_and_then_by_name(head, name, suffix):
    assert format_suffix(head, name) == suffix


# -- scans that lie on the server ------------------------------------------------------
@pytest.fixture
def place(desk, tmp_path, monkeypatch):
    data = tmp_path / "data"
    (data / "folder").mkdir(parents=True)
    (data / "scan.mha").write_bytes(scan())
    for number in range(2):
        (data / "folder" / f"IM{number}").write_bytes(b"no preamble\n" + scan())
    (tmp_path / "secret.mha").write_bytes(scan())
    (data / "link.mha").symlink_to(tmp_path / "secret.mha")
    (data / "up").symlink_to(tmp_path)
    monkeypatch.setattr(desk, "data", data)
    return data


def named(client, path, model="one"):
    form = {"model": (None, model), "path": (None, path)}
    return client.post("/v1/jobs", files=form)


@pytest.mark.parametrize(
    "path", ["scan.mha", "./folder/../scan.mha", "folder", "folder/"]
)
def test_a_scan_in_the_data_folder_is_named_by_its_path(client, place, path):
    answer = named(client, path)
    if ".." in path:
        assert code(answer) == "no-such-path"
    else:
        assert ended(client, answer.json()["id"])["state"] == "done"


@pytest.mark.parametrize(
    "path",
    [
        "../secret.mha",
        "link.mha",
        "up/secret.mha",
        "up",
        "/etc/passwd",
        "folder/../../secret.mha",
        "missing.mha",
        ".",
        "",
        "scan.mha/x",
    ],
)
def test_no_path_leads_out_of_the_data_folder(client, place, path):
    answer = named(client, path)
    assert answer.status_code in (404, 422)
    assert code(answer) in ("no-such-path", "invalid-request")


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["..", ".", "up", "folder", "link.mha", "/", "~"])))
def test_whatever_path_nothing_outside_is_read(shared, parts):
    client, _ = shared
    answer = named(client, "/".join(parts) or "/")
    assert answer.status_code == 404


def test_without_a_data_folder_no_path_is_taken(client, desk, monkeypatch):
    monkeypatch.setattr(desk, "data", None)
    assert code(named(client, "scan.mha")) == "invalid-request"


def test_what_is_computed_is_what_lay_there_when_it_was_queued(client, place):
    job = named(client, "scan.mha").json()
    (place / "scan.mha").write_bytes(b"other")
    ended(client, job["id"])
    result = client.get(f"/v1/jobs/{job['id']}/results/case.nii.gz").content
    assert hashlib.sha256(result).digest() == hashlib.sha256(scan()).digest()


def test_channels_in_a_folder_are_matched_by_name(client, place):
    for name in ("p_T2.mha", "p_T1.mha"):
        (place / "folder" / name).write_bytes(scan(note=name))
    job = ended(client, named(client, "folder", "two").json()["id"])
    content = client.get(f"/v1/jobs/{job['id']}/results/case.nii.gz").text
    assert content.index("p_T1") < content.index("p_T2")
    assert code(named(client, "folder", "one")) == "invalid-request"
