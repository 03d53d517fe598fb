import json
import re
import shutil

import numpy as np
import pytest

from trivox.datasets.labels import LabelScheme
from trivox.planning.plan import read_plan
from trivox.tasks.console import Quiet
from trivox.tasks.labels.pictures import case_view, picture_cases
from trivox.tasks.labels.segmentation import SegmentationTask
from trivox.tasks.report import RANKS, report_run
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume

SHAPE = (10, 16, 12)


class Lines(Quiet):
    def __init__(self):
        self.said = []

    def say(self, line):
        self.said.append(line)


def four_channel_run(tiny_run, root):
    """A run with four channels and regions, as far as pictures look at it, made from
    the plan of another.
    """
    folder = root / "run"
    shutil.copytree(
        tiny_run,
        folder,
        ignore=shutil.ignore_patterns("*-3d", "prepared", "checkpoints"),
    )
    rng = np.random.default_rng(0)
    scheme = LabelScheme(
        labels={"rim": 1, "core": 4},
        regions={"whole": (1, 4), "core": (4,)},
        region_order=(1, 4),
    )
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])  # LPS, as scanners write
    names = ["good", "middle", "bad"]
    cases = []
    for name in names:
        reference = np.zeros((1, *SHAPE), np.uint8)
        reference[0, 2:8, 3:12, 2:7] = 1
        reference[0, 4:6, 5:9, 3:6] = 4
        images = rng.normal(3, 1, (4, *SHAPE)).astype(np.float32)
        files = [root / f"{name}_{i}.nii.gz" for i in range(4)]
        for file, image in zip(files, images, strict=True):
            write_volume(file, Volume(image[None], affine))
        write_volume(root / f"{name}_seg.nii.gz", Volume(reference, affine))
        write_volume(
            folder / "validation" / "predictions" / f"{name}.nii.gz",
            Volume(np.roll(reference, 1, 1), affine),
        )
        cases.append(
            {
                "name": name,
                "images": [str(f) for f in files],
                "label": str(root / f"{name}_seg.nii.gz"),
            }
        )
    channels = ["T1", "T1ce", "T2", "FLAIR"]
    plan = json.loads((folder / "plan.json").read_text())
    plan |= {
        "channels": channels,
        "normalisations": plan["normalisations"] * 4,
        "labels": scheme.model_dump(mode="json"),
    }
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset |= {"channels": channels, "labels": plan["labels"], "cases": cases}
    metrics = json.loads((folder / "validation" / "metrics.json").read_text())
    scores = zip(names, (0.9, 0.7, None), strict=True)
    metrics["cases"] = {
        name: {"whole": {"dice": dice or 0.1}, "core": {"dice": dice}}
        for name, dice in scores
    }
    for file, content in (
        ("plan.json", plan),
        ("dataset.json", dataset),
        ("validation/metrics.json", metrics),
    ):
        (folder / file).write_text(json.dumps(content))
    return folder


def pictures(run, names=("good", "middle", "bad"), console=None):
    metrics = json.loads((run / "validation" / "metrics.json").read_text())
    metrics["cases"] = {name: metrics["cases"][name] for name in names}
    plan = read_plan(run / "plan.json")
    return picture_cases(
        run, plan, metrics, report=run / "r.html", console=console or Lines()
    )


@pytest.fixture(scope="module")
def untouched(tiny_run, tmp_path_factory):
    return four_channel_run(tiny_run, tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def drawn(untouched):
    return pictures(untouched)


@pytest.fixture
def run(untouched, tmp_path):
    """A copy to damage; its images stay those of the other."""
    shutil.copytree(untouched, tmp_path / "run")
    return tmp_path / "run"


def test_several_channels_and_regions_have_three_figures_and_a_page_each(
    untouched, drawn
):
    assert [case.title for case in drawn.cases] == [
        "best case: good",
        "median case: middle",
        "worst case: bad",
    ]
    dice = ("whole 0.900, core 0.900", "whole 0.700, core 0.700", "core in neither")
    for case, expected in zip(drawn.cases, dice, strict=True):
        assert len(case.figures) == 3
        assert all(expected in caption for caption, _ in case.figures)
        assert (untouched / case.page).stat().st_size < 3e6
    caption, scene = drawn.surfaces
    assert "middle" in caption
    assert [region["name"] for region in scene["regions"]] == ["whole", "core"]


def test_surfaces_lie_where_the_scanner_says(drawn):
    """In LPS files x grows to the left: the labels' voxels 2 to 6 lie 2 to 6 mm left of
    the origin.
    """
    assert drawn.surfaces[1]["centre_mm"][0] == pytest.approx(-4, abs=0.2)


def test_one_channel_has_three_planes_and_the_errors(tiny_run, tmp_path):
    metrics = json.loads((tiny_run / "validation" / "metrics.json").read_text())
    plan = read_plan(tiny_run / "plan.json")
    found = picture_cases(
        tiny_run, plan, metrics, report=tmp_path / "r.html", console=Lines()
    )
    assert found.cases
    for case in found.cases:
        assert ["filled" in caption for caption, _ in case.figures] == [True, False]
        assert "errors" in case.figures[1][0]


def test_slices_are_counted_in_the_whole_image(tiny_run, tmp_path, monkeypatch):
    """Other figures leave black margins out; this one numbers its slices."""
    seen = []
    monkeypatch.setattr(
        "trivox.tasks.labels.pictures.overlay_figure",
        lambda image, *args, **kwargs: seen.append(image) or b"",
    )
    monkeypatch.setattr(
        "trivox.tasks.labels.pictures.error_figure",
        lambda view, **kwargs: seen.append(view.image[0]) or b"",
    )

    def with_margin(*args):
        view = case_view(*args)
        view.image[:, :4] = view.prediction[:4] = view.reference[:4] = 0
        return view

    monkeypatch.setattr("trivox.tasks.labels.pictures.case_view", with_margin)
    metrics = json.loads((tiny_run / "validation" / "metrics.json").read_text())
    picture_cases(
        tiny_run,
        read_plan(tiny_run / "plan.json"),
        metrics,
        report=tmp_path / "r.html",
        console=Lines(),
    )
    assert seen[0].shape[0] == seen[1].shape[0] + 4


def test_one_case_is_shown_once_with_all_its_ranks(untouched):
    assert [case.title for case in pictures(untouched, ["good"]).cases] == [
        f"{', '.join(RANKS)} case: good"
    ]


def test_a_case_whose_files_are_gone_is_named_and_the_others_are_drawn(run):
    (run / "validation" / "predictions" / "middle.nii.gz").unlink()
    console = Lines()
    found = pictures(run, ["good", "middle"], console)
    assert [case.title for case in found.cases] == ["best case: good"]
    assert found.surfaces is None
    assert any("middle: no picture" in line for line in console.said)


@pytest.mark.parametrize("reference", [True, False])
def test_without_a_prediction_there_are_figures_and_without_any_label_no_page(
    run, reference
):
    blank = Volume(np.zeros((1, *SHAPE), np.uint8), np.diag([-1.0, -1.0, 2.0, 1.0]))
    predictions = run / "validation" / "predictions"
    write_volume(predictions / "middle.nii.gz", blank)
    if not reference:
        dataset = json.loads((run / "dataset.json").read_text())
        dataset["cases"][1]["label"] = str(predictions / "middle.nii.gz")
        (run / "dataset.json").write_text(json.dumps(dataset))
    (case,) = pictures(run, ["middle"]).cases
    assert len(case.figures) == 3
    assert (case.page is not None) == reference


def test_the_report_holds_the_viewer_and_names_the_pages_beside_it(run):
    report_run(SegmentationTask(), run, console=Lines())
    text = (run / "report.html").read_text(encoding="utf-8")
    assert (run / "report.html").stat().st_size < 6e6
    assert text.count('class="scene"') == 1
    assert re.findall(r'href="([^"]+)"', text) == [
        "report-3d/good.html",
        "report-3d/middle.html",
        "report-3d/bad.html",
    ]
    assert all((run / link).exists() for link in re.findall(r'href="([^"]+)"', text))
