"""Models for a browser: untrained ones of CT, and pages of bundles."""

import torch
from safetensors.torch import save_file

from trivox.exporting.export import ExportOptions, export_model
from trivox.inference.bundle import write_bundle
from trivox.inference.descriptions import LabelDescription
from trivox.networks.registry import build_network
from trivox.planning.plan import Normalisation
from untrained_models import plan_of

CT = Normalisation(scheme="ct", mean=-100, std=400, low=-900, high=700)
COARSE = (4.0, 4.0, 4.0)


def ct_bundle(folder):
    """A model of CT with coarse voxels, whose network was never trained: its labels are
    everywhere, and their borders as well.
    """
    plan = plan_of(patch=(32, 32, 32))
    update = {"channels": ("CT",), "normalisations": (CT,), "spacing": COARSE}
    plan = plan.model_copy(update=update)
    torch.manual_seed(3)
    network = build_network(
        plan.network,
        plan.topology,
        channels=1,
        outputs=plan.labels.output_channels,
        deep_supervision=False,
        options=plan.network_options,
    )
    folder.mkdir(parents=True)
    weights = folder / "weights.safetensors"
    save_file(network.state_dict(), weights)
    description = LabelDescription(task=plan.task, plan=plan, mirror_axes=("x",))
    write_bundle(folder / "bundle", description, {"0": weights})
    return folder / "bundle"


def page_of(bundles, folder, archives):
    """The page of a bundle, or of several that vote."""
    export_model(bundles, folder, ExportOptions("web", assets=archives.folder))
    return folder
