"""Archives that speak DICOMweb, good ones and such that lie: real sockets, no patience."""

import json
import ssl

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trivox
from clinic import CANARIES, canaries_of, uid, web_archive, write_profiles, write_series
from trivox.service.peers.archive import RefusedError, UnreachableError, number_in
from trivox.service.peers.dicomweb import refusals, rows_of
from trivox.service.peers.http import Answer
from trivox.service.sending import objects_below
from trivox.verbs.answers.documents import document


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "scan")


@pytest.fixture
def asked(tmp_path, series, monkeypatch):
    """An archive that holds the series, and how to call a verb on it."""

    def call(lies, verb, *arguments, filled=True, **options):
        with web_archive(*lies) as archive:
            if filled:
                archive.load(series)
            profiles = write_profiles(tmp_path, archive)
            result = getattr(trivox, verb)(*arguments, profiles=profiles, **options)
            return result, archive

    return call


def test_a_study_is_listed_fetched_and_sent_back(asked, series, tmp_path):
    listed, _ = asked([], "pacs_find")
    assert [row["StudyInstanceUID"] for row in listed.rows] == [uid("s")]
    fetched, _ = asked([], "pacs_fetch", uid("s"), tmp_path / "out")
    fetched.require_all()
    files = sorted((tmp_path / "out").rglob("*.dcm"))
    contents = {file.read_bytes() for file in files}
    assert contents == {file.read_bytes() for file in series}
    sent, archive = asked([], "pacs_send", files, filled=False)
    sent.require_all()
    assert sent.stored == 3
    assert archive.stores == {uid(f"a {n}"): 1 for n in range(3)}


def test_a_table_shows_what_json_says(asked):
    listed, _ = asked([], "pacs_find", series=True)
    head, row = listed.lines
    assert head.split()[:2] == ["modality", "number"]
    assert row.split()[0] == "CT"
    (match,) = document("pacs find", listed)["matches"]
    assert match["NumberOfSeriesRelatedInstances"] == "3"
    assert match["PatientName"] == CANARIES["PatientName"]


def test_what_is_here_is_not_fetched_again(asked, tmp_path):
    _, archive = asked([], "pacs_fetch", uid("s"), tmp_path / "out")
    files = sorted((tmp_path / "out").rglob("*.dcm"))
    times = {file: file.stat().st_mtime_ns for file in files}
    files[0].unlink()
    fetched, archive = asked([], "pacs_fetch", uid("s"), tmp_path / "out")
    fetched.require_all()
    gets = [path for _, path, _ in archive.seen if "/instances/" in path]
    assert len(gets) == 1
    assert all(file.stat().st_mtime_ns == times[file] for file in files[1:])


def test_what_is_there_is_not_sent_again(asked, series):
    sent, archive = asked([], "pacs_send", series)
    assert (sent.stored, sent.present) == (0, 3)
    assert not archive.stores


def test_a_server_that_is_busy_is_asked_again(asked):
    listed, archive = asked(["busy-twice"], "pacs_find")
    assert len(listed.rows) == 1
    assert archive.failures == 2


def test_a_server_without_pages_is_understood(asked, tmp_path, series):
    fetched, _ = asked(["no-paging"], "pacs_fetch", uid("s"), tmp_path / "out")
    fetched.require_all()


SEARCH_LIES = ["html", "no-json", "nested", "no-uids", "no-list", "huge", "redirect"]


@pytest.mark.parametrize("lie", [*SEARCH_LIES, "unauthorized"])
def test_a_search_with_a_bad_answer_ends_in_one_line(asked, lie):
    with pytest.raises(RefusedError) as caught:
        asked([lie], "pacs_find")
    require_clean(str(caught.value))


def test_a_server_that_hangs_up_cannot_be_reached(asked):
    with pytest.raises(UnreachableError, match="web: cannot be reached"):
        asked(["hang-up"], "pacs_find")


OBJECT_LIES = ["html-objects", "garbage", "other-object", "truncated", "no-objects"]


@pytest.mark.parametrize("lie", OBJECT_LIES)
def test_a_bad_object_is_not_kept(asked, tmp_path, lie):
    fetched, _ = asked([lie], "pacs_fetch", uid("s"), tmp_path / "out")
    with pytest.raises(trivox.TrivoxError, match="0 of 3 objects are here") as caught:
        fetched.require_all()
    require_clean(str(caught.value).replace(str(tmp_path), ""))
    assert not [file for file in (tmp_path / "out").rglob("*") if file.suffix == ".dcm"]


def test_an_object_without_end_is_cut_off(asked, tmp_path, series):
    with web_archive("endless") as archive:
        archive.load(series)
        profiles = write_profiles(tmp_path, archive)
        text = profiles.read_text().replace("timeout", "largest_gb = 0.001\ntimeout")
        profiles.write_text(text)
        fetched = trivox.pacs_fetch(uid("s"), tmp_path / "out", profiles=profiles)
    with pytest.raises(trivox.TrivoxError, match="larger than it may be"):
        fetched.require_all()
    assert not list((tmp_path / "out").rglob("*.dcm"))


def test_a_series_of_which_the_archive_counts_more_is_not_whole(asked, tmp_path):
    fetched, _ = asked(["count-too-high"], "pacs_fetch", uid("s"), tmp_path / "out")
    with pytest.raises(trivox.TrivoxError, match="3 of 4 objects are here"):
        fetched.require_all()


@pytest.mark.parametrize(
    ("lie", "count"), [("stow-nothing", 3), ("stow-half", 1), ("stow-refuses", 3)]
)
def test_what_was_not_stored_is_noticed_whatever_the_status(asked, series, lie, count):
    sent, _ = asked([lie], "pacs_send", series, filled=False)
    assert len(sent.refused) == count
    with pytest.raises(RefusedError, match=f"{count} objects are not stored"):
        sent.require_all()


def test_the_secret_goes_where_it_belongs_and_nowhere_else(
    tmp_path, series, monkeypatch
):
    monkeypatch.setenv("ARCHIVE_TOKEN", "s3cret-t0ken")
    with web_archive() as archive:
        profiles = write_profiles(tmp_path, archive)
        text = profiles.read_text().replace(
            "timeout", 'token_env = "ARCHIVE_TOKEN"\ntimeout'
        )
        profiles.write_text(text)
        trivox.pacs_echo(profiles=profiles)
        assert archive.seen[0][2]["Authorization"] == "Bearer s3cret-t0ken"
        archive.lies.add("redirect")
        with pytest.raises(RefusedError) as caught:
            trivox.pacs_echo(profiles=profiles)
    assert "s3cret" not in str(caught.value)


def test_files_that_cannot_be_sent_do_not_hold_up_the_others(asked, tmp_path, series):
    (other,) = write_series(tmp_path / "other", count=1, SeriesDescription="changed")
    damaged = tmp_path / "scan" / "damaged.dcm"
    damaged.write_bytes(b"\0" * 128 + b"DICM" + b"Canary" * 9)
    (nameless,) = write_series(tmp_path / "more", series="n", count=1)
    dataset = pydicom.dcmread(nameless)
    del dataset.StudyInstanceUID
    dataset.save_as(nameless)
    files = [series[0].parent, other, nameless, series[0]]
    sent, archive = asked([], "pacs_send", files, filled=False)
    assert sent.stored == len(archive.stores) == 3
    assert set(sent.refused) == {other, damaged, nameless}
    with pytest.raises(RefusedError, match="3 objects are not stored"):
        sent.require_all()


def test_a_folder_without_objects_is_said(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(trivox.TrivoxError, match="there is no DICOM object"):
        objects_below([tmp_path])


def test_what_is_no_uid_is_refused_before_anybody_is_asked(tmp_path):
    with pytest.raises(trivox.TrivoxError, match="STUDY: is no UID"):
        trivox.pacs_fetch("../etc", tmp_path / "out", profiles=tmp_path / "none.toml")


def require_clean(line):
    assert "\n" not in line
    assert not [word for word in canaries_of("a") if word in line]


def test_tls_is_judged_by_the_certificates_of_the_profile(tmp_path, certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with web_archive(tls=context) as archive:
        profiles = write_profiles(tmp_path, archive)
        with pytest.raises(UnreachableError, match="tls: certificate verify failed"):
            trivox.pacs_echo(profiles=profiles)
        text = profiles.read_text()
        profiles.write_text(f'{text}ca_file = "{certificate}/cert.pem"\n')
        assert trivox.pacs_echo(profiles=profiles) == "web answers"
        profiles.write_text(f"{text}verify = false\n")
        assert trivox.pacs_echo(profiles=profiles) == "web answers"


ANSWER = Answer(200, {"content-type": "application/dicom+json"}, None)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
TAGS = st.sampled_from(["0020000D", "00201209", "-1234567", "+1234567", "0x123456"])
NAMES = TAGS | st.sampled_from(["Value", "vr", "00081198", "00081155"]) | st.text()
JSONS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4)
    ),
)


@settings(max_examples=150)
@given(JSONS | st.lists(st.dictionaries(NAMES, JSONS, max_size=3), max_size=3))
def test_any_json_is_rows_of_text_or_refused(content):
    encoded = json.dumps(content).encode()
    assert isinstance(refusals(encoded), dict)
    try:
        rows = rows_of(encoded, ANSWER, "web")
    except RefusedError:
        return
    for row in rows:
        assert all(isinstance(value, str) for value in row.values())
        number_in(row, "NumberOfSeriesRelatedInstances")


@settings(max_examples=100)
@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_rows(content):
    assert isinstance(refusals(content), dict)
    try:
        rows_of(content, ANSWER, "web")
    except RefusedError as error:
        require_clean(str(error))
