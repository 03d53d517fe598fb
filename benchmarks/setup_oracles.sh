#!/bin/sh
# Makes benchmarks/.venv-oracles with trivox (editable), pytest and the official packages of the BraTS metrics:
#   benchmarks/.venv-oracles/bin/python -m pytest tests/oracle/test_brats_metrics.py
#   benchmarks/.venv-oracles/bin/python benchmarks/brats_metrics.py
# The official script of 2023 is no package; to write the golden file again, fetch eval.py from
# github.com/rachitsaluja/BraTS-2023-Metrics and run
#   .venv-oracles/bin/python ../tests/brats_oracles.py eval.py ../tests/golden/brats_metrics.json
set -eu
cd "$(dirname "$0")"
"${PYTHON:-python3}" -m venv .venv-oracles
install() { .venv-oracles/bin/pip install --quiet --disable-pip-version-check --constraint ../constraints.txt "$@"; }
install torch==2.13.0
install --editable ..
install panoptica==2.1.7 brats-evaluation==0.0.10 surface-distance==0.1 medpy==0.5.2 pytest hypothesis
.venv-oracles/bin/python - <<'PY'
from importlib.metadata import version

import brats_evaluation, medpy.metric.binary, panoptica, surface_distance  # noqa: E401, F401

print({name: version(name) for name in ("trivox", "panoptica", "brats-evaluation", "surface-distance", "medpy", "numpy")})
PY
