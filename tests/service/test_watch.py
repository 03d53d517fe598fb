"""The watcher: every series ends in one state, whatever happens to one of them."""

import sqlite3
import sys
import threading
from contextlib import closing

import pytest

import trivox
from clinic import (
    STUB,
    Lines,
    canaries_of,
    predicts_here,
    uid,
    web_archive,
    write_profiles,
    write_rules,
    write_series,
    written_text,
)
from trivox.service import watch as watching
from trivox.service.jobs import work
from trivox.service.jobs.child import run_child
from trivox.service.jobs.queue import Queue
from trivox.service.jobs.states import State
from trivox.service.objects import Shelf
from trivox.service.peers.choice import archive_of
from trivox.service.profiles import read_profiles
from trivox.service.pseudonyms import pseudonyms_of
from trivox.service.rules import read_rules


@pytest.fixture(autouse=True)
def stub(monkeypatch):
    monkeypatch.setattr(work, "PREDICT", (sys.executable, str(STUB)))
    monkeypatch.setattr(work, "run_child", predicts_here)
    monkeypatch.setattr(watching, "IDLE", 0.01)
    monkeypatch.setattr(work, "PAUSE", 0.01)


@pytest.fixture
def children(stub, monkeypatch):
    """Predictions are processes of their own, as outside of tests."""
    monkeypatch.setattr(work, "run_child", run_child)


@pytest.fixture
def archive():
    with web_archive() as archive:
        yield archive


@pytest.fixture
def station(tmp_path, archive):
    """Watch once; returns the queue, lines that were said and the error, if any."""

    def watch(rules="", others=None, **rule):
        profiles = write_profiles(tmp_path, archive, **(others or {}))
        file = write_rules(tmp_path, rules, **rule)
        lines = Lines()
        error = None
        try:
            trivox.pacs_watch(
                file,
                tmp_path / "station",
                profiles=profiles,
                pacs="web",
                once=True,
                console=lines,
            )
        except trivox.TrivoxError as caught:
            error = caught
        return Queue(tmp_path / "station"), lines, error

    return watch


def load(archive, tmp_path, *names, **attributes):
    for name in names:
        archive.load(write_series(tmp_path / "scans", series=name, **attributes))


def starts(tmp_path):
    file = tmp_path / "station" / "starts.txt"
    return file.read_text().splitlines() if file.exists() else []


def states(queue):
    return sorted(str(entry.state) for entry in queue.entries())


def test_a_series_is_answered_once_and_its_result_is_not_worked_on(
    archive, station, tmp_path
):
    load(archive, tmp_path, "a", "b")
    load(archive, tmp_path, "c", Modality="MR")
    queue, _, error = station()
    assert error is None
    assert len(archive.of("SEG")) == 2
    assert set(archive.stores.values()) == {1}
    assert states(queue) == ["done", "done", "ignored", "ignored", "ignored"]
    queue, _, _ = station(modality=[])  # a rule that fits everything, as c
    assert len(archive.of("SEG")) == len(starts(tmp_path)) == 3
    assert set(archive.stores.values()) == {1}


def test_nothing_that_is_written_or_said_names_the_patient(
    children, archive, station, tmp_path, monkeypatch
):
    load(archive, tmp_path, "a", "b")
    load(archive, tmp_path, "c", "d")
    _, said, _ = station(model="fail", tags={"SeriesInstanceUID": uid("a") + "$"})
    _, more, _ = station(model="good", tags={"SeriesInstanceUID": uid("b") + "$"})
    monkeypatch.setattr(work, "run_child", predicts_here)
    archive.lies.add("garbage")
    _, lies, _ = station()
    archive.lies.clear()
    _, good, error = station(name="all", study_description="")
    text = written_text(tmp_path / "station")
    text += "\n".join([*said, *more, *lies, *good, str(error)]).encode()
    assert [
        word for word in canaries_of("a", "b", "c", "d") if word.encode() in text
    ] == []
    assert b"[removed]" in text
    assert b"rule ct" in text


def test_whatever_goes_wrong_is_said_without_the_patient(
    archive, station, tmp_path, monkeypatch
):
    load(archive, tmp_path, "a")

    def fail(*args, **options):
        raise trivox.errors.DataError(f"of {' '.join(canaries_of('a'))}: no")

    monkeypatch.setattr(work, "run_child", fail)
    queue, lines, error = station()
    (entry,) = queue.entries()
    text = "\n".join([entry.reason, *lines, str(error)])
    assert [word for word in canaries_of("a") if word in text] == []
    assert "[removed]" in entry.reason


def test_the_prediction_of_a_killed_service_is_ended_first(
    archive, station, tmp_path, monkeypatch
):
    load(archive, tmp_path, "a")

    def interrupted(*args, started, **options):
        started("machine 1 1.0")
        raise trivox.errors.InterruptedTrainingError("the service stops")

    ended = []
    monkeypatch.setattr(work, "run_child", interrupted)
    station()
    monkeypatch.setattr(work, "run_child", predicts_here)
    monkeypatch.setattr(work, "end_orphan", ended.append)
    _, _, error = station()
    assert error is None
    assert ended == ["machine 1 1.0"]


def test_urgent_series_go_first(archive, station, tmp_path):
    load(archive, tmp_path, "a", "b", "c")
    load(archive, tmp_path, "z", SeriesDescription="stroke")
    urgent = (
        '[[rules]]\nname = "now"\ndescription = "stroke"\nmodel = "quick"\n'
        'priority = "urgent"\n'
    )
    station(urgent)
    assert starts(tmp_path)[0].endswith("quick")
    assert [line.split()[1] for line in starts(tmp_path)] == ["quick", *["good"] * 3]


FAILURES = {
    "fail": "exit 1",
    "nothing": "wrote no DICOM object",
    "other-study": "another study",
}


@pytest.mark.parametrize(("model", "reason"), FAILURES.items())
def test_a_prediction_that_fails_is_set_aside_after_three_tries(
    archive, station, tmp_path, model, reason
):
    load(archive, tmp_path, "a")
    for _ in range(40):
        queue, _, error = station(model=model)
        (entry,) = queue.entries()
        if entry.state is State.FAILED:
            break
    assert entry.state is State.FAILED
    assert reason in entry.reason
    assert len(starts(tmp_path)) == 3
    assert "1 series are not done" in str(error)
    assert not archive.of("SEG")


def test_one_that_fails_does_not_stop_the_others(children, archive, station, tmp_path):
    load(archive, tmp_path, "a", SeriesDescription="bad")
    load(archive, tmp_path, "b", "c")
    bad = '[[rules]]\nname = "bad"\ndescription = "bad"\nmodel = "fail"\n'
    station(bad)
    assert len(archive.of("SEG")) == 2


def test_a_second_try_may_succeed(archive, station, tmp_path):
    load(archive, tmp_path, "a")
    for _ in range(40):
        queue, _, error = station(model="once")
        if error is None:
            break
    assert states(queue) == ["done", "ignored"]
    assert len(archive.of("SEG")) == 1


def test_a_count_that_does_not_match_waits_and_says_so(archive, station, tmp_path):
    load(archive, tmp_path, "a")
    archive.lies.add("count-too-high")
    queue, lines, error = station()
    (entry,) = queue.entries()
    assert entry.state is State.WAITING
    assert "3 of 4 objects are here; waits for the rest" in entry.reason
    assert any("3 of 4" in line for line in lines)
    assert not starts(tmp_path)
    archive.lies.clear()
    queue, _, error = station()
    assert error is None
    assert len(archive.of("SEG")) == 1


def test_an_object_that_an_archive_lists_and_lacks_is_waited_for(
    archive, station, tmp_path
):
    load(archive, tmp_path, "a")
    archive.lies.add("no-objects")
    queue, _, _ = station()
    (entry,) = queue.entries()
    assert entry.state is State.WAITING
    assert "0 of 3 objects are here" in entry.reason


def test_a_profile_that_is_wrong_is_said_at_once(archive, station, tmp_path):
    archive.lies.add("unauthorized")
    _, _, error = station()
    assert "status 401" in str(error)


def test_objects_that_come_later_are_answered_again(archive, station, tmp_path):
    load(archive, tmp_path, "a")
    station()
    load(archive, tmp_path, "a", count=5)
    _, _, error = station()
    assert error is None
    assert sorted(d.SeriesDescription for d in archive.of("SEG")) == ["of 3", "of 5"]
    assert len(starts(tmp_path)) == 2


def test_results_go_where_the_rule_says(archive, station, tmp_path):
    load(archive, tmp_path, "a")
    with web_archive() as other:
        others = {"research": {"url": other.url, "timeout": 5}}
        station(others=others, send_to=["research", "sender"])
        assert len(other.of("SEG")) == len(archive.of("SEG")) == 1


def test_a_destination_that_is_down_does_not_hold_up_the_other(
    archive, station, tmp_path
):
    load(archive, tmp_path, "a")
    down = {"url": "http://127.0.0.1:9/dicom", "retries": 0}
    queue, _, error = station(others={"down": down}, send_to=["down", "sender"])
    assert len(archive.of("SEG")) == 1
    states_by_key = {entry.state for entry in queue.entries()}
    assert State.SENDING in states_by_key
    assert "cannot be reached" in str(error)


def test_a_result_that_an_archive_swallows_is_not_called_done(
    archive, station, tmp_path
):
    load(archive, tmp_path, "a")
    archive.lies.add("stow-nothing")
    _, _, error = station()
    assert "not to be found" in str(error)
    archive.lies.clear()
    _, _, error = station()
    assert error is None
    assert len(starts(tmp_path)) == 1


def test_studies_that_did_not_change_are_not_asked_for_again(archive, tmp_path):
    load(archive, tmp_path, "a", Modality="MR")
    rules = read_rules(write_rules(tmp_path))
    profiles = read_profiles(write_profiles(tmp_path, archive))
    shelf = Shelf(tmp_path, pseudonyms_of(tmp_path))
    with closing(archive_of("web", profiles["web"])) as web:
        watched = watching.Watched(web, rules, Queue(tmp_path), shelf, print)
        for expected in (2, 3):
            watched.look()
            assert len(archive.seen) == expected
        load(archive, tmp_path, "b")
        watched.look()
        assert len(archive.seen) == 5
        assert len(watched.queue.entries()) == 2
        watched.look()  # something of it waits
        assert len(archive.seen) == 7


def test_two_watchers_share_the_work(archive, station, tmp_path):
    load(archive, tmp_path, *"abcdef")
    errors = []
    watchers = [
        threading.Thread(target=lambda: errors.append(station()[2])) for _ in range(2)
    ]
    for each in watchers:
        each.start()
    for each in watchers:
        each.join()
    _, _, error = station()
    assert error is None
    assert len(archive.of("SEG")) == 6
    assert len(starts(tmp_path)) == 6
    assert set(archive.stores.values()) == {1}


def test_an_archive_that_is_down_is_waited_for(station, tmp_path, archive):
    load(archive, tmp_path, "a")
    archive.lies.add("hang-up")
    _, lines, error = station()
    assert error is None
    assert "cannot be reached" in lines[0]
    archive.lies.clear()
    station()
    assert len(archive.of("SEG")) == 1


def test_files_of_what_is_done_go_in_the_end(archive, station, tmp_path):
    load(archive, tmp_path, "a")
    station()
    received = list((tmp_path / "station" / "received").rglob("*.dcm"))
    assert len(received) == 3
    with sqlite3.connect(tmp_path / "station" / "queue.sqlite") as database:
        database.execute("UPDATE series SET changed = 0")
    queue, _, error = station()
    assert error is None
    assert not list((tmp_path / "station").rglob("*.dcm"))
    assert states(queue) == ["done", "ignored"]
