"""Arrays are read in threads; their headers are parsed by one of them at a time."""

import ast

import numpy as np
import pytest

from trivox.array_files import PARSER
from trivox.datasets.exams import read_views
from trivox.preparation.store import Store
from trivox.volumes.formats import read_volume


def npy(folder):
    np.save(folder / "scan.npy", np.zeros((4, 4, 4), np.float32))
    read_volume(folder / "scan.npy")


def npz_with_spacing(folder):
    scan = np.zeros((4, 4, 4), np.float32)
    np.savez(folder / "scan.npz", image=scan, spacing=np.ones(3))
    read_volume(folder / "scan.npz")


def prepared_case(folder):
    store = Store(folder)
    image = np.zeros((1, 4, 4, 4), np.float32)
    store.write("case", image, np.ones((4, 4, 4), np.int16), {})
    Store(folder).foreground("case", 1)


def views(folder):
    np.savez(folder / "views.npz", views=np.ones((2, 4, 4), np.float32))
    read_views(folder / "views.npz")


@pytest.mark.parametrize("read", [npy, npz_with_spacing, prepared_case, views])
def test_whoever_parses_a_header_of_numpy_holds_the_parser(tmp_path, monkeypatch, read):
    parse = ast.literal_eval
    held = []

    def watched(text):
        held.append(PARSER.locked())
        return parse(text)

    monkeypatch.setattr(ast, "literal_eval", watched)
    read(tmp_path)
    assert held
    assert all(held)
    assert not PARSER.locked()
