"""Entry point of a module for the DICOM router mercure: the series in MERCURE_IN_DIR
becomes DICOM objects in MERCURE_OUT_DIR, which mercure sends on.

`task.json` beside the images holds the settings of the module ("process" > "settings"):
format (dicom-seg, rtstruct, sr; several with commas between), series (which, where a rule
hands on whole studies: number, UID or rule), slice_tolerance (mm), device. `result.json`
says what was predicted; mercure keeps it with the task, and notifies people where the
model says that its answer is not to be trusted. The exit code is 0 if everything
was predicted and written; otherwise 1, with one line on stderr and no object.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

import trivox
from trivox.errors import UsageError
from trivox.exporting.contract import read_contract
from trivox.exporting.packaging.delivery import (
    by_series,
    deliver,
    doubted,
    findings,
    require_predicted,
)
from trivox.exporting.packaging.ending import run_entry
from trivox.exporting.packaging.variables import said
from trivox.files import in_one_line, read_json, write_json
from trivox.schema import Frozen, validated
from trivox.version import NOTICE

HERE = Path(__file__).parent
TASK = "task.json"
RESULT = "result.json"


def _text(value: Any) -> Any:
    """A number as it is written."""
    return str(value) if isinstance(value, int) else value


class Settings(Frozen):
    """What mercure's page says of the module or the rule. format: none: the usual ones."""

    format: str | tuple[str, ...] | None = None
    series: Annotated[str, BeforeValidator(_text)] | None = None
    slice_tolerance: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    device: str | None = None


def options() -> argparse.Namespace:
    """What the command line says; the defaults are mercure's."""
    parser = argparse.ArgumentParser(
        description="Predict one DICOM series. Research use only."
    )
    source = Path(said("MERCURE_IN_DIR", "/data"))
    output = Path(said("MERCURE_OUT_DIR", "/output"))
    parser.add_argument("--input", type=Path, default=source)
    parser.add_argument("--output", type=Path, default=output)
    parser.add_argument(
        "--models", type=Path, default=HERE / "models", help="folder of the bundles"
    )
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


@in_one_line()
def predict(given: argparse.Namespace) -> None:
    """Predict the series and write its objects; raises `DataError` if it cannot be."""
    contract = read_contract(HERE / "contract.json")
    settings = read_settings(given.input / TASK)
    with TemporaryDirectory(prefix="trivox-", ignore_cleanup_errors=True) as scratch:
        done = trivox.predict(
            [given.models / name for name in contract.models],
            given.input,
            scratch,
            format=settings.format or contract.formats,
            series=settings.series,
            slice_tolerance=settings.slice_tolerance,
            device=settings.device or given.device,
        )
        require_predicted(done.records)
        names = deliver(Path(scratch), given.output, by_series)
    text, doubt = notice(len(names), doubted(done.records))
    result = {
        "trivox": {"objects": names, "cases": findings(done.records)},
        "__mercure_notification": {"text": text, "requested": doubt},
    }
    write_json(given.output / RESULT, result)
    print(text)


def notice(objects: int, doubts: int) -> tuple[str, bool]:
    """What mercure tells people, and whether they have to hear of it."""
    text = f"trivox: {objects} DICOM objects."
    if doubts:
        text += f" The model says that {doubts} of its answers are not to be trusted."
    return f"{text} {NOTICE}", doubts > 0


def read_settings(file: Path) -> Settings:
    """The settings of the module; none where there is no file.

    Raises `UsageError` for settings that do not exist.
    """
    task = read_json(file) if file.is_file() else {}
    process = task.get("process") if isinstance(task, dict) else None
    steps = process if isinstance(process, list) else [process]
    if len(steps) > 1:
        raise UsageError(f"{TASK}: names {len(steps)} modules; one is expected")
    step = steps[0] if steps else None
    given = step.get("settings") if isinstance(step, dict) else None
    advice = "the settings are format, series, slice_tolerance and device"
    return validated(Settings, given or {}, where=TASK, error=UsageError, advice=advice)


if __name__ == "__main__":
    run_entry(lambda: predict(options()))
