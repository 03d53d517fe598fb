"""docs/tutorials/from-pacs-and-back.md: who pastes its commands gets what it promises."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from orthanc_server import free_ports, is_here

pytestmark = [
    pytest.mark.pacs,
    pytest.mark.skipif(
        not is_here(), reason="Orthanc is not installed (make test-pacs installs it)"
    ),
]
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorials" / "from-pacs-and-back.md"
PORTS = ("8042", "4242", "11112")
"""Of the page; tests take free ones."""


def script():
    """All commands of the page that it does not leave to the system's administrator."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    commands = "\n".join(blocks)
    for port, free in zip(PORTS, free_ports(3), strict=True):
        assert port in commands
        commands = commands.replace(port, str(free))
    # a reader's own patience is between the first commands
    return commands.replace("## 2", "")


def test_the_page_does_what_it_says(data_root, tmp_path):
    shutil.copytree(
        data_root / "dicom" / "mr-study" / "11_HCropVolume", tmp_path / "scan"
    )
    program = tmp_path / "bin" / "trivox"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m trivox "$@"\n')
    program.chmod(0o755)
    commands = script()
    (tmp_path / "page.sh").write_text(
        f"set -e -m\ntrap 'kill $(jobs -p)' EXIT\n{commands}"
    )
    environment = os.environ | {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        ["bash", "page.sh"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    modalities = set()
    for file in (tmp_path / "back").rglob("*.dcm"):
        modalities.add(pydicom.dcmread(file, stop_before_pixels=True).Modality)
    assert modalities == {"MR", "SEG", "RTSTRUCT", "SR"}
    assert len(list((tmp_path / "fetched").rglob("*.dcm"))) == 40
    assert "were there" in (tmp_path / "node.txt").read_text()
