"""The program that exports carry makes of drawn images what trivox makes of them."""

import itertools
import json
import sys
from functools import partial

import numpy as np
import pytest
import torch

from page_cases import drawn
from trivox.exporting.programs import STANDALONE

CASES = 64


@pytest.fixture(scope="module")
def program():
    """The modules `run` and `runtimes` as they lie in an export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STANDALONE))
        import run
        import runtimes

        yield run, runtimes
    for name in ("run", "grids", "runtimes"):
        sys.modules.pop(name, None)


def computed(engine, window):
    return engine.logits(torch.from_numpy(window)).float().numpy()


def model_of(case, program, folder):
    """The program's model with the toy networks of a drawn case."""
    run, runtimes = program
    content = {"runtime": "onnx", "precision": "fp32", "pipeline": case.pipeline}
    (folder / "export.json").write_text(json.dumps(content))

    networks = []
    for engine in case.engines:
        stream = partial(map, partial(computed, engine))
        networks.append(runtimes.Network("toy", stream))
    return run.Model(folder, networks=networks)


@pytest.mark.parametrize("seed", range(CASES))
def test_images_are_prepared_and_segmented_as_by_trivox(seed, program, tmp_path):
    case = drawn(seed)
    model = model_of(case, program, tmp_path)
    image = case.volume.array.astype(np.float32)
    prepared, _ = model.prepare(image, case.volume.affine)
    wanted = case.prepared().image.numpy()
    assert prepared.shape == wanted.shape
    spread = np.maximum(1.0, np.abs(wanted).max((1, 2, 3), keepdims=True))
    assert (np.abs(prepared - wanted) / spread).max() < 3e-6
    if case.plan.grid.sums == "half":
        return  # what exports leave out, and say so
    labels = model.predict_array(image, case.volume.affine)
    # voxels where two classes are equal but for rounding may fall either way
    assert (labels != case.labels()).sum() <= 1


def test_windows_are_asked_for_once_for_each_copy(program):
    run, _ = program
    image = np.random.default_rng(0).normal(size=(1, 2, 3, 4))
    places = [tuple(slice(0, size) for size in image.shape[1:])]
    flips = [(), (1,), (2, 3)]
    copies = list(run.copies(image, places, flips))
    assert len(copies) == len(flips)
    streams = [iter(copies), iter(copies)]
    np.testing.assert_allclose(run.mean_of(streams, flips), image)
    assert list(itertools.chain(*streams)) == []
