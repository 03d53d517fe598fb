"""A model as a container for a challenge: a folder from which `docker build` makes the
image, with tests of its own.

brats: `/input` holds cases in the naming of a BraTS release, `/output` gets
`CASE.nii.gz` (BrainLesion/BraTS, the challenges' runner, counts the files and opens
each). grand-challenge: `/input/images/<slug>/*.mha` for each socket, one case a run,
`/output/images/<slug>/*.mha` (grand-challenge.org/documentation/runtime-environment).
"""

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from trivox.config.choices import MissingChannels
from trivox.datasets.channels import sequence_of
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.brats import family_of
from trivox.errors import BundleError, RecipeError
from trivox.exporting.contract import Contract, Target
from trivox.exporting.own_wheel import installed_versions, write_wheel
from trivox.files import in_one_line, new_folder, write_json, write_text
from trivox.inference.bundle import LabelBundle, read_bundle
from trivox.inference.predictor import Predictor
from trivox.outputs import require_new_folder
from trivox.version import NOTICE, __version__

ENTRY_POINTS: dict[Target, str] = {
    "brats": "brats.py",
    "grand-challenge": "grand_challenge.py",
}
FILES = Path(__file__).parent / "container_files"
SLUG = re.compile(r"[A-Za-z0-9_-]+")


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
    bundles = _segmentation_bundles(models)
    # Loading checks sums, and that weights and plans fit together.
    predictor = Predictor.load(list(models), device="cpu", precision="fp32")
    if target == "brats":
        _require_no_sockets(input_slugs, output_slug, mounted_weights)
        facts = _for_brats(predictor.channels, predictor.labels)
    else:
        facts = _for_grand_challenge(
            predictor.channels, predictor.labels, input_slugs or {}, output_slug
        )
    contract = Contract(
        task=bundles[0].description.task,
        target=target,
        models=tuple(f"model{number}" for number in range(len(bundles))),
        channels=predictor.channels,
        labels=predictor.labels.labels,
        missing_channels=missing_channels,
        mounted_weights=mounted_weights,
        **facts,
    )
    with new_folder(out) as folder:
        _fill(folder, contract, bundles, predictor.identity)
    return contract


def _segmentation_bundles(models: Sequence[Path]) -> list[LabelBundle]:
    bundles = [read_bundle(path) for path in models]
    for bundle in bundles:
        if bundle.description.classification is not None:
            raise BundleError(
                f"{bundle.folder}: a model for {bundle.description.task}; "
                "the challenges take label maps, package a segmentation model"
            )
    return bundles


def _require_no_sockets(
    input_slugs: Mapping[str, str] | None, output_slug: str, mounted_weights: bool
) -> None:
    if input_slugs or output_slug or mounted_weights:
        raise RecipeError(
            "slugs and mounted weights are for --target grand-challenge; "
            "leave them out for brats"
        )


def _for_brats(channels: Sequence[str], labels: LabelScheme) -> dict[str, object]:
    """Examples of the family that knows the model's labels, and the values that its
    label maps may hold.
    """
    sequences = [sequence_of(channel) for channel in channels]
    if not all(sequences) or len(set(sequences)) < len(sequences):
        raise BundleError(
            f"the model reads {', '.join(channels)}, BraTS gives T1, T1ce, T2 and "
            "FLAIR once each; train on a BraTS dataset"
        )
    cavity = "100" if "RC" in labels.labels else "000"
    examples = (f"BraTS-GLI-00001-{cavity}", f"BraTS-GLI-00002-{cavity}")
    family = family_of(examples[0])
    assert family is not None, "the examples are BraTS cases"
    unknown = [name for name in labels.labels if name not in family.labels.labels]
    if unknown:
        known = ", ".join(family.labels.labels)
        raise BundleError(
            f"the model's labels {', '.join(unknown)} are not those of BraTS "
            f"({known}); name them so in the dataset and train again"
        )
    return {"example_cases": examples, "values": family.labels.values}


def _for_grand_challenge(
    channels: Sequence[str],
    labels: LabelScheme,
    input_slugs: Mapping[str, str],
    output_slug: str,
) -> dict[str, object]:
    """Checked slugs and the label values, which have to fit into a byte."""
    for slug in (*input_slugs, output_slug):
        _require_slug(slug)
    if sorted(input_slugs.values()) != sorted(channels):
        named = ", ".join(input_slugs.values()) or "none"
        raise RecipeError(
            f"--input-slug names the channels {named}, the model reads "
            f"{', '.join(channels)}; give --input-slug SLUG=CHANNEL once for each"
        )
    if min(labels.values) < 0 or max(labels.values) > 255:
        raise BundleError(
            f"label values {sorted(labels.values)} do not fit into the unsigned bytes "
            "of a grand-challenge label map; "
            "number the labels from 0 to 255 and train again"
        )
    return {
        "input_slugs": dict(input_slugs),
        "output_slug": output_slug,
        "values": labels.values,
    }


def _require_slug(slug: str) -> None:
    if SLUG.fullmatch(slug):
        return
    wrong = f"'{slug}' is no slug of a socket (letters, digits, - and _)"
    raise RecipeError(
        f"{wrong if slug else 'a socket has no name'}; name them with "
        "--input-slug SLUG=CHANNEL for each channel, and --output-slug SLUG"
    )


def _fill(
    folder: Path, contract: Contract, bundles: Sequence[LabelBundle], identity: str
) -> None:
    for name, bundle in zip(contract.models, bundles, strict=True):
        _copy_bundle(bundle, folder / "models" / name)
    wheel = write_wheel(folder / "wheels")
    versions = installed_versions().items()
    pins = "".join(f"{name}=={version}\n" for name, version in versions)
    write_text(folder / "constraints.txt", pins)
    write_json(folder / "contract.json", contract.model_dump(mode="json"))
    shutil.copyfile(FILES / ENTRY_POINTS[contract.target], folder / "predict.py")
    shutil.copyfile(FILES / "smoke_test.py", folder / "smoke_test.py")
    shutil.copyfile(FILES / "dockerignore", folder / ".dockerignore")
    _render(folder, contract, bundles, identity=identity, wheel=wheel.name)
    _open_to_all(folder)


def _copy_bundle(bundle: LabelBundle, folder: Path) -> None:
    """What inference reads, and nothing else that lies in the bundle's folder."""
    folder.mkdir(parents=True)
    for path in (bundle.folder / "bundle.json", *bundle.weight_files()):
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
    facts = {
        "contract": contract,
        "notice": NOTICE,
        "version": __version__,
        "identity": identity,
        "wheel": wheel,
        "image": f"trivox-{plain or 'model'}",
        "models": datasets,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }
    for name in ("Dockerfile", "README.md", "smoke_test.sh"):
        template = environment.get_template(f"{name}.j2")
        write_text(folder / name, template.render(facts))


def _open_to_all(folder: Path) -> None:
    """Readable for any user that the container runs as, whatever the umask here."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.suffix == ".sh" else 0o644)
