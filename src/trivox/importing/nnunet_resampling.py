"""nnU-Net's resampling functions and readers as the grid rules of a plan; what trivox
cannot do is refused by name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from trivox.errors import BundleError
from trivox.importing.nnunet_files import SPLINES, Configuration, checked
from trivox.planning.grid_rules import GridRules, Interpolation
from trivox.schema import Frozen, JsonObject
from trivox.volumes.volume import Order

READERS = (
    "SimpleITKIO",
    "SimpleITKIOWithReorient",
    "NibabelIO",
    "NibabelIOWithReorient",
    "Tiff3DIO",
    "NaturalImage2DIO",
)
PREPROCESSORS = ("DefaultPreprocessor",)
LINEAR = "resample_torch_fornnunet"
NOTHING = "no_resampling_hack"
UNUSED = Interpolation(order=1)
"""Of what is not resampled."""


class SplineArguments(Frozen):
    """Of nnU-Net's default function; a value left out is what Python takes there."""

    is_seg: bool = False
    order: Order = 3
    order_z: Order = 0
    force_separate_z: bool | None = False
    separate_z_anisotropy_threshold: float = 3

    def interpolation(self) -> Interpolation:
        """The same for trivox."""
        return Interpolation(
            order=self.order,
            order_across=self.order_z,
            slicewise=self.force_separate_z,
            threshold=self.separate_z_anisotropy_threshold,
            clip="slice",
            ties="nearest" if self.is_seg else "smallest",
            half=not self.is_seg,
        )


class LinearArguments(Frozen):
    """Of nnU-Net's torch function."""

    is_seg: bool = False
    num_threads: int = 4
    device: str | None = None
    memefficient_seg_resampling: Literal[False] = False
    force_separate_z: bool | None = None
    separate_z_anisotropy_threshold: float = 3
    mode: Literal["linear"] = "linear"
    aniso_axis_mode: Literal["nearest-exact"] = "nearest-exact"

    def interpolation(self) -> Interpolation:
        """The same for trivox."""
        return Interpolation(
            order=1,
            slicewise=self.force_separate_z,
            threshold=self.separate_z_anisotropy_threshold,
            clip="slice",
            ties="half" if self.is_seg else "smallest",
        )


FUNCTIONS: Mapping[str, type[SplineArguments] | type[LinearArguments]] = {
    SPLINES: SplineArguments,
    LINEAR: LinearArguments,
}


def read_grid_rules(
    configuration: Configuration, reader: str, file: Path, *, refines: bool
) -> GridRules:
    """The grid rules of a configuration of the plans in `file`; raises `BundleError`
    for readers, preprocessors and functions that trivox does not have.

    refines: whether label maps are resampled as well.
    """
    _require(reader, "image_reader_writer", READERS, file)
    name = configuration.preprocessor_name
    _require(name, "preprocessor_name", PREPROCESSORS, file)
    images = _interpolation(
        file,
        "resampling_fn_data",
        configuration.resampling_fn_data,
        configuration.resampling_fn_data_kwargs,
    )
    return GridRules(
        axes="canonical" if reader.endswith("WithReorient") else "stored",
        slices="resampled" if len(configuration.spacing) == 3 else "kept",
        image=images,
        labels=_of_labels(configuration, file) if refines else UNUSED,
        logits=_of_logits(configuration, file, resampled=images is not None),
        sums="half",
    )


def _of_labels(configuration: Configuration, file: Path) -> Interpolation:
    key = "resampling_fn_seg"
    rule = _interpolation(
        file,
        key,
        configuration.resampling_fn_seg,
        configuration.resampling_fn_seg_kwargs,
        of_labels=True,
    )
    if rule is None:
        return UNUSED
    _require_linear(rule, across=(0,), key=key, file=file)
    return rule


def _of_logits(
    configuration: Configuration, file: Path, *, resampled: bool
) -> Interpolation:
    """resampled: whether images are."""
    key = "resampling_fn_probabilities"
    rule = _interpolation(
        file,
        key,
        configuration.resampling_fn_probabilities,
        configuration.resampling_fn_probabilities_kwargs,
    )
    if rule is None and resampled:
        raise BundleError(
            f"{file}: {key} '{NOTHING}' leaves answers on another grid than images, "
            "which are resampled; plan and train with one of both"
        )
    if rule is None:
        return UNUSED
    _require_linear(rule, across=(0, 1), key=key, file=file)
    # linear along all axes is what it comes to
    slicewise = False if rule.order_across == 1 else rule.slicewise
    return rule.model_copy(update={"slicewise": slicewise})


def _interpolation(
    file: Path,
    key: str,
    function: str,
    arguments: JsonObject,
    *,
    of_labels: bool = False,
) -> Interpolation | None:
    """The rule of a resampling function; None for no resampling."""
    if function == NOTHING:
        return None
    _require(function, key, (*FUNCTIONS, NOTHING), file)
    where = f"{file}: {key}_kwargs"
    given = checked(FUNCTIONS[function], arguments, where)
    if given.is_seg != of_labels:
        raise BundleError(
            f"{where}: is_seg is {given.is_seg}, which is meant for "
            f"{'label maps' if given.is_seg else 'images'}; correct plans.json"
        )
    return given.interpolation()


def _require_linear(
    rule: Interpolation, *, across: tuple[int, ...], key: str, file: Path
) -> None:
    if rule.order != 1 or rule.order_across not in across:
        allowed = " or ".join(str(order) for order in across)
        raise BundleError(
            f"{file}: {key}_kwargs: order {rule.order} with order_z "
            f"{rule.order_across} is not supported; known: order 1 with order_z "
            f"{allowed}"
        )


def _require(name: str, key: str, known: tuple[str, ...], file: Path) -> None:
    if name not in known:
        raise BundleError(
            f"{file}: {key} '{name}' is not supported; known: {', '.join(known)}"
        )
