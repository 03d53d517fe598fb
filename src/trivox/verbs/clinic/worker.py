"""A worker of `trivox serve`, started by it: `python -m trivox.verbs.clinic.worker FILE`."""

import sys
from pathlib import Path

from trivox.service.serve.work.worker import work
from trivox.verbs.clinic.engine import PredictEngine

if __name__ == "__main__":
    work(Path(sys.argv[1]), PredictEngine)
