"""A real archive, Debian's Orthanc, on loopback with a password: `make test-pacs`."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from contextlib import contextmanager
from pathlib import Path

PROGRAM = "/usr/sbin/Orthanc"
"""Where Debian puts it; not every user looks for programs there."""
PLUGINS = Path("/usr/share/orthanc/plugins")
USER, PASSWORD = "tester", "only-for-tests"
SECONDS = 60


def is_here():
    """Whether Orthanc and its DICOMweb plugin are installed."""
    plugin = PLUGINS / "libOrthancDicomWeb.so"
    return shutil.which(PROGRAM) is not None and plugin.exists()


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Orthanc:
    def __init__(self, process, log, http, dicom):
        self.process = process
        self.log = log
        self.http = http
        self.dicom = dicom

    @property
    def web(self):
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def ask(self, path, content=None, method=None):
        """What the server answers to a request."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}")
        pair = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request.add_header("Authorization", f"Basic {pair}")
        request.method = method or ("GET" if content is None else "POST")
        request.data = content
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def count(self, modality):
        """UIDs of all objects of a modality."""
        series = self.ask("/series?expand")
        uids = []
        for each in series:
            if each["MainDicomTags"].get("Modality") == modality:
                for instance in each["Instances"]:
                    tags = self.ask(f"/instances/{instance}")["MainDicomTags"]
                    uids.append(tags["SOPInstanceUID"])
        return uids

    def clear(self):
        for patient in self.ask("/patients"):
            self.ask(f"/patients/{patient}", method="DELETE")

    def wait(self):
        end = time.monotonic() + SECONDS
        while True:
            try:
                return self.ask("/system")
            except (urllib.error.URLError, ConnectionError):
                said = self.log.read_text()[-2000:]
                assert self.process.poll() is None, said
                assert time.monotonic() < end, said
                time.sleep(0.1)


@contextmanager
def orthanc(folder, *, peers=None):
    """A server whose files lie in `folder`; peers: title -> port, where it sends."""
    http, dicom = free_ports(2)
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")],
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAet": "ARCHIVE",
        "DicomCheckCalledAet": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {
            title: [title, "127.0.0.1", port] for title, port in (peers or {}).items()
        },
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "StableAge": 1,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    log = folder / "orthanc.log"
    with (
        log.open("wb") as written,
        subprocess.Popen(
            [PROGRAM, str(folder / "orthanc.json")], stdout=written, stderr=written
        ) as process,
    ):
        server = Orthanc(process, log, http, dicom)
        try:
            server.wait()
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
