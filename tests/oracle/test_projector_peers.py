"""The projector equals plastimatch (exact rays) and RTK (Joseph) at any angle, told in
their own conventions.

plastimatch: `apt-get install plastimatch`. RTK: `benchmarks/setup_xray_peers.sh`,
reached as a process of that environment; loading it takes 15 s, hence `pytest -m slow`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trivox.projection.geometry import Geometry, Grid
from trivox.projection.projector import project
from xray_phantoms import relative

pytestmark = pytest.mark.oracle
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RTK_PYTHON = BENCHMARKS / ".venv-xray" / "bin" / "python"

CASES = {
    "about the patient": {"primary": (0, 30, 44, 46, 90, 137, 200, -70)},
    "towards the head and the feet": {
        "primary": (0, 45, 100),
        "secondary": (15.0, -25.0, 35.0),
    },
    "flat voxels": {"primary": (20, 60), "spacing": (4.0, 1.5, 2.0)},
    "moved": {
        "primary": (20, 75),
        "secondary": 10.0,
        "spacing": (3.0, 1.5, 2.0),
        "offset": (5.0, -8.0),
        "centre": (6.0, -4.0, 9.0),
    },
}


def case(
    primary,
    secondary=0.0,
    spacing=(2.0, 2.0, 2.0),
    offset=(0.0, 0.0),
    centre=(0.0, 0.0, 0.0),
):
    """A volume of random voxels whose border is empty, and views on a detector that is
    not square.
    """
    generator = torch.Generator().manual_seed(0)
    volume = torch.zeros(24, 28, 32)
    volume[3:20, 4:22, 5:25] = 0.02 * torch.rand(17, 18, 20, generator=generator)
    geometry = Geometry.orbit(
        primary, secondary=secondary, detector=(48, 40), pixel_mm=(2.0, 2.2)
    )
    geometry.offset_mm[:] = torch.tensor(offset)
    return volume, geometry, Grid(tuple(volume.shape), spacing, centre)


def images_of(peer, python, folder):
    """Line integrals `(v, rows, columns)` of all cases, computed by the peer in a
    process of its own.
    """
    files = {name: folder / f"{number}.npz" for number, name in enumerate(CASES)}
    for name, file in files.items():
        write_case(file, *case(**CASES[name]))
    script = BENCHMARKS / "xray_peers.py"
    subprocess.run([python, script, peer, *files.values()], check=True)
    return {
        name: torch.from_numpy(np.load(file.with_suffix(".npy")))
        for name, file in files.items()
    }


def write_case(file, volume, geometry, grid):
    fields = Geometry.__dataclass_fields__
    np.savez(
        file,
        volume=volume,
        spacing=grid.spacing,
        centre_mm=grid.centre_mm,
        **{field: getattr(geometry, field) for field in fields},
    )


@pytest.fixture(scope="module")
def by_plastimatch(tmp_path_factory):
    if not shutil.which("plastimatch"):
        pytest.skip("plastimatch is not installed (apt-get install plastimatch)")
    folder = tmp_path_factory.mktemp("plastimatch")
    return images_of("plastimatch", sys.executable, folder)


@pytest.fixture(scope="module")
def by_rtk(tmp_path_factory):
    if not RTK_PYTHON.exists():
        pytest.skip("RTK is not installed (benchmarks/setup_xray_peers.sh)")
    return images_of("rtk", RTK_PYTHON, tmp_path_factory.mktemp("rtk"))


def worst(name, method, theirs):
    """Largest relative error of a view of the case."""
    volume, geometry, grid = case(**CASES[name])
    (views,) = project(volume[None], geometry, grid, method=method)
    return max(map(relative, views, theirs[name]))


@pytest.mark.parametrize("name", CASES)
def test_exact_rays_equal_plastimatch(name, by_plastimatch):
    assert worst(name, "siddon", by_plastimatch) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["joseph", "matrix"])
def test_interpolated_rays_equal_rtk(name, method, by_rtk):
    assert worst(name, method, by_rtk) < 1e-5
