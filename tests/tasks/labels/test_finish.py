"""What a bundle takes from the dataset that its model was trained on."""

import json

from trivox.results.codes import FILE, read_codes
from trivox.tasks.labels.finish import take_codes

CODE = {"value": "10200004", "scheme": "SCT", "meaning": "Liver"}


class Lines:
    def __init__(self):
        self.said = []

    def say(self, line):
        self.said.append(line)


def folders(tmp_path, content):
    dataset, bundle = tmp_path / "dataset", tmp_path / "bundle"
    for folder in (dataset, bundle):
        folder.mkdir()
    if content is not None:
        (dataset / FILE).write_text(json.dumps(content))
    return dataset, bundle


def test_codes_of_a_dataset_go_into_the_bundle(tmp_path):
    dataset, bundle = folders(tmp_path, {"organ": {"category": CODE, "type": CODE}})
    console = Lines()
    take_codes(dataset, bundle, console)
    assert read_codes([bundle / FILE]).of("organ").type.value == "10200004"
    assert console.said == []


def test_codes_that_are_none_are_said_and_left_out(tmp_path):
    dataset, bundle = folders(tmp_path, {"organ": "liver"})
    console = Lines()
    take_codes(dataset, bundle, console)
    assert not (bundle / FILE).exists()
    assert "organ" in console.said[0]


def test_most_datasets_have_none(tmp_path):
    dataset, bundle = folders(tmp_path, None)
    take_codes(dataset, bundle, Lines())
    assert list(bundle.iterdir()) == []
