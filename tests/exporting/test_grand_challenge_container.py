"""The entry point of a grand-challenge algorithm keeps the contract."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from container_inputs import SLUGS, files_below, scan, sockets
from trivox import Predictor
from trivox.exporting.containers import package_model


@pytest.mark.parametrize(
    ("moved", "key"), [(False, "socket"), (True, "socket"), (True, "interface")]
)
def test_a_label_map_of_bytes_lies_on_the_grid_of_the_input(
    grand_challenge, bundle, tmp_path, enter, moved, key
):
    sockets(tmp_path / "in", moved=moved, key=key)
    assert enter(grand_challenge) == (0, [])
    assert files_below(tmp_path / "out") == [Path("images/tumour/uuid-0.mha")]
    written = sitk.ReadImage(str(tmp_path / "out" / "images" / "tumour" / "uuid-0.mha"))
    folder = tmp_path / "in" / "images"
    images = [next(folder.glob(f"{slug}*/*.mha")) for slug in SLUGS]
    source = sitk.ReadImage(str(images[0]))
    assert written.GetPixelID() == sitk.sitkUInt8
    for grid in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        there = getattr(written, grid)()
        np.testing.assert_allclose(there, getattr(source, grid)(), atol=1e-5)
    expected = Predictor.load(bundle, device="cpu").predict_file(images).labels.array[0]
    assert expected.any()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), expected)


def test_without_inputs_json_the_folders_are_named_after_the_slugs(
    grand_challenge, tmp_path, enter
):
    (sockets(tmp_path / "in") / "inputs.json").unlink()
    assert enter(grand_challenge) == (0, [])


def break_nothing(folder):
    shutil.rmtree(folder / "images")


def break_one(folder):
    next((folder / "images" / "t2-mri").iterdir()).unlink()


def break_twice(folder):
    scan(folder / "images" / "t2-mri" / "second.mha", 9)


def break_file(folder):
    next((folder / "images" / "t2-mri").iterdir()).write_bytes(b"no image")


def break_list(folder):
    (folder / "inputs.json").write_text('[{"value": 1}]')


def break_out(folder):
    (folder / "inputs.json").write_text(
        '[{"socket": {"slug": "t1-mri", "relative_path": "../../etc"}}]'
    )


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (break_nothing, "socket 't1-mri' (T1) holds no .mha"),
        (break_one, "socket 't2-mri' (T2) holds no .mha"),
        (break_twice, "holds 2 .mha files"),
        (break_file, "no MetaImage header"),
        (break_list, "it has to be a list of values"),
        (break_out, "leads out of"),
    ],
)
def test_a_wrong_input_is_one_line_and_no_output(
    grand_challenge, tmp_path, enter, harm, message
):
    harm(sockets(tmp_path / "in"))
    code, lines = enter(grand_challenge)
    assert code == 1
    (line,) = lines
    assert message in line
    assert not (tmp_path / "out").exists()


def test_mounted_weights_are_read_where_they_are_mounted(bundle, tmp_path, enter):
    context = tmp_path / "context"
    package_model(
        [bundle],
        context,
        target="grand-challenge",
        input_slugs=SLUGS,
        output_slug="x",
        mounted_weights=True,
    )
    sockets(tmp_path / "in")
    code, lines = enter(context)
    assert code == 1
    (line,) = lines
    assert "/opt/ml/model/model0" in line
    code, _ = enter(context, models=context / "models")
    assert code == 0


def test_a_missing_image_is_predicted_if_packaged_so(bundle, tmp_path, enter):
    context = tmp_path / "context"
    package_model(
        [bundle],
        context,
        target="grand-challenge",
        input_slugs=SLUGS,
        output_slug="x",
        missing_channels="zeros",
    )
    break_one(sockets(tmp_path / "in"))
    assert enter(context) == (0, [])
