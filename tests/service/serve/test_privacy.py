"""Nothing of a patient in logs, errors, events, figures or the table of the jobs."""

import io
import logging
import zipfile

from hypothesis import example, given, settings
from hypothesis import strategies as st

from serve_client import ended, send, served
from serve_engine import SECRET, scan
from trivox.service.serve.work.wording import HIDDEN, spoken

NAME = "Zyxwvut^Qrstu"
"""Of a file, which holds the name of a patient."""


OF_SERVER = ("trivox", "uvicorn", "python_multipart", "asyncio", "root")


def test_no_trace_of_a_patient_leaves_the_service(tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    state = tmp_path / "state"
    answers = []
    with served(state) as (client, _):
        for does in ("nothing", "bad", "bug", "full", "kill"):
            answers += answers_about(client, scan(does), "mha")
        for does in ("nothing", "bad"):
            answers += answers_about(client, packed(does), "zip")
        path = f"/v1/jobs/{NAME}?{SECRET}={NAME}"
        requests = [client.get(path, headers={"Prefer": NAME})]
        requests += [
            send(client, scan(), model=NAME),
            send(client, scan(), format=NAME),
        ]
        answers += [each.text for each in requests]
        answers += [client.get("/metrics").text]
        table = b"".join(each.read_bytes() for each in state.glob("jobs.sqlite*"))
        names = [str(each) for each in state.rglob("*")]
        job = client.get("/v1/jobs").json()["jobs"][0]
    said = capfd.readouterr()
    records = [each for each in caplog.records if each.name.startswith(OF_SERVER)]
    logged = [each.getMessage() for each in records]
    everything = [*answers, *names, *logged, said.out, said.err, repr(table)]
    for canary in (NAME, SECRET, "Zyxwvut", "Doe", "Jane", "19700101"):
        assert not [each for each in everything if canary in each], canary
    assert job["id"] in said.err


def packed(does):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{NAME}/{SECRET}.mha", scan(does))
    return file.getvalue()


def answers_about(client, data, suffix):
    """All that a client hears of a job, but for the image itself."""
    answer = send(client, data, name=f"{NAME}-{SECRET}.{suffix}")
    job = ended(client, answer.json()["id"])
    place = f"/v1/jobs/{job['id']}"
    events = client.get(f"{place}/events").text
    records = client.get(f"{place}/results/predictions.json").text
    return [answer.text, str(answer.headers), str(job), events, records]


MESSAGES = (
    "{}: is damaged; check it",
    "case.nii.gz: header says {} and is not readable",
    "00003.dcm: Invalid value for VR DS: '{}'",
    "the series {} and {} are both largest; choose one",
)


@settings(max_examples=50)
@given(st.sampled_from(MESSAGES), st.text(min_size=1, max_size=30))
@example("{}", "/data/Doe_Jane/scan.nii.gz")
@example("{}", "1.2.840.113619.2.55.3.1234567890")
@example("{}", "19700101")
@example("{}", "PAT-4711/0815")
@example("{}", "Jane-Doe")
def test_words_that_are_not_the_programs_are_hidden(message, words):
    said = spoken(message.format(words, words))
    vocabulary = set(spoken(message.format("", "")).split())
    for token in said.split():
        is_known = token in vocabulary or HIDDEN in token
        assert is_known or spoken(token) == token
    for word in ("Doe", "Jane", "4711", "19700101", "113619"):
        if word in words:
            assert word not in said.replace(message, "") or word in message


def test_words_of_the_program_and_the_model_are_said():
    line = "case.nii.gz: 2 image files, the model reads T1, FLAIR; give one for each"
    assert spoken(line, ("T1", "FLAIR")) == line
    assert spoken("case.nii.gz: has no Anterior", ("Anterior",)).endswith("Anterior")
    assert spoken("case.nii.gz: has no Anteriur").endswith(HIDDEN)
