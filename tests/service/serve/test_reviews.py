"""Images to look at, and what people say of results: stored whole, kept, exported without
a word of the patient.
"""

import gzip
import io
import json
import sys
import time
import zipfile

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from dicom_slices import slice_of
from json_schemas import complaints
from review_desk import (
    AFFINE,
    LABELS,
    drawn_image,
    drawn_labels,
    put_review,
    reviewed,
    scan,
)
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import GeometryError, LabelError
from trivox.service.serve.review import reader
from trivox.service.serve.review.scans import ScanOrder, thinned_out, write_labels
from trivox.verbs.check import check
from trivox.volumes.formats import read_labels, read_volume, write_volume
from trivox.volumes.geometry import Orientation, reorient
from trivox.volumes.volume import Volume

SECRET = b"Doe^Jane"
GRIDS = st.tuples(*[st.integers(1, 6)] * 3)


@pytest.fixture
def service(tmp_path):
    with reviewed(tmp_path / "state") as (client, desk):
        yield client, desk


def nifti(volume, folder, name="sent.nii.gz"):
    """The bytes of a volume."""
    write_volume(folder / name, volume)
    return (folder / name).read_bytes()


def volume_of(answer, folder, name="got.nii.gz"):
    assert answer.status_code == 200, answer.text
    (folder / name).write_bytes(answer.content)
    return read_volume(folder / name)


def problem(answer, status, code="invalid-request"):
    """The line of a refusal."""
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert content["code"] == code
    assert "\n" not in content["detail"]
    return content["detail"]


# -- images ----------------------------------------------------------------------------
def test_a_scan_is_given_as_it_lies_in_the_world(service, tmp_path):
    client, desk = service
    job = desk.done(scan())
    answer = client.get(f"/v1/jobs/{job}/image")
    volume = volume_of(answer, tmp_path)
    np.testing.assert_array_equal(volume.array, drawn_image())
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)
    assert answer.headers["trivox-kind"] == "volume"
    assert answer.headers["trivox-step"] == "1,1,1"
    again = client.get(f"/v1/jobs/{job}/image")
    twin = client.get(f"/v1/jobs/{desk.done(scan())}/image")
    other = client.get(f"/v1/jobs/{desk.done(scan(seed=1))}/image")
    assert answer.headers["etag"] == again.headers["etag"] == twin.headers["etag"]
    assert answer.headers["etag"] != other.headers["etag"]


def test_each_channel_is_given_by_its_number(service, tmp_path):
    client, desk = service
    images = [Volume(drawn_image(seed), AFFINE) for seed in (3, 4)]
    job = desk.done(
        {f"000{n}.nii.gz": each for n, each in enumerate(images)}, model="two"
    )
    for number, image in enumerate(images):
        volume = volume_of(
            client.get(f"/v1/jobs/{job}/image?channel={number}"), tmp_path
        )
        np.testing.assert_array_equal(volume.array, image.array)
    assert "2 images" in problem(client.get(f"/v1/jobs/{job}/image?channel=2"), 422)


def test_dicom_is_given_without_a_word_of_the_patient(service, tmp_path):
    client, desk = service
    files = {}
    for number in range(4):
        dataset = slice_of(number, PatientName="Doe^Jane", PatientID="Doe^Jane")
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        files[f"{number:04d}.dcm"] = buffer.getvalue()
        assert SECRET in buffer.getvalue()
    series = tmp_path / "series"
    series.mkdir()
    for name, content in files.items():
        (series / name).write_bytes(content)
    job = desk.done(files)
    volume = volume_of(client.get(f"/v1/jobs/{job}/image"), tmp_path)
    expected = read_volume(series)
    np.testing.assert_array_equal(volume.array, expected.array)
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-5)
    stored = (desk.folders.of(job) / "view").rglob("*")
    assert not any(SECRET in each.read_bytes() for each in stored if each.is_file())


def test_views_of_an_exam_lie_one_behind_the_other(service, tmp_path):
    client, desk = service
    views = np.random.default_rng(2).random((2, 4, 5)).astype(np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, views=views)
    job = desk.done(
        {"geometry.json": b"{}", "views.npz": buffer.getvalue()}, model="views"
    )
    answer = client.get(f"/v1/jobs/{job}/image")
    assert answer.headers["trivox-kind"] == "views"
    np.testing.assert_array_equal(volume_of(answer, tmp_path).array[0], views)


def test_results_are_given_to_look_at(service, tmp_path):
    client, desk = service
    job = desk.done(scan(), seed=5)
    volume = volume_of(client.get(f"/v1/jobs/{job}/results/case.nii.gz/view"), tmp_path)
    np.testing.assert_array_equal(volume.array, drawn_labels(5))
    unknown = client.get(f"/v1/jobs/{job}/results/other.nii.gz/view")
    problem(unknown, 404, "no-such-result")


@settings(max_examples=40, deadline=None)
@given(shape=GRIDS, most=st.integers(1, 300), spacing=GRIDS)
def test_a_thinned_image_has_voxels_of_the_original_at_their_place(
    shape, most, spacing
):
    draw = np.random.default_rng(0)
    affine = np.diag([*map(float, spacing), 1.0])
    volume = Volume(draw.integers(0, 99, (1, *shape)).astype(np.int16), affine)
    thin, steps = thinned_out(volume, most)
    assert thin.array.size <= max(most, 1)
    for z, y, x in np.ndindex(thin.shape):
        index = (x * steps[0], y * steps[1], z * steps[2])
        assert thin.array[0, z, y, x] == volume.array[0, index[2], index[1], index[0]]
        place = thin.affine @ (x, y, z, 1)
        np.testing.assert_allclose(place, volume.affine @ (*index, 1))


def test_a_reader_that_dies_is_one_line(monkeypatch, tmp_path):
    with reviewed(tmp_path / "state", real=True) as (client, desk):
        job = desk.done(scan())
        dies = (sys.executable, "-c", "import os; os.abort()")
        monkeypatch.setattr(reader, "COMMAND", dies)
        assert "limits" in problem(client.get(f"/v1/jobs/{job}/image"), 422)


def test_scans_are_read_by_a_process_with_limits(tmp_path):
    with reviewed(tmp_path / "state", real=True) as (client, desk):
        job = desk.done(scan())
        volume = volume_of(client.get(f"/v1/jobs/{job}/image"), tmp_path)
        np.testing.assert_array_equal(volume.array, drawn_image())
        damaged = desk.done({"0000.nii.gz": b"\x1f\x8b" + SECRET})
        line = problem(client.get(f"/v1/jobs/{damaged}/image"), 422)
        assert "Doe" not in line
        assert not list(desk.folders.uploads.iterdir())


# -- reviews ---------------------------------------------------------------------------
def test_reviews_follow_each_other_and_none_is_lost(service):
    client, desk = service
    job = desk.done(scan())
    assert client.get(f"/v1/jobs/{job}/review").json() == {"job": job, "reviews": []}
    for decision, who in (("reject", "Dr. A"), ("accept", "Dr. B")):
        answer = put_review(client, job, decision, who=who, note="as I see it")
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == "one"
        assert answer.json()["identity"] == "a1b2c3"
    history = client.get(f"/v1/jobs/{job}/review").json()["reviews"]
    assert [each["decision"] for each in history] == ["reject", "accept"]
    assert [each["who"] for each in history] == ["Dr. A", "Dr. B"]
    assert history[0]["when"] <= history[1]["when"]
    assert history[0]["sha256"] is None
    other = desk.done(scan())
    put_review(client, other, "reject")
    newest = client.get("/v1/reviews").json()["reviews"]
    assert [(each["job"], each["decision"]) for each in newest] == [
        (other, "reject"),
        (job, "accept"),
    ]


def test_a_corrected_label_map_is_stored_on_the_grid_of_the_result(service, tmp_path):
    client, desk = service
    job = desk.done(scan())
    labels = Volume(drawn_labels(9), AFFINE)
    turned = reorient(labels, Orientation((2, 0, 1), (True, False, True)))
    answer = put_review(client, job, "edit", file=nifti(turned, tmp_path))
    assert answer.status_code == 200, answer.text
    stored = volume_of(client.get(f"/v1/jobs/{job}/review/labels"), tmp_path)
    np.testing.assert_array_equal(stored.array, labels.array)
    np.testing.assert_allclose(stored.affine, AFFINE, atol=1e-6)
    first = answer.json()["sha256"]
    second = put_review(client, job, "accept").json()["sha256"]
    assert first != second
    assert len(list((desk.folders.root / "reviews" / job).glob("labels-*"))) == 2


def refused(folder):
    """Label maps that are refused, and words of the line."""
    labels = drawn_labels()
    unknown = labels.copy()
    unknown[0, 0, 0, 0] = 3
    moved = AFFINE.copy()
    moved[0, 3] += 4
    half = labels.astype(np.float32)
    half[0, 0, 0, 0] = 0.5
    smaller = labels[:, :-1]
    yield "values", nifti(Volume(unknown, AFFINE), folder), "1 liver, 7 tumour"
    yield "place", nifti(Volume(labels, moved), folder), "the label map"
    yield "size", nifti(Volume(smaller, AFFINE), folder), "the label map"
    yield "halves", nifti(Volume(half, AFFINE), folder), "whole numbers"
    yield "text", b"Doe^Jane was here", "gzip"
    yield "empty", b"", "empty"


def test_what_is_no_correction_is_refused_in_one_line(service, tmp_path):
    client, desk = service
    job = desk.done(scan())
    for name, content, words in refused(tmp_path):
        line = problem(put_review(client, job, "edit", file=content), 422)
        assert words in line, (name, line)
        assert "Doe" not in line
    assert "label map" in problem(put_review(client, job, "edit"), 422)
    labels = nifti(Volume(drawn_labels(), AFFINE), tmp_path)
    problem(put_review(client, job, "accept", file=labels), 422)
    problem(put_review(client, job, "praise"), 422)
    problem(put_review(client, job, who=" "), 422)
    problem(put_review(client, job, who="x" * 101), 422)
    assert client.get(f"/v1/jobs/{job}/review").json()["reviews"] == []
    assert not list(desk.folders.uploads.iterdir())
    assert not (desk.folders.root / "reviews" / job).exists()


@settings(max_examples=25, deadline=None)
@given(
    shape=GRIDS, order=st.permutations([0, 1, 2]), flips=st.tuples(*[st.booleans()] * 3)
)
def test_any_order_of_axes_is_turned_onto_the_grid(
    shape, order, flips, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("grid")
    reference = Volume(np.zeros((1, *shape), np.uint8), AFFINE)
    labels = reference.with_array(drawn_labels(1, shape))
    turned = reorient(labels, Orientation(tuple(order), flips))
    write_volume(folder / "reference.nii.gz", reference)
    write_volume(folder / "sent.nii.gz", turned)
    order = ScanOrder(
        parts=(),
        scratch=folder,
        channels=(),
        unpacked=1,
        out=folder,
        reference=folder / "reference.nii.gz",
        labels=folder / "sent.nii.gz",
        declared=LABELS,
    )
    write_labels(order)
    stored = read_labels(folder / "labels.nii.gz")
    np.testing.assert_array_equal(stored.array, labels.array)
    with pytest.raises(LabelError):
        write_labels(order.model_copy(update={"declared": {"liver": 99}}))
    larger = reference.with_array(
        np.zeros((1, *(size + 1 for size in shape)), np.uint8)
    )
    write_volume(folder / "sent.nii.gz", larger)
    with pytest.raises(GeometryError):
        write_labels(order)


def test_jobs_and_reviews_of_others_are_not_shown(tmp_path):
    with reviewed(tmp_path / "state", tokens=("first", "second")) as (client, desk):
        ours = {"Authorization": "Bearer first"}
        theirs = {"Authorization": "Bearer second"}
        headers = Headers({"host": "127.0.0.1", **ours})
        client_name = desk.app.gate.client(headers, "/v1/jobs")
        job = desk.done(scan(), client=client_name)
        assert put_review(client, job, headers=ours).status_code == 200
        for path in ("image", "review", "review/labels"):
            assert client.get(f"/v1/jobs/{job}/{path}").status_code == 401
            answer = client.get(f"/v1/jobs/{job}/{path}", headers=theirs)
            problem(answer, 404, "no-such-job")
        problem(put_review(client, job, headers=theirs), 404, "no-such-job")
        assert client.get("/v1/reviews", headers=theirs).json()["reviews"] == []
        assert len(client.get("/v1/reviews", headers=ours).json()["reviews"]) == 1


def test_jobs_without_results_cannot_be_reviewed(service):
    client, desk = service
    problem(put_review(client, "0" * 32), 404, "no-such-job")
    job = desk.done(scan())
    desk.store.expire(job)
    problem(put_review(client, job), 404, "expired")
    problem(client.get(f"/v1/jobs/{job}/image"), 404, "expired")


def test_results_without_labels_can_be_accepted_and_not_corrected(service, tmp_path):
    client, desk = service
    job = desk.done(
        scan(), model="views", results={"case.nii.gz": scan()["0000.nii.gz"]}
    )
    assert put_review(client, job).json()["sha256"] is None
    labels = nifti(Volume(drawn_labels(), AFFINE), tmp_path)
    assert "no label map" in problem(put_review(client, job, "edit", file=labels), 422)
    problem(client.get("/v1/reviews/dataset?model=views"), 422)


# -- datasets --------------------------------------------------------------------------
def named_scan(seed):
    """A scan whose header names somebody."""
    image = nib.Nifti1Image(drawn_image(seed)[0].T, AFFINE)
    image.header["descrip"] = SECRET
    image.header["db_name"] = SECRET
    return {"0000.nii.gz": gzip.compress(image.to_bytes())}


def unpacked(answer, folder):
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(folder)
    return folder


def test_corrections_become_a_dataset_without_a_word_of_the_patient(service, tmp_path):
    client, desk = service
    jobs = [desk.done(named_scan(seed), seed=seed) for seed in range(4)]
    corrected = drawn_labels(77)
    file = nifti(Volume(corrected, AFFINE), tmp_path)
    put_review(client, jobs[0], "edit", file=file, note="Doe^Jane again")
    put_review(client, jobs[1], "accept", who="Dr. B")
    put_review(client, jobs[2], "accept")
    put_review(client, jobs[2], "reject")
    answer = client.get("/v1/reviews/dataset?model=one")
    folder = unpacked(answer, tmp_path / "data")
    assert not check(folder).report.errors
    dataset = load_dataset(folder)
    assert dataset.labels.labels == LABELS
    assert dataset.channels == ("CT",)
    assert [case.name for case in dataset.cases] == sorted(
        f"case-{job[:12]}" for job in jobs[:2]
    )
    labels = read_labels(folder / "labelsTr" / f"case-{jobs[0][:12]}.nii.gz")
    np.testing.assert_array_equal(labels.array, corrected)
    image = read_volume(folder / "imagesTr" / f"case-{jobs[1][:12]}_0000.nii.gz")
    np.testing.assert_array_equal(image.array, drawn_image(1))
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert complaints("provenance-file", provenance) == []
    told = provenance["cases"][f"case-{jobs[1][:12]}"]
    assert (told["who"], told["decision"], told["identity"]) == (
        "Dr. B",
        "accept",
        "a1b2c3",
    )
    for each in folder.rglob("*"):
        content = each.read_bytes() if each.is_file() else b""
        if each.suffix == ".gz":
            content = gzip.decompress(content)
        assert b"Doe" not in content, each.name
    assert not list(desk.folders.uploads.iterdir())
    edits = client.get("/v1/reviews/dataset?model=one&accepted=false")
    only = load_dataset(unpacked(edits, tmp_path / "edits"))
    assert [case.name for case in only.cases] == [f"case-{jobs[0][:12]}"]


def test_reviews_outlive_jobs_until_they_are_withdrawn(service, tmp_path):
    client, desk = service
    job = desk.done(scan())
    put_review(client, job)
    desk.store.expire(job)
    desk.folders.remove(job)
    desk.store.forget(time.time() + 1)
    desk.folders.sweep(desk.store.known_ids(), young=0.0)
    assert client.get(f"/v1/jobs/{job}").status_code == 404
    assert len(client.get(f"/v1/jobs/{job}/review").json()["reviews"]) == 1
    dataset = unpacked(client.get("/v1/reviews/dataset?model=one"), tmp_path / "data")
    assert len(load_dataset(dataset).cases) == 1
    assert client.delete(f"/v1/jobs/{job}/review").json()["decision"] == "withdrawn"
    assert not (desk.folders.root / "reviews" / job).exists()
    history = client.get(f"/v1/jobs/{job}/review").json()["reviews"]
    assert [each["decision"] for each in history] == ["accept", "withdrawn"]
    answer = client.get("/v1/reviews/dataset?model=one")
    problem(answer, 409, "not-reviewed")
    problem(client.get(f"/v1/jobs/{job}/review/labels"), 409, "not-reviewed")
    problem(client.get("/v1/reviews/dataset?model=none"), 404, "no-such-model")


def test_the_series_that_was_computed_is_the_one_to_look_at(service, tmp_path):
    client, desk = service
    files = {}
    for number in range(6):
        which = "1.2.3" if number < 4 else "1.2.4"
        dataset = slice_of(number, series=which, SeriesNumber=int(which[-1]))
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        files[f"{number:04d}.dcm"] = buffer.getvalue()
    job = desk.done(files, series="4")
    volume = volume_of(client.get(f"/v1/jobs/{job}/image"), tmp_path)
    assert volume.shape[0] == 2
    problem(client.get(f"/v1/jobs/{desk.done(files)}/image"), 422)
