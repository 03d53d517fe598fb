"""A model as files that other programs run: networks as graphs, `export.json` with all
that is done around them, and a program that does it without trivox.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import nn

from trivox.config.choices import ExportPrecision, ExportTarget
from trivox.datasets.dataset import Case
from trivox.errors import BundleError, UsageError
from trivox.exporting.calibration import calibration_windows
from trivox.exporting.card import (
    CARD,
    ClassSteps,
    ExportCard,
    ExportFile,
    Pipeline,
    Runtime,
    left_out,
)
from trivox.exporting.classes import require_image_alone, write_classes
from trivox.exporting.networks import write_networks
from trivox.exporting.programs import rendered, write_program
from trivox.exporting.targets import TARGETS, Place
from trivox.exporting.triton import Networks, batches
from trivox.exporting.verdict import Verdict
from trivox.exporting.verification import verified
from trivox.files import file_hash, in_one_line, new_folder, write_json, write_text
from trivox.inference.bundle import LabelBundle, read_bundle
from trivox.inference.engines.graph import LOGITS, OPSET, WINDOWS
from trivox.inference.engines.torch import TorchEngine
from trivox.inference.predictor import Predictor
from trivox.outputs import require_new_folder

SPECIAL = re.compile(r"[^A-Za-z0-9._-]+")
"""What stands in no name of a file that is shown as an example."""
PACKAGES = ("torch", "numpy", "onnx", "onnxruntime", "openvino", "nncf")
"""Whose versions an export names, as far as they are here."""


@dataclass(frozen=True)
class ExportOptions:
    """How a model is exported.

    calibration: cases whose images tell how values are distributed, for int8;
    verification: cases that the export is tried on, none: phantoms; whose: what to call
    them; accept_loss: keep an int8 export that loses more than half a Dice point; assets:
    folder of the archives of others that a page is made of, none: they are fetched.
    """

    target: ExportTarget
    precision: ExportPrecision = "fp32"
    calibration: Sequence[Case] = ()
    verification: Sequence[Case] = ()
    whose: str = "phantoms"
    accept_loss: bool = False
    assets: Path | None = None


@dataclass(frozen=True)
class Exported:
    """What was written: the card, and how the export compares with the model."""

    folder: Path
    card: ExportCard
    verdict: Verdict = field(repr=False)

    @property
    def lines(self) -> list[str]:
        """For a terminal."""
        tried = self.card.verified or {}
        also = [
            f"{other['runtime']}: {other['equal_voxels']:.5f} of them equal"
            for other in tried.get("others", ())
        ]
        lacking = [f"left out: {line}" for line in self.card.left_out]
        size = sum(file.bytes for file in self.card.files) / 1e6
        end = f"written to {self.folder} ({size:.1f} MB): README.md says how to run it"
        return [*self.verdict.lines, *also, *lacking, end]


@in_one_line()
def export_model(models: Sequence[Path], out: Path, options: ExportOptions) -> Exported:
    """Write models that vote into `out`, all at once, once the export was seen to agree
    with them.

    Raises `BundleError` for models that are damaged, do not fit together or have no
    graph, and for an export that does not agree; `UsageError` for a precision that the
    target does not have and for models that read a table; `ResourceError` for packages
    that are missing.
    """
    require_new_folder(out)
    target = TARGETS[options.target]
    runtimes = chosen_runtimes(options)
    bundles = [read_bundle(path) for path in models]
    require_one_plan(bundles)
    if target.classifies:
        require_image_alone(bundles)
    target.begin(options.assets)
    predictor = Predictor.load(list(models), device="cpu", precision="fp32")
    with new_folder(out) as folder:
        networks = _write_networks(predictor, folder, options, runtimes)
        classes = _write_classes(predictor, folder, options, runtimes)
        card = _card(predictor, folder, options, networks, classes)
        target.require(card.pipeline)
        write_program(folder, classes=card.pipeline.classes is not None)
        verdict, tried = _tried(folder, card, networks, predictor, options)
        card = card.model_copy(update={"verified": tried})
        write_card(folder, card)
        _write_readme(folder, card)
        target.finish(folder, card, options.assets)
    return Exported(out, card, verdict)


def chosen_runtimes(options: ExportOptions) -> tuple[Runtime, ...]:
    """The runtimes that the target has at this precision; raises `UsageError` for
    options that it does not have.
    """
    target = TARGETS[options.target]
    runtimes = target.chosen(options.target, options.precision)
    if options.assets is not None and not target.takes_assets:
        raise UsageError(f"--assets is for --to web, not for {options.target}")
    if options.precision == "int8" and not options.calibration:
        raise UsageError(
            "--precision int8 needs images to see how values are distributed; give "
            "--calibrate DATASET"
        )
    return runtimes


def require_one_plan(bundles: Sequence[LabelBundle]) -> None:
    """Raise `BundleError` for models that see images on different grids."""
    first = bundles[0].description.plan
    for bundle in bundles[1:]:
        plan = bundle.description.plan
        alike = plan.patch_size == first.patch_size
        if not alike or plan.preparation_key != first.preparation_key:
            raise BundleError(
                f"{bundle.folder}: its plan differs from that of {bundles[0].folder}, "
                "and an export prepares an image once; export each alone"
            )


def _write_networks(
    predictor: Predictor,
    folder: Path,
    options: ExportOptions,
    runtimes: Sequence[Runtime],
) -> Networks:
    """Write the graph of each network for each runtime."""
    plan = predictor.members[0].plan
    windows = calibration_windows(predictor, options.calibration)
    stem = TARGETS[options.target].stem
    networks = list(_networks(predictor))
    names: dict[Runtime, list[str]] = {runtime: [] for runtime in runtimes}
    for number, network in enumerate(networks):
        places = [Place(plan, name, number, len(networks)) for name in runtimes]
        stems = {place.runtime: folder / stem(place) for place in places}
        files = write_networks(network, plan, stems, options.precision, windows)
        for runtime, file in files.items():
            names[runtime].append(file.relative_to(folder).as_posix())
    return names


def _write_classes(
    predictor: Predictor,
    folder: Path,
    options: ExportOptions,
    runtimes: Sequence[Runtime],
) -> ClassSteps | None:
    """Write what answers with the class of a case for the program's runtime, if model
    and target have one.
    """
    if not TARGETS[options.target].classifies:
        return None
    return write_classes(predictor, folder, runtimes[0], options.precision)


def _card(
    predictor: Predictor,
    folder: Path,
    options: ExportOptions,
    networks: Networks,
    classes: ClassSteps | None,
) -> ExportCard:
    """Of an export whose networks are written; the first runtime is the program's."""
    description = predictor.descriptions[0]
    target = TARGETS[options.target]
    runtime, names = next(iter(networks.items()))
    return ExportCard(
        task=description.task,
        engine=options.target,
        runtime=runtime,
        opset=OPSET,
        precision=options.precision,
        model=predictor.identity,
        files=_files(folder),
        versions=_versions(),
        batches=batches(description.plan),
        served=target.served(description.plan, networks),
        left_out=left_out(
            description, halves=target.sums_halves, classes=target.classifies
        ),
        pipeline=Pipeline.of(description, names, (WINDOWS, LOGITS), classes),
    )


def _tried(
    folder: Path,
    card: ExportCard,
    networks: Networks,
    predictor: Predictor,
    options: ExportOptions,
) -> tuple[Verdict, dict[str, Any]]:
    """How the networks of each runtime compare with the model, the program's last; and
    what the card says of it.
    """
    others: list[dict[str, Any]] = []
    verdicts = []
    for runtime, names in reversed(list(networks.items())):
        pipeline = card.pipeline.model_copy(update={"networks": tuple(names)})
        change = {"runtime": runtime, "pipeline": pipeline}
        write_card(folder, card.model_copy(update=change))
        verdict = verified(
            folder,
            predictor,
            options.verification,
            whose=options.whose,
            precision=options.precision,
            accept_loss=options.accept_loss,
        )
        verdicts.append(verdict)
        others.append(verdict.summary)
    summary = others.pop()
    return verdicts[-1], {**summary, "others": others}


def _networks(predictor: Predictor) -> Iterable[nn.Module]:
    for member in predictor.members:
        for engine in member.windows.engines:
            assert isinstance(engine, TorchEngine)
            yield engine.network


def _files(folder: Path) -> tuple[ExportFile, ...]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return tuple(
        ExportFile(
            file=file.relative_to(folder).as_posix(),
            sha256=file_hash(file),
            bytes=file.stat().st_size,
        )
        for file in files
    )


def _versions() -> dict[str, str]:
    known: dict[str, str] = {}
    for package in PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known


def write_card(folder: Path, card: ExportCard) -> None:
    """Write `export.json`."""
    write_json(folder / CARD, card.model_dump(mode="json"))


def _write_readme(folder: Path, card: ExportCard) -> None:
    """Write how the export is run."""
    pipeline = card.pipeline
    facts = {
        "card": card,
        "scans": [f"{SPECIAL.sub('-', name)}.nii.gz" for name in pipeline.channels],
        "labels": list(zip(pipeline.values, pipeline.names, strict=True))[1:],
    }
    template = TARGETS[card.engine].readme
    write_text(folder / "README.md", rendered(template, facts))
