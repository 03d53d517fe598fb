"""Entry point of a plain container: every case in /input becomes files in /output.

Cases are images (NIfTI, NRRD, MetaImage, pictures), folders of DICOM files, or a dataset,
as `trivox predict` takes them. What the command line does not say, variables do:
TRIVOX_FORMAT, TRIVOX_SERIES, TRIVOX_DEVICE. The exit code is 0 only if every case was
predicted; a case that cannot be is named on stderr, and the others are finished. Cases
that were predicted before are kept, so that the same command goes on after a stop.
"""

import argparse
from pathlib import Path

import trivox
from trivox.cli.terminal import Terminal
from trivox.exporting.contract import read_contract
from trivox.exporting.packaging.ending import run_entry
from trivox.exporting.packaging.variables import said

HERE = Path(__file__).parent


def options() -> argparse.Namespace:
    """What the command line says, then the variables."""
    parser = argparse.ArgumentParser(
        description="Predict every case of a folder. Research use only."
    )
    parser.add_argument("--input", "-i", type=Path, default=Path("/input"))
    parser.add_argument("--output", "-o", type=Path, default=Path("/output"))
    parser.add_argument(
        "--models", "-m", type=Path, default=HERE / "models", help="folder of bundles"
    )
    parser.add_argument("--format", default=said("TRIVOX_FORMAT") or None)
    parser.add_argument("--series", default=said("TRIVOX_SERIES") or None)
    parser.add_argument("--device", default=said("TRIVOX_DEVICE", "auto"))
    return parser.parse_args()


def predict(given: argparse.Namespace) -> None:
    """Predict all cases; raises `DataError` at the end if some failed."""
    contract = read_contract(HERE / "contract.json")
    done = trivox.predict(
        [given.models / name for name in contract.models],
        given.input,
        given.output,
        format=given.format,
        series=given.series,
        device=given.device,
        missing_channels=contract.missing_channels,
        console=Terminal(),
    )
    print(done.summary)
    done.require_all()


if __name__ == "__main__":
    run_entry(lambda: predict(options()))
