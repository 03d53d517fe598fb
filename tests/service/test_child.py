"""A prediction as a process: whatever it does, the service goes on."""

import subprocess
import sys
import time

import pytest

from trivox.errors import DataError, InterruptedTrainingError
from trivox.service.jobs import child
from trivox.service.jobs.child import Limits, end_orphan, run_child


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "PATIENCE", 0.5)

    def call(script, *, seconds=20.0, stopped=lambda: False, secrets=()):
        limits = Limits(seconds, stopped, lambda: False)
        log = tmp_path / "log" / "predict.log"
        run_child(
            ["sh", "-c", script], log, limits, started=lambda _: None, secrets=secrets
        )
        return log.read_text()

    return call


ENDS = {
    "exit 3": "(exit 3): it said nothing",
    "echo error: no model; exit 1": "(exit 1): error: no model",
    "kill -6 $$": "(signal 6)",
    "kill -9 $$": "(signal 9)",
    "head -c 3000000 /dev/zero | tr '\\0' x; exit 1": "xxx",
}


@pytest.mark.parametrize("script", ENDS)
def test_how_a_process_failed_is_said_in_one_line(run, script):
    with pytest.raises(DataError) as caught:
        run(script)
    assert ENDS[script] in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("script", ["sleep 60", "trap '' TERM; sleep 60 & wait"])
def test_a_process_has_its_time_and_no_more(run, script):
    with pytest.raises(DataError, match=r"longer than its 0.2 s"):
        run(script, seconds=0.2)


def test_all_that_a_process_started_ends_with_it(run, tmp_path):
    script = f"sleep 60 & echo $! > {tmp_path}/number; exit 0"
    run(script)
    number = int((tmp_path / "number").read_text())
    end = time.monotonic() + 10
    while child._identity(number) and time.monotonic() < end:
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(number)], capture_output=True, text=True
        )
        if state.stdout.startswith("Z"):
            break
        time.sleep(0.02)
    assert time.monotonic() < end


def test_a_process_is_stopped_with_the_service(run):
    with pytest.raises(InterruptedTrainingError):
        run("sleep 60", stopped=lambda: True)


def test_a_log_says_nothing_of_the_patient(run, tmp_path):
    log = run("echo about Zeisig 1.2.840.113619.2.5.99", secrets=["zeisig"])
    assert log == "about [removed] [removed]\n"
    assert [file.name for file in (tmp_path / "log").iterdir()] == ["predict.log"]


def test_the_prediction_of_a_killed_service_is_ended(monkeypatch):
    monkeypatch.setattr(child, "PATIENCE", 5.0)
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command, start_new_session=True) as process:
        identity = child._identity(process.pid)
        end_orphan(identity.rpartition(" ")[0] + " 1.00")  # another one of its number
        assert process.poll() is None
        monkeypatch.setattr(child, "_await_end", lambda *_: process.wait(10))
        end_orphan(identity)
        assert process.poll() is not None


@pytest.mark.parametrize("identity", ["", "elsewhere 1 2.0", "h0 x y", "h0"])
def test_what_is_no_process_of_this_machine_is_left_alone(identity):
    end_orphan(identity)
