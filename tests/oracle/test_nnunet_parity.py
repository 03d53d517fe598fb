"""Imported models give nnU-Net's labels: folders as its own planners write them, random
weights, nnU-Net in a process of its own (`benchmarks/nnunet_parity.py`; needs
`benchmarks/.venv`, which `benchmarks/setup.sh` makes).
"""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "nnunet_parity.py"
REFUSED = ("own-resampling", "own-preprocessor", "cubic-answers")


def load_script():
    spec = importlib.util.spec_from_file_location("nnunet_parity", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


parity = load_script()
pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(
        not parity.PEERS.exists(),
        reason=f"{parity.PEERS} is missing: nnU-Net is made by benchmarks/setup.sh",
    ),
]


def require_parity(rows):
    for name, result in parity.compare(rows, parity.PEERS).items():
        assert bool(result.refused) == (name in REFUSED), f"{name}: {result}"
        assert result.passes, f"{name}: {result}"
        assert result.refused or result.labels >= 2, f"{name}: {result}"


def test_a_cascade_on_turned_voxels_is_nnunets():
    require_parity({"PIR-cascade": parity.all_rows()["PIR-cascade"]})


@pytest.mark.slow
def test_labels_are_nnunets_for_each_kind_of_model():
    require_parity(parity.quick_rows())


@pytest.mark.slow
def test_what_differs_in_one_thing_from_the_default_is_nnunets_or_refused():
    require_parity(parity.special_rows())
