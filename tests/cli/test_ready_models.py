"""`trivox models` and `trivox models fetch` on the command line."""

import json

from releases import NAME
from untrained_models import write_scans


def test_fetch_list_and_predict_by_name(trivox, whole_release, home, tmp_path):
    status, printed = trivox("models", "fetch", NAME, "--source", whole_release)
    assert (status, printed.count("\n")) == (0, 1)
    status, printed = trivox("models", "--json")
    listed = {model["name"]: model for model in json.loads(printed)["models"]}
    assert listed[NAME]["card"]["licence"] == "MIT"
    assert f"{NAME}: segmentation, MRI to a, b, c" in trivox("models")[1]
    (case,) = write_scans(tmp_path / "scans", (12, 14, 13))
    call = ("predict", NAME, case.images[0], "--out", "out", "--device", "cpu")
    assert trivox(*call)[0] == 0
    assert (tmp_path / "out" / "scan_0.nii.gz").is_file()


def test_what_does_not_work_is_one_line(trivox, whole_release, home):
    for call in (
        ("models", "fetch", "liver", "--source", whole_release),
        ("models", "fetch", NAME, "--source", "nowhere"),
        ("predict", "liver", "scan.nii.gz", "--out", "out"),
        ("info", "liver"),
    ):
        status, printed = trivox(*call)
        assert status == 1, call
        assert printed.startswith("error: ")
        assert printed.count("\n") == 1
    assert trivox("models", "fetch")[0] == 2
