"""The projector equals plastimatch (exact rays) and RTK (Joseph) at any angle, told in their own conventions.

plastimatch: `apt-get install plastimatch`; RTK: `benchmarks/setup_xray_peers.sh`, reached as a process of that environment.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from xray_phantoms import relative

from trivox.projection import Geometry, Grid, project

pytestmark = pytest.mark.oracle
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RTK_PYTHON = BENCHMARKS / ".venv-xray" / "bin" / "python"

CASES = {
    "about the patient": dict(primary=(0, 30, 44, 46, 90, 137, 200, -70)),
    "towards the head and the feet": dict(primary=(0, 45, 100), secondary=(15.0, -25.0, 35.0)),
    "flat voxels": dict(primary=(20, 60), spacing=(4.0, 1.5, 2.0)),
    "moved": dict(primary=(20, 75), secondary=10.0, spacing=(3.0, 1.5, 2.0), offset=(5.0, -8.0), centre=(6.0, -4.0, 9.0)),
}  # fmt: skip


def case(primary, secondary=0.0, spacing=(2.0, 2.0, 2.0), offset=(0.0, 0.0), centre=(0.0, 0.0, 0.0)):
    """A volume of random voxels whose border is empty, and views on a detector that is not square."""
    volume = torch.zeros(24, 28, 32)
    volume[3:20, 4:22, 5:25] = torch.rand(17, 18, 20, generator=torch.Generator().manual_seed(0)) * 0.02
    geometry = Geometry.orbit(primary, secondary=secondary, detector=(48, 40), pixel_mm=(2.0, 2.2))
    geometry.offset_mm[:] = torch.tensor(offset)
    return volume, geometry, Grid(tuple(volume.shape), spacing, centre)


def images_of(peer, python, folder, volume, geometry, grid):
    """Line integrals `(v, rows, columns)` that the peer computes in a process of its own."""
    views = {name: getattr(geometry, name) for name in Geometry.__dataclass_fields__}
    np.savez(folder / "case.npz", volume=volume, spacing=grid.spacing, centre_mm=grid.centre_mm, **views)
    command = [python, BENCHMARKS / "xray_peers.py", peer, folder / "case.npz", folder / "images.npy"]
    subprocess.run(command, check=True)
    return torch.from_numpy(np.load(folder / "images.npy"))


@pytest.mark.parametrize("name", CASES)
def test_exact_rays_equal_plastimatch(name, tmp_path):
    if not shutil.which("plastimatch"):
        pytest.skip("plastimatch is not installed (apt-get install plastimatch)")
    volume, geometry, grid = case(**CASES[name])
    theirs = images_of("plastimatch", sys.executable, tmp_path, volume, geometry, grid)
    ours = project(volume[None], geometry, grid, method="siddon")[0]
    assert max(relative(our, their) for our, their in zip(ours, theirs, strict=True)) < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_interpolated_rays_equal_rtk(name, tmp_path):
    if not RTK_PYTHON.exists():
        pytest.skip("RTK is not installed (benchmarks/setup_xray_peers.sh)")
    volume, geometry, grid = case(**CASES[name])
    theirs = images_of("rtk", RTK_PYTHON, tmp_path, volume, geometry, grid)
    for method in ("joseph", "matrix"):
        ours = project(volume[None], geometry, grid, method=method)[0]
        assert max(relative(our, their) for our, their in zip(ours, theirs, strict=True)) < 1e-3
