"""The descriptions that people write for nnU-Net: read, or refused by the key that is
wrong.
"""

import json
import re

import pytest

from layout_copies import NAMES, as_nnunet
from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import DataError

LABELS = {"background": 0, "organ": 1, "lesion": 2, "neighbour": 3}
VALUES = {name: value for name, value in LABELS.items() if value}


@pytest.fixture
def described(phantoms, tmp_path):
    """The dataset under a `dataset.json` with other content, or text."""
    folder = as_nnunet(phantoms, tmp_path / "copy")
    content = json.loads((folder / "dataset.json").read_text())

    def write(text="", **changes):
        new = {key: value for key, value in (content | changes).items() if value != ""}
        (folder / "dataset.json").write_text(text or json.dumps(new), encoding="utf-8")
        return folder

    return write


READ = {
    "as it should be": {},
    "no ending": {"file_ending": ""},
    "ending without dot": {"file_ending": "nii.gz"},
    "ending in capitals": {"file_ending": ".NII.GZ"},
    "modality, as nnU-Net 1": {
        "channel_names": "",
        "modality": {"0": "contrast_0", "1": "contrast_1"},
    },
    "names by value": {"labels": {str(value): name for name, value in LABELS.items()}},
    "values as text": {"labels": {name: str(value) for name, value in LABELS.items()}},
    "lists of one value": {"labels": {name: [v] for name, v in LABELS.items()}},
    "no background": {"labels": VALUES},
    "channels out of order": {"channel_names": {"1": "contrast_1", "0": "contrast_0"}},
    "number of cases": {"numTraining": 3},
    "words about the data": {"description": "x", "licence": "y", "release": "1"},
}


@pytest.mark.parametrize("what", READ)
def test_read(described, what):
    dataset = load_dataset(described(**READ[what]))
    assert dataset.channels == ("contrast_0", "contrast_1")
    assert {n: v for n, v in dataset.labels.labels.items() if v} == VALUES
    assert [case.name for case in dataset.training_cases] == NAMES[:3]
    assert not dataset.remarks
    assert not check_dataset(dataset).errors


def test_a_byte_order_mark_is_no_letter(described):
    folder = described()
    text = (folder / "dataset.json").read_text()
    assert load_dataset(described("\ufeff" + text)).labels.labels == VALUES


NESTED = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "small": [3]}
REFUSED = {
    "another ending": (
        {"file_ending": ".nrrd"},
        r"'file_ending' is '\.nrrd', but imagesTr/ holds 6 that end in \.nii\.gz",
    ),
    "an ending that is no text": ({"file_ending": 3}, "'file_ending' must be a text"),
    "no channels": ({"channel_names": ""}, "'channel_names' is missing"),
    "channels as a list": (
        {"channel_names": ["CT", "PET"]},
        r"'channel_names' must number the channels.*found \['CT', 'PET'\]",
    ),
    "channels by name": (
        {"channel_names": {"CT": 0}},
        r"'channel_names' must number the channels.*found \{'CT': 0\}",
    ),
    "no labels": ({"labels": ""}, "'labels' is missing or empty"),
    "two labels of one value": ({"labels": {"a": 1, "b": 1}}, "must differ"),
    "regions without order": (
        {"labels": NESTED},
        r"'labels' has regions \(whole, core, small\) but 'regions_class_order' is "
        r'missing; add "regions_class_order": \[1, 2, 3\]',
    ),
    "regions in a wrong order": (
        {"labels": NESTED, "regions_class_order": [3, 2, 1]},
        r"'regions_class_order' \[3, 2, 1\] does not fit.*"
        r'write "regions_class_order": \[1, 2, 3\]',
    ),
    "a comma too many": ('{"channel_names": {"0": "CT"},}', "not readable as JSON"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_the_key(described, what):
    changes, complaint = REFUSED[what]
    text = changes if isinstance(changes, str) else ""
    folder = described(text, **({} if text else changes))
    with pytest.raises(DataError, match=complaint) as caught:
        load_dataset(folder)
    assert "dataset.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "remark"),
    [
        ({"numTraining": 7}, "'numTraining' is 7, copy has 3 training images"),
        (
            {"overwrite_image_reader_writer": "NibabelIO"},
            r"'overwrite_image_reader_writer' \(NibabelIO\) is not heeded",
        ),
    ],
)
def test_what_is_not_heeded_is_said(described, changes, remark):
    (finding,) = [
        each
        for each in check_dataset(load_dataset(described(**changes))).warnings
        if each.code == "declaration"
    ]
    assert finding.fix
    assert re.search(remark, finding.message)


def test_named_channels_and_numbers_beyond_them(described):
    folder = described()
    images = folder / "imagesTr"
    for number, name in enumerate(("contrast_0", "Contrast_1")):
        file = images / f"{NAMES[0]}_{number:04d}.nii.gz"
        file.rename(images / f"{NAMES[0]}_{name}.nii.gz")
    beside = images / f"{NAMES[1]}_0002.nii.gz"
    beside.write_bytes((images / f"{NAMES[1]}_0000.nii.gz").read_bytes())
    first, second, *_ = load_dataset(folder).cases
    assert (first.name, len(first.images), first.absent) == (NAMES[0], 2, ())
    assert f"has {beside.name} beside the channels" in second.complaint
