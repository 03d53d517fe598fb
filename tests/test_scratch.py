"""Nothing stays of a folder that nobody needs later."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trivox.scratch import scratch_folder

WORK = """
import sys, time
from trivox.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "scan.nii.gz").write_bytes(b"of a patient")
    print(folder, flush=True)
    time.sleep(60)
"""
ENDINGS = [n for n in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, n)]


@pytest.mark.skipif(sys.platform == "win32", reason="ends processes without asking")
@pytest.mark.parametrize("name", ENDINGS)
def test_a_process_that_is_asked_to_end_leaves_nothing(name):
    number = getattr(signal, name)
    process = subprocess.Popen([sys.executable, "-c", WORK], stdout=subprocess.PIPE)
    folder = Path(process.stdout.readline().decode().strip())
    assert (folder / "scan.nii.gz").is_file()
    process.send_signal(number)
    process.wait(30)
    process.stdout.close()
    assert not folder.exists()
    expected = {128 + number, -number, 1} if name == "SIGINT" else {128 + number}
    assert process.returncode in expected


def test_handlers_are_as_they_were():
    def mine(number, frame):
        """Somebody's own."""

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with scratch_folder() as folder:
            assert signal.getsignal(signal.SIGTERM) is mine
            assert not list(folder.iterdir())
        assert not folder.exists()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with scratch_folder() as folder:
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert not folder.exists()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_threads_have_such_folders_too():
    seen = []

    def work():
        with scratch_folder() as folder:
            seen.append(folder.is_dir())
        seen.append(folder.exists())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True, False]
