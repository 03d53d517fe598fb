"""The commands of archives: tables, JSON, one line for what went wrong."""

import json

import pytest

from clinic import uid, web_archive, write_profiles, write_rules, write_series


@pytest.fixture
def hospital(tmp_path):
    """An archive with a series, and the options that lead there."""
    files = write_series(tmp_path / "scan")
    with web_archive() as archive:
        archive.load(files)
        profiles = write_profiles(tmp_path, archive)
        yield archive, ["--profiles", profiles, "--pacs", "web"]


def test_a_study_is_listed_fetched_and_sent(trivox, hospital, tmp_path):
    archive, options = hospital
    assert trivox("pacs", "echo", *options) == (0, "web answers\n")
    _, table = trivox("pacs", "find", "--modality", "CT", *options)
    assert table.splitlines()[1].split()[-1] == uid("s")
    _, text = trivox("pacs", "find", "--series", "--json", *options)
    (match,) = json.loads(text)["matches"]
    assert match["SeriesInstanceUID"] == uid("a")
    code, said = trivox("pacs", "fetch", uid("s"), "--out", tmp_path / "out", *options)
    assert code == 0
    assert "3 of 3 objects" in said
    archive.objects.clear()
    code, said = trivox("pacs", "send", tmp_path / "out", *options)
    assert (code, said) == (0, "web: 3 stored\n")


def test_what_goes_wrong_is_one_line(trivox, hospital, tmp_path):
    archive, options = hospital
    archive.lies.add("count-too-high")
    code, said = trivox("pacs", "fetch", uid("s"), "--out", tmp_path / "out", *options)
    assert code == 1
    assert said.splitlines()[-1].startswith("error: ")
    assert "3 of 4 objects are here" in said.splitlines()[-1]
    code, said = trivox("pacs", "echo", *options[:2], "--pacs", "other")
    assert code == 2
    assert said.count("\n") == 1
    code, said = trivox("pacs", "find", "--dates", "yesterday", *options)
    assert code == 2
    assert "20260101-20260131" in said


def test_rules_and_options_of_a_node_are_read_before_anything_is_opened(
    trivox, hospital, tmp_path
):
    _, options = hospital
    rules = write_rules(tmp_path, send_to=["nowhere"])
    for verb in (["pacs", "watch", *options[2:]], ["node"]):
        code, said = trivox(
            *verb, "--rules", rules, "--out", tmp_path / "station", *options[:2]
        )
        assert code == 2
        assert "nowhere: there is no such profile" in said
    code, said = trivox("node", "--rules", rules, "--port", "0", *options[:2])
    assert code == 2
    assert "port" in said
    assert not (tmp_path / "station").exists()
