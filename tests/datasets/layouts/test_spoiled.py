"""One bad case never stops a folder, however the folder is arranged."""

import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from spoiled_cases import (
    ALWAYS_FOUND,
    BESIDE,
    OF_A_FILE,
    WRITERS,
    circle_of_links,
    cut_off,
    link_to_nothing,
    no_text_in_name,
    twice,
)
from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.layouts.choice import load_dataset, load_inputs
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms
from trivox.errors import DataError, FormatError
from trivox.inference.folder import predict_cases
from trivox.inference.read import read_image
from trivox.planning.fingerprint import measure
from trivox.tasks.checking import require_checked
from trivox.tasks.console import Quiet
from trivox.volumes.formats import write_volume


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A dataset in each layout, to be copied."""
    root = tmp_path_factory.mktemp("layouts")
    settings = PhantomSettings(
        cases=4, shape=(8, 12, 10), channels=2, test_cases=1, neighbour=True
    )
    phantoms = write_phantoms(root / "phantoms", settings)
    for name, write in WRITERS.items():
        write(phantoms, root / name)
    return root


@pytest.fixture
def copied(sources, tmp_path):
    def copy(layout: str) -> Path:
        # a CSV leads to the phantoms beside it
        for name in ("phantoms", layout):
            shutil.copytree(sources / name, tmp_path / name)
        return tmp_path / layout

    return copy


@dataclass(frozen=True)
class Reading:
    """Stands for a model: reads a case and writes its first channel."""

    channels: tuple[str, ...]
    missing: str = "refuse"
    identity = "reading"

    def about(self):
        return {}

    def files(self, case):
        return [f"{case.name}.nii.gz"]

    def tables(self):
        return []

    def predict_case(self, case):
        return Read(read_image(case, self.channels, missing=self.missing))

    def finish(self, records, out):
        pass


@dataclass(frozen=True)
class Read:
    volume: object

    def write(self, case, out):
        first = self.volume.with_array(self.volume.array[:1])
        write_volume(out / f"{case.name}.nii.gz", first)
        return {"output": f"{case.name}.nii.gz", "warnings": []}


def predicted(folder, out, channels, **options):
    """Records of all cases of a folder, and what was said."""
    lines = []
    inputs = load_inputs(folder, channels=channels)
    model = Reading(channels, **options)
    return predict_cases(model, inputs, out, say=lines.append), lines


def victim_of(folder):
    """A case to train on, in the middle."""
    return load_dataset(folder).training_cases[1]


def require_others_work(folder, out, victim, before):
    """All cases but `victim` are checked, measured, trained on and predicted."""
    dataset = load_dataset(folder)
    others = [case.name for case in before.cases if case.name != victim]
    report = check_dataset(dataset)
    assert not {each.case for each in report.errors} & set(others)
    assert report.checked_cases >= len(others)
    rest = require_checked(dataset, out / "check.json", Quiet(), task="segmentation")
    learnt = [case.name for case in before.training_cases if case.name != victim]
    assert {case.name for case in rest.training_cases} - {victim} == set(learnt)
    measured = {case.name for case in measure(dataset).cases}
    assert measured - {victim} == set(learnt)
    records, lines = predicted(folder, out / "predicted", before.channels)
    assert not [name for name in others if "error" in records[name]]
    assert not [line for line in lines if f"set aside: {victim}: " in line]
    return records


@pytest.mark.parametrize(
    ("layout", "spoil"), [*product(WRITERS, OF_A_FILE), *product(["msd"], ALWAYS_FOUND)]
)
def test_a_spoiled_file_sets_its_case_aside_and_no_other(
    copied, tmp_path, layout, spoil
):
    folder = copied(layout)
    before = load_dataset(folder)
    victim = victim_of(folder)
    spoil(victim.images[-1])
    records = require_others_work(folder, tmp_path / "out", victim.name, before)
    listed_by_path = layout in ("manifest", "json", "msd")
    fine = spoil.__name__ == "twice" and (listed_by_path or layout == "nnunet")
    if not fine:
        assert "error" in records[victim.name]


@pytest.mark.parametrize("spoil", [cut_off, link_to_nothing, twice])
@pytest.mark.parametrize("layout", WRITERS)
def test_a_spoiled_label_map_sets_its_case_aside_in_training(
    copied, tmp_path, layout, spoil
):
    folder = copied(layout)
    before = load_dataset(folder)
    victim = victim_of(folder)
    spoil(victim.label)
    require_others_work(folder, tmp_path / "out", victim.name, before)


@pytest.mark.parametrize(
    ("layout", "spoil"),
    [
        *product(WRITERS, (no_text_in_name, circle_of_links)),
        *product(("nnunet", "folders"), BESIDE),
    ],
)
def test_what_lies_beside_the_cases_does_not_stop_them(copied, tmp_path, layout, spoil):
    folder = copied(layout)
    before = load_dataset(folder)
    spoil(before.training_cases[1].images[0])
    require_others_work(folder, tmp_path / "out", "", before)


@pytest.mark.parametrize("layout", [name for name in WRITERS if name != "msd"])
def test_a_case_without_a_channel_is_predicted_with_zeros(copied, tmp_path, layout):
    folder = copied(layout)
    before = load_dataset(folder)
    victim = victim_of(folder)
    victim.images[-1].unlink()
    text = next(folder.glob("*.json"), None) or next(folder.glob("*.csv"), None)
    if layout in ("manifest", "json"):
        content = text.read_text()
        name = victim.images[-1].name
        start = content.index(name)
        if layout == "json":
            entry = f', "T2": "images/{name}"'
            text.write_text(content.replace(entry, ""))
        else:
            begin = content.rindex(",", 0, start) + 1
            text.write_text(content[:begin] + content[start + len(name) :])
    records, lines = predicted(folder, tmp_path / "refused", before.channels)
    assert [n for n in records if "error" in records[n]] == [victim.name]
    lacking = before.channels[-1]
    assert f"has no {lacking}" in records[victim.name]["error"]
    assert any(f"{victim.name}: set aside: has no" in line for line in lines)
    records, _ = predicted(folder, tmp_path / "zeros", before.channels, missing="zeros")
    assert not [name for name in records if "error" in records[name]]


@pytest.mark.parametrize("layout", ["nnunet", "folders", "brats", "class-folders"])
def test_a_folder_that_cannot_be_looked_into_is_named(
    copied, tmp_path, monkeypatch, layout
):
    folder = copied(layout)
    before = load_dataset(folder)
    closed = before.training_cases[1].images[0].parent / "closed"
    if layout in ("brats", "class-folders"):
        closed = folder / "closed"
    closed.mkdir()
    usual = Path.iterdir

    def refuse(path):
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return usual(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    require_others_work(folder, tmp_path / "out", "closed", before)
    complaints = {case.name: case.complaint for case in load_dataset(folder).cases}
    if layout != "nnunet":  # whose images are files
        assert "correct its rights" in complaints["closed"]


def test_a_dataset_that_cannot_be_looked_into_is_an_error(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    for read in (load_dataset, lambda path: load_inputs(path, channels=["CT"])):
        with pytest.raises(FormatError, match="correct its rights"):
            read(tmp_path)


def test_training_stops_where_half_of_the_cases_are_bad(copied, tmp_path):
    folder = copied("nnunet")
    first, second, _ = load_dataset(folder).training_cases
    for case in (first, second):
        case.images[0].write_bytes(b"")
    with pytest.raises(DataError, match="2 problems would make training wrong"):
        require_checked(
            load_dataset(folder),
            tmp_path / "check.json",
            Quiet(),
            task="segmentation",
        )


def test_where_no_case_can_be_used_the_first_says_why(tmp_path):
    for folder in ("images", "labels"):
        for ending in (".nii", ".nii.gz"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"a{ending}").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 1 cases can be used: a: .*both"):
        load_dataset(tmp_path)
