"""Networks by name: one entry each, with all that is known of a network before it is
built. A new network is a module and an entry.

Nothing heavy is imported here, so that help texts can list the names; builders import
their module when they are called.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from trivox.errors import RecipeError
from trivox.networks.family import Family, Option, PatchFamily, XrayFamily
from trivox.planning.blueprint import Blueprint, Measured, measured_reference

if TYPE_CHECKING:
    from torch import nn

    from trivox.networks.xray2ct.model import HybridCNNViTUNet3D
    from trivox.planning.topology import Topology
    from trivox.projection.geometry import Grid

RESENC_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6)
REFERENCE_3D = 560e6
REFERENCE_2D = 85e6
"""nnU-Net's references at 8 GB."""


# -- builders --------------------------------------------------------------------------
def _build_hybrid(topology: "Topology", **settings: Any) -> "nn.Module":
    from trivox.networks.hybrid import hybrid_unet

    return hybrid_unet(topology, **settings)


def _build_plain(topology: "Topology", **settings: Any) -> "nn.Module":
    from trivox.networks.unet import plain_unet

    return plain_unet(topology, **settings)


def _build_residual(topology: "Topology", **settings: Any) -> "nn.Module":
    from trivox.networks.unet import residual_encoder_unet

    return residual_encoder_unet(topology, **settings)


def _build_segresnet(topology: "Topology", **settings: Any) -> "nn.Module":
    from trivox.networks.rivals import segresnet_ds

    return segresnet_ds(topology, **settings)


def _build_swin(topology: "Topology", **settings: Any) -> "nn.Module":
    from trivox.networks.rivals import swin_unetr_v2

    return swin_unetr_v2(topology, **settings)


def _build_mednext(topology: "Topology", **settings: Any) -> "nn.Module":
    from trivox.networks.rivals import mednext

    return mednext(topology, **settings)


def _build_xray2ct(size: str, **settings: Any) -> "nn.Module":
    from trivox.networks.xray2ct.model import HybridCNNViTUNet3D
    from trivox.networks.xray2ct.sizes import RECONSTRUCTION_SIZES

    return HybridCNNViTUNet3D(size=RECONSTRUCTION_SIZES[size], **settings)


# -- entries ---------------------------------------------------------------------------
def _hybrid(
    size: str,
    *,
    target_gb: float,
    widths: tuple[int, ...],
    encoder_blocks: tuple[int, ...],
    measured: Measured,
) -> PatchFamily:
    """Five stages of its own widths for any patch."""
    reference = measured_reference(target_gb)
    return PatchFamily(
        "hybrid",
        size,
        "convolutional pyramid to 1/8, attention at 1/8 and 1/16, lean decoder; "
        f"planned for {target_gb:g} GB",
        partial(_build_hybrid, size=size),
        options=("attention", "drop_path", "dropout"),
        blueprint=Blueprint(
            reference_3d=reference,
            reference_2d=reference / 6,
            target_gb=target_gb,
            encoder_blocks=encoder_blocks,
            decoder_blocks=(1,),
            widths=widths,
            stages=5,
            fixed_stages=True,
            smallest=2,
            exact=False,
            max_batch=16,
            measured=measured,
        ),
    )


def _plain(kind: str, size: str, says: str, blueprint: Blueprint) -> PatchFamily:
    """A plain U-Net."""
    return PatchFamily(
        kind, size, says, _build_plain, options=("dropout", "norm"), blueprint=blueprint
    )


def _lean(size: str, encoder_blocks: tuple[int, ...], most: int) -> PatchFamily:
    """For CPUs: 16 channels (oneDNN's vector width) and single blocks where voxels are
    many, width where they are few.
    """
    blueprint = Blueprint(
        reference_3d=REFERENCE_3D,
        reference_2d=REFERENCE_2D,
        target_gb=8,
        encoder_blocks=encoder_blocks,
        decoder_blocks=(1,),
        base_features=16,
        max_features_3d=most,
        max_features_2d=most,
        max_batch=16,
    )
    says = f"lean plain U-Net for CPUs, at most {most} features"
    return _plain("unet", size, says, blueprint)


def _resenc(
    size: str, *, target_gb: float, reference_3d: float, reference_2d: float
) -> PatchFamily:
    """nnU-Net's residual encoder, planned by the reference of one sample."""
    return PatchFamily(
        "resenc",
        size,
        "U-Net with a residual encoder, parameter for parameter nnU-Net's (Isensee et "
        f"al. 2024); planned for {target_gb:g} GB",
        _build_residual,
        options=("dropout", "norm"),
        blueprint=Blueprint(
            reference_3d=reference_3d,
            reference_2d=reference_2d,
            target_gb=target_gb,
            encoder_blocks=RESENC_BLOCKS,
            decoder_blocks=(1,),
            residual=True,
            coverage=1.0,
            per_sample=True,
        ),
    )


def _rival(
    kind: str,
    size: str,
    says: str,
    build: Callable[..., "nn.Module"],
    *,
    target_gb: float,
    stages: int,
    measured: Measured,
) -> PatchFamily:
    """A network of MONAI's: its widths are its own, only the number of halvings matters
    here.
    """
    reference = measured_reference(target_gb)
    return PatchFamily(
        kind,
        size,
        f"MONAI's {says}; needs pip install --no-deps monai",
        build,
        blueprint=Blueprint(
            reference_3d=reference,
            reference_2d=reference / 6,
            target_gb=target_gb,
            encoder_blocks=(1,),
            decoder_blocks=(1,),
            stages=stages,
            uniform=True,
            max_batch=16,
            measured=measured,
        ),
    )


def _mednext(
    size: str, says: str, *, target_gb: float, measured: Measured
) -> PatchFamily:
    return _rival(
        "mednext",
        size,
        f"{says} ConvNeXt-like U-Net (Roy et al. 2023)",
        partial(_build_mednext, size=size),
        target_gb=target_gb,
        stages=5,
        measured=measured,
    )


def _xray2ct(size: str, native: int) -> XrayFamily:
    return XrayFamily(
        "xray2ct",
        size,
        f"X-rays to a volume, made for {native} voxels along an axis",
        partial(_build_xray2ct, size),
        options=("levels", "deep_supervision"),
        native=native,
    )


_FAMILIES: tuple[Family, ...] = (
    _hybrid(
        "lite",
        target_gb=8,
        widths=(16, 32, 64, 96, 432),
        encoder_blocks=(1, 1, 2, 2, 1),
        measured=Measured(16_096_858, (1660, 1065), (1945, 1110)),
    ),
    _hybrid(
        "base",
        target_gb=16,
        widths=(32, 64, 128, 192, 480),
        encoder_blocks=(1, 2, 2, 2, 1),
        measured=Measured(19_964_000, (3810, 2165), (4290, 2405)),
    ),
    _hybrid(
        "large",
        target_gb=24,
        widths=(48, 96, 192, 336, 672),
        encoder_blocks=(1, 2, 3, 3, 1),
        measured=Measured(44_200_000, (6350, 3450), (7030, 4030)),
    ),
    _plain(
        "nnunet",
        "plain",
        "plain U-Net, parameter for parameter nnU-Net's (Isensee et al. 2021)",
        Blueprint(REFERENCE_3D, REFERENCE_2D, 8, (2,), (2,), max_batch=512),
    ),
    _resenc("m", target_gb=8, reference_3d=680e6, reference_2d=135e6),
    _resenc("l", target_gb=24, reference_3d=2.1e9, reference_2d=380e6),
    _resenc("xl", target_gb=40, reference_3d=3.6e9, reference_2d=560e6),
    _plain(
        "nvidia",
        "unet",
        "plain U-Net of seven levels, 64 to 512 features (Futrega et al. 2021)",
        Blueprint(
            reference_3d=2 * REFERENCE_3D,
            reference_2d=2 * REFERENCE_2D,
            target_gb=16,
            encoder_blocks=(2,),
            decoder_blocks=(2,),
            widths=(64, 96, 128, 192, 256, 384, 512),
            stages=7,
            smallest=2,
        ),
    ),
    _rival(
        "segresnet",
        "ds",
        "residual encoder with one decoder block a stage (Myronenko 2018)",
        _build_segresnet,
        target_gb=16,
        stages=5,
        measured=Measured(87_169_292, (2260, 1850), (2260, 1410)),
    ),
    _rival(
        "swin",
        "unetr-v2",
        "Swin transformer encoder with residual convolutions (He et al. 2023)",
        _build_swin,
        target_gb=24,
        stages=6,
        measured=Measured(72_767_733, (7180, 6900), (7080, 6200)),
    ),
    _mednext("s", "small", target_gb=24, measured=Measured(5_555_935, (7780, 4310))),
    _mednext("b", "base", target_gb=24, measured=Measured(10_530_000, (8380, 4640))),
    _mednext("l", "large", target_gb=40, measured=Measured(61_729_679, (16800, 9400))),
    _lean("small", (1, 2), most=256),
    _lean("tiny", (1,), most=64),
    _xray2ct("tiny", native=32),
    _xray2ct("small", native=64),
    _xray2ct("base", native=128),
)
NETWORKS: dict[str, Family] = {family.name: family for family in _FAMILIES}
PATCH_NETWORKS = {
    family.name: family for family in _FAMILIES if isinstance(family, PatchFamily)
}
XRAY_NETWORKS = {
    family.name: family for family in _FAMILIES if isinstance(family, XrayFamily)
}


# -- by name ---------------------------------------------------------------------------
def patch_family(network: str) -> PatchFamily:
    """The family of a network that reads patches of images; raises `RecipeError`
    listing them.
    """
    if network not in PATCH_NETWORKS:
        raise RecipeError(_unknown(network, PATCH_NETWORKS))
    return PATCH_NETWORKS[network]


def xray_family(network: str) -> XrayFamily:
    """The family of a network that reads X-rays; raises `RecipeError` listing them."""
    if network not in XRAY_NETWORKS:
        raise RecipeError(_unknown(network, XRAY_NETWORKS))
    return XRAY_NETWORKS[network]


def _unknown(network: str, known: Mapping[str, Family]) -> str:
    return f"network '{network}' does not exist; choose one of {', '.join(known)}"


def build_network(
    name: str,
    topology: "Topology",
    *,
    channels: int,
    outputs: int,
    deep_supervision: bool = True,
    options: Mapping[str, Option] | None = None,
) -> "nn.Module":
    """Build a network by name with options of its own; raises `RecipeError` listing
    what is known.
    """
    family = patch_family(name)
    family.require_options(options or {})
    return family.build(
        topology,
        channels=channels,
        outputs=outputs,
        deep_supervision=deep_supervision,
        **(options or {}),
    )


def build_volume_network(
    name: str,
    *,
    grid: "Grid",
    window: tuple[float, float],
    water_per_mm: float,
    options: Mapping[str, Option] | None = None,
    prior: str = "sirt",
    prior_iterations: int = 10,
    consistency_steps: int = 1,
) -> "HybridCNNViTUNet3D":
    """Build a network that reads X-rays, by name with options of its own; raises
    `RecipeError` listing what is known.
    """
    family = xray_family(name)
    family.require_options(options or {})
    network = family.build(
        grid=grid,
        window=window,
        water_per_mm=water_per_mm,
        prior=prior,
        prior_iterations=prior_iterations,
        consistency_steps=consistency_steps,
        **(options or {}),
    )
    return cast("HybridCNNViTUNet3D", network)
