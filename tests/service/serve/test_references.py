"""Scans that an archive has: searched for, referred to, fetched when their job runs."""

import errno
import json
import logging
import shutil
from contextlib import nullcontext
from functools import partial

import pytest
import trivox_client as tc

from clinic import canaries_of, uid, web_archive, write_profiles, write_series
from json_schemas import complaints
from serve_client import ended, served
from trivox.errors import ResourceError
from trivox.service.objects import Shelf
from trivox.service.serve.api.archives import search
from trivox.service.serve.api.archives.schemas import StudyQuery
from trivox.service.serve.jobs.states import Failure
from trivox.service.serve.work import references, worker
from trivox.service.serve.work.child import failure_of
from trivox.service.serve.work.engine import JobError
from trivox.service.serve.work.references import (
    FILE,
    fetched,
    parsed_reference,
    write_reference,
)

DOES = "\r\ndoes = nothing 0\r\n"
"""What the models of these tests read in a scan."""
REFERENCE = f"web/studies/{uid('s')}/series/{uid('a')}"


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """A server, its client, and an archive with two series."""
    folder = tmp_path_factory.mktemp("hospital")
    with web_archive() as archive:
        for series, count in (("a", 3), ("b", 1)):
            options = {"series": series, "count": count, "ImageComments": DOES}
            archive.load(write_series(folder / series, **options))
        profiles = write_profiles(
            folder, archive, down={"url": "http://localhost:1/dicom", "retries": 0}
        )
        with served(folder / "state", archives=profiles) as (client, desk):
            yield client, desk, archive


@pytest.fixture
def client(hospital):
    return hospital[0]


@pytest.fixture
def archive(hospital):
    archive = hospital[2]
    yield archive
    archive.lies.clear()


def post(client, *, model="one", headers=None, **fields):
    form = [("model", (None, model))]
    form += [(name, (None, value)) for name, value in fields.items()]
    return client.post("/v1/jobs", files=form, headers=headers or {})


def code(answer, status):
    assert answer.status_code == status
    return answer.json()["code"]


def test_what_is_found_can_be_referred_to(hospital):
    client, desk, archive = hospital
    assert client.get("/v1/archives").json() == {"archives": ["down", "web"]}
    answer = client.post("/v1/archives/web/studies", json={"modality": "CT"}).json()
    (study,) = answer["studies"]
    assert (study["study"], study["objects"]) == (uid("s"), 4)
    assert study["patient_name"] == "Canary^Zeisig"
    assert not answer["more"]
    answer = client.post("/v1/archives/web/series", json={"study": study["study"]})
    series = {each["reference"]: each for each in answer.json()["series"]}
    assert series[REFERENCE]["objects"] == 3
    assert len(series) == 2
    job = post(client, reference=REFERENCE).json()
    state = ended(client, job["id"])
    assert (state["state"], state["error"]) == ("done", None)
    parts = desk.folders.parts(job["id"])
    sources = [content for content, _ in archive.matching(uid("s"), uid("a"))]
    assert sorted(part.read_bytes() for part in parts) == sorted(sources)
    assert [part.suffix for part in parts] == [".dcm"] * 3
    result = client.get(f"/v1/jobs/{job['id']}/results/case.nii.gz")
    assert all(source in result.content for source in sources)


def test_profiles_that_cannot_be_read_are_the_operators(tmp_path):
    file = tmp_path / "pacs.toml"
    file.write_text("[web")
    for ask in (search.archive_names, partial(search.require_archive, "web")):
        with pytest.raises(search.ProblemError) as raised:
            ask(file)
        assert raised.value.code == "not-healthy"
        assert str(tmp_path) not in raised.value.detail


def test_series_without_a_uid_cannot_be_referred_to():
    rows = [{search.SERIES: "local"}, {search.SERIES: uid("a"), "Modality": "CT"}]
    (view,) = search._series("web", uid("s"), rows)
    assert (view.reference, view.modality) == (REFERENCE, "CT")


@pytest.mark.parametrize("most", [1, 2])
def test_studies_that_are_not_shown_are_said_to_be_there(monkeypatch, most):
    class Two:
        def studies(self, query):
            return [{search.STUDY: uid(name)} for name in "st"]

    monkeypatch.setattr(search, "MOST", most)
    searches = search.Searches(None)
    monkeypatch.setattr(searches, "_opened", lambda name: nullcontext(Two()))
    answer = searches.studies("web", StudyQuery())
    assert len(answer.studies) == most
    assert answer.more == (most < 2)


@pytest.mark.parametrize(("most", "shown"), [(1, 1), (2, 2), (3, 2)])
def test_series_that_are_not_shown_are_said_to_be_there(
    client, monkeypatch, most, shown
):
    monkeypatch.setattr(search, "MOST", most)
    answer = client.post("/v1/archives/web/series", json={"study": uid("s")}).json()
    assert len(answer["series"]) == shown
    assert answer["more"] == (most < 2)


def test_the_python_client_sends_a_reference(client):
    with tc.TrivoxClient(str(client.base_url)) as asking:
        job = asking.submit_reference(REFERENCE, model="one", format="nifti")
        assert asking.wait(job).state == "done"
        with pytest.raises(tc.InvalidRequest, match="ARCHIVE/studies"):
            asking.submit_reference("web", model="one")


def test_a_reference_sent_twice_is_one_job(client):
    keyed = {"Idempotency-Key": "once"}
    ids = {
        post(client, reference=REFERENCE, headers=keyed).json()["id"] for _ in range(2)
    }
    (job,) = ids
    assert ended(client, job)["state"] == "done"
    other = REFERENCE.replace(uid("a"), uid("b"))
    answer = post(client, reference=other, headers=keyed)
    assert code(answer, 422) == "idempotency-key-reused"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"reference": "web"}, "invalid-request"),
        ({"reference": REFERENCE + "/instances/1.2"}, "invalid-request"),
        ({"reference": REFERENCE.replace("studies", "patients")}, "invalid-request"),
        ({"reference": f"../{REFERENCE}"}, "invalid-request"),
        ({"reference": REFERENCE.replace("1.2", "1..2")}, "invalid-request"),
        ({"reference": REFERENCE, "path": "x"}, "invalid-request"),
        ({"reference": REFERENCE, "model": "two"}, "invalid-request"),
        ({}, "invalid-request"),
    ],
)
def test_what_is_no_reference_is_refused(client, fields, expected):
    assert code(post(client, **fields), 422) == expected


def test_answers_about_archives_fit_the_schemas_that_are_published(client):
    query = {"study": uid("s")}
    answers = {
        "archives": client.get("/v1/archives"),
        "studies": client.post("/v1/archives/web/studies", json={}),
        "series": client.post("/v1/archives/web/series", json=query),
        "problem": client.post("/v1/archives/elsewhere/series", json=query),
    }
    for name, answer in answers.items():
        assert complaints(f"service-{name}", answer.json()) == []


def test_only_archives_of_the_server_are_asked(client, archive):
    seen = len(archive.seen)
    elsewhere = REFERENCE.replace("web", "elsewhere")
    assert code(post(client, reference=elsewhere), 404) == "no-such-archive"
    query = {"study": uid("s")}
    answer = client.post("/v1/archives/elsewhere/series", json=query)
    assert code(answer, 404) == "no-such-archive"
    assert len(archive.seen) == seen


@pytest.mark.parametrize(
    "query",
    [
        {"dates": "yesterday"},
        {"patient_id": "x" * 65},
        {"patient_name": "a\\b"},
        {"patient_name": "a\nb"},
        {"other": "1"},
    ],
)
def test_searches_say_what_archives_understand(client, query):
    answer = client.post("/v1/archives/web/studies", json=query)
    assert code(answer, 422) == "invalid-request"
    for value in query.values():
        assert value not in answer.text


def test_a_server_without_archives_has_none(shared):
    client, _ = shared
    assert client.get("/v1/archives").json() == {"archives": []}
    answer = client.post("/v1/archives/web/studies", json={})
    assert code(answer, 404) == "no-such-archive"
    assert code(post(client, reference=REFERENCE), 422) == "invalid-request"


@pytest.mark.parametrize(
    ("lie", "name", "status", "expected"),
    [
        ("unauthorized", "web", 502, "archive-refused"),
        ("no-json", "web", 502, "archive-refused"),
        ("", "down", 502, "archive-unreachable"),
    ],
)
def test_an_archive_that_does_not_answer_is_said(
    client, archive, lie, name, status, expected
):
    archive.lies.add(lie)
    answer = client.post(f"/v1/archives/{name}/studies", json={"patient_id": "Canary"})
    assert code(answer, status) == expected
    assert not [word for word in canaries_of("a") if word in answer.text]


def test_a_slow_archive_does_not_take_all_threads(monkeypatch):
    monkeypatch.setattr(search, "AT_ONCE", 0)
    searches = search.Searches(None)
    monkeypatch.setattr(search, "require_archive", lambda name, profiles: None)
    with pytest.raises(search.ProblemError) as raised:
        searches.series("web", uid("s"))
    assert raised.value.code == "too-many-searches"


@pytest.mark.parametrize(
    ("lie", "reference", "expected"),
    [
        ("no-objects", REFERENCE, Failure.NOT_IN_ARCHIVE),
        ("garbage", REFERENCE, Failure.NOT_IN_ARCHIVE),
        ("other-object", REFERENCE, Failure.NOT_IN_ARCHIVE),
        ("", REFERENCE.replace(uid("a"), uid("z")), Failure.NOT_IN_ARCHIVE),
        ("", REFERENCE.replace("web", "down"), Failure.ARCHIVE),
        ("", REFERENCE.replace("web", "gone"), Failure.NOT_IN_ARCHIVE),
    ],
)
def test_a_job_whose_scan_cannot_be_had_says_why(
    archive, hospital, tmp_path, lie, reference, expected
):
    _, desk, _ = hospital
    archive.lies.add(lie)
    part = write_reference(tmp_path, parsed_reference(reference))
    with pytest.raises(JobError) as raised:
        fetched([part], desk.archives, tmp_path / "scratch")
    assert raised.value.code is expected
    assert raised.value.detail.rpartition(": ")[2]
    assert part.exists()


def test_a_failed_fetch_ends_the_job_and_names_nobody(client, archive, caplog):
    archive.lies.add("no-objects")
    with caplog.at_level(logging.INFO):
        job = ended(client, post(client, reference=REFERENCE).json()["id"])
    assert (job["state"], job["error"]["code"]) == ("failed", "not-in-archive")
    for text in (json.dumps(job), caplog.text):
        assert not [word for word in canaries_of("a", "b") if word in text]


def test_an_archive_that_is_down_is_asked_again(client):
    down = REFERENCE.replace("web", "down")
    job = ended(client, post(client, reference=down).json()["id"])
    assert job["error"]["code"] == "archive-unreachable"
    assert job["tries"] == 3
    assert Failure.ARCHIVE in worker.TRIED_AGAIN


def test_what_a_killed_try_left_is_fetched_anew(hospital, tmp_path, monkeypatch):
    _, desk, archive = hospital
    safe = []
    monkeypatch.setattr(
        references, "sync_folder", lambda f: safe.append({*f.iterdir()})
    )
    part = write_reference(tmp_path, parsed_reference(REFERENCE))
    for half in ("00000.dcm", "00007.dcm"):
        (tmp_path / half).write_bytes(b"half")
    parts = fetched(sorted(tmp_path.iterdir()), desk.archives, tmp_path / "scratch")
    shutil.rmtree(tmp_path / "scratch")
    scratch = {tmp_path / "scratch"}
    assert safe == [{part, *parts} | scratch, {*parts} | scratch]
    sources = {content for content, _ in archive.matching(uid("s"), uid("a"))}
    assert {each.read_bytes() for each in parts} == sources
    assert not part.exists()
    assert sorted(tmp_path.iterdir()) == parts
    assert fetched(parts, None, tmp_path / "scratch") == parts


def test_a_full_disk_is_no_fault_of_the_archive(hospital, tmp_path, monkeypatch):
    def full(*_):
        raise ResourceError("no space") from OSError(errno.ENOSPC, "full")

    _, desk, _ = hospital
    part = write_reference(tmp_path, parsed_reference(REFERENCE))
    monkeypatch.setattr(Shelf, "put", full)
    with pytest.raises(ResourceError) as raised:
        fetched([part], desk.archives, tmp_path / "scratch")
    assert failure_of(raised.value)[0] is Failure.NO_SPACE


def test_what_was_sent_needs_no_archive(tmp_path):
    part = tmp_path / "0000.nii.gz"
    part.touch()
    assert fetched([part], None, tmp_path / "scratch") == [part]
    assert FILE not in {each.name for each in tmp_path.iterdir()}
