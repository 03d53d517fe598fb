"""Models to package into containers, and what a challenge mounts at /input."""

import json

import numpy as np

from trivox.datasets.layouts.brats import FAMILIES, SEQUENCES
from trivox.inference.bundle import read_bundle, write_bundle
from trivox.inference.descriptions import ClassDescription, LabelDescription
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume

SHAPE = (14, 18, 16)
SLUGS = {"t1-mri": "T1", "t1-contrast": "T1ce", "t2-mri": "T2", "flair-mri": "FLAIR"}
FLIPPED = np.diag([-1.0, -1.0, 1.0, 1.0])
TURNED = np.array(
    [[-0.8, 0.9, 0, 3], [-0.6, -1.2, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1]]
)


def random_model(
    run,
    out,
    *,
    channels=SEQUENCES,
    labels=FAMILIES["2021"].labels,
    seed=0,
    task="segmentation",
):
    """A bundle of the tiny run's network with random weights."""
    plan = read_bundle(run).description.plan
    changes = {
        "channels": tuple(channels),
        "labels": labels,
        "dataset": "Tiny BraTS",
        "task": task,
        "normalisations": plan.normalisations[:1] * len(channels),
    }
    plan = plan.model_copy(update=changes)
    out.mkdir(parents=True)
    weights = out / "random.safetensors"
    write_random_weights(weights, plan, seed)
    answers = ClassDescription(classes=("a", "b"), lesion=(1,), width=8)
    description = LabelDescription(
        task=plan.task,
        plan=plan,
        classification=answers if task == "multitask" else None,
    )
    write_bundle(out, description, {"0": weights})
    return out


def write_random_weights(file, plan, seed):
    import torch
    from safetensors.torch import save_file

    from trivox.networks.registry import build_network

    torch.manual_seed(seed)
    network = build_network(
        plan.network,
        plan.topology,
        channels=len(plan.channels),
        outputs=plan.labels.output_channels,
        options=plan.network_options,
    )
    save_file(network.state_dict(), file)


def scan(path, seed, affine=FLIPPED):
    """Write noise; returns its path."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(100, 20, (1, *SHAPE)).astype(np.float32)
    write_volume(path, Volume(noise, affine))
    return path


def brats_case(folder, name, *, family="2023", flat=False, without=()):
    """Write a case's sequences, in a folder of its own unless `flat`."""
    place = folder if flat else folder / name
    place.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed, sequence in enumerate(SEQUENCES):
        if sequence not in without:
            path = place / FAMILIES[family].file_name(name, sequence)
            paths.append(scan(path, seed))
    return paths


def sockets(folder, *, moved=False, key="socket"):
    """Images as grand-challenge mounts them; `moved` into folders that only inputs.json
    knows.
    """
    entries = []
    for seed, slug in enumerate(SLUGS):
        place = f"images/{slug}" + ("-moved" if moved else "")
        scan(folder / place / f"uuid-{seed}.mha", seed, TURNED)
        entries.append({key: {"slug": slug, "relative_path": place}})
    (folder / "inputs.json").write_text(json.dumps(entries))
    return folder


def files_below(folder):
    """Paths of all files in a folder, relative to it."""
    paths = sorted(folder.rglob("*"))
    return [path.relative_to(folder) for path in paths if path.is_file()]
