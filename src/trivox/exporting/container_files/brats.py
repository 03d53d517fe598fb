"""Entry point of a BraTS container: every case in /input becomes /output/CASE.nii.gz,
with its family's label values.

Challenges count the files in /output and open each of them as NIfTI, so nothing else is
left there. The exit code is 0 only if every case was predicted; a case that cannot be
is named on stderr, and the others are finished. Challenges up to 2024 call `infer
--data_path=... --output_path=...`, those since then pass nothing.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from trivox import Predictor
from trivox.datasets.dataset import Case
from trivox.datasets.layouts.choice import load_inputs
from trivox.errors import DataError
from trivox.exporting.contract import read_contract
from trivox.exporting.packaging.ending import run_entry
from trivox.inference.folder import predict_cases

HERE = Path(__file__).parent


def options() -> argparse.Namespace:
    """What the command line says; the defaults are the challenge's."""
    parser = argparse.ArgumentParser(
        description="Predict every case of a folder. Research use only."
    )
    parser.add_argument(
        "verb", nargs="?", choices=["infer"], help="passed by MLCube; changes nothing"
    )
    parser.add_argument("--input", "--data_path", type=Path, default=Path("/input"))
    parser.add_argument("--output", "--output_path", type=Path, default=Path("/output"))
    parser.add_argument("--parameters_file", help="passed by MLCube; changes nothing")
    parser.add_argument(
        "--models", type=Path, default=HERE / "models", help="folder of the bundles"
    )
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def predict(given: argparse.Namespace) -> None:
    """Predict all cases; raises `DataError` at the end if some failed."""
    contract = read_contract(HERE / "contract.json")
    models = [given.models / name for name in contract.models]
    predictor = Predictor.load(
        models, device=given.device, missing=contract.missing_channels
    )
    cases = load_inputs(given.input, channels=predictor.channels)
    failed = unread(given.input, cases)
    try:
        records = predict_cases(
            predictor,
            cases,
            given.output,
            overwrite=True,
            sole=True,
            progress=counted,
            say=complain,
        )
    finally:
        (given.output / "predictions.json").unlink(missing_ok=True)
    for name, record in records.items():
        for warning in record.get("warnings", ()):
            print(f"{name}: warning: {warning}")
    failed += [name for name, record in records.items() if "error" in record]
    if failed:
        total = len(set(failed) | set(records))
        raise DataError(f"{len(failed)} of {total} cases failed: {', '.join(failed)}")


def unread(folder: Path, cases: Sequence[Case]) -> list[str]:
    """Names of folders in which no case was found."""
    used: set[Path] = set()
    for case in cases:
        for image in case.images:
            used.update(image.parents)
    lost = []
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        if entry.absolute() not in used:
            complain(f"{entry.name}: set aside: no images of a case in this folder")
            lost.append(entry.name)
    return lost


def counted(cases: Iterable[Case], total: int) -> Iterator[Case]:
    """Say which case is next."""
    for number, case in enumerate(cases, start=1):
        print(f"{number}/{total} {case.name}", flush=True)
        yield case


def complain(line: str) -> None:
    """One line on stderr."""
    print(" ".join(line.split()), file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_entry(lambda: predict(options()))
