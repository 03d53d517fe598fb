"""Does the entry point keep the challenge's contract? Made-up scans go in, the files
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
import json
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trivox import Volume, read_volume, write_volume
from trivox.datasets.channels import sequence_of
from trivox.datasets.layouts.brats import family_of
from trivox.datasets.layouts.choice import load_inputs
from trivox.exporting.contract import Contract, read_contract
from trivox.volumes.volume import affine_from_spacing

HERE = Path(__file__).parent
SHAPE = (20, 28, 24)  # (z, y, x)


class BrokenContractError(Exception):
    """What the entry point did is not what the challenge asks for."""


def make(folder: Path, contract: Contract) -> dict[str, Path]:
    """Write scans as the challenge passes them; returns output file -> an image whose
    grid it must have.
    """
    if contract.target == "brats":
        return {
            f"{name}.nii.gz": _brats_case(folder, name, contract)
            for name in contract.example_cases
        }
    images = []
    entries = []
    for seed, channel in enumerate(contract.channels):
        slug = contract.slugs[channel]
        images.append(_grand_challenge_image(folder, slug, seed))
        socket = {"slug": slug, "relative_path": f"images/{slug}"}
        entries.append({"socket": socket})
    (folder / "inputs.json").write_text(json.dumps(entries), encoding="utf-8")
    return {f"images/{contract.output_slug}/{images[0].name}": images[0]}


def check(
    expected: dict[str, Path], output: Path, values: set[int], *, kind: str | None
) -> None:
    """Raise `BrokenContractError` unless `output` holds the expected files and nothing
    else, each as it has to be.
    """
    files = [path for path in output.rglob("*") if path.is_file()]
    written = {str(path.relative_to(output)) for path in files}
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
    expected = make(folder / "input", contract)
    done = predict(folder / "input", folder / "output", models)
    if done.returncode != 0:
        raise BrokenContractError(f"exit code {done.returncode}: {done.stderr}")
    check(expected, folder / "output", set(contract.values), kind=_kind(contract))
    broken = next(iter(expected))
    expected[broken].write_bytes(b"no image")
    done = predict(folder / "input", folder / "second", models)
    if done.returncode == 0 or Path(broken).name.split(".")[0] not in done.stderr:
        raise BrokenContractError(
            f"a broken case gave exit code {done.returncode} and said: {done.stderr}"
        )
    (folder / "second").mkdir(exist_ok=True)
    others = {name: image for name, image in expected.items() if name != broken}
    check(others, folder / "second", set(contract.values), kind=_kind(contract))
    (folder / "empty").mkdir()
    done = predict(folder / "empty", folder / "third", models)
    if done.returncode == 0 or len(done.stderr.splitlines()) != 1:
        raise BrokenContractError(
            f"an empty input gave exit code {done.returncode} and said: {done.stderr}"
        )


def _brats_case(folder: Path, name: str, contract: Contract) -> Path:
    """One folder a case, as its family names the files; voxels of 1 mm with flipped
    axes, as BraTS stores them.
    """
    family = family_of(name)
    assert family is not None, "the examples are BraTS cases"
    flipped = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine = affine_from_spacing((1.0, 1.0, 1.0), (0.0, 239.0, 0.0)) @ flipped
    paths = []
    for number, channel in enumerate(contract.channels):
        path = folder / name / family.file_name(name, sequence_of(channel))
        write_volume(path, Volume(_noise(number), affine))
        paths.append(path)
    return paths[0]


def _grand_challenge_image(folder: Path, slug: str, seed: int) -> Path:
    path = folder / "images" / slug / f"{uuid.uuid5(uuid.NAMESPACE_OID, slug)}.mha"
    write_volume(path, Volume(_noise(seed), _oblique()))
    return path


def _noise(seed: int) -> NDArray[np.float32]:
    """A noisy ellipsoid in zeros, `(1, z, y, x)`."""
    axes = [np.linspace(-1.2, 1.2, size) ** 2 for size in SHAPE]
    inside = axes[0][:, None, None] + axes[1][:, None] + axes[2] < 1
    noise = np.random.default_rng(seed).normal(500, 120, SHAPE)
    return np.asarray((noise.clip(1) * inside)[None], dtype=np.float32)


def _oblique() -> NDArray[np.float64]:
    """A turned grid of unequal spacing, so that a lost direction, spacing or origin
    shows.
    """
    affine = affine_from_spacing((2.0, 1.1, 0.9), (-31.0, 17.5, 4.0))
    cos = np.cos(0.3)
    sin = np.sin(0.3)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    affine[:3, :3] = turn @ affine[:3, :3]
    return affine


def _kind(contract: Contract) -> str | None:
    return "uint8" if contract.target == "grand-challenge" else None


def _expected(folder: Path, contract: Contract) -> dict[str, Path]:
    """What `make` returned for the scans in `folder`."""
    if contract.target == "brats":
        cases = load_inputs(folder, channels=contract.channels)
        return {f"{case.name}.nii.gz": case.images[0] for case in cases}
    slug = contract.slugs[contract.channels[0]]
    image = next((folder / "images" / slug).glob("*.mha"))
    return {f"images/{contract.output_slug}/{image.name}": image}


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
            expected = _expected(source, contract)
            values = set(contract.values)
            check(expected, output, values, kind=_kind(contract))
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
