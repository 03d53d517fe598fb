"""Folds by site-like clusters: look-alike patients are held out together, none is parted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.config.recipe import make_recipe
from trivox.datasets.dataset import Fold
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, phantom_case
from trivox.datasets.splits import dataset_splits
from trivox.errors import DataError
from trivox.files import read_json, write_json
from trivox.learning.runtime import make_runtime
from trivox.tasks import sites
from trivox.tasks.console import Quiet
from trivox.tasks.labels.segmentation import SegmentationTask
from trivox.tasks.sites import SITES, site_clusters, with_site_folds
from trivox.tasks.stages import prepare
from trivox.tasks.task import RunRequest
from trivox.volumes.formats import write_volume

CASES = 10


def looks(seed, counts, apart=20.0):
    """Features of as many cases in each group, and which group each is of."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(counts), 12)) * apart
    table = {}
    for group, count in enumerate(counts):
        for _ in range(count):
            name = f"case_{len(table):03d}"
            table[name] = centres[group] + rng.normal(size=12)
    groups = np.repeat(np.arange(len(counts)), counts)
    return table, dict(zip(table, groups.tolist(), strict=True))


@settings(max_examples=15)
@given(st.integers(0, 99), st.lists(st.integers(8, 14), min_size=2, max_size=3))
def test_groups_that_differ_are_found_the_largest_first(seed, counts):
    table, groups = looks(seed, counts)
    clusters = site_clusters(table, {name: name for name in table})
    assert [len(cluster) for cluster in clusters] == sorted(counts, reverse=True)
    for cluster in clusters:
        assert len({groups[name] for name in cluster}) == 1


@settings(max_examples=15)
@given(st.integers(0, 99), st.integers(1, 3), st.randoms(use_true_random=False))
def test_patients_are_never_parted_and_the_order_changes_nothing(seed, each, random):
    table, _ = looks(seed, [9, 12])
    patients = {name: f"p{i // each}" for i, name in enumerate(table)}
    clusters = site_clusters(table, patients)
    assert sorted(set().union(*clusters)) == sorted(table)
    assert sum(map(len, clusters)) == len(table)
    for cluster in clusters:
        rest = table.keys() - cluster
        assert {patients[n] for n in cluster}.isdisjoint(patients[n] for n in rest)
    shuffled = list(table)
    random.shuffle(shuffled)
    again = site_clusters({name: table[name] for name in shuffled}, patients)
    assert again == clusters


def test_one_odd_image_is_no_site():
    table, _ = looks(0, [12, 12])
    table["case_000"] = table["case_000"] + 1e6
    clusters = site_clusters(table, {name: name for name in table})
    assert min(map(len, clusters)) >= 3


@settings(max_examples=20)
@given(st.integers(0, 99), st.integers(4, 8), st.integers(4, 8))
def test_one_odd_image_hides_no_sites_of_few_patients(seed, one, other):
    """A patient of twenty or fewer reaches beyond the usual percentiles."""
    table, _ = looks(seed, [one, other])
    names = {name: name for name in table}
    without = site_clusters(table, names)
    odd = next(iter(table))
    spoilt = {**table, odd: table[odd] + np.where(table[odd] < 0, -1e12, 1e12)}
    clusters = site_clusters(spoilt, names)
    assert [cluster - {odd} for cluster in clusters] == [
        cluster - {odd} for cluster in without
    ]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_images_that_are_all_alike_have_no_sites(count):
    same = {f"case_{i}": np.ones(12) for i in range(count)}
    with pytest.raises(DataError, match="fall into no clusters"):
        site_clusters(same, {name: name for name in same})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Scans of two scanners: every third is four times as bright."""
    folder = tmp_path_factory.mktemp("sites") / "data"
    shape = PhantomSettings(cases=CASES, shape=(10, 14, 12), spacing=(2.0, 1.5, 1.5))
    entries = []
    for index in range(CASES):
        image, label = phantom_case(shape, index)
        scale = 4 if index % 3 == 0 else 1
        bright = image.with_array((image.array.astype(np.float32) + 1100) * scale)
        write_volume(folder / f"case_{index}.nii.gz", bright)
        write_volume(folder / "labels" / f"case_{index}.nii.gz", label)
        entries.append(
            {
                "case": f"case_{index}",
                "images": [f"case_{index}.nii.gz"],
                "label": f"labels/case_{index}.nii.gz",
                "patient": f"p{index}",
            }
        )
    write_json(
        folder / "manifest.json",
        {"labels": {"organ": 1, "lesion": 2}, "cases": entries},
    )
    return folder


BRIGHT = {"case_0", "case_3", "case_6", "case_9"}


def test_a_run_holds_out_one_scanner_at_a_time(data, tmp_path, monkeypatch):
    task = SegmentationTask()
    settings = {"network": "unet-tiny", "split_by": "intensity", "workers": 0}
    recipe = make_recipe("quick_test", settings)

    def prepared():
        return prepare(
            task,
            task.load(data),
            RunRequest(data, tmp_path),
            recipe,
            runtime=make_runtime("cpu"),
            console=Quiet(),
        )

    made = prepared()
    assert [set(split.validation) for split in made.splits] == [
        {f"case_{i}" for i in range(CASES)} - BRIGHT,
        BRIGHT,
    ]
    assert read_json(tmp_path / "splits.json")[0]["from"] == SITES
    assert read_json(tmp_path / "dataset.json")["folds_from"] == SITES
    # a run that goes on has the folds that it began with
    monkeypatch.setattr(sites, "site_features", None)
    assert prepared().splits == made.splits


def test_data_that_say_themselves_what_is_held_out_keep_that(data):
    dataset = load_dataset(data)
    names = [case.name for case in dataset.cases]
    declared = Fold(train=tuple(names[2:]), validation=tuple(names[:2]))
    declares = dataset.model_copy(update={"folds": (declared,), "folds_from": "x"})
    with pytest.raises(DataError, match="says itself what is validated on"):
        with_site_folds(declares, data / "dataset.json", Quiet())


def test_a_class_that_a_fold_trains_without_is_said(data):
    lines = []

    class Speaking(Quiet):
        def say(self, line):
            lines.append(line)

    dataset = load_dataset(data)
    cases = tuple(
        case.model_copy(update={"class_name": "ab"[case.name in BRIGHT]})
        for case in dataset.cases
    )
    dataset = dataset.model_copy(update={"cases": cases, "classes": ("a", "b")})
    made = with_site_folds(dataset, data / "dataset.json", Speaking())
    assert lines[0] == f"folds are {SITES}: 6 + 4 cases are held out"
    assert "warning: fold 0 trains without a case of a" in lines
    assert len(dataset_splits(made)) == 2
