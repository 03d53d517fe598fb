"""A small hospital for tests: series, archives that may lie, rules, profiles."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pydicom
from pydicom.uid import generate_uid

import stub_predict
from dicom_slices import slice_of
from trivox.errors import DataError

CANARIES = {
    "PatientName": "Canary^Zeisig",
    "PatientID": "CANARY-77213",
    "PatientBirthDate": "19310217",
    "AccessionNumber": "ACCKANARI9",
    "ReferringPhysicianName": "Fringilla^Doctor",
    "InstitutionName": "Serinus Hospital",
    "StudyID": "STUDCANAR",
}
STUB = Path(__file__).with_name("stub_predict.py")
ROOT = "1.2.826.0.1.3680043.8.498."


def uid(name):
    """The UID that stands for a name, as long as those of scanners."""
    return generate_uid(prefix=ROOT, entropy_srcs=[name])


def write_series(folder, *, series="a", study="s", count=3, **attributes):
    """A CT of a patient who must be named nowhere; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(count):
        pixels = np.full((36, 48), number, dtype=np.uint16)
        dataset = slice_of(
            number,
            pixels=pixels,
            series=uid(series),
            StudyInstanceUID=uid(study),
            SOPInstanceUID=uid(f"{series} {number}"),
            StudyDate=time.strftime("%Y%m%d"),
            StudyDescription="whole body",
            SeriesNumber=3,
            InstanceNumber=number + 1,
            **{**CANARIES, **attributes},
        )
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        file = folder / f"{series}{number}.dcm"
        dataset.save_as(file, enforce_file_format=True)
        files.append(file)
    return files


def canaries_of(*series, study="s"):
    """All values that may stand in no line, no record and no name of a file."""
    words = [part for value in CANARIES.values() for part in value.split("^")]
    uids = [uid(study), *map(uid, series)]
    uids += [uid(f"{name} {number}") for name in series for number in range(10)]
    return [*words, *uids]


# -- an archive that speaks DICOMweb ---------------------------------------------------
BOUNDARY = "a-boundary"


class WebArchive:
    """Keeps objects in memory. lies: how it misbehaves; seen: requests; stores: how
    often it was sent each object.
    """

    def __init__(self, lies=()):
        self.lies = set(lies)
        self.objects = {}
        self.stores = {}
        self.seen = []
        self.failures = 0
        self.lock = threading.Lock()
        self.port = None
        self.scheme = "http"

    @property
    def url(self):
        return f"{self.scheme}://localhost:{self.port}/dicom"

    def put(self, content):
        dataset = pydicom.dcmread(BytesIO(content), stop_before_pixels=True)
        name = str(dataset.SOPInstanceUID)
        with self.lock:
            self.stores[name] = self.stores.get(name, 0) + 1
            self.objects[name] = (content, dataset)
        return name

    def load(self, files):
        for file in files:
            self.put(file.read_bytes())
        self.stores.clear()

    def of(self, modality):
        return [d for _, d in self.objects.values() if d.Modality == modality]

    def matching(self, study=None, series=None):
        chosen = []
        with self.lock:
            for content, dataset in self.objects.values():
                if study in (None, str(dataset.StudyInstanceUID)) and series in (
                    None,
                    str(dataset.SeriesInstanceUID),
                ):
                    chosen.append((content, dataset))
        return chosen


def element(value, vr="LO"):
    return {"vr": vr, "Value": [value]}


def study_of(dataset):
    return str(dataset.StudyInstanceUID)


def rows_of(archive, level, study, series):
    chosen = archive.matching(study, series)
    rows = {}
    for _, dataset in chosen:
        keys = {
            "studies": dataset.StudyInstanceUID,
            "series": dataset.SeriesInstanceUID,
            "instances": dataset.SOPInstanceUID,
        }
        same = [
            d for _, d in chosen if d.SeriesInstanceUID == dataset.SeriesInstanceUID
        ]
        extra = 1 if "count-too-high" in archive.lies else 0
        rows[str(keys[level])] = {
            "0020000D": element(str(dataset.StudyInstanceUID), "UI"),
            "00080020": element(str(dataset.StudyDate), "DA"),
            "00100010": {
                "vr": "PN",
                "Value": [{"Alphabetic": str(dataset.PatientName)}],
            },
            "00100020": element(str(dataset.PatientID)),
            "0020000E": element(str(dataset.SeriesInstanceUID), "UI"),
            "00080060": element(str(dataset.Modality), "CS"),
            "0008103E": element(str(dataset.SeriesDescription)),
            "00180015": {"vr": "CS"},
            "00201208": element(len(archive.matching(study_of(dataset))), "IS"),
            "00201209": element(len(same) + extra, "IS"),
            "00080018": element(str(dataset.SOPInstanceUID), "UI"),
        }
    return list(rows.values())


def handler_of(archive):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, status, content=b"", kind="application/dicom+json", **headers):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def lied(self):
            """Whether the request was answered in a bad way."""
            lies = archive.lies
            if "busy-twice" in lies and archive.failures < 2:
                archive.failures += 1
                self.answer(503)
            elif "redirect" in lies:
                self.answer(302, Location="http://127.0.0.1:1/")
            elif "unauthorized" in lies:
                self.answer(401)
            elif "hang-up" in lies:
                self.close_connection = True
            else:
                return False
            return True

        def do_GET(self):
            archive.seen.append((self.command, self.path, dict(self.headers)))
            if self.lied():
                return
            parts = urlsplit(self.path)
            names = parts.path.split("/")[2:]
            values = dict(zip(names[::2], [*names[1::2], None], strict=False))
            if len(names) == 6:
                self.give(values)
            else:
                self.search(names[-1], values, parse_qs(parts.query))

        def search(self, level, values, query):
            rows = rows_of(archive, level, values.get("studies"), values.get("series"))
            if "no-paging" not in archive.lies:
                first = int(query.get("offset", ["0"])[0])
                rows = rows[first : first + int(query.get("limit", ["500"])[0])]
            content = json.dumps(rows).encode()
            kind = "application/dicom+json"
            if "html" in archive.lies:
                kind = "text/html"
            if "no-json" in archive.lies:
                content = b"[{" + b'"Canary' * 9
            if "nested" in archive.lies:
                content = b"[" * 100_000
            if "no-uids" in archive.lies:
                content = b'[{"00080020": {"vr": "DA"}}]'
            if "no-list" in archive.lies:
                content = b'{"00080020": 3}'
            if "huge" in archive.lies:
                content = b" " * (2**26 + 1)
            self.answer(200, content, kind)

        def give(self, values):
            stored = archive.objects.get(values["instances"])
            if stored is None or "no-objects" in archive.lies:
                self.answer(404)
                return
            content = stored[0]
            if "other-object" in archive.lies:
                content = content.replace(b"thorax", b"kidney")
                content = content.replace(uid("a").encode(), uid("z").encode())
            if "garbage" in archive.lies:
                content = b"Canary" * 100
            if "endless" in archive.lies:
                content = content + b"\0" * 2**21
            head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
            body = head + content + f"\r\n--{BOUNDARY}--".encode()
            if "truncated" in archive.lies:
                body = body[: len(body) // 2]
            kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
            if "html" in archive.lies or "html-objects" in archive.lies:
                kind = "text/html"
            self.answer(200, body, kind)

        def do_POST(self):
            archive.seen.append((self.command, self.path, dict(self.headers)))
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.lied():
                return
            boundary = self.headers["Content-Type"].rpartition("boundary=")[2]
            parts = body.split(f"--{boundary}".encode())[1:-1]
            refused = []
            for number, part in enumerate(parts):
                content = part.partition(b"\r\n\r\n")[2][:-2]
                if "stow-nothing" in archive.lies:
                    continue
                if "stow-half" in archive.lies and number % 2:
                    continue
                if "stow-refuses" in archive.lies:
                    dataset = pydicom.dcmread(BytesIO(content), stop_before_pixels=True)
                    refused.append(str(dataset.SOPInstanceUID))
                    continue
                archive.put(content)
            items = [
                {"00081155": element(each, "UI"), "00081197": element(0x0110, "US")}
                for each in refused
            ]
            said = {"00081198": {"vr": "SQ", "Value": items}} if items else {}
            self.answer(202 if items else 200, json.dumps(said).encode())

    return Handler


class SilentServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Clients may hang up."""


@contextmanager
def web_archive(*lies, tls=None):
    archive = WebArchive(lies)
    server = SilentServer(("127.0.0.1", 0), handler_of(archive))
    archive.port = server.server_address[1]
    if tls is not None:
        archive.scheme = "https"
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_profiles(folder, archive, **others):
    """Profiles with the archive as `web`."""
    lines = ["[web]", f'url = "{archive.url}"', "timeout = 5", "pause = 0.01", ""]
    for name, settings in others.items():
        lines += [f"[{name}]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    file = folder / "pacs.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def write_rules(folder, text="", stable=0.0, **rule):
    """One rule that takes CTs, and what else stands in the file."""
    settings = {"name": "ct", "modality": "CT", "model": "good", "time_limit": 20.0}
    settings |= rule
    lines = ["[intake]", "every = 0.05", f"stable = {stable}", text, "[[rules]]"]
    lines += [f"{key} = {toml(value)}" for key, value in settings.items()]
    file = folder / "rules.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def toml(value):
    """A value as TOML has it."""
    if not isinstance(value, dict):
        return json.dumps(value)
    pairs = [f"{json.dumps(key)} = {json.dumps(each)}" for key, each in value.items()]
    return "{ " + ", ".join(pairs) + " }"


class Lines(list):
    """A console that remembers."""

    def __bool__(self):
        return True

    def say(self, line):
        self.append(line)


def predicts_here(command, log, limits, *, started, secrets=()):
    """Stands for `run_child`: the stub in this process, which is faster."""
    started("")
    try:
        stub_predict.main(command[command.index(str(STUB)) + 1 :])
    except SystemExit as end:
        raise DataError("the prediction failed (exit 1): it said nothing") from end


def written_text(folder):
    """Names and content of all files but DICOM objects, as bytes."""
    content = []
    for file in sorted(folder.rglob("*")):
        content.append(str(file.relative_to(folder)).encode())
        if file.is_file() and file.suffix != ".dcm":
            content.append(file.read_bytes())
    return b"\n".join(content)
