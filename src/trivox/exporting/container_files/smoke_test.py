"""Does the entry point keep the contract of the container? Made-up scans go in, the files
that come out are checked.

    python smoke_test.py                      make, predict and check in a temporary
                                              folder; needs trivox, no Docker
    python smoke_test.py make INPUT           only write the scans (smoke_test.sh
                                              predicts them in the container)
    python smoke_test.py check INPUT OUTPUT   only check what came out

The scans are noise: what is tested is names, label values, types, geometry and exit
codes, not the model.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from trivox import read_volume
from trivox.exporting.contract import Contract, read_contract
from trivox.exporting.packaging.scans import SERIES, expected, make

HERE = Path(__file__).parent
RECORDS = {"docker": ("predictions.json",), "mercure": ("result.json",)}
"""Files about the results that a kind of container leaves beside them."""
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


class BrokenContractError(Exception):
    """What the entry point did is not what the contract asks for."""


def check(
    expected: dict[str, Path],
    output: Path,
    values: set[int],
    *,
    kind: str | None,
    records: Collection[str] = (),
) -> None:
    """Raise `BrokenContractError` unless `output` holds the expected files and nothing
    else but `records`, each as it has to be.
    """
    written = {str(path.relative_to(output)) for path in _written(output, records)}
    if written != set(expected):
        raise BrokenContractError(
            f"files {sorted(written)} were written, {sorted(expected)} are expected"
        )
    for name, image in expected.items():
        _check_labels(name, output / name, image, values, kind)


def _check_labels(
    name: str, file: Path, image: Path, values: set[int], kind: str | None
) -> None:
    labels = read_volume(file)
    source = read_volume(image)
    in_place = np.allclose(labels.affine, source.affine, atol=1e-4)
    if labels.shape != source.shape or not in_place:
        raise BrokenContractError(f"{name}: does not lie on the grid of {image.name}")
    dtype = labels.array.dtype
    if dtype.kind not in "iu" or (kind and dtype != kind):
        raise BrokenContractError(f"{name}: values are of type {dtype}")
    strange = set(np.unique(labels.array).tolist()) - values
    if strange:
        raise BrokenContractError(
            f"{name}: label values {sorted(strange)} are not among {sorted(values)}"
        )


def _written(output: Path, records: Collection[str]) -> list[Path]:
    """Files of the output, without those that say something of the others."""
    files = [path for path in output.rglob("*") if path.is_file()]
    return [path for path in files if path.name not in records]


def check_objects(
    series: Path, output: Path, labels: set[str], *, records: Collection[str]
) -> None:
    """Raise `BrokenContractError` unless `output` holds one DICOM segmentation of the
    images in `series`, and nothing else but `records`.
    """
    files = _written(output, records)
    if len(files) != 1 or files[0].suffix != ".dcm":
        names = sorted(path.name for path in files)
        raise BrokenContractError(f"files {names} were written, one .dcm is expected")
    given = _header(files[0])
    source = _header(next(series.glob("*.dcm")))
    if given.SOPClassUID != SEGMENTATION:
        raise BrokenContractError(f"{files[0].name}: is no segmentation")
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        if given.get(keyword) != source.get(keyword):
            raise BrokenContractError(f"{keyword} is not that of the images")
    referenced = {
        str(each.SeriesInstanceUID) for each in given.ReferencedSeriesSequence
    }
    if referenced != {str(source.SeriesInstanceUID)}:
        raise BrokenContractError("another series is referenced")
    strange = {str(each.SegmentLabel) for each in given.SegmentSequence} - labels
    if strange:
        raise BrokenContractError(f"segments {sorted(strange)} are no labels")


def _header(file: Path) -> Any:
    from pydicom import dcmread

    return dcmread(file, stop_before_pixels=True)


def check_all(wanted: dict[str, Path], output: Path, contract: Contract) -> None:
    """Check whatever the container has to write."""
    records = RECORDS.get(contract.target, ())
    missing = [name for name in records if not (output / name).is_file()]
    if wanted and missing:
        raise BrokenContractError(f"{missing[0]} was not written")
    if SERIES in wanted:
        labels = set(contract.labels)
        check_objects(wanted[SERIES], output, labels, records=records)
        return
    kind = "uint8" if contract.target == "grand-challenge" else None
    check(wanted, output, set(contract.values), kind=kind, records=records)


def predict(
    input_: Path, output: Path, models: Path
) -> subprocess.CompletedProcess[str]:
    """Run the entry point as the container does, but on the CPU."""
    command = [sys.executable, "-I", "-B", "-u", HERE / "predict.py", "--device", "cpu"]
    paths = ["--input", input_, "--output", output, "--models", models]
    return subprocess.run(
        [*map(str, command), *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )


def run_all(folder: Path, contract: Contract, models: Path) -> None:
    """A good input, one with a broken file beside good ones, and none at all."""
    wanted = make(folder / "input", contract)
    done = predict(folder / "input", folder / "output", models)
    if done.returncode != 0:
        raise BrokenContractError(f"exit code {done.returncode}: {done.stderr}")
    check_all(wanted, folder / "output", contract)
    name, file = _break_one(wanted)
    done = predict(folder / "input", folder / "second", models)
    if done.returncode == 0 or name not in done.stderr:
        raise BrokenContractError(
            f"a broken case gave exit code {done.returncode} and said: {done.stderr}"
        )
    (folder / "second").mkdir(exist_ok=True)
    others = {name: image for name, image in wanted.items() if image != file}
    check_all(others, folder / "second", contract)
    (folder / "empty").mkdir()
    done = predict(folder / "empty", folder / "third", models)
    if done.returncode == 0 or len(done.stderr.splitlines()) != 1:
        raise BrokenContractError(
            f"an empty input gave exit code {done.returncode} and said: {done.stderr}"
        )


def _break_one(wanted: dict[str, Path]) -> tuple[str, Path]:
    """Harm a case; returns what has to be said of it, and what it was."""
    name, image = next(iter(wanted.items()))
    if image.is_dir():
        file = sorted(image.glob("*.dcm"))[0]
        file.write_bytes(file.read_bytes()[:600])
        return file.name, image
    image.write_bytes(b"no image")
    return Path(name).name.split(".")[0], image


def main() -> None:
    """Run what the command line asks for; exit 1 with one line if the contract is
    broken.
    """
    parser = argparse.ArgumentParser(
        description="Smoke test of the container's entry point."
    )
    parser.add_argument(
        "verb", nargs="?", choices=["all", "make", "check"], default="all"
    )
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument(
        "--models", type=Path, default=HERE / "models", help="folder of the bundles"
    )
    given = parser.parse_args()
    contract = read_contract(HERE / "contract.json")
    try:
        if given.verb == "make":
            make(given.folders[0], contract)
        elif given.verb == "check":
            source, output = given.folders[:2]
            check_all(expected(source, contract), output, contract)
        else:
            with tempfile.TemporaryDirectory(
                prefix="trivox-smoke-", ignore_cleanup_errors=True
            ) as folder:
                run_all(Path(folder), contract, given.models)
    except BrokenContractError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"{given.verb}: ok")


if __name__ == "__main__":
    main()
