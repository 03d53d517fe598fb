"""axe-core, which looks for what keeps people from using a page: pinned, and fetched once
into the user's cache.
"""

import json

import pytest

from trivox.errors import ResourceError
from trivox.exporting.web.assets import Archives, Asset, Package, files_of

AXE = Package(
    name="axe-core",
    version="4.14.1",
    url="https://registry.npmjs.org/axe-core/-/axe-core-4.14.1.tgz",
    archive="axe-core-4.14.1.tgz",
    sha256="e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745",
    license="MPL-2.0",
    files=(
        Asset(
            source="package/axe.min.js",
            target="axe.min.js",
            sha256="29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c",
        ),
    ),
)


def script():
    """The text of axe-core; skips where it can neither be read nor fetched."""
    try:
        content = Archives(packages=[AXE]).bytes_of(AXE)
    except ResourceError as error:
        pytest.skip(f"no axe-core: {error}")
    ((_, text),) = files_of(AXE, content)
    return text.decode()


def violations(browser, axe):
    """What axe finds wrong with the page as it is: rule and places."""
    if not browser.value("'axe' in window"):
        browser.value(f"(() => {{ {axe} }})()")
    answer = browser.value(
        "axe.run().then((found) => JSON.stringify(found.violations))"
    )
    return [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in json.loads(answer)
    ]
