"""The manifests of a MONAI Application Package: `app.json` says how it is run, `pkg.json`
what is in it and what it needs.

Names and defaults are those of version 1.0.0 of the manifests (monai-application-package.md
of Project-MONAI/monai-deploy); nothing of Holoscan is needed to run the package.
"""

from collections.abc import Mapping
from typing import Any

from trivox.exporting.contract import Contract
from trivox.exporting.packaging.kinds import KINDS
from trivox.version import __version__

MANIFEST_VERSION = "1.0.0"
ETC = "/etc/holoscan"
WORK = "/var/holoscan"
DOCS = "/opt/holoscan/docs"
RESOURCES: Mapping[str, Any] = {
    "cpu": 2,
    "gpu": 1,
    "memory": "8Gi",
    "sharedMemory": "1Gi",
}
"""Asked of the platform; an image without CUDA asks for no GPU."""


def environment() -> dict[str, str]:
    """Variables of the package, with their defaults."""
    kind = KINDS["map"]
    return {
        "HOLOSCAN_APPLICATION": kind.home,
        "HOLOSCAN_INPUT_PATH": f"{kind.inputs}/",
        "HOLOSCAN_OUTPUT_PATH": f"{kind.outputs}/",
        "HOLOSCAN_WORKDIR": f"{WORK}/",
        "HOLOSCAN_MODEL_PATH": f"{kind.models}/",
        "HOLOSCAN_CONFIG_PATH": f"{WORK}/app.yaml",
        "HOLOSCAN_APP_MANIFEST_PATH": f"{ETC}/app.json",
        "HOLOSCAN_PKG_MANIFEST_PATH": f"{ETC}/pkg.json",
        "HOLOSCAN_DOCS_PATH": DOCS,
        "HOLOSCAN_LOGS_PATH": f"{WORK}/logs",
    }


def command() -> list[str]:
    """How the application is started."""
    home = KINDS["map"].home
    return ["python", "-I", "-B", "-u", f"{home}/predict.py"]


def manifests(contract: Contract) -> dict[str, dict[str, Any]]:
    """File name -> content."""
    kind = KINDS["map"]
    app = {
        "apiVersion": MANIFEST_VERSION,
        "type": "application",
        "command": " ".join(command()),
        "environment": environment(),
        "input": {"path": "input/", "formats": ["file"]},
        "output": {"path": "output/", "format": "file"},
        "sdk": "trivox",
        "sdkVersion": __version__,
        "timeout": 0,
        "version": __version__,
        "workingDirectory": f"{WORK}/",
    }
    package = {
        "apiVersion": MANIFEST_VERSION,
        "applicationRoot": f"{kind.home}/",
        "modelRoot": f"{kind.models}/",
        "models": [{"name": name, "path": name} for name in contract.models],
        "resources": dict(RESOURCES),
        "version": __version__,
    }
    return {"app.json": app, "pkg.json": package}


def configuration(title: str) -> str:
    """Text of `app.yaml`, which says again what the tools of Holoscan look for there."""
    lines = [
        "application:",
        f"  title: {title}",
        f"  version: {__version__}",
        "  inputFormats: [file]",
        "  outputFormats: [file]",
        "resources:",
        *(f"  {name}: {value}" for name, value in RESOURCES.items()),
    ]
    return "\n".join(lines) + "\n"
