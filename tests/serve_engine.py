"""A worker of the service whose models do what the scan says, in place of networks.

A scan is a text that begins as a MetaImage does and says `does = NAME VALUE`.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from trivox.errors import DataError
from trivox.service.serve.jobs.states import Stage
from trivox.service.serve.work.worker import work

SECRET = "Doe^Jane^19700101"
"""What no log and no answer may hold."""


def scan(does="nothing", value="", *, note=SECRET):
    """The bytes of a scan."""
    text = f"ObjectType = Image\nComment = {note}\ndoes = {does} {value}\n"
    return text.encode()


class FakeEngine:
    def __init__(self, settings):
        self.settings = settings

    def warm(self, model):
        pass

    def begin(self):
        pass

    def channels(self, model):
        return ("T1", "T2") if model == "two" else ("T1",)

    def words(self, model):
        return ("liver",)

    def predict(self, order, report):
        report(Stage.PREPARING)
        sources = [order.source]
        if order.source.is_dir():
            sources = sorted(each for each in order.source.rglob("*") if each.is_file())
        content = b"\n".join(each.read_bytes() for each in sources)
        report(Stage.COMPUTING)
        lines = content.decode("utf-8", "replace").splitlines()
        does = next(
            (each for each in lines if each.startswith("does = ")), "does = bad"
        )
        what, _, value = does.removeprefix("does = ").partition(" ")
        getattr(self, f"do_{what}", self.do_bad)(value, order)
        names = [each.name for each in sources]
        (order.out / "case.nii.gz").write_bytes(content)
        record = {"case": {"inputs": [str(each) for each in sources], "names": names}}
        asked = {"model": order.model, "format": order.format, "series": order.series}
        text = json.dumps({**asked, "cases": record})
        (order.out / "predictions.json").write_text(text, encoding="utf-8")

    def do_nothing(self, value, order):
        pass

    def do_sleep(self, value, order):
        time.sleep(float(value))

    def do_kill(self, value, order):
        os.kill(os.getpid(), signal.SIGSEGV)

    def do_once(self, value, order):
        """Crash at the first try."""
        marker = Path(value)
        if not marker.exists():
            marker.write_text("", encoding="utf-8")
            os.kill(os.getpid(), signal.SIGKILL)

    def do_memory(self, value, order):
        held = []
        while True:
            held.append(bytearray(b"x" * (1 << 24)))

    def do_bad(self, value, order):
        raise DataError(f"{order.source}: is damaged ({SECRET}); choose another file")

    def do_bug(self, value, order):
        raise KeyError(SECRET)

    def do_full(self, value, order):
        raise OSError(28, "No space left on device", f"/data/{SECRET}")

    def do_descend(self, value, order):
        """Leave a process behind that would run for long, and wait."""
        child = os.fork()
        if not child:
            time.sleep(600)
            os._exit(0)
        Path(value).write_text(str(child), encoding="utf-8")
        time.sleep(600)

    def do_write(self, value, order):
        (order.out / "large.bin").write_bytes(bytes(int(value)))


if __name__ == "__main__":
    work(Path(sys.argv[1]), FakeEngine)
