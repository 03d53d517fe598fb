"""The collapse that the class head is built against: subtypes that are a texture,
learnt the naive way and ours. Minutes.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trivox.config.recipe import make_recipe
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.abdomens import (
    PancreasPhantomSettings,
    write_pancreas_phantoms,
)
from trivox.evaluation.metrics.classification import (
    ClassPredictions,
    majority_answer,
    measure_classes,
)
from trivox.files import read_json
from trivox.inference.predictor import Predictor
from trivox.inference.windows import window_starts
from trivox.learning.losses.choice import LossSetup, make_loss
from trivox.networks.registry import build_network
from trivox.planning.plan import read_plan
from trivox.preparation.grid import prepare
from trivox.preparation.sampler import PatchSampler, sample_rng
from trivox.preparation.store import Store
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest

pytestmark = pytest.mark.slow

SETTINGS = {"epochs": 6, "workers": 0, "seed": 1}
PATCH, STEPS, BATCH = (16, 24, 24), 240, 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """90 cases to train on and 45 to test, classes as 62 : 106 : 84."""
    folder = tmp_path_factory.mktemp("textures") / "data"
    return write_pancreas_phantoms(
        folder, PancreasPhantomSettings(cases=135, test_cases=45, shape=(24, 48, 48))
    )


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """Our run on one fold of the 90."""
    out = tmp_path_factory.mktemp("textures") / "run"
    run_request(
        RunRequest(data, out, "quick_test", SETTINGS, task="multitask", device="cpu")
    )
    return out


def scores(predictions):
    return measure_classes(predictions, seed=0, resamples=1)


def predictions_of(dataset, cases, rows):
    truth = np.array([dataset.classes.index(case.class_name) for case in cases])
    return ClassPredictions(
        tuple(case.name for case in cases), truth, np.stack(rows), dataset.classes
    )


def test_subtypes_that_are_textures_are_told_apart_and_not_by_the_majority_answer(
    data, run
):
    dataset = load_dataset(data)
    cases = [case for case in dataset.cases if case.split == "test"]
    predictor = Predictor.load(run, device="cpu")
    rows = [
        np.array(
            list(predictor.predict_case(case).classification.probabilities.values())
        )
        for case in cases
    ]
    ours = predictions_of(dataset, cases, rows)
    assert scores(ours)["macro_f1"]["value"] > 0.9
    assert scores(majority_answer(ours))["macro_f1"]["value"] == pytest.approx(
        0.196, abs=0.01
    )


class Naive(nn.Module):
    """What the earlier attempt did: the mean over the deepest map of whole patches,
    wherever they lie.
    """

    def __init__(self, plan, classes):
        super().__init__()
        torch.manual_seed(0)
        self.segmenter = build_network(
            plan.network,
            plan.topology,
            channels=1,
            outputs=plan.labels.output_channels,
            deep_supervision=False,
        )
        self.out = nn.Linear(plan.topology.features[-1], classes)

    def forward(self, x):
        maps = self.segmenter.encode(x)
        return self.segmenter.decode(maps), self.out(maps[-1].mean((2, 3, 4)))


def test_a_head_over_whole_random_patches_collapses(data, run):
    dataset, plan, store = (
        load_dataset(data),
        read_plan(run / "plan.json"),
        Store(run / "prepared"),
    )
    known = {
        case.name: dataset.classes.index(case.class_name) for case in dataset.cases
    }
    names = [case.name for case in dataset.training_cases]
    counts = np.bincount([known[name] for name in names])
    weights = torch.tensor(len(names) / (3 * counts), dtype=torch.float32)
    network = Naive(plan, 3).train()
    loss = make_loss({"dice": 1.0, "cross_entropy": 1.0}, LossSetup())
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=make_recipe("quick_test").learning_rate
    )
    sampler = PatchSampler(store, names, PATCH, BATCH)
    for step in range(STEPS):
        wanted = [sampler.draw(sample_rng(0, step, i), i) for i in range(BATCH)]
        images, labels = (
            torch.from_numpy(np.stack(part))
            for part in zip(*(sampler.read(w, PATCH) for w in wanted), strict=True)
        )
        logits, classes = network(images)
        value = loss(logits, labels) + F.cross_entropy(
            classes, torch.tensor([known[w.case] for w in wanted]), weight=weights
        )
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    cases = [case for case in dataset.cases if case.split == "test"]
    naive = predictions_of(
        dataset, cases, [tile_votes(network.eval(), plan, case) for case in cases]
    )
    assert scores(naive)["macro_f1"]["value"] < 0.5


@torch.inference_mode()
def tile_votes(network, plan, case):
    """Mean probabilities over all tiles, as if each knew the lesion."""
    from trivox.datasets.reading import read_case

    image = prepare(read_case(case, channels=1, labels=None), plan).image
    starts = [
        window_starts(n, p, 0.5) for n, p in zip(image.shape[1:], PATCH, strict=True)
    ]
    tiles = [
        image[:, z : z + PATCH[0], y : y + PATCH[1], x : x + PATCH[2]]
        for z in starts[0]
        for y in starts[1]
        for x in starts[2]
    ]
    return network(torch.stack(tiles))[1].softmax(1).mean(0).double().numpy()


def test_shuffled_classes_cannot_be_told(data, tmp_path):
    """A control: with subtypes dealt out at random nothing is to be found, and the
    figures must say so.
    """
    dataset = load_dataset(data)
    names = [case.class_name for case in dataset.cases]
    shuffled = np.random.default_rng(0).permutation(names)
    table = tmp_path / "shuffled.csv"
    rows = [
        f"{case.name},{name}"
        for case, name in zip(dataset.cases, shuffled, strict=True)
    ]
    table.write_text("\n".join(["case,class", *rows]))
    settings = {**SETTINGS, "epochs": 2}
    request = RunRequest(
        data,
        tmp_path / "run",
        "quick_test",
        settings,
        task="multitask",
        classes=table,
        device="cpu",
    )
    run_request(request)
    section = read_json(tmp_path / "run" / "validation" / "metrics.json")[
        "classification"
    ]
    assert section["summary"]["macro_f1"]["value"] < 0.6
    assert abs(section["summary"]["auc"]["value"] - 0.5) < 0.3
