#!/bin/sh
# Makes benchmarks/.venv-xray with the projectors that ours is compared with and trivox (editable), 3.3 GB:
#   benchmarks/.venv-xray/bin/python benchmarks/projector.py
# The oracle tests find RTK there by themselves: pytest -m 'slow or oracle' tests/oracle/test_projector_peers.py
# plastimatch is a Debian package: apt-get install plastimatch.
# DiffDRR asks for 191 packages and nanodrr for 54, most of them for plots; they are given what their renderers import.
set -eu
cd "$(dirname "$0")"
"${PYTHON:-python3}" -m venv .venv-xray
install() { .venv-xray/bin/pip install --quiet --disable-pip-version-check --constraint ../constraints.txt "$@"; }
install torch==2.13.0
install --editable ..
install itk-rtk==2.7.0.post1 jaxtyping roma torchio platformdirs
install --no-deps diffdrr==0.6.1 nanodrr==0.1.7
.venv-xray/bin/python - <<'PY'
from importlib.metadata import version

import diffdrr.renderers, itk, nanodrr.drr  # noqa: E401, F401

print({name: version(name) for name in ("trivox", "itk-rtk", "diffdrr", "nanodrr", "torch")})
PY
