"""How often the check of inputs flags images that are like the training images, and
how often others; no network is involved.

likeness.py [--data DIR]: learnt on every second case of a set; the others are shown as
they are and damaged, and so are images of other sets.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import trivox
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.reading import crop_volume, read_channels
from trivox.inference.doubt.likeness import Likeness, Look, learn_likeness, look_at
from trivox.planning.plan import Plan
from trivox.preparation.grid import prepare
from trivox.volumes.volume import Volume
from trust import DAMAGES

Damage = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def look(volume: Volume, plan: Plan) -> Look:
    """A volume as a network of this plan gets it."""
    case = prepare(crop_volume(volume, None, where="image"), plan)
    return look_at(
        case.image,
        channels=len(plan.channels),
        source_spacing=case.record.cropped_spacing,
        spacing=plan.spacing,
    )


def images(cases: Sequence[Case], channels: int) -> list[Volume]:
    """What the cases hold."""
    return [read_channels(case, channels=channels) for case in cases]


def show(name: str, likeness: Likeness, plan: Plan, volumes: Sequence[Volume]) -> None:
    """Print how many of the volumes are flagged."""
    said = [likeness.complaints(look(volume, plan)) for volume in volumes]
    flagged = sum(bool(sentences) for sentences in said)
    example = next((f" | e.g. {each[0]}" for each in said if each), "")
    print(f"{name} | flagged {flagged} of {len(volumes)}{example}")


def changed(volumes: Sequence[Volume], damage: Damage) -> list[Volume]:
    """The same volumes, damaged on purpose."""
    rng = np.random.default_rng(0)
    result = []
    for volume in volumes:
        array = volume.array.astype(np.float32)
        result.append(volume.with_array(damage(array, rng).astype(np.float32)))
    return result


def learnt(dataset: Dataset) -> tuple[Likeness, Plan]:
    """From every second case."""
    half = dataset.training_cases[::2]
    with TemporaryDirectory() as folder:
        out = Path(folder) / "plan.json"
        plan = trivox.plan(dataset.root, out=out, device="cpu").plan
    assert isinstance(plan, Plan)
    volumes = images(half, len(dataset.channels))
    looks = [look(volume, plan) for volume in volumes]
    likeness = learn_likeness(looks, channels=plan.channels, axes=plan.axis_order)
    assert likeness is not None
    return likeness, plan


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    beside = Path(__file__).parents[1] / ".." / "shared" / "data"
    parser.add_argument("--data", type=Path, default=beside)
    data = parser.parse_args().data
    torch.set_num_threads(1)
    hippocampus = load_dataset(data / "hippocampus")
    brats = load_dataset(data / "brats-cubes")
    sequences = images(brats.training_cases[:60], len(brats.channels))
    for name, dataset in (("hippocampus", hippocampus), ("brats-cubes", brats)):
        likeness, plan = learnt(dataset)
        others = images(dataset.training_cases[1::2], len(dataset.channels))
        print(f"{name}: learnt on {likeness.cases}")
        for damage, change in DAMAGES.items():
            show(f"  the other half, {damage}", likeness, plan, changed(others, change))
        if len(dataset.channels) == 1:
            for index, channel in enumerate(brats.channels):
                single = [v.with_array(v.array[index : index + 1]) for v in sequences]
                show(f"  brats-cubes, {channel}", likeness, plan, single)
        else:
            order = [*range(1, len(dataset.channels)), 0]
            turned = [v.with_array(v.array[order]) for v in others]
            show("  the other half, channels in another order", likeness, plan, turned)


if __name__ == "__main__":
    main()
