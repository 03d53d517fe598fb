"""The files of the page: all that it needs, nothing else, without a token."""

import re
import subprocess
import tarfile
from hashlib import sha256
from io import BytesIO

import httpx
import pytest

from page_node import NODE, needs_node
from review_desk import Reviewed, put_review, scan
from serve_client import answering
from trivox.exporting.web.assets import Archives, Asset, Package
from trivox.service.serve.page.files import (
    PREFIX,
    SHARED,
    STATIC,
    PageFiles,
    static_files,
    viewer_archives,
)
from trivox.version import NOTICE

SCRIPTS = sorted(STATIC.glob("*.js"))
IMPORT = re.compile(r'(?:from |import\()"(\./[^"]+)"')
NIIVUE = "vendor/niivue.js"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A client of a server that asks for a token."""
    folder = tmp_path_factory.mktemp("page") / "state"
    desk = Reviewed(folder, PageFiles(packed(tmp_path_factory)), ["secret"])
    with answering(desk.app) as url, httpx.Client(base_url=url) as client:
        yield client


def packed(factory, content=b"export {}"):
    """An archive that is none of NiiVue's."""
    folder = factory.mktemp("archives")
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/index.js")
        member.size = len(content)
        archive.addfile(member, BytesIO(content))
    (folder / "a.tgz").write_bytes(buffer.getvalue())
    package = Package(
        name="@niivue/niivue",
        version="0",
        url="https://nowhere.invalid/a.tgz",
        archive="a.tgz",
        sha256=sha256(buffer.getvalue()).hexdigest(),
        license="MIT",
        files=(
            Asset(
                source="package/index.js",
                target="niivue.js",
                sha256=sha256(content).hexdigest(),
            ),
        ),
    )
    return Archives(folder, packages=[package])


def test_the_page_needs_no_token_and_the_api_does(served):
    page = served.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert NOTICE.split(",")[0] in page.text
    assert served.get("/v1/models").status_code == 401
    assert served.get("/v1/reviews").status_code == 401


def test_all_that_the_page_loads_is_served_and_under_its_policy(served):
    start = served.get("/")
    wanted = set(re.findall(r'(?:href|src)="(page/[^"]+)"', start.text))
    assert {"page/main.js", "page/style.css", "page/service.css"} <= wanted
    seen = set()
    while wanted - seen:
        name = min(wanted - seen)
        seen.add(name)
        answer = served.get(f"/{name}")
        assert answer.status_code == 200, name
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        here = httpx.URL(f"http://page/{name}")
        for found in IMPORT.findall(answer.text) + re.findall(
            r'from "(\.\./[^"]+)"', answer.text
        ):
            wanted.add(here.join(found).path.lstrip("/"))
    assert f"page/{NIIVUE}" in seen
    assert {f"page/{name}" for name in SHARED} <= seen


def test_the_policy_lets_nothing_in_from_elsewhere(served):
    policy = served.get("/").headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "://" not in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(
    "path",
    [
        "page/../v1/models",
        "page/%2e%2e/v1/models",
        "page/../../../etc/passwd",
        "page/..%2f..%2fetc%2fpasswd",
        "page//etc/passwd",
        "page/",
        "page/lib",
        "page/index.html/..",
        "page/files.py",
        "page/vendor/../../files.py",
        "page/%00",
    ],
)
def test_nothing_but_files_of_the_page_is_served(served, path):
    request = served.build_request("GET", "/")
    request.url = request.url.copy_with(raw_path=f"/{path}".encode())
    answer = served.send(request)
    assert answer.status_code in (400, 401, 404), answer.text
    assert "passwd" not in answer.text


def test_a_file_that_a_browser_has_is_not_sent_again(served):
    first = served.get("/page/main.js")
    again = served.get(
        "/page/main.js", headers={"If-None-Match": first.headers["etag"]}
    )
    assert again.status_code == 304
    assert not again.content


def test_without_niivue_the_rest_works(tmp_path):
    folder = tmp_path / "archives"
    folder.mkdir()
    page = PageFiles(viewer_archives(folder))
    desk = Reviewed(tmp_path / "state", page)
    with answering(desk.app) as url, httpx.Client(base_url=url) as client:
        assert client.get(PREFIX + NIIVUE).status_code == 404
        assert client.get("/").status_code == 200
        assert put_review(client, desk.done(scan()), "reject").status_code == 200


def test_nothing_is_inline_and_nothing_comes_from_elsewhere():
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|style=|<script(?![^>]*\bsrc=)|\son\w+=", html)
    for name, file in static_files().items():
        if not name.startswith("licenses"):
            assert b"://" not in file.content, name


def test_whatever_a_script_looks_for_is_in_the_page():
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        wanted = re.findall(r'\bat\("([^"]+)"\)', text)
        assert set(wanted) <= set(ids), script.name
    for target in re.findall(r'\b(?:for|aria-labelledby)="([^"]+)"', html):
        assert target in ids


@needs_node
def test_scripts_are_modules_without_errors():
    for script in SCRIPTS:
        done = subprocess.run(
            [NODE, "--check", "--input-type=module"],
            input=script.read_bytes(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, (script.name, done.stderr)


def test_scripts_are_short_enough_to_be_read():
    for script in SCRIPTS:
        lines = script.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 300, script.name
        assert lines[0].startswith("/*"), script.name
        assert max(map(len, lines)) <= 100, script.name
