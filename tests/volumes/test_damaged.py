"""Whatever is damaged in a file, it is read or refused by one line that names it."""

from collections import Counter

from damaged_volumes import mutations, outcome, sound_files


def test_the_files_that_are_damaged_are_sound(tmp_path):
    for name, data in sound_files().items():
        assert outcome(tmp_path, name, data) == "volume", name


def test_a_damaged_file_is_a_volume_or_one_line(tmp_path):
    counts = Counter(outcome(tmp_path, *damaged) for damaged in mutations(14, 600))
    assert set(counts) == {"volume", "FormatError", "GeometryError"}
    assert counts["FormatError"] > 200


def test_damage_is_drawn_from_the_seed():
    assert list(mutations(3, 20)) == list(mutations(3, 20))
    assert list(mutations(3, 20)) != list(mutations(4, 20))
