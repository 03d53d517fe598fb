"""Archives that speak DIMSE, good ones and such that refuse: pynetdicom on loopback."""

import ssl
from contextlib import contextmanager

import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    Verification,
)

import trivox
from clinic import canaries_of, uid, write_series


class DimseArchive:
    """Keeps objects in memory; statuses: what it answers instead of success."""

    def __init__(self, statuses):
        self.statuses = statuses
        self.objects = {}

    def store(self, event):
        status = self.statuses.get("store", 0x0000)
        if status in (0x0000, 0xB000):
            dataset = pydicom.dcmread(event.dataset_path)
            self.objects[str(dataset.SOPInstanceUID)] = dataset
        return status

    def find(self, event):
        asked = event.identifier
        if "find" in self.statuses:
            yield self.statuses["find"], None
            return
        keyword = {
            "STUDY": "StudyInstanceUID",
            "SERIES": "SeriesInstanceUID",
            "IMAGE": "SOPInstanceUID",
        }[asked.QueryRetrieveLevel]
        rows = {}
        for each in self.objects.values():
            row = pydicom.Dataset()
            for element in asked:
                if element.keyword in each:
                    row[element.keyword] = each[element.keyword]
            row.NumberOfSeriesRelatedInstances = len(self.objects)
            rows[str(each[keyword].value)] = row
        for row in rows.values():
            yield 0xFF00, row

    def get(self, event):
        wanted = event.identifier.SOPInstanceUID
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        chosen = [self.objects[name] for name in names]
        if "get" in self.statuses:
            chosen = chosen[:1]
        yield len(chosen)
        for each in chosen:
            yield 0xFF00, each


@pytest.fixture
def dimse(tmp_path):
    """An archive, and its profile."""

    @contextmanager
    def start(*, searches=True, tls=None, options="", **statuses):
        archive = DimseArchive(statuses)
        entity = AE(ae_title="PACS")
        entity.require_called_aet = True
        syntaxes = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
        entity.add_supported_context(
            CTImageStorage, syntaxes, scu_role=True, scp_role=True
        )
        entity.add_supported_context(Verification)
        if searches:
            entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
            entity.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
        handlers = [
            (evt.EVT_C_STORE, archive.store),
            (evt.EVT_C_FIND, archive.find),
            (evt.EVT_C_GET, archive.get),
            (evt.EVT_C_ECHO, lambda _: statuses.get("echo", 0)),
        ]
        server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=tls
        )
        port = server.server_address[1]
        file = tmp_path / "pacs.toml"
        file.write_text(
            f'[a]\nhost = "localhost"\nport = {port}\naet = "PACS"\ntimeout = 5\n'
            f"pause = 0.01\nretries = 1\n{options}"
        )
        try:
            yield archive, file
        finally:
            server.shutdown()

    return start


def test_objects_go_there_and_come_back(dimse, tmp_path):
    files = write_series(tmp_path / "scan")
    with dimse() as (archive, profiles):
        assert trivox.pacs_echo(profiles=profiles) == "a answers"
        sent = trivox.pacs_send(files, profiles=profiles)
        sent.require_all()
        assert len(archive.objects) == 3
        (row,) = trivox.pacs_find(profiles=profiles, modality="CT", series=True).rows
        assert row["SeriesInstanceUID"] == uid("a")
        fetched = trivox.pacs_fetch(uid("s"), tmp_path / "out", profiles=profiles)
        fetched.require_all()
    files_back = list((tmp_path / "out").rglob("*.dcm"))
    back = {pydicom.dcmread(f).SOPInstanceUID: pydicom.dcmread(f) for f in files_back}
    for file in files:
        ours = pydicom.dcmread(file)
        assert back[ours.SOPInstanceUID].PixelData == ours.PixelData


def test_a_retrieval_that_brings_less_is_noticed(dimse, tmp_path):
    files = write_series(tmp_path / "scan")
    with dimse(get=1) as (_, profiles):
        trivox.pacs_send(files, profiles=profiles)
        fetched = trivox.pacs_fetch(uid("s"), tmp_path / "out", profiles=profiles)
        with pytest.raises(trivox.TrivoxError, match="1 of 3"):
            fetched.require_all()
        fetched = trivox.pacs_fetch(uid("s"), tmp_path / "out", profiles=profiles)
        with pytest.raises(trivox.TrivoxError, match="2 of 3"):
            fetched.require_all()


@pytest.mark.parametrize("status", [0xA700, 0xC000, 0x0122, 0x0124])
def test_an_object_that_is_refused_is_said(dimse, tmp_path, status):
    files = write_series(tmp_path / "scan", count=1)
    with dimse(store=status) as (_, profiles):
        sent = trivox.pacs_send(files, profiles=profiles)
    with pytest.raises(trivox.TrivoxError, match=f"status {status:#06x}") as caught:
        sent.require_all()
    assert not [word for word in canaries_of("a") if word in str(caught.value)]


def test_an_archive_that_can_only_store_is_believed(dimse, tmp_path):
    files = write_series(tmp_path / "scan")
    with dimse(searches=False) as (archive, profiles):
        sent = trivox.pacs_send(files, profiles=profiles)
        sent.require_all()
        assert len(archive.objects) == 3


def test_what_is_compressed_is_unpacked_for_an_archive_that_takes_it_so(
    dimse, tmp_path
):
    (file,) = write_series(tmp_path / "scan", count=1)
    dataset = pydicom.dcmread(file)
    pixels = dataset.pixel_array
    dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    dataset.save_as(file)
    with dimse() as (archive, profiles):
        trivox.pacs_send([file], profiles=profiles).require_all()
        (stored,) = archive.objects.values()
    assert stored.SOPInstanceUID == uid("a 0")
    assert (stored.pixel_array == pixels).all()


BAD = {
    "a search that fails": ({"find": 0xA700}, "C-FIND ended with status 0xa700"),
    "an echo that fails": ({"echo": 0x0211}, "C-ECHO ended with status 0x0211"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_failure_is_said_in_one_line(dimse, name):
    statuses, reason = BAD[name]
    verb = trivox.pacs_find if "find" in statuses else trivox.pacs_echo
    with (
        dimse(**statuses) as (_, profiles),
        pytest.raises(trivox.TrivoxError, match=reason),
    ):
        verb(profiles=profiles)


def test_a_wrong_title_is_said(dimse):
    with dimse() as (_, profiles):
        profiles.write_text(profiles.read_text().replace('"PACS"', '"OTHER"'))
        with pytest.raises(trivox.TrivoxError, match="not called as the profile says"):
            trivox.pacs_echo(profiles=profiles)


def test_nobody_there_is_said(dimse):
    with dimse() as (_, profiles):
        pass
    with pytest.raises(trivox.TrivoxError, match="a: cannot be reached"):
        trivox.pacs_echo(profiles=profiles)


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_is_judged_by_the_certificates_of_the_profile(dimse, certificate, trusted):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    options = "tls = true\n"
    if trusted:
        options += f'ca_file = "{certificate}/cert.pem"\n'
    with dimse(tls=context, options=options) as (_, profiles):
        if trusted:
            assert trivox.pacs_echo(profiles=profiles) == "a answers"
            return
        with pytest.raises(trivox.TrivoxError, match="cannot be reached"):
            trivox.pacs_echo(profiles=profiles)
