"""Labels that are probably wrong: thick differences stand out, thin ones do not."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

import trivox
from json_schemas import complaints
from segmentation_files import slicer_file
from trivox.datasets.boxes import box_of
from trivox.datasets.labels import LabelScheme
from trivox.datasets.reading import read_channels
from trivox.errors import DataError, LabelError, UsageError
from trivox.tasks.console import Quiet
from trivox.tasks.labels.pictures import case_view
from trivox.tasks.suspects import page
from trivox.tasks.suspects.disagreement import Disagreement, disagreement
from trivox.tasks.suspects.judging import LEAST_CASES, LIMIT, Suspect, suspects
from trivox.tasks.suspects.search import Search, search
from trivox.verbs.answers.documents import document
from trivox.volumes.formats import read_labels, write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

SCHEME = LabelScheme(labels={"liver": 1, "spleen": 2})
SHAPE = (20, 24, 28)


def organs(seed, shift=0):
    """Two balls of about the same size and place in each case."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(SHAPE)
    labels = np.zeros(SHAPE, np.int16)
    for value, centre in ((1, (9, 11, 8)), (2, (10, 12, 20))):
        middle = np.array(centre) + rng.uniform(-0.5, 0.5, 3) + shift
        radius = 4.5 + rng.uniform(-0.4, 0.4)
        far = (z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2]) ** 2
        labels[far < radius**2] = value
    return labels


def compared(label, prediction, spacing=(1.0, 1.0, 1.0)):
    return disagreement(label, prediction, SCHEME, spacing)


def usual(count=12):
    return {f"case{n}": compared(organs(n), organs(n + 100)) for n in range(count)}


def missing(label):
    return np.where(label == 2, 0, label)


def exchanged(label):
    return np.where(label > 0, 3 - label, 0)


def moved(label):
    return np.roll(label, 5, axis=2)


def made_up(label):
    result = label.copy()
    result[1:5, 1:5, 1:5] = 1
    return result


def grown(label):
    return np.where(label > 0, label, ndimage.grey_dilation(label, size=(7, 7, 7)))


def misnamed(label):
    result = label.copy()
    result[:, :, 20:][label[:, :, 20:] == 2] = 1
    return result


WRONG = (missing, exchanged, moved, made_up, grown, misnamed)


def test_borders_that_are_drawn_otherwise_are_usual():
    assert suspects(usual(40)) == []


@pytest.mark.parametrize("spoil", WRONG)
def test_what_is_wrong_stands_out(spoil):
    cases = usual()
    cases["bad"] = compared(spoil(organs(50)), organs(150))
    listed = suspects(cases)
    assert [each.case for each in listed] == ["bad"]
    assert listed[0].score > LIMIT
    assert listed[0].reasons


def test_what_is_wrong_most_comes_first():
    cases = usual(20)
    cases["moved"] = compared(moved(organs(50)), organs(150))
    cases["little"] = compared(made_up(organs(51)), organs(151))
    listed = suspects(cases)
    assert [each.case for each in listed] == sorted(
        [each.case for each in listed], key=lambda case: -_score(listed, case)
    )
    assert {each.case for each in listed} == {"moved", "little"}


def _score(listed, case):
    return next(each.score for each in listed if each.case == case)


def test_of_a_few_cases_nobody_knows_what_is_usual():
    cases = usual(LEAST_CASES - 2)
    cases["bad"] = compared(exchanged(organs(50)), organs(150))
    assert suspects(cases) == []


@given(
    seed=st.integers(0, 10**6),
    factor=st.floats(0.25, 4),
    axes=st.permutations((0, 1, 2)),
)
def test_distances_are_in_mm_and_axes_do_not_matter(seed, factor, axes):
    label = missing(organs(seed))
    prediction = organs(seed + 1)
    spacing = (1.0, 1.0, 1.0)
    first = compared(label, prediction, spacing)
    larger = compared(label, prediction, (factor, factor, factor))
    assert larger.depth_mm == pytest.approx(factor * first.depth_mm, rel=1e-6)
    assert larger.dice == first.dice
    assert larger.island_ml == pytest.approx(factor**3 * first.island_ml)
    turned = compared(label.transpose(axes), prediction.transpose(axes))
    assert turned.depth_mm == first.depth_mm
    assert turned.island_ml == first.island_ml
    assert (
        label.transpose(axes)[turned.place] != prediction.transpose(axes)[turned.place]
    )


@given(seed=st.integers(0, 10**6))
def test_what_is_ignored_differs_from_nothing(seed):
    label = organs(seed)
    prediction = exchanged(label)
    ignoring = np.where(label > 0, -1, label)
    each = compared(ignoring, prediction)
    assert (each.depth_mm, each.core_ml, each.island_ml) == (0, 0, 0)


def test_equal_maps_differ_nowhere():
    each = compared(organs(0), organs(0))
    assert each.dice == {"liver": 1, "spleen": 1}
    assert (each.depth_mm, each.core_ml, each.island_ml) == (0, 0, 0)
    empty = np.zeros(SHAPE, np.int16)
    assert compared(empty, empty).dice == {"liver": None, "spleen": None}


def test_figures_are_those_that_one_counts_by_hand():
    label = np.zeros(SHAPE, np.int16)
    label[4:9, 5:10, 6:11] = 1
    each = compared(label, np.zeros_like(label), (2.0, 1.0, 1.0))
    assert each.dice == {"liver": 0, "spleen": None}
    assert (each.depth_mm, each.place) == (3, (5, 7, 8))
    assert each.core_ml == pytest.approx(5 * 3 * 3 * 0.002)
    assert (each.island_ml, each.island_place) == (pytest.approx(0.25), (6, 7, 8))
    assert each.signs == pytest.approx(
        {
            "depth": 3,
            "core": np.log(1 + 45),
            "island": np.log(1 + 125),
            "dice liver": np.log(1.01 / 0.01),
        }
    )


def plain(**other):
    """A case as most are."""
    facts = {"depth_mm": 2.0, "core_ml": 0.0, "island_ml": 0.0, "voxel_ml": 0.001}
    return Disagreement(**{"dice": {"liver": 0.9, "spleen": None}, **facts, **other})


def test_reasons_come_strongest_first_with_what_is_usual():
    cases = {f"case{number}": plain() for number in range(LEAST_CASES)}
    depth = 2 + 0.5 * (LIMIT + 0.1)
    cases["bad"] = plain(
        dice={"liver": 0.5}, depth_mm=depth, core_ml=0.1, place=(3, 4, 5)
    )
    cases["fine"] = plain(depth_mm=2 + 0.5 * (LIMIT - 0.1))
    (bad,) = suspects(cases)
    assert bad.case == "bad"
    assert bad.strongest == "dice liver"
    assert bad.score == pytest.approx(np.log(0.91 / 0.11) / 0.15)
    assert bad.reasons == (
        "Dice of liver 0.500 (usual 0.900)",
        "0.10 ml differ at least 2 mm deep, most at voxel (3, 4, 5) (z y x) "
        "(usual 0.00)",
        f"differs {depth:.1f} mm deep at voxel (3, 4, 5) (z y x) (usual 2.0)",
    )
    del cases["fine"], cases["case0"]
    assert [each.case for each in suspects(cases)] == ["bad"]
    del cases["case1"]
    assert suspects(cases) == []


def test_what_varies_is_measured_by_how_much_it_does():
    cases = {f"case{depth}": plain(depth_mm=float(depth)) for depth in range(11)}
    cases["more"], cases["less"] = plain(depth_mm=5 + 4 * 4.4478), plain(depth_mm=0.0)
    (more,) = suspects(cases)
    assert more.score == pytest.approx(4)


def test_a_target_that_few_cases_have_is_not_judged():
    cases = {f"case{number}": plain() for number in range(12)}
    for number in range(LEAST_CASES - 1):
        cases[f"case{number}"] = plain(dice={"spleen": 0.9 if number else 0.0})
    assert suspects(cases) == []
    cases["case7"] = plain(dice={"spleen": 0.9})
    assert [each.strongest for each in suspects(cases)] == ["dice spleen"]


@pytest.fixture
def data(tmp_path):
    """A dataset with one label that is wrong, and predictions of all cases."""
    root = tmp_path / "data"
    maps = tmp_path / "maps"
    affine = affine_from_spacing((1.5, 1.0, 1.0))
    affine[0] *= -1  # x to the left
    for number in range(10):
        name = f"case{number}.nii.gz"
        label = organs(number)
        image = label * 100.0 + np.random.default_rng(number).normal(0, 5, SHAPE)
        if number == 4:
            label = made_up(label)
        write_volume(root / "images" / name, Volume(image[None].astype("f4"), affine))
        write_volume(root / "labels" / name, Volume(label[None], affine))
        prediction = organs(number + 100)
        write_volume(maps / name, Volume(prediction[None], affine))
    return root, maps


class Lines(Quiet):
    """Keeps what is said."""

    def __init__(self):
        self.said = []

    def say(self, line):
        self.said.append(line)


@pytest.fixture
def lines():
    return Lines()


def test_a_check_lists_them_and_a_page_shows_them(data, tmp_path):
    root, maps = data
    page = tmp_path / "page.html"
    checked = trivox.check(
        root, predictions=maps, page=page, out=tmp_path / "check.json"
    )
    listed = [each for each in checked.report.findings if each.code == "label-doubtful"]
    (finding,) = listed
    assert (finding.case, finding.severity) == ("case4", "warning")
    assert "stand alone at voxel" in finding.message
    written = json.loads((tmp_path / "check.json").read_text())
    assert written["codes"]["label-doubtful"] == 1
    answer = document("check", checked)
    assert complaints("check", answer) == []
    assert answer["page"] == str(page)
    assert answer["report"]["codes"] == written["codes"]
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png") == 1
    assert "<td" in text
    assert "case4: " in text
    trivox.check(root, predictions=maps, page=page)


def listed(number, **facts):
    """A doubtful case, whose sign is given."""
    sign = facts.pop("sign", "depth")
    return Suspect(f"case{number}", 9.0, ("why",), sign, plain(**facts))


def test_a_page_draws_the_first_and_says_what_it_cannot_draw(
    data, tmp_path, monkeypatch, lines
):
    root, maps = data

    def drawn(case, *_):
        if case.name == "case1":
            raise DataError("gone")
        return b"png"

    monkeypatch.setattr(page, "MOST", 2)
    monkeypatch.setattr(page, "_figure", drawn)
    doubtful = tuple(listed(number) for number in range(3))
    files = {f"case{number}": maps for number in range(3)}
    out = tmp_path / "page.html"
    three = Search(3, doubtful, {}, files)
    page.write_suspects(out, trivox.check(root).dataset, three, lines)
    assert lines.said == ["case1: no picture (gone)"]
    text = out.read_text(encoding="utf-8")
    assert text.count("data:image/png") == 1
    assert "case2" in text


@given(place=st.tuples(*(st.integers(0, edge - 1) for edge in SHAPE)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=4)
def test_pictures_are_taken_where_the_label_is_most_doubtful(data, place):
    root, maps = data
    dataset = trivox.check(root).dataset
    case = dataset.cases[0]
    view = case_view(case, dataset, maps / "case0.nii.gz", {})
    value = read_channels(case, channels=1).array[0][place]
    for each in (
        listed(0, place=place),
        listed(0, sign="island", island_place=place),
    ):
        at = page._on_canonical_axes(case, dataset, each)
        assert view.image[0][at] == value
    assert page._on_canonical_axes(case, dataset, listed(0, depth_mm=0.0)) is None


def test_what_cannot_be_compared_is_said(data, tmp_path):
    root, maps = data
    (maps / "case1.nii.gz").write_bytes(b"damaged")
    page = tmp_path / "page.html"
    checked = trivox.check(root, predictions=maps, page=page)
    assert "label-doubtful" in {each.code for each in checked.report.findings}
    assert "not compared: case1" in page.read_text(encoding="utf-8")
    for number in (2, 3):
        (maps / f"case{number}.nii.gz").unlink()
    with pytest.raises(DataError, match="7 predictions of labelled cases"):
        trivox.check(root, predictions=maps)


def test_predictions_must_be_there(data, tmp_path):
    root, _ = data
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no label maps"):
        trivox.check(root, predictions=tmp_path / "empty")
    with pytest.raises(UsageError, match="give both"):
        trivox.check(root, page=tmp_path / "page.html")


def test_a_file_of_the_users_is_not_written_over(data, tmp_path):
    root, maps = data
    page = tmp_path / "page.html"
    page.write_text("mine")
    with pytest.raises(DataError, match=r"page\.html"):
        trivox.check(root, predictions=maps, page=page)
    assert page.read_text() == "mine"


@pytest.mark.parametrize("spoil", [lambda b: b"damaged", lambda b: b[:-300]])
def test_what_is_not_compared_is_listed_without_a_page(data, spoil, lines):
    root, maps = data
    file = maps / "case4.nii.gz"
    file.write_bytes(spoil(file.read_bytes()))
    (maps / "case9.nii.gz").unlink()
    checked = trivox.check(root, predictions=maps, console=lines)
    codes = [(each.code, each.case) for each in checked.report.findings]
    assert codes == [("label-not-compared", "case4")]
    assert "8 of 10 labels compared with predictions" in lines.said
    first, *others = checked.dataset.cases
    classed = first.model_copy(update={"label": None, "class_name": "a"})
    fewer = checked.dataset.model_copy(update={"cases": (classed, *others)})
    with pytest.raises(DataError, match=r"7 predictions of labelled.*; case4: "):
        search(fewer, maps, lines)
    (maps / "case9.nii.gz").write_bytes((maps / "case8.nii.gz").read_bytes())
    listed = search(fewer, maps, lines)
    assert lines.said[-1] == "8 of 9 labels compared with predictions"
    assert set(listed.predictions) == {f"case{n}" for n in (1, 2, 3, 5, 6, 7, 8, 9)}


def test_labels_are_no_predictions_of_themselves(data):
    root, _ = data
    with pytest.raises(DataError, match="is the label itself") as raised:
        trivox.check(root, predictions=root / "labels")
    assert str(raised.value).count("is the label itself") == 1


def test_segments_of_predictions_are_taken_by_their_names(data):
    """3D Slicer numbers them as it likes, and crops files to what is marked."""
    root, maps = data
    before = trivox.check(root, predictions=maps).report.findings
    for file in list(maps.iterdir()):
        volume = read_labels(file)
        box = volume.array[0] > 0
        inside = box_of(box)
        layer = 3 - volume.array[0][inside]
        layer[~box[inside]] = 0
        affine = volume.affine.copy()
        first = [side.start for side in inside]
        affine[:3, 3] += volume.affine[:3, :3] @ first[::-1]
        file.unlink()
        seg = maps / file.name.replace(".nii.gz", ".seg.nrrd")
        slicer_file(seg, layer[None], affine, [("label_2", 0, 1), ("label_1", 0, 2)])
    assert trivox.check(root, predictions=maps).report.findings == before


def test_the_values_of_predictions_mean_what_those_of_labels_mean(data):
    root, maps = data
    records = {"format_version": 1, "cases": {}, "labels": {"label_1": 2, "label_2": 1}}
    (maps / "predictions.json").write_text(json.dumps(records))
    with pytest.raises(LabelError, match="mean other labels"):
        trivox.check(root, predictions=maps)


@given(axis=st.integers(0, 2), size=st.integers(3, 9), step=st.floats(0.1, 3))
def test_a_picture_is_as_deep_as_it_is_wide(axis, size, step):
    """The one voxel across it says nothing, however thick it is."""
    label = np.zeros((20, 20), np.int16)
    label[5 : 5 + size, 4 : 4 + size] = 1
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = step
    flat = np.expand_dims(label, axis)
    each = compared(flat, np.zeros_like(flat), tuple(spacing))
    assert each.depth_mm == (size + 1) // 2
    assert flat[each.place] == 1


def test_findings_and_their_page_are_two_files(data, tmp_path):
    root, maps = data
    one = tmp_path / "file"
    with pytest.raises(UsageError, match="two files"):
        trivox.check(root, predictions=maps, page=one, out=tmp_path / "." / "file")
    assert not one.exists()
