"""Models for a browser: untrained ones of CT, and pages of bundles."""

import hashlib
import json

import torch
from safetensors.torch import save_file

from trivox.exporting.web.page_folder import write_page
from trivox.inference.bundle import read_bundle, write_bundle
from trivox.inference.descriptions import LabelDescription
from trivox.inference.members import WindowOptions, load_members
from trivox.learning.runtime import make_runtime
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
    folder.mkdir(parents=True)
    bundles = [read_bundle(path) for path in bundles]
    runtime = make_runtime("cpu", "fp32")
    members = load_members(bundles, runtime, WindowOptions(), (1.0,))
    plan = bundles[0].description.plan
    names = []
    for member in members:
        for engine in member.windows.engines:
            names.append(f"network{len(names)}.onnx")
            write_onnx(engine.network, plan, folder / names[-1])
    export = export_of(bundles[0].description, members[0].windows, folder, names)
    (folder / "export.json").write_text(json.dumps(export), encoding="utf-8")
    write_page(folder, export=export, archives=archives)
    return folder


def write_onnx(network, plan, file):
    window = torch.zeros(2, len(plan.inputs), *plan.patch_size)
    torch.onnx.export(
        network,
        (window,),
        str(file),
        dynamo=True,
        external_data=False,
        opset_version=18,
        input_names=["windows"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        verbose=False,
    )


def export_of(description, windows, folder, names):
    plan = description.plan
    labels = plan.labels
    named = {value: name for name, value in labels.labels.items()}
    files = [
        {
            "file": name,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name in names
    ]
    pipeline = {
        "networks": names,
        "input": "windows",
        "output": "logits",
        "channels": list(plan.channels),
        "normalisations": [n.model_dump(mode="json") for n in plan.normalisations],
        "mask_channel": plan.mask_channel,
        "axis_order": list(plan.axis_order),
        "spacing": list(plan.spacing),
        "grid": plan.grid.model_dump(mode="json"),
        "patch_size": list(plan.patch_size),
        "overlap": windows.overlap,
        "mirror_axes": list(windows.mirror_axes),
        "labels": labels.model_dump(mode="json"),
        "values": list(labels.values),
        "names": ["background", *(named[value] for value in labels.values[1:])],
        "targets": {name: list(indices) for name, indices in labels.targets.items()},
        "postprocessing": description.postprocessing.model_dump(mode="json"),
    }
    return {
        "format_version": 1,
        "task": plan.task,
        "files": files,
        "pipeline": pipeline,
    }
