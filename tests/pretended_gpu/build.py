"""Compiling `device.cpp` for the torch that is installed, once for each version of both."""

import hashlib
import importlib.util
import shutil
import subprocess
import sysconfig
from importlib.metadata import version
from pathlib import Path

NAME = "pretended_cuda"
TORCH = "2.13.0"
"""The version whose insides `device.cpp` knows."""
SOURCE = Path(__file__).with_name("device.cpp")
CACHE = Path(__file__).parents[2] / "build" / "pretended-gpu"


def why_not() -> str | None:
    """Why the device cannot be built here; None if it can."""
    installed = version("torch")
    if installed.partition("+")[0] != TORCH or "+cu" in installed:
        return f"needs a CPU build of torch {TORCH}, not {installed}"
    if shutil.which("g++") is None:
        return "needs g++"
    return None


def built() -> Path:
    """The folder of the compiled module; compiled first if it is not there."""
    content = SOURCE.read_bytes()
    digest = hashlib.sha256(content + version("torch").encode()).hexdigest()[:16]
    folder = CACHE / digest
    module = folder / f"{NAME}.so"
    if not module.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / "unfinished.so"
        subprocess.run(_command(unfinished), check=True)
        unfinished.rename(module)
    return folder


def _command(out: Path) -> list[str]:
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    (folder,) = spec.submodule_search_locations or [""]
    torch = Path(folder)
    headers = torch / "include"
    includes = [
        headers,
        headers / "torch/csrc/api/include",
        sysconfig.get_path("include"),
    ]
    return [
        *("g++", "-O1", "-std=c++20", "-shared", "-fPIC", "-w"),
        f"-DTORCH_EXTENSION_NAME={NAME}",
        *(f"-I{folder}" for folder in includes),
        str(SOURCE),
        *("-o", str(out), f"-L{torch / 'lib'}", f"-Wl,-rpath,{torch / 'lib'}"),
        *("-ltorch", "-ltorch_cpu", "-ltorch_python", "-lc10"),
    ]
