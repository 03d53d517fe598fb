"""The DICOM node: pynetdicom as the peer, on loopback."""

import socket
import ssl
import sys
import threading
import time
from contextlib import contextmanager
from io import BytesIO

import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)

import trivox
from clinic import (
    STUB,
    Lines,
    canaries_of,
    predicts_here,
    uid,
    web_archive,
    write_profiles,
    write_rules,
    write_series,
    written_text,
)
from orthanc_server import free_ports
from trivox.service.jobs import work
from trivox.service.jobs.queue import Queue
from trivox.service.jobs.states import State
from trivox.service.node import serving
from trivox.service.objects import Shelf
from trivox.service.pseudonyms import pseudonyms_of
from trivox.verbs.clinic import service

PEER = '[[node.peers]]\naet = "SCANNER"\nhost = "127.0.0.1"\nprofile = "web"\n'


@pytest.fixture(autouse=True)
def stub(monkeypatch):
    monkeypatch.setattr(work, "PREDICT", (sys.executable, str(STUB)))
    monkeypatch.setattr(work, "run_child", predicts_here)
    monkeypatch.setattr(serving, "IDLE", 0.02)


@pytest.fixture
def archive():
    with web_archive() as archive:
        yield archive


class Node:
    def __init__(self, folder, port, lines):
        self.folder = folder
        self.port = port
        self.lines = lines

    @property
    def queue(self):
        return Queue(self.folder)

    @contextmanager
    def called(
        self, calling="SCANNER", called="TRIVOX", handlers=(), more=(), tls=None
    ):
        entity = AE(ae_title=calling)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        for kind in (CTImageStorage, MRImageStorage):
            entity.add_requested_context(kind, ExplicitVRLittleEndian)
        entity.add_requested_context(Verification)
        for kind in more:
            entity.add_requested_context(kind)
        association = entity.associate(
            "127.0.0.1",
            self.port,
            ae_title=called,
            evt_handlers=list(handlers),
            tls_args=tls,
        )
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def send(self, files, **options):
        with self.called(**options) as peer:
            return [peer.send_c_store(pydicom.dcmread(f)).Status for f in files]

    def wait(self, state, count=1):
        end = time.monotonic() + 30
        while True:
            states = [entry.state for entry in self.queue.entries()]
            if states.count(state) >= count:
                return
            assert time.monotonic() < end, (states, self.lines)
            time.sleep(0.05)


@pytest.fixture
def listening(tmp_path, archive, monkeypatch):
    """A node that runs in a thread."""

    @contextmanager
    def start(text="", settings="", timeout=10.0, **rule):
        (port,) = free_ports(1)
        profiles = write_profiles(tmp_path, archive)
        node = f"[node]\nport = {port}\ntimeout = {timeout}\n{settings}\n"
        rules = write_rules(tmp_path, f"{node}{text or PEER}", stable=0.3, **rule)
        stop = threading.Event()
        lines = Lines()
        monkeypatch.setattr(service, "new_stop", lambda: stop)
        thread = threading.Thread(
            target=trivox.node,
            args=(rules, tmp_path / "node"),
            kwargs={"profiles": profiles, "console": lines},
        )
        thread.start()
        end = time.monotonic() + 20
        while not any("listens" in line for line in lines):
            assert thread.is_alive()
            assert time.monotonic() < end
            time.sleep(0.01)
        try:
            yield Node(tmp_path / "node", port, lines)
        finally:
            stop.set()
            thread.join(30)
            for each in threading.enumerate():
                if each.name.startswith("AcceptorThread"):
                    each.join(30)  # of peers that said nothing
        assert not thread.is_alive()

    return start


def test_a_series_that_is_sent_is_answered(listening, archive, tmp_path):
    files = write_series(tmp_path / "scan")
    with listening() as node:
        with node.called() as peer:
            assert peer.send_c_echo().Status == 0
        assert node.send(files) == [0, 0, 0]
        node.wait(State.DONE)
        assert node.send(files) == [0, 0, 0]  # again: they are there already
        node.wait(State.DONE)
    assert len(archive.of("SEG")) == 1
    assert set(archive.stores.values()) == {1}
    received = {
        f.read_bytes()[-1000:] for f in (tmp_path / "node").rglob("received/*/*/*")
    }
    assert received == {file.read_bytes()[-1000:] for file in files}
    text = written_text(tmp_path / "node") + "\n".join(node.lines).encode()
    assert [word for word in canaries_of("a") if word.encode() in text] == []


def test_a_series_that_comes_slowly_is_answered_once_it_is_large_enough(
    listening, archive, tmp_path
):
    files = write_series(tmp_path / "scan", count=6)
    with listening(instances=6) as node:
        assert node.send(files[:4]) == [0] * 4
        node.wait(State.IGNORED)
        for file in files[4:]:
            assert node.send([file]) == [0]
        node.wait(State.DONE)
    assert {d.SeriesDescription for d in archive.of("SEG")} == {"of 6"}


def test_a_count_from_the_archive_is_waited_for(listening, archive, tmp_path):
    files = write_series(tmp_path / "scan", count=4)
    archive.load(files)
    with listening(settings='count = "web"') as node:
        node.send(files[:3])
        node.wait(State.WAITING)
        end = time.monotonic() + 20
        while not any("3 of 4 objects" in line for line in node.lines):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert not archive.of("SEG")
        node.send(files[3:])
        node.wait(State.DONE)
    assert {d.SeriesDescription for d in archive.of("SEG")} == {"of 4"}


def test_only_named_peers_are_let_in(listening):
    with listening() as node:
        for titles in ({"calling": "STRANGER"}, {"called": "OTHER"}):
            with node.called(**titles) as peer:
                assert peer.is_rejected
        with node.called() as peer:
            assert peer.is_established


def test_another_host_of_the_same_title_is_turned_away(listening):
    text = PEER.replace("127.0.0.1", "10.9.8.7")
    with listening(text) as node, node.called() as peer:
        assert peer.is_rejected
        assert any("rejected" in line for line in node.lines)


def test_no_more_associations_than_allowed(listening):
    with listening(settings="associations = 1") as node, node.called() as first:
        assert first.is_established
        with node.called() as second:
            assert second.is_rejected


BAD = {
    "no study": ({"StudyInstanceUID": ""}, 0xC000),
    "no series": ({"SeriesInstanceUID": None}, 0xC000),
    "a path": ({"SeriesInstanceUID": "../../../etc"}, 0xC000),
    "another class": ({"SOPClassUID": MRImageStorage}, 0xA900),
    "another UID": ({"SOPInstanceUID": "1.2.3"}, 0xC001),
    "no object": (b"Canary" * 50, 0xC000),
    "nothing": (b"\x08\x00", 0xC000),
}


def test_bad_objects_are_refused_with_their_status(listening, tmp_path):
    good, bad = write_series(tmp_path / "scan", count=2)
    with listening() as node, node.called() as peer:
        for name, (change, status) in BAD.items():
            assert status_of(peer, spoiled(bad, change)) == status, name
        assert peer.send_c_store(pydicom.dcmread(good)).Status == 0
    received = list((tmp_path / "node" / "received").rglob("*.dcm"))
    assert len(received) == 1
    assert not [f for f in (tmp_path / "node").rglob("*") if "tmp" in f.name]
    text = written_text(tmp_path / "node") + "\n".join(node.lines).encode()
    assert [word for word in canaries_of("a") if word.encode() in text] == []


def status_of(peer, content):
    """What the node answers to any bytes that are called a CT."""
    contexts = peer.accepted_contexts
    context = next(c for c in contexts if c.abstract_syntax == CTImageStorage)
    request = C_STORE()
    request.MessageID = 7
    request.AffectedSOPClassUID = CTImageStorage
    request.AffectedSOPInstanceUID = uid("a 1")
    request.Priority = 2
    request.DataSet = BytesIO(content)
    peer._reactor_checkpoint.clear()
    try:
        peer.dimse.send_msg(request, context.context_id)
        _, answer = peer.dimse.get_msg(block=True)
    finally:
        peer._reactor_checkpoint.set()
    return answer.Status


def spoiled(file, change):
    """The bytes of an object that a bad peer sends, without the file's header."""
    if isinstance(change, bytes):
        return change
    dataset = pydicom.dcmread(file)
    for name, value in change.items():
        if value is None:
            delattr(dataset, name)
        else:
            dataset[name] = pydicom.DataElement(name, "LO", value)
    return encode(dataset, False, True)


def test_an_object_that_is_too_large_is_cut_off(listening, tmp_path):
    (file,) = write_series(tmp_path / "scan", count=1)
    dataset = pydicom.dcmread(file)
    dataset.PixelData = b"\0" * 2**22
    with listening(settings="largest_gb = 0.0005") as node:
        with node.called() as peer:
            answer = peer.send_c_store(dataset)
            assert "Status" not in answer
        with node.called() as peer:
            assert peer.send_c_echo().Status == 0
        assert any("larger than largest_gb" in line for line in node.lines)
    assert not list((tmp_path / "node").rglob("*.dcm"))


def test_a_full_disk_is_said_to_the_peer(listening, tmp_path):
    files = write_series(tmp_path / "scan", count=1)
    with listening(settings="free_gb = 99999.0") as node:
        assert node.send(files) == [0xA700]
        assert any("free_gb" in line for line in node.lines)
    assert not list((tmp_path / "node").rglob("*.dcm"))


def test_noise_does_not_end_the_node(listening, tmp_path):
    files = write_series(tmp_path / "scan", count=1)
    with listening(timeout=2.0) as node:
        for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\xff\xff\xff\xff" * 99):
            with socket.create_connection(("127.0.0.1", node.port)) as raw:
                raw.sendall(noise)
        assert node.send(files) == [0]


def commitment_of(*instances):
    request = pydicom.Dataset()
    request.TransactionUID = "1.2.3.4"
    request.ReferencedSOPSequence = []
    for each in instances:
        item = pydicom.Dataset()
        item.ReferencedSOPClassUID = CTImageStorage
        item.ReferencedSOPInstanceUID = each
        request.ReferencedSOPSequence.append(item)
    return request


@pytest.mark.parametrize("way", ["same association", "another"])
def test_the_node_vouches_for_what_it_has(listening, tmp_path, way):
    files = write_series(tmp_path / "scan", count=1)
    reports = []
    came = threading.Event()

    def report(event):
        reports.append((event.event_type, event.event_information))
        came.set()
        return 0x0000, None

    handlers = [(evt.EVT_N_EVENT_REPORT, report)]
    (port,) = free_ports(1)
    text = PEER + (f"port = {port}\n" if way == "another" else "")
    entity = AE(ae_title="SCANNER")
    entity.add_supported_context(
        StorageCommitmentPushModel, scu_role=True, scp_role=True
    )
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=handlers
    )
    try:
        with listening(text) as node:
            node.send(files)
            with node.called(
                handlers=handlers, more=[StorageCommitmentPushModel]
            ) as peer:
                answer, _ = peer.send_n_action(
                    commitment_of(uid("a 0"), uid("nobody has this")),
                    1,
                    StorageCommitmentPushModel,
                    StorageCommitmentPushModelInstance,
                )
                assert answer.Status == 0
                assert came.wait(10)
    finally:
        server.shutdown()
    ((kind, information),) = reports
    assert kind == 2
    (here,) = information.ReferencedSOPSequence
    assert here.ReferencedSOPInstanceUID == uid("a 0")
    (missing,) = information.FailedSOPSequence
    assert missing.ReferencedSOPInstanceUID == uid("nobody has this")
    assert missing.FailureReason == 0x0112


def test_what_lay_on_the_disk_when_the_node_was_killed_is_taken_up(
    listening, archive, tmp_path
):
    shelf = Shelf(tmp_path / "node" / "received", pseudonyms_of(tmp_path / "node"))
    for file in write_series(tmp_path / "scan"):
        target = shelf.series_folder(uid("s"), uid("a")) / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    with listening(send_to=["web"]) as node:
        node.wait(State.DONE)
    assert len(archive.of("SEG")) == 1


def test_another_address_needs_peers(tmp_path, archive):
    profiles = write_profiles(tmp_path, archive)
    rules = write_rules(tmp_path, send_to=["web"])
    with pytest.raises(trivox.TrivoxError, match="name the peers"):
        trivox.node(rules, tmp_path / "node", profiles=profiles, bind="0.0.0.0")


def test_a_port_that_is_taken_is_said(listening, tmp_path, archive):
    with listening(), pytest.raises(trivox.TrivoxError, match="another --port"):
        trivox.node(
            tmp_path / "rules.toml", tmp_path / "other", profiles=tmp_path / "pacs.toml"
        )


def test_tls_lets_in_whom_the_certificates_vouch_for(listening, certificate):
    files = [f"{name} = {str(certificate / file)!r}" for name, file in CERTIFICATES]
    context = ssl.create_default_context(cafile=certificate / "cert.pem")
    with listening(settings="\n".join(files), timeout=2.0) as node:
        place = ("127.0.0.1", node.port)
        with socket.create_connection(place):  # says nothing, and holds up nobody
            with socket.create_connection(place, timeout=10) as raw:
                require_cut_off(raw)
            with (
                socket.create_connection(place, timeout=10) as raw,
                context.wrap_socket(raw, server_hostname="localhost") as nameless,
            ):
                require_cut_off(nameless)
            context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
            with node.called(tls=(context, "localhost")) as peer:
                assert peer.send_c_echo().Status == 0


def require_cut_off(connection):
    """Nothing is answered to a peer that is not let in, but for an alert of TLS."""
    try:
        connection.sendall(b"\x01\x00" + b"\0" * 200)
        answer = connection.recv(1000)
    except OSError:
        return
    assert not answer or answer[:1] == b"\x15"


CERTIFICATES = [
    ("cert_file", "cert.pem"),
    ("key_file", "key.pem"),
    ("ca_file", "cert.pem"),
]
