"""Names of cases become names of files: none may lead out of a folder."""

import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivox.datasets.dataset import Case
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.names import LONGEST, complaint_of
from trivox.errors import FormatError
from trivox.files import read_json, write_json

BAD = [
    "",
    ".",
    "..",
    "../escaped",
    "a/../../escaped",
    "/etc/escaped",
    "a/b",
    "..\\escaped",
    "C:escaped",
    "C:\\escaped",
    "nul\0byte",
    "new\nline",
    "escape\x1b[2J",
    "undecodable\udcff",
    "preparation-key",
    ".hidden",
    ".tmp-12-case",
    "ends in a dot.",
    "ends in a space ",
    "CON",
    "nul",
    "Lpt1.case",
    "com9",
    "x" * (LONGEST + 1),
    "\N{GREEK SMALL LETTER ALPHA}" * (LONGEST // 2 + 1),
]
GOOD = [
    "case_000",
    "BraTS-GLI-00000-000",
    "patient 7",
    "M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller",
    "a..b",
    "1.2.840",
    "console",
    "com10",
    "aux1",
]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_is_no_file_name_is_refused_wherever_cases_are_made(name):
    with pytest.raises(FormatError, match="rename"):
        Case(name=name, images=())


IN_TABLES = [name for name in BAD if name.isprintable() and name == name.rstrip(" ")]


@pytest.mark.parametrize("name", GOOD)
def test_other_names_are_taken_as_they_are(name):
    assert Case(name=name, images=()).name == name


@pytest.mark.parametrize("name", IN_TABLES)
def test_a_manifest_is_refused_with_the_line_of_the_name(tmp_path, name):
    quoted = '"' + name + '"'
    file = tmp_path / "cases.csv"
    file.write_text(f"case,image\ngood,a.nii.gz\n{quoted},b.nii.gz\n")
    with pytest.raises(FormatError, match="line 3") as caught:
        load_dataset(file)
    assert str(caught.value).isprintable()


ALPHABET = string.ascii_letters + "./\\:\0\n\x7f \N{SNOWMAN}"


@given(st.text(ALPHABET, max_size=12))
def test_a_name_without_complaint_stays_in_its_folder(name):
    if not complaint_of(name):
        path = os.path.normpath(f"folder/{name}.nii.gz")
        assert Path(path).parent == Path("folder")
        assert "\0" not in path


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("case_1", "CASE_1"),
        (
            "M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller",
            "Mu\N{COMBINING DIAERESIS}ller",
        ),
    ],
)
def test_two_names_that_are_one_file_on_some_system_are_refused(tmp_path, one, other):
    file = tmp_path / "cases.csv"
    text = f"case,image\n{one},a.nii.gz\nother,b.nii.gz\n{other},c.nii.gz\n"
    file.write_text(text, encoding="utf-8")
    first, second = load_dataset(file).cases
    assert (first.name, second.name) in {(one, "other"), ("other", one)}
    spoilt = first if first.name == one else second
    assert "own name" in spoilt.complaint
    assert other in spoilt.complaint


@given(st.text())
def test_any_name_can_be_written_and_read_back(tmp_path_factory, name):
    file = tmp_path_factory.getbasetemp() / "names.json"
    write_json(file, [name, {name + "\udcff": 1}])
    assert read_json(file) == [name, {name + "\udcff": 1}]
    file.read_bytes().decode("utf-8")
