"""An offline web page beside the networks of an export."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trivox.errors import BundleError
from trivox.exporting.web.assets import Archives, write_assets
from trivox.files import write_text

ROOM = Path(__file__).parent
MOST_REGIONS = 31
"""Regions of a model, which the page holds as the bits of a number."""
README = """# A model in the browser

Research use only. Not a medical device, not for diagnosis or treatment.

This folder is a web page that segments scans. Everything is computed on the computer of
whoever opens it: no image leaves it, and nothing is loaded from elsewhere. Any static web
server will do; on your own computer, in this folder:

    python -m http.server 8000 --bind 127.0.0.1      # one thread
    python serve.py 8000                             # several threads, faster

Then open http://127.0.0.1:8000 in Chrome, Edge, Firefox or Safari of 2023 or later.

Browsers compute in several threads only on pages that are isolated. `serve.py` sends what
makes them so; tell another server to send these headers with every file:

    Cross-Origin-Opener-Policy: same-origin
    Cross-Origin-Embedder-Policy: require-corp

| file | what it is |
|---|---|
| `index.html`, `*.js`, `lib/` | the page and its steps, one idea a file |
| `export.json` | how images are prepared, and what the labels mean |
| `*.onnx` | the networks |
| `vendor/` | ONNX Runtime Web and NiiVue, unchanged but for names and compression |
| `licenses/` | their licences |
"""


def write_page(
    folder: Path, *, export: Mapping[str, Any], archives: Archives | None = None
) -> None:
    """Add a page to a folder that holds the networks and `export.json`.

    export: the content of that file; archives: where the files of others come from.
    Raises `BundleError` for what the page cannot do, `ResourceError` and `FormatError`
    where files of others cannot be had.
    """
    require_page(export["pipeline"])
    write_assets(folder / "vendor", archives or Archives())
    shutil.copytree(ROOM / "page", folder, dirs_exist_ok=True)
    shutil.copytree(ROOM / "licenses", folder / "licenses", dirs_exist_ok=True)
    write_text(folder / "README.md", README)


def require_page(pipeline: Mapping[str, Any]) -> None:
    """Raise `BundleError` that names the rule of a pipeline that the page lacks."""
    regions = len(pipeline["labels"].get("regions", {}))
    if regions > MOST_REGIONS:
        raise BundleError(
            f"{regions} regions: the page knows at most {MOST_REGIONS}; export to onnx"
        )
    ties = pipeline["grid"]["labels"]["ties"]
    if pipeline["mask_channel"] and ties != "smallest":
        raise BundleError(
            f"a mask channel that is resampled with ties {ties!r}: the page knows "
            "'smallest' alone; export to onnx"
        )
