"""The codes of labels: true ones, found under any spelling, completed by the user."""

import json
from collections import defaultdict
from pathlib import Path

import highdicom
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.sr._concepts_dict import concepts

from trivox.errors import DataError
from trivox.results import codes as module
from trivox.results.codes import (
    PRIVATE_SCHEME,
    Codes,
    _table,
    cielab_of,
    key_of,
    read_codes,
    uncoded,
)

LISTED = defaultdict(set)
for scheme, keywords in concepts.items():
    for each in keywords.values():
        for value, (meaning, _) in each.items():
            plain = meaning.removesuffix(" (body structure)").casefold()
            LISTED[scheme, value].add(plain)
"""What DICOM's context groups call each code (PS3.16), as pydicom has them."""
ELSEWHERE = {
    # SNOMED CT, as the table of TotalSegmentator publishes them
    **{
        value: f"{word} rib"
        for value, word in {
            "48535007": "First",
            "78247007": "Second",
            "25888004": "Third",
            "25523003": "Fourth",
            "15339008": "Fifth",
            "59558009": "Sixth",
            "24915002": "Seventh",
            "5953002": "Eighth",
            "22565002": "Ninth",
            "77644006": "Tenth",
            "58830002": "Eleventh",
            "43993008": "Twelfth",
        }.items()
    },
    "65985001": "S1 vertebra",
    "74281007": "Myocardium",
    "110765007": "Portal vein and splenic vein",
    "181674001": "Gluteus maximus muscle",
    "78333006": "Gluteus medius muscle",
    "75297007": "Gluteus minimus muscle",
    "244849004": "Deep muscle of back",
    "68455001": "Iliopsoas muscle",
    "67769002": "Subcutaneous fatty tissue",
}
"""Codes that no context group lists."""
SIDED = [
    "adrenal_gland",
    "autochthon",
    "brachiocephalic_vein",
    "clavicula",
    "common_carotid_artery",
    "femur",
    "gluteus_maximus",
    "gluteus_medius",
    "gluteus_minimus",
    "hip",
    "humerus",
    "iliac_artery",
    "iliac_vena",
    "iliopsoas",
    "kidney",
    "kidney_cyst",
    "scapula",
    "subclavian_artery",
    "lung_lower_lobe",
    "lung_upper_lobe",
]
ALONE = [
    "spleen",
    "gallbladder",
    "liver",
    "stomach",
    "pancreas",
    "lung_middle_lobe_right",
    "esophagus",
    "trachea",
    "thyroid_gland",
    "small_bowel",
    "duodenum",
    "colon",
    "urinary_bladder",
    "prostate",
    "sacrum",
    "vertebrae_S1",
    "heart",
    "aorta",
    "pulmonary_vein",
    "brachiocephalic_trunk",
    "atrial_appendage_left",
    "superior_vena_cava",
    "inferior_vena_cava",
    "portal_vein_and_splenic_vein",
    "spinal_cord",
    "brain",
    "skull",
    "sternum",
    "costal_cartilages",
]
TOTALSEGMENTATOR = [
    *ALONE,
    *(f"{name}_{side}" for name in SIDED for side in ("left", "right")),
    *(f"vertebrae_C{number}" for number in range(1, 8)),
    *(f"vertebrae_T{number}" for number in range(1, 13)),
    *(f"vertebrae_L{number}" for number in range(1, 6)),
    *(f"rib_{side}_{n}" for side in ("left", "right") for n in range(1, 13)),
]
CHAMBERS = [
    "heart_myocardium",
    "heart_atrium_left",
    "heart_atrium_right",
    "heart_ventricle_left",
    "heart_ventricle_right",
    "pulmonary_artery",
]
BRATS = [
    "NCR",
    "ED",
    "ET",
    "WT",
    "TC",
    "edema",
    "enhancing",
    "necrosis",
    "whole",
    "core",
]
MSD = [
    ("BRATS", ["edema", "non-enhancing tumor", "enhancing tumour"]),
    ("Heart", ["left atrium"]),
    ("Liver", ["liver", "cancer"]),
    ("Hippocampus", ["Anterior", "Posterior"]),
    ("Prostate", ["PZ", "TZ"]),
    ("Lung", ["cancer"]),
    ("Pancreas", ["pancreas", "cancer"]),
    ("HepaticVessel", ["Vessel", "Tumour"]),
    ("Spleen", ["spleen"]),
    ("Colon", ["colon cancer primaries"]),
]


def concepts_of(code):
    return [each for each in (code.category, code.type, code.modifier) if each]


def test_every_code_is_one_that_terminologies_have():
    for name, code in _table().items():
        for concept in concepts_of(code):
            listed = LISTED.get((concept.scheme, concept.value))
            if listed is None:
                assert ELSEWHERE[concept.value] == concept.meaning, name
            else:
                assert any(concept.meaning.casefold() in each for each in listed), name


def test_one_code_has_one_meaning():
    meanings = {}
    for code in _table().values():
        for concept in concepts_of(code):
            key = (concept.scheme, concept.value)
            assert meanings.setdefault(key, concept.meaning) == concept.meaning


def test_no_two_names_of_the_table_are_spellings_of_one():
    text = Path(module.__file__).with_suffix(".json").read_text(encoding="utf-8")
    pairs = json.loads(text, object_pairs_hook=list)
    keys = [key_of(name) for name, _ in pairs]
    assert len(set(keys)) == len(keys)


def test_all_117_structures_of_totalsegmentator_have_a_code():
    assert len(TOTALSEGMENTATOR) == 117
    assert Codes().private(TOTALSEGMENTATOR) == []
    assert Codes().private(CHAMBERS) == []


def test_sides_are_told_apart():
    codes = Codes()
    for name in TOTALSEGMENTATOR:
        code = codes.of(name)
        for side in ("Left", "Right"):
            if code.modifier is not None and code.modifier.meaning == side:
                assert side.lower() in name


def test_labels_of_brats_have_a_code():
    assert Codes(context="brains").private(BRATS) == []


@pytest.mark.parametrize(("dataset", "labels"), MSD)
def test_labels_of_the_decathlon_have_a_code(dataset, labels):
    assert Codes(context=dataset).private(labels) == []


def test_what_a_word_means_depends_on_its_data_set():
    assert Codes().of("Anterior").is_private
    code = Codes(context="Hippocampus").of("Anterior")
    assert code.type.meaning == "Hippocampus"
    assert code.modifier.meaning == "Anterior"


@pytest.mark.parametrize(
    "name",
    ["Kidney left", "left_kidney", "KIDNEY-LEFT", " kidney__left ", "Left Kidney"],
)
def test_spellings_match(name):
    assert Codes().of(name) == Codes().of("kidney_left")


@given(st.text(min_size=1, max_size=80))
def test_any_other_name_gets_a_private_code_of_its_own(name):
    code = Codes().of(name)
    if not code.is_private:
        return
    assert code.type.scheme == PRIVATE_SCHEME
    assert 1 <= len(code.type.value) <= 16
    assert 1 <= len(code.type.meaning) <= 64
    assert code.type.value.isascii()
    assert code.type.value != Codes().of(name + "x").type.value
    assert Codes().private([name]) == [name]


def test_labels_without_a_code_are_named():
    assert uncoded([]) == ()
    (line,) = uncoded(["a", "b"])
    assert line.startswith("codes: a, b has no code")


LIVER = {
    "category": {"value": "1", "scheme": "99ME", "meaning": "c"},
    "type": {"value": "2", "scheme": "99ME", "meaning": "t"},
    "color": [1, 2, 3],
}


def test_files_add_and_override_codes(tmp_path):
    first = tmp_path / "a.json"
    second = tmp_path / "b.json"
    missing = tmp_path / "c.json"
    first.write_text(json.dumps({"LIVER": LIVER, "odd": LIVER}))
    second.write_text(json.dumps({"odd": {**LIVER, "color": [9, 9, 9]}}))
    codes = read_codes([first, missing, second])
    assert codes.of("liver").type.value == "2"
    assert codes.of("odd").color == (9, 9, 9)
    assert codes.of("spleen") == Codes().of("spleen")
    assert codes.digest
    assert codes.digest != read_codes([first]).digest
    assert Codes().digest == ""


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"a": {}},
        {"a": {**LIVER, "color": [1, 2, 300]}},
        {"a": {**LIVER, "more": 1}},
        {"a": {**LIVER, "type": {"value": "x" * 17, "scheme": "s", "meaning": "m"}}},
        {"a": {**LIVER, "type": {"value": "a\\b", "scheme": "s", "meaning": "m"}}},
        {"a": {**LIVER, "type": {"value": "a", "scheme": "s", "meaning": "m" * 65}}},
    ],
)
def test_a_wrong_file_is_refused_in_a_line_that_names_it(content, tmp_path):
    file = tmp_path / "codes.json"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"codes\.json") as refused:
        read_codes([file])
    assert "\n" not in str(refused.value)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_colours_are_those_of_highdicom(color):
    other = highdicom.color.CIELabColor.from_rgb(*color)
    np.testing.assert_allclose(cielab_of(color), other.value, atol=40)
    assert all(0 <= part <= 65535 for part in cielab_of(color))


def test_labels_without_a_colour_differ_from_their_neighbours():
    colors = [Codes().of(f"thing {number}", number).color for number in range(12)]
    assert len(set(colors)) == 12
