"""An offline web page beside the networks of an export."""

import shutil
from pathlib import Path

from trivox.errors import BundleError
from trivox.exporting.card import ExportCard, Pipeline
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
LABELS = """
| value | label |
|---|---|
"""


def write_page(folder: Path, card: ExportCard, archives: Archives) -> None:
    """Add a page to a folder that holds an export in ONNX.

    card: of the export; archives: where the files of others come from. Raises
    `ResourceError` and `FormatError` where they cannot be had.
    """
    write_assets(folder / "vendor", archives)
    shutil.copytree(ROOM / "page", folder, dirs_exist_ok=True)
    shutil.copytree(ROOM / "licenses", folder / "licenses", dirs_exist_ok=True)
    pipeline = card.pipeline
    labels = zip(pipeline.values[1:], pipeline.names[1:], strict=True)
    rows = "".join(f"| {value} | {name} |\n" for value, name in labels)
    lacking = "".join(f"\nLeft out: {line}.\n" for line in card.left_out)
    write_text(folder / "README.md", README + LABELS + rows + lacking)


def require_page(pipeline: Pipeline) -> None:
    """Raise `BundleError` that names the rule of a pipeline that the page lacks."""
    if len(pipeline.paint) > MOST_REGIONS:
        raise BundleError(
            f"{len(pipeline.paint)} regions: the page knows at most {MOST_REGIONS}; "
            "export to onnx"
        )
    ties = pipeline.grid.labels.ties
    if pipeline.mask_channel and ties != "smallest":
        raise BundleError(
            f"a mask channel that is resampled with ties {ties!r}: the page knows "
            "'smallest' alone; export to onnx"
        )
