import shutil

import numpy as np
import pytest
import torch

from trivox.datasets import exams
from trivox.datasets.exams import read_exam, write_exam, write_patients
from trivox.datasets.layouts.choice import (
    load_dataset,
    load_inputs,
    read_saved_dataset,
    save_dataset,
)
from trivox.datasets.layouts.exams import exam_folders
from trivox.errors import DataError, FormatError, GeometryError, ResourceError
from trivox.files import read_json, write_json
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.grids import placed
from trivox.volumes.formats import read_volume
from trivox.volumes.volume import Volume

GEOMETRY = Geometry.orbit([0, 90, 45], detector=(6, 8), pixel_mm=(3.0, 2.0))
IMAGES = np.random.default_rng(0).uniform(0, 5, (3, 6, 8)).astype(np.float32)
HERE = (1.0, -20.5, 300.0)
CT = placed(
    np.arange(60, dtype=np.int16).reshape(3, 4, 5),
    Grid((3, 4, 5), (3.0, 2.0, 1.0)),
    isocentre=HERE,
)


@pytest.fixture
def root(tmp_path):
    """Two exams with a CT, one without."""
    for name in ("a", "b", "c"):
        write_exam(
            tmp_path / "data/patients" / name,
            IMAGES,
            GEOMETRY,
            isocentre=HERE,
            volume=None if name == "c" else CT,
        )
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("view_format", "file"), [("npz", "views.npz"), ("nifti", "views.nii.gz")]
)
def test_an_exam_written_and_read_is_the_same(tmp_path, view_format, file):
    folder = tmp_path / "patients/p.1"
    write_exam(
        folder,
        IMAGES,
        GEOMETRY,
        isocentre=HERE,
        kind="uncalibrated",
        volume=CT,
        water_per_mm=0.019,
        view_format=view_format,
        preview=b"png",
    )
    assert {path.name for path in folder.iterdir()} == {
        file,
        "geometry.json",
        "ct.nii.gz",
        "preview.png",
    }
    case = load_dataset(tmp_path).cases[0]
    exam = read_exam(case)
    assert np.array_equal(exam.xrays.images[0].numpy(), IMAGES)
    assert exam.xrays.present.all()
    assert torch.equal(exam.xrays.geometry.pixel_mm, GEOMETRY.pixel_mm)
    assert (exam.isocentre, exam.kind, exam.water_per_mm) == (
        HERE,
        "uncalibrated",
        0.019,
    )
    volume = read_volume(case.volume)
    assert np.array_equal(volume.array, CT.array)
    np.testing.assert_allclose(volume.affine, CT.affine)


def test_the_ct_keeps_the_orientation_it_came_in(tmp_path):
    flipped = Volume(CT.array[..., ::-1].copy(), CT.affine @ np.diag([-1, 1, 1, 1]))
    write_exam(
        tmp_path / "patients/a", IMAGES, GEOMETRY, isocentre=HERE, volume=flipped
    )
    volume = read_volume(load_dataset(tmp_path).cases[0].volume)
    assert np.array_equal(volume.array, flipped.array)
    assert volume.affine[0, 0] == pytest.approx(-1)


def test_exams_with_a_ct_are_trained_on_and_others_are_not(root):
    dataset = load_dataset(root)
    assert (dataset.layout, dataset.task) == ("xrays", None)
    assert dataset.holds_exams
    assert all(case.is_exam for case in dataset.cases)
    assert [case.name for case in dataset.cases] == ["a", "b", "c"]
    assert [case.name for case in dataset.training_cases] == ["a", "b"]
    assert {case.patient for case in dataset.cases} == {"a", "b", "c"}


@pytest.mark.parametrize("task", ["reconstruction", None])
def test_a_saved_dataset_holds_exams_whatever_its_task(root, tmp_path, task):
    """trivox 0.1.0 wrote the task `reconstruction` as soon as it saw X-rays."""
    save_dataset(load_dataset(root), tmp_path / "dataset.json")
    content = read_json(tmp_path / "dataset.json")
    write_json(tmp_path / "dataset.json", content | {"task": task})
    dataset = read_saved_dataset(tmp_path / "dataset.json")
    assert dataset.holds_exams
    assert [case.name for case in dataset.training_cases] == ["a", "b"]


def test_the_table_names_patients_and_splits(root):
    write_patients(root, [("a", "one", "test"), ("b", "one", "test")])
    cases = {case.name: case for case in load_dataset(root).cases}
    assert [(cases[name].patient, cases[name].split) for name in "abc"] == [
        ("one", "test"),
        ("one", "test"),
        ("c", "train"),
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("z", "z", "train")], "line 2: case 'z' has no folder"),
        ([("a", "a", "train")] * 2, "line 3: case 'a' is listed twice"),
        ([("a", "a", "practice")], "line 2.*split"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(root, rows, message):
    write_patients(root, rows)
    with pytest.raises(FormatError, match=message):
        load_dataset(root)


def test_a_table_without_cases_is_refused(root):
    (root / "patients.csv").write_text("name,split\na,test\n")
    with pytest.raises(FormatError, match="column 'case'"):
        load_dataset(root)


def test_one_exam_and_a_folder_of_exams_can_be_predicted_on(root):
    assert [
        case.name for case in load_inputs(root / "patients/b", channels=("xray",))
    ] == ["b"]
    assert [
        case.name for case in load_inputs(root / "patients", channels=("xray",))
    ] == ["a", "b", "c"]
    assert [case.name for case in load_inputs(root, channels=("xray",))] == [
        "a",
        "b",
        "c",
    ]


def test_a_saved_dataset_is_the_same(root, tmp_path):
    dataset = load_dataset(root)
    save_dataset(dataset, tmp_path / "dataset.json")
    assert read_saved_dataset(tmp_path / "dataset.json") == dataset
    assert load_dataset(tmp_path / "dataset.json") == dataset


def test_an_exam_with_views_or_geometry_alone_is_listed_so_that_it_can_be_complained_about(
    root,
):
    (root / "patients/a/geometry.json").unlink()
    (root / "patients/b/views.npz").unlink()
    (root / "patients/.tmp-1-d").mkdir()
    shutil.copy(root / "patients/c/views.npz", root / "patients/.tmp-1-d")
    assert [folder.name for folder in exam_folders(root)] == ["a", "b", "c"]
    for case in load_dataset(root).cases[:2]:
        with pytest.raises(FormatError, match="not found"):
            read_exam(case)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda file: file.write_bytes(b"PK\3\4 no zip"), "cannot be read"),
        (lambda file: np.savez(file, images=IMAGES), "needs an array 'views'"),
        (lambda file: np.savez(file, views=IMAGES[0]), r"\(views, rows, columns\)"),
        (lambda file: np.savez(file, views=np.array([None])), "cannot be read"),
        (
            lambda file: np.savez(file, views=IMAGES[:2]),
            r"shape \(2, 6, 8\).*describes \(3, 6, 8\)",
        ),
        (
            lambda file: np.savez(file, views=np.where(IMAGES > 4, np.nan, IMAGES)),
            "NaN",
        ),
    ],
)
def test_damaged_views_are_refused_by_name(root, content, message):
    content(root / "patients/a/views.npz")
    with pytest.raises(DataError, match=message) as failure:
        read_exam(load_dataset(root).cases[0])
    assert "views.npz" in str(failure.value)


def test_views_that_the_geometry_does_not_describe_are_not_written(tmp_path):
    with pytest.raises(GeometryError, match="shape"):
        write_exam(tmp_path / "a", IMAGES[:, :4], GEOMETRY, isocentre=HERE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError("disk full")])
def test_an_interrupted_exam_leaves_the_old_one_or_nothing(root, monkeypatch, failure):
    def interrupted(*arguments):
        raise failure

    monkeypatch.setattr(exams, "write_volume", interrupted)
    for name in ("a", "new"):
        with pytest.raises((KeyboardInterrupt, ResourceError)):
            write_exam(
                root / "patients" / name,
                IMAGES + 1,
                GEOMETRY,
                isocentre=HERE,
                volume=CT,
            )
    assert sorted(path.name for path in (root / "patients").iterdir()) == [
        "a",
        "b",
        "c",
    ]
    assert np.array_equal(
        read_exam(load_dataset(root).cases[0]).xrays.images[0].numpy(), IMAGES
    )


def test_an_exam_that_stands_there_is_replaced(root):
    write_exam(
        root / "patients/a", IMAGES + 1, GEOMETRY, isocentre=HERE, view_format="nifti"
    )
    assert {path.name for path in (root / "patients/a").iterdir()} == {
        "views.nii.gz",
        "geometry.json",
    }
    assert sorted(path.name for path in (root / "patients").iterdir()) == [
        "a",
        "b",
        "c",
    ]
