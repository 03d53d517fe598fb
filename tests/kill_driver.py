"""Runs verbs in processes that kill themselves at a chosen moment: `python
kill_driver.py` reads one job a line (JSON) and answers with one line.

What takes seconds is loaded once; each process is a fork, so that a kill costs little.
A job: {"processes": [{"verb": name, "arguments": {...}, "log": file, "event": n,
"after": seconds}]}. event: the process dies at the n-th step that changes what other
processes see of the disk, odd numbers before it, even ones after it; a file that is not
renamed yet is cut in half before, as by a kill while it is written. after: it dies so
many seconds later. The answer: exit codes (-9: killed), and steps that were counted.
"""

import gc
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

STEPS = ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync")


class Fate:
    """Counts steps, and ends the process at one of them."""

    def __init__(self, event, counts):
        self.event = event
        self.counts = counts
        self.steps = 0

    def wrap(self, name):
        real = getattr(os, name)

        def step(*args, **kwargs):
            self.count(name, args)
            result = real(*args, **kwargs)
            self.count("", ())
            return result

        setattr(os, name, step)

    def count(self, name, args):
        self.steps += 1
        if self.steps != self.event:
            return
        if name == "fsync":
            size = os.fstat(args[0]).st_size
            os.ftruncate(args[0], size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    def ended(self):
        self.counts.write_text(str(self.steps))


def train(data, out, settings):
    from trivox.tasks.run import run_request
    from trivox.tasks.stages import started
    from trivox.tasks.task import RunRequest

    resume = started(Path(out))
    run_request(
        RunRequest(Path(data), Path(out), "quick_test", settings, resume=resume)
    )


def preprocess(data, out):
    import trivox

    trivox.preprocess(data, out, preset="quick_test", network="unet-tiny")


def predict(model, data, out, cases=None):
    import trivox

    trivox.predict(model, data, out, cases=cases, device="cpu", precision="fp32")


def evaluate(predictions, data, out):
    import trivox

    trivox.evaluate(predictions, data, out)


def fetch(source, out):
    from trivox.inference.zoo.release import Release, fetch_model

    release = Release.at(source)
    fetch_model(release, "tiny", Path(out), require=Path.is_dir, say=print)


VERBS = {each.__name__: each for each in (train, preprocess, predict, evaluate, fetch)}


def begin(process):
    """Fork; returns the number of the child."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        log = os.open(process["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        fate = Fate(process.get("event"), Path(process["log"] + ".steps"))
        for name in STEPS:
            fate.wrap(name)
        if process.get("after") is not None:
            kill = (os.getpid(), signal.SIGKILL)
            timer = threading.Timer(process["after"], os.kill, kill)
            timer.daemon = True
            timer.start()
        VERBS[process["verb"]](**process["arguments"])
        fate.ended()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


WARM = (
    "blosc2",
    "jinja2",
    "matplotlib.pyplot",
    "nibabel",
    "psutil",
    "scipy.stats",
    "sklearn.metrics",
    "trivox.tasks.run",
    "trivox.verbs.evaluate",
    "trivox.verbs.predict",
    "trivox.verbs.preprocess",
)
"""Loaded once, not in each process."""
WARM_TRAINING = ("torch._dynamo", "torch._inductor")


def main(*more):
    import torch

    torch.set_num_threads(1)
    for name in (*WARM, *more):
        importlib.import_module(name)
    gc.freeze()  # children share what they do not touch
    gc.disable()
    print("ready", flush=True)
    for line in sys.stdin:
        children = [begin(process) for process in json.loads(line)["processes"]]
        codes = [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in children]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main(*(WARM_TRAINING if "train" in sys.argv else ()))
