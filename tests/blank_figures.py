"""Pages with blank figures: drawing them takes longer than most trainings of tests, and
is tested on its own (tests/evaluation/report, tests/tasks/labels/test_pictures.py).
"""

from base64 import b64decode
from contextlib import contextmanager
from unittest.mock import patch

from matplotlib.figure import Figure

PIXEL = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJ"
    "RU5ErkJggg=="
)


def _blank(self, file, **options):
    file.write(PIXEL)


@contextmanager
def blank_figures():
    """Within, every figure becomes a pixel."""
    with patch.object(Figure, "savefig", _blank):
        yield
