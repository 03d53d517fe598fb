"""Entry point of a grand-challenge algorithm: the case in /input becomes a label map
(.mha, uint8) in /output.

Each run gets one case: an image in /input/images/<slug> for each input socket. The
system's /input/inputs.json says where the images of a socket lie if its folder has
another name than its slug.
"""

import argparse
from pathlib import Path

import numpy as np
from pydantic import AliasChoices, BaseModel, Field, RootModel

from trivox import Predictor, write_volume
from trivox.datasets.dataset import Case
from trivox.errors import DataError
from trivox.exporting.contract import Contract, read_contract
from trivox.exporting.packaging.ending import run_entry
from trivox.files import in_one_line, read_json
from trivox.schema import validated

HERE = Path(__file__).parent


def options() -> argparse.Namespace:
    """What the command line says; the defaults are the platform's."""
    contract = read_contract(HERE / "contract.json")
    parser = argparse.ArgumentParser(description="Predict one case. Research use only.")
    parser.set_defaults(contract=contract)
    parser.add_argument("--input", type=Path, default=Path("/input"))
    parser.add_argument("--output", type=Path, default=Path("/output"))
    models = Path("/opt/ml/model") if contract.mounted_weights else HERE / "models"
    parser.add_argument(
        "--models", type=Path, default=models, help="folder of the bundles"
    )
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def predict(given: argparse.Namespace) -> None:
    """Predict the case and write its label map."""
    contract: Contract = given.contract
    case = find_case(given.input, contract)
    models = [given.models / name for name in contract.models]
    predictor = Predictor.load(
        models, device=given.device, missing=contract.missing_channels
    )
    prediction = predictor.predict_case(case)
    labels = prediction.labels.with_array(prediction.labels.array.astype(np.uint8))
    out = given.output / "images" / contract.output_slug / f"{case.name}.mha"
    write_volume(out, labels)
    for warning in prediction.warnings:
        print(f"warning: {warning}")
    print(f"{out.name}: {prediction.seconds:.1f} s")


@in_one_line()
def find_case(folder: Path, contract: Contract) -> Case:
    """The images of the sockets in the order of the model's channels; named after the
    first.
    """
    places = socket_folders(folder)
    images: list[Path] = []
    absent: list[int] = []
    for index, channel in enumerate(contract.channels):
        slug = contract.slugs[channel]
        place = places.get(slug, folder / "images" / slug)
        files = sorted(place.glob("*.mha")) if place.is_dir() else []
        if len(files) > 1:
            raise DataError(
                f"socket '{slug}' holds {len(files)} .mha files; a run gets one case"
            )
        if not files and contract.missing_channels == "refuse":
            known = ", ".join(sorted(places)) or "none"
            raise DataError(
                f"socket '{slug}' ({channel}) holds no .mha file; "
                f"sockets in inputs.json: {known}"
            )
        images += files
        if not files:
            absent.append(index)
    if not images:
        sockets = ", ".join(contract.input_slugs)
        raise DataError(f"{folder}: no .mha file in any of the sockets {sockets}")
    return Case(name=images[0].stem, images=tuple(images), absent=tuple(absent))


def socket_folders(folder: Path) -> dict[str, Path]:
    """Where inputs.json puts the images of each socket; nothing without that file.

    It called sockets interfaces once.
    """
    file = folder / "inputs.json"
    if not file.is_file():
        return {}
    advice = "it has to be a list of values with socket, slug and relative_path"
    inputs = validated(
        Inputs, read_json(file), where=file, error=DataError, advice=advice
    )
    return {
        value.place.slug: _inside(folder, value.place, file) for value in inputs.root
    }


class Place(BaseModel):
    """Where the images of a socket lie."""

    slug: str
    relative_path: str = Field(pattern=r"^[^\x00]{1,1000}$")


class Value(BaseModel):
    """What inputs.json says of a socket."""

    place: Place = Field(validation_alias=AliasChoices("socket", "interface"))


class Inputs(RootModel[tuple[Value, ...]]):
    """Content of inputs.json."""


def _inside(folder: Path, place: Place, file: Path) -> Path:
    path = folder / place.relative_path
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"{file}: relative_path of socket '{place.slug}' leads out of {folder}"
        )
    return path


if __name__ == "__main__":
    run_entry(lambda: predict(options()))
