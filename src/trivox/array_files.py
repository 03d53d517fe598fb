"""Files of arrays (npy, npz) that are read in threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

PARSER = threading.Lock()
"""numpy reads headers with Python's own parser, which fails in some versions where
threads parse at once (SystemError, CPython gh-106905): whoever reads one takes this.
"""


@contextmanager
def opened_archive(file: Path) -> Iterator[Any]:
    """An archive as numpy opens it, for one thread of the process at a time; raises what
    numpy does.
    """
    # the stream is opened apart so that a bad archive is closed too
    with (
        PARSER,
        file.open("rb") as stream,
        np.load(stream, allow_pickle=False) as archive,
    ):
        yield archive
