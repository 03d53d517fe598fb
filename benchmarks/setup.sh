#!/bin/sh
# Makes benchmarks/.venv with trivox (editable) and its peers, nnU-Net and MONAI, at the versions of README.md.
# nnU-Net and its network package come without their dependencies: those would bring torchvision and timm.
set -eu
cd "$(dirname "$0")"
"${PYTHON:-python3}" -m venv .venv
install() { .venv/bin/pip install --quiet --disable-pip-version-check --constraint ../constraints.txt "$@"; }
install torch==2.13.0
install --editable "..[export]"
install "monai>=1.5,<1.7" einops nvidia-ml-py
install --no-deps nnunetv2==2.8.1 dynamic-network-architectures==0.4.4 batchgenerators==0.25.5 \
  batchgeneratorsv2==0.3.6 acvl_utils==0.2.6 fft-conv-pytorch
install dicom2nifti future graphviz imagecodecs joblib networkx numexpr pandas pillow requests scikit-image \
  scikit-learn seaborn SimpleITK tifffile threadpoolctl tqdm unittest2 yacs connected-components-3d blosc2 nibabel
.venv/bin/python - <<'PY'
from importlib.metadata import version

import nnunetv2.inference.predict_from_raw_data, nnunetv2.training.nnUNetTrainer.nnUNetTrainer  # noqa: E401, F401

print({name: version(name) for name in ("torch", "trivox", "nnunetv2", "monai", "scikit-image")})
PY
