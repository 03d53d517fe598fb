"""Manifests: what a CSV and a JSON file may say, and errors that say where."""

import json

import numpy as np
import pytest

from layout_copies import as_csv
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import DataError
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing


def test_csv_takes_names_from_its_json_sibling(phantoms, tmp_path):
    folder = as_csv(phantoms, tmp_path / "copy")
    (folder / "dataset.json").write_text(
        '{"labels": {"liver": 1, "tumour": 2, "spleen": 3}}'
    )
    assert load_dataset(folder).labels.labels == {"liver": 1, "tumour": 2, "spleen": 3}


def test_csv_with_one_image_column_of_several_channels(tmp_path):
    write_volume(
        tmp_path / "i.nii.gz",
        Volume(np.zeros((3, 4, 4, 4), np.int16), affine_from_spacing((1, 1, 1))),
    )
    (tmp_path / "cases.csv").write_text(
        "case;image;label\na;i.nii.gz;\n", encoding="utf-8-sig"
    )
    dataset = load_dataset(tmp_path / "cases.csv")
    assert dataset.channels == ("channel_0", "channel_1", "channel_2")
    assert dataset.labels is None
    assert dataset.cases[0].label is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name,image\na,b.nii\n", "needs the columns 'case' and 'image'"),
        ("case,image,split\na,b.nii,vale\n", "line 2: split: "),
        ("case,image\na,b.nii,c\n", "line 2: 3 cells"),
        ("case,image:A,image:B\na,,\n", r"line 2: no image for channel \['A', 'B'\]"),
        ("case,image\na,b.nii\na,c.nii\n", "a: 2 cases have this name"),
        ("case,image,fold\na,b.nii,x\n", "line 2: fold: "),
        ("case,image,fold\na,b.nii,3\nb,c.nii,3\n", "all cases are in fold 3"),
        (
            "case,image,fold,split\na,b.nii,0,train\nb,c.nii,1,val\n",
            "both 'fold' and 'split'",
        ),
        ("case,image\n", "no cases found"),
        ("", "needs the columns"),
    ],
)
def test_csv_errors_say_where(tmp_path, text, complaint):
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(DataError, match=complaint):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"colour": 1}, "colour: "),
        ({"labels": {"organ": "x"}}, "labels must map names"),
        ({"labels": {"a": 1, "b": 1}}, "must differ"),
        ({"cases": [{"case": "a"}]}, r"cases\.0\.images"),
        (
            {"cases": [{"case": "a", "images": {"T9": "x.nii"}}]},
            "a: trivox.json gives images of T9, the channels are T1",
        ),
        ({"cases": []}, "no cases"),
    ],
)
def test_json_manifest_errors_say_where(tmp_path, change, complaint):
    content = {
        "channels": ["T1"],
        "labels": {"organ": 1},
        "cases": [{"case": "a", "images": {"T1": "x.nii"}}],
    }
    (tmp_path / "trivox.json").write_text(json.dumps(content))
    load_dataset(tmp_path)
    (tmp_path / "trivox.json").write_text(json.dumps(content | change))
    with pytest.raises(DataError, match=complaint) as caught:
        load_dataset(tmp_path)
    assert "trivox.json" in str(caught.value)
    assert "\n" not in str(caught.value)
