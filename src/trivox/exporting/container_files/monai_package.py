"""Entry point of a MONAI Application Package: the DICOM series in the input folder become
DICOM objects in the output folder.

    predict.py [-i INPUT] [-o OUTPUT] [-m MODELS]   predict; what is not said, the variables
                                                    HOLOSCAN_INPUT_PATH, HOLOSCAN_OUTPUT_PATH
                                                    and HOLOSCAN_MODEL_PATH say
    predict.py show                                 print the manifests
    predict.py extract                              copy application, manifests, models and
                                                    documents to /var/run/holoscan/export

TRIVOX_FORMAT names other formats, TRIVOX_SERIES chooses among several series. The exit
code is 0 if every series was predicted; otherwise 1, with one line on stderr and no object.
"""

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import trivox
from trivox.errors import DataError
from trivox.exporting.contract import read_contract
from trivox.exporting.packaging.delivery import deliver, require_predicted
from trivox.exporting.packaging.ending import run_entry
from trivox.exporting.packaging.manifests import environment
from trivox.exporting.packaging.variables import said
from trivox.files import in_one_line

HERE = Path(__file__).parent
EXPORT = Path("/var/run/holoscan/export")
USUAL = environment()
MANIFESTS = ("HOLOSCAN_APP_MANIFEST_PATH", "HOLOSCAN_PKG_MANIFEST_PATH")
PARTS = {
    "app": ("HOLOSCAN_APPLICATION",),
    "config": (*MANIFESTS, "HOLOSCAN_CONFIG_PATH"),
    "models": ("HOLOSCAN_MODEL_PATH",),
    "docs": ("HOLOSCAN_DOCS_PATH",),
}
"""Folder of an export -> what is copied there."""


def place(variable: str) -> Path:
    """What a variable names; relative ones lie in the working directory."""
    work = said("HOLOSCAN_WORKDIR", USUAL["HOLOSCAN_WORKDIR"])
    return Path(work) / said(variable, USUAL[variable])


def options() -> argparse.Namespace:
    """What the command line says, then the variables."""
    parser = argparse.ArgumentParser(
        description="Predict DICOM series. Research use only."
    )
    verbs = ["predict", "show", "extract", "export"]
    parser.add_argument("verb", nargs="?", choices=verbs, default="predict")
    source = place("HOLOSCAN_INPUT_PATH")
    output = place("HOLOSCAN_OUTPUT_PATH")
    models = place("HOLOSCAN_MODEL_PATH")
    parser.add_argument("--input", "-i", type=Path, default=source)
    parser.add_argument("--output", "-o", type=Path, default=output)
    parser.add_argument("--models", "--model", "-m", type=Path, default=models)
    parser.add_argument("--export", type=Path, default=EXPORT)
    parser.add_argument("--format", default=said("TRIVOX_FORMAT") or None)
    parser.add_argument("--series", default=said("TRIVOX_SERIES") or None)
    parser.add_argument("--device", default=said("TRIVOX_DEVICE", "auto"))
    return parser.parse_args()


@in_one_line()
def predict(given: argparse.Namespace) -> None:
    """Predict all series and write their objects; raises `DataError` if one cannot be."""
    contract = read_contract(HERE / "contract.json")
    with TemporaryDirectory(prefix="trivox-", ignore_cleanup_errors=True) as scratch:
        done = trivox.predict(
            [given.models / name for name in contract.models],
            given.input,
            scratch,
            format=given.format or contract.formats,
            series=given.series,
            device=given.device,
        )
        require_predicted(done.records)
        names = deliver(Path(scratch), given.output)
    print(f"{len(names)} DICOM objects in {given.output}")


def show() -> None:
    """Print the manifests."""
    for variable in MANIFESTS:
        file = place(variable)
        print(f"{file}:\n{file.read_text(encoding='utf-8')}")


@in_one_line()
def extract(export: Path) -> None:
    """Copy the parts whose folders are mounted, or all where only their parent is."""
    if not export.is_dir():
        raise DataError(f"{export}: not mounted; mount a folder there")
    mounted = [name for name in PARTS if (export / name).is_dir()]
    for name in mounted or PARTS:
        for variable in PARTS[name]:
            copy(place(variable), export / name)
        print(f"{export / name}")


def copy(source: Path, folder: Path) -> None:
    """A file into a folder, or what a folder holds."""
    folder.mkdir(exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, folder, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, folder / source.name)


def main(given: argparse.Namespace) -> None:
    """Do what was asked."""
    if given.verb == "show":
        show()
    elif given.verb == "predict":
        predict(given)
    else:
        extract(given.export)


if __name__ == "__main__":
    run_entry(lambda: main(options()))
