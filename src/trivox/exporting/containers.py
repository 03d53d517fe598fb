"""A model as a container: a folder from which `docker build` makes the image, with tests
of its own.

docker, mercure, map: for any machine, for the router mercure, and as a MONAI Application
Package (`trivox.exporting.packaging.kinds`). brats: `/input` holds cases in the naming of
a BraTS release, `/output` gets `CASE.nii.gz` (BrainLesion/BraTS, the challenges' runner,
counts the files and opens each). grand-challenge: `/input/images/<slug>/*.mha` for each
socket, one case a run, `/output/images/<slug>/*.mha`
(grand-challenge.org/documentation/runtime-environment).
"""

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from trivox.config.choices import MissingChannels
from trivox.errors import BundleError
from trivox.exporting.contract import Contract, Target
from trivox.exporting.own_wheel import installed_versions, write_wheel
from trivox.exporting.packaging.kinds import KINDS, Asked, require_no_sockets
from trivox.exporting.packaging.manifests import (
    DOCS,
    ETC,
    WORK,
    configuration,
    manifests,
)
from trivox.exporting.packaging.manifests import environment as map_environment
from trivox.files import in_one_line, new_folder, write_json, write_text
from trivox.inference.bundle import LabelBundle, read_bundle
from trivox.inference.predictor import Predictor
from trivox.outputs import require_new_folder
from trivox.version import NOTICE, __version__

FILES = Path(__file__).parent / "container_files"
NAMES = {"dockerignore": ".dockerignore"}
CODES = "codes.json"
"""What a bundle may say of its labels in terminologies."""


@in_one_line()
def package_model(
    models: Sequence[Path],
    out: Path,
    *,
    target: Target,
    input_slugs: Mapping[str, str] | None = None,
    output_slug: str = "",
    mounted_weights: bool = False,
    missing_channels: MissingChannels = "refuse",
) -> Contract:
    """Write the build context of an image that predicts with `models` into `out`, all
    at once; several vote.

    input_slugs, output_slug, mounted_weights: for grand-challenge: socket -> channel,
    the folder of the result, and whether weights are mounted at /opt/ml/model rather
    than copied into the image. Raises `BundleError` for models that do not load, fit
    together or fit the target, `RecipeError` for slugs that do not name every channel
    once, and if `out` holds anything.
    """
    require_new_folder(out)
    kind = KINDS[target]
    asked = Asked(input_slugs or {}, output_slug, mounted_weights)
    bundles = [read_bundle(path) for path in models]
    if not kind.classes:
        _require_segmentation(bundles)
    if not kind.sockets:
        require_no_sockets(target, asked)
    # Loading checks sums, and that weights and plans fit together.
    predictor = Predictor.load(list(models), device="cpu", precision="fp32")
    contract = Contract(
        task=bundles[0].description.task,
        target=target,
        models=tuple(f"model{number}" for number in range(len(bundles))),
        channels=predictor.channels,
        labels=predictor.labels.labels,
        missing_channels=missing_channels,
        **kind.facts(predictor.channels, predictor.labels, asked),
    )
    with new_folder(out) as folder:
        _fill(folder, contract, bundles, predictor.identity)
    return contract


def _require_segmentation(bundles: Sequence[LabelBundle]) -> None:
    for bundle in bundles:
        if bundle.description.classification is not None:
            raise BundleError(
                f"{bundle.folder}: a model for {bundle.description.task}; "
                "the challenges take label maps, package a segmentation model"
            )


def _fill(
    folder: Path, contract: Contract, bundles: Sequence[LabelBundle], identity: str
) -> None:
    for name, bundle in zip(contract.models, bundles, strict=True):
        copy_bundle(bundle, folder / "models" / name)
    wheel = write_wheel(folder / "wheels")
    kind = KINDS[contract.target]
    versions = installed_versions(kind.extra).items()
    pins = "".join(f"{name}=={version}\n" for name, version in versions)
    write_text(folder / "constraints.txt", pins)
    write_json(folder / "contract.json", contract.model_dump(mode="json"))
    shutil.copyfile(FILES / kind.entry, folder / "predict.py")
    shutil.copyfile(FILES / "smoke_test.py", folder / "smoke_test.py")
    _render(folder, contract, bundles, identity=identity, wheel=wheel.name)
    _open_to_all(folder)


def copy_bundle(bundle: LabelBundle, folder: Path) -> None:
    """What inference reads, and nothing else that lies in the bundle's folder."""
    folder.mkdir(parents=True)
    files = bundle.checked(bundle.description.files)
    codes = bundle.folder / CODES
    if codes.is_file():
        files.append(codes)
    for path in (bundle.folder / "bundle.json", *files):
        shutil.copyfile(path, folder / path.name)


def _render(
    folder: Path,
    contract: Contract,
    bundles: Sequence[LabelBundle],
    *,
    identity: str,
    wheel: str,
) -> None:
    environment = Environment(
        loader=FileSystemLoader(FILES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    names = [bundle.description.plan.dataset for bundle in bundles]
    datasets = list(dict.fromkeys(names))
    plain = re.sub(r"[^a-z0-9]+", "-", datasets[0].lower()).strip("-")
    kind = KINDS[contract.target]
    facts: dict[str, Any] = {
        "contract": contract,
        "kind": kind,
        "notice": NOTICE,
        "version": __version__,
        "identity": identity,
        "wheel": wheel,
        "image": f"trivox-{plain or 'model'}",
        "models": datasets,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }
    if contract.target == "map":
        facts |= {"etc": ETC, "work": WORK, "docs": DOCS}
        facts |= {"variables": map_environment()}
        _write_manifests(folder, contract, facts["image"])
    for template in ("Dockerfile", "README.md", "smoke_test.sh", "dockerignore"):
        text = environment.get_template(f"{template}.j2").render(facts)
        write_text(folder / NAMES.get(template, template), text)


def _write_manifests(folder: Path, contract: Contract, title: str) -> None:
    for name, content in manifests(contract).items():
        write_json(folder / name, content)
    write_text(folder / "app.yaml", configuration(title))


def _open_to_all(folder: Path) -> None:
    """Readable for any user that the container runs as, whatever the umask here."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.suffix == ".sh" else 0o644)
