"""What is installed in this Python, as a CycloneDX 1.6 bill of materials in JSON.

    python sbom.py FILE

Reads the metadata of the installed distributions alone: no network, no other package. The
same packages give the same bytes, but for SOURCE_DATE_EPOCH, which is the time if it is set.
"""

import json
import os
import re
import sys
import uuid
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

NAME = re.compile(r"[A-Za-z0-9._-]+")
ROOT = "trivox"
LONGEST_LICENSE = 200
"""Characters of a licence's name; longer ones are its text."""


def main() -> None:
    """Write the bill of materials."""
    installed = {plain(package.name): package for package in distributions()}
    components = {name: component(package) for name, package in installed.items()}
    listed = [components[name] for name in sorted(components) if name != ROOT]
    content: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": metadata(components.get(ROOT)),
        "components": listed,
        "dependencies": [
            {
                "ref": components[name]["bom-ref"],
                "dependsOn": needs(installed[name], components),
            }
            for name in sorted(components)
        ],
    }
    text = json.dumps(content, sort_keys=True)
    number = uuid.uuid5(uuid.NAMESPACE_URL, text)
    content["serialNumber"] = f"urn:uuid:{number}"
    lines = json.dumps(content, indent=2, sort_keys=True) + "\n"
    Path(sys.argv[1]).write_text(lines, encoding="utf-8")
    print(f"{len(listed)} components in {sys.argv[1]}")


def metadata(root: dict[str, Any] | None) -> dict[str, Any]:
    """What the bill is of."""
    facts: dict[str, Any] = {}
    if root is not None:
        facts["component"] = root | {"type": "application"}
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    if seconds:
        facts["timestamp"] = datetime.fromtimestamp(int(seconds), UTC).isoformat()
    return facts


def component(package: Distribution) -> dict[str, Any]:
    """One distribution."""
    name = plain(package.name)
    purl = f"pkg:pypi/{name}@{package.version.replace('+', '%2B')}"
    facts = {
        "type": "library",
        "name": name,
        "version": package.version,
        "purl": purl,
        "bom-ref": purl,
    }
    return facts | licence(package)


def licence(package: Distribution) -> dict[str, Any]:
    """What the metadata say of the licence, if anything."""
    said = package.metadata
    expression = said.get("License-Expression")
    if expression:
        return {"licenses": [{"expression": expression}]}
    trove = [
        line.rpartition(" :: ")[2]
        for line in said.get_all("Classifier") or []
        if line.startswith("License :: ") and line.count(" :: ") > 1
    ]
    name = (said.get("License") or "").strip()
    names = trove or ([name] if name else [])
    short = [
        each for each in names if len(each) <= LONGEST_LICENSE and "\n" not in each
    ]
    if not short:
        return {}
    return {"licenses": [{"license": {"name": each}} for each in dict.fromkeys(short)]}


def needs(package: Distribution, components: dict[str, dict[str, Any]]) -> list[str]:
    """References of the installed distributions that a package asks for."""
    names = set()
    for requirement in package.requires or []:
        match = NAME.match(requirement)
        if match and plain(match[0]) in components:
            names.add(plain(match[0]))
    return [components[name]["bom-ref"] for name in sorted(names)]


def plain(name: str) -> str:
    """A name as package indices write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
