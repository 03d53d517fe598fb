"""Jobs from being sent to their results, with workers that are processes."""

import io
import json
import os
import signal
import zipfile

import psutil
import pytest

from json_schemas import complaints
from serve_client import JOB_LIMITS, ended, send, served, until
from serve_engine import SECRET, scan


def run(client, data, **fields):
    answer = send(client, data, **fields)
    assert answer.status_code == 202, answer.text
    return ended(client, answer.json()["id"])


def test_a_scan_becomes_results(client):
    answer = send(client, scan())
    assert answer.status_code == 202
    assert answer.json().keys() == {"id", "state"}
    assert answer.json()["state"] == "queued"
    job = ended(client, answer.json()["id"])
    assert (job["state"], job["stage"], job["progress"]) == ("done", "ended", 1.0)
    assert job["results"] == ["case.nii.gz", "predictions.json"]
    result = client.get(f"/v1/jobs/{job['id']}/results/case.nii.gz")
    assert result.content == scan()
    records = client.get(f"/v1/jobs/{job['id']}/results/predictions.json").json()
    assert records["cases"]["case"]["inputs"] == ["case.mha"]


def test_answers_fit_the_schemas_that_are_published(client):
    accepted = send(client, scan()).json()
    assert complaints("service-accepted", accepted) == []
    job = ended(client, accepted["id"])
    assert complaints("service-job", job) == []
    for path, name in (
        ("healthz", "health"),
        ("v1/models", "models"),
        ("v1/jobs", "jobs"),
        ("v1/jobs/none", "problem"),
        (f"v1/jobs/{job['id']}/results/none", "problem"),
        ("v1/models/none", "problem"),
    ):
        assert complaints(f"service-{name}", client.get(f"/{path}").json()) == []


def test_channels_are_taken_in_the_order_in_which_they_are_sent(client):
    files = [("file", ("b.mha", scan(note="b"))), ("file", ("a.mha", scan(note="a")))]
    answer = client.post("/v1/jobs", files=files, data={"model": "two"})
    job = ended(client, answer.json()["id"])
    content = client.get(f"/v1/jobs/{job['id']}/results/case.nii.gz").text
    assert content.index("= b") < content.index("= a")


def test_a_wrong_number_of_channels_fails_with_their_names(client):
    job = run(client, scan(), model="one")
    files = [("file", ("a.mha", scan()))] * 3
    answer = client.post("/v1/jobs", files=files, data={"model": "two"})
    job = ended(client, answer.json()["id"])
    assert job["error"]["code"] == "unusable-input"
    assert "3 files were sent, the model reads 2 a case" in job["error"]["detail"]


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def test_a_zip_of_a_series_is_unpacked_under_neutral_names(client):
    members = {f"{SECRET}/IM{number}": scan() for number in range(3)}
    job = run(client, zipped({**members, "__MACOSX/._x": b"1"}), name="x.zip")
    records = client.get(f"/v1/jobs/{job['id']}/results/predictions.json").json()
    names = records["cases"]["case"]["names"]
    assert names == ["00000.dcm", "00001.dcm", "00002.dcm"]


def test_channels_in_a_zip_are_matched_by_name(client):
    members = {"p_T2.mha": scan(note="second"), "p_T1.mha": scan(note="first")}
    job = run(client, zipped(members), name="x.zip", model="two")
    content = client.get(f"/v1/jobs/{job['id']}/results/case.nii.gz").text
    assert content.index("first") < content.index("second")


def test_what_is_asked_for_reaches_the_prediction(client):
    job = run(client, scan(), format="dicom-seg,nifti", series="largest,axial")
    records = client.get(f"/v1/jobs/{job['id']}/results/predictions.json").json()
    assert (records["format"], records["series"]) == (
        "dicom-seg,nifti",
        "largest,axial",
    )


@pytest.mark.parametrize(
    ("does", "code", "tries"),
    [
        ("bad", "unusable-input", 0),
        ("kill", "crashed", 3),
        ("memory", "memory-limit", 0),
        ("bug", "internal", 0),
    ],
)
def test_a_job_that_fails_says_why_and_harms_no_other(client, does, code, tries):
    job = run(client, scan(does))
    assert job["state"] == "failed"
    assert job["error"]["code"] == code
    assert job["tries"] == tries
    assert job["results"] == []
    assert run(client, scan())["state"] == "done"


def test_unknown_bytes_fail_as_such(client):
    assert run(client, b"%PDF-1.7", name="x.pdf")["error"]["code"] == "unknown-format"


def test_a_job_that_crashed_once_is_done_at_the_second_try(client, tmp_path):
    job = run(client, scan("once", tmp_path / "marker"))
    assert (job["state"], job["tries"]) == ("done", 1)


def test_a_full_disk_is_waited_for_and_then_said(client):
    job = run(client, scan("full"))
    assert (job["error"]["code"], job["tries"]) == ("no-space", 3)


def test_a_job_that_takes_too_long_is_ended(tmp_path):
    limits = JOB_LIMITS.model_copy(update={"seconds": 0.3})
    with served(tmp_path, job_limits=limits) as (client, _):
        assert run(client, scan("sleep", 60))["error"]["code"] == "time-limit"


def test_cancelling_ends_the_job_and_all_that_it_started(client, tmp_path):
    note = tmp_path / "process"
    job = send(client, scan("descend", note)).json()
    until(lambda: note.exists() and note.read_text())
    process = int(note.read_text())
    assert psutil.pid_exists(process)
    answer = client.delete(f"/v1/jobs/{job['id']}")
    assert answer.json()["state"] == "cancelled"
    until(lambda: not lives(process))
    assert run(client, scan())["state"] == "done"
    assert client.get(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"


def lives(process):
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_queued_job_is_cancelled_without_being_begun(client, desk):
    slow = send(client, scan("sleep", 0.5)).json()
    job = send(client, scan()).json()
    assert client.delete(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    assert not desk.folders.of(job["id"]).exists()
    assert ended(client, slow["id"])["state"] == "done"
    assert client.get(f"/v1/jobs/{job['id']}").json()["started"] is None


def test_deleting_a_job_that_is_done_forgets_it_and_its_files(client, desk):
    job = run(client, scan())
    deleted = client.delete(f"/v1/jobs/{job['id']}").json()
    assert (deleted["state"], deleted["results"]) == ("done", [])
    for path in ("", "/results/case.nii.gz", "/events"):
        answer = client.get(f"/v1/jobs/{job['id']}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "no-such-job")
    assert not desk.folders.of(job["id"]).exists()


def test_a_cancelled_job_is_known_until_it_is_deleted_again(client):
    job = send(client, scan("sleep", 30)).json()
    path = f"/v1/jobs/{job['id']}"
    assert client.delete(path).json()["state"] == "cancelled"
    assert client.get(path).json()["state"] == "cancelled"
    assert client.delete(path).status_code == 200
    assert client.get(path).status_code == 404


def test_nothing_of_a_try_is_left_beside_the_results(client, desk):
    done = run(client, scan())
    failed = run(client, scan("bad"))
    left = {
        each.name.partition("-")[0] for each in desk.folders.of(done["id"]).iterdir()
    }
    assert left == {"input", "results"}
    left = [each.name for each in desk.folders.of(failed["id"]).iterdir()]
    assert left == ["input"]


def test_a_killed_worker_is_followed_by_another_which_does_its_job(tmp_path):
    note = tmp_path / "process"
    with served(tmp_path / "state") as (client, desk):
        job = send(client, scan("descend", note)).json()
        until(lambda: note.exists() and note.read_text())
        grandchild = int(note.read_text())
        child = desk.store.job(job["id"]).child
        os.kill(desk.supervisor.processes[0], signal.SIGKILL)
        until(lambda: not lives(grandchild) and not lives(child))
        until(lambda: int(note.read_text() or grandchild) != grandchild)
        until(lambda: desk.store.job(job["id"]).child not in (None, child))
        job = desk.store.job(job["id"])
        assert (job.state, job.interruptions, job.tries) == ("running", 1, 0)
        client.delete(f"/v1/jobs/{job.id}")


def test_jobs_outlive_the_server(tmp_path):
    with served(tmp_path) as (client, _):
        done = run(client, scan())
        slow = send(client, scan("sleep", 30)).json()
        waiting = send(client, scan()).json()
        until(lambda: client.get(f"/v1/jobs/{slow['id']}").json()["state"] == "running")
    with served(tmp_path) as (client, desk):
        job = desk.store.job(slow["id"])
        assert (job.interruptions, job.tries) == (0, 0)
        client.delete(f"/v1/jobs/{slow['id']}")
        assert ended(client, waiting["id"])["state"] == "done"
        result = client.get(f"/v1/jobs/{done['id']}/results/case.nii.gz")
        assert result.content == scan()


def test_events_tell_of_a_job_until_its_end(client):
    job = send(client, scan("sleep", 0.3)).json()
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    events = [
        line.removeprefix("event: ") for line in lines if line.startswith("event")
    ]
    views = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert events == ["job"] * (len(events) - 1) + ["end"]
    assert views[-1]["state"] == "done"
    assert {"computing"} <= {view["stage"] for view in views}
    progress = [view["progress"] for view in views]
    assert progress == sorted(progress)


def test_the_time_left_is_known_from_earlier_jobs(client):
    run(client, scan(), model="one")
    slow = send(client, scan("sleep", 0.4)).json()
    waiting = send(client, scan()).json()
    view = client.get(f"/v1/jobs/{waiting['id']}").json()
    assert view["eta_seconds"] > 0
    ended(client, slow["id"])
    assert ended(client, waiting["id"])["eta_seconds"] is None


def test_a_client_that_waits_is_led_to_the_result(client):
    answer = send(client, scan(), headers={"Prefer": "wait=30"})
    assert answer.status_code == 200
    assert answer.content == scan()
    assert [each.status_code for each in answer.history] == [303]
    failed = send(client, scan("bad"), headers={"Prefer": "wait=30"})
    assert (failed.status_code, failed.json()["code"]) == (409, "job-failed")
