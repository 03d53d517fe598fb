"""A model for other programs: `trivox.export`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trivox.config.choices import ExportPrecision, ExportTarget, require_choice
from trivox.datasets.dataset import Case
from trivox.datasets.layouts.choice import load_dataset, read_saved_dataset
from trivox.datasets.splits import trained_splits
from trivox.errors import BundleError, UsageError
from trivox.exporting.export import Exported, ExportOptions, export_model
from trivox.inference.bundle import (
    LabelBundle,
    bundle_content,
    model_paths,
    read_bundle,
)
from trivox.tasks.console import Console, Quiet, working
from trivox.verbs.texts import described

PHANTOMS = "phantoms"
MOST_CASES = 10
"""Validation cases of a run that an export is tried on."""


@described
def export(
    model: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    to: ExportTarget,
    precision: ExportPrecision = "fp32",
    calibrate: Path | str | None = None,
    verify: Path | str | None = None,
    accept_loss: bool = False,
    assets: Path | str | None = None,
    console: Console | None = None,
) -> Exported:
    """Write a model for programs that know nothing of trivox, tried before it is kept.

    Several models vote. The export is run on the model's validation cases, or on
    phantoms where these are not at hand, and compared with the model. Raises
    `BundleError` for a model that cannot be exported, and where the export gives other
    labels; `UsageError` for a precision that the target does not have.
    """
    require_choice("target", to, ExportTarget)
    require_choice("precision", precision, ExportPrecision)
    if calibrate is not None and precision != "int8":
        raise UsageError(
            f"--calibrate is for --precision int8, not for {precision}; leave it out"
        )
    paths = model_paths(model)
    for path in paths:
        require_label_maps(path)
    known = cases_of_run(read_bundle(paths[0]))
    training = known.train if calibrate is None else cases_of(Path(calibrate))
    whose = known.whose
    tried = known.validation[:MOST_CASES]
    if verify is not None:
        tried = cases_of(Path(verify))
        whose = f"cases of {Path(verify).name}"
    options = ExportOptions(
        target=to,
        precision=precision,
        calibration=training if precision == "int8" else (),
        verification=tried,
        whose=whose if tried else PHANTOMS,
        accept_loss=accept_loss,
        assets=None if assets is None else Path(assets),
    )
    with working(console or Quiet(), "exporting"):
        return export_model(paths, Path(out), options)


def require_label_maps(path: Path) -> None:
    """Raise `BundleError` for a model that makes volumes of X-rays, naming what no
    runtime computes.
    """
    file, content = bundle_content(path)
    if "views" in content:
        raise BundleError(
            f"{file}: a model that reads X-rays cannot be exported: Lifting, Projector "
            "and SirtStep of its network follow rays of each exam's own geometry, which "
            "no operator of ONNX or OpenVINO does; predict with trivox"
        )


def cases_of(dataset: Path) -> list[Case]:
    """The cases of a dataset."""
    return list(load_dataset(dataset).cases)


@dataclass(frozen=True)
class RunCases:
    """Cases of the run that a model is from, as far as their files are still there."""

    train: Sequence[Case] = ()
    validation: Sequence[Case] = ()
    whose: str = "validation cases"


def cases_of_run(bundle: LabelBundle) -> RunCases:
    """Those of the run that a bundle lies in; none of a bundle alone."""
    run = bundle.run
    if run is None:
        return RunCases()
    cases = {case.name: case for case in read_saved_dataset(run / "dataset.json").cases}
    names = [weights.fold for weights in bundle.description.weights]
    splits = trained_splits(run, names)
    train = [name for split in splits for name in split.train]
    held_out = [name for split in splits for name in split.validation]
    whose = "validation cases"
    if len(splits) > 1:
        whose = f"cases that all but one of {len(splits)} folds were trained on"
    return RunCases(_there(cases, train), _there(cases, held_out), whose)


def _there(cases: Mapping[str, Case], names: Sequence[str]) -> list[Case]:
    chosen = [cases[name] for name in dict.fromkeys(names) if name in cases]
    return [case for case in chosen if all(file.exists() for file in case.images)]
