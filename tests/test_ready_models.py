"""The models of the release are what their cards and the index say, and answer no worse
than they did: `tests/golden/ready_models.json` holds the least that each case may score,
as it was measured in fp32 on a CPU when the model was released, less a margin for the
rounding of other processors.
"""

import json

import pytest

from golden_models import (
    FILE,
    SHELF,
    brains,
    chests,
    hippocampi,
    label_scores,
    volume_scores,
)
from trivox.inference.bundle import read_any_bundle
from trivox.inference.zoo.release import INDEX, Index, index_of
from trivox.inference.zoo.shelves import RELEASED

LARGEST_BYTES = 8_000_000
each_model = pytest.mark.parametrize("name", RELEASED)


def require_no_less(scores, model):
    """Every score of a model is at least the stored one."""
    stored = json.loads(FILE.read_text(encoding="utf-8"))[model]
    assert scores.keys() == stored.keys()
    assert {name: scores[name] for name in stored if scores[name] < stored[name]} == {}


def test_hippocampus_is_no_worse_on_real_scans(data_root):
    scores = label_scores("hippocampus", hippocampi(data_root))
    require_no_less(scores, "hippocampus")


def test_brain_phantom_is_no_worse_on_brains_that_it_never_saw(tmp_path):
    require_no_less(label_scores("brain-phantom", brains(tmp_path)), "brain-phantom")


def test_xray_phantom_is_no_worse_on_chests_that_it_never_saw(tmp_path):
    require_no_less(volume_scores("xray-phantom", chests(tmp_path)), "xray-phantom")


@each_model
def test_a_released_model_is_small_and_has_a_whole_card(name):
    bundle = read_any_bundle(SHELF / name)
    files = bundle.checked(bundle.description.files)
    assert sum(file.stat().st_size for file in files) <= LARGEST_BYTES
    card = bundle.description.card
    assert card is not None
    assert card.attribution
    assert card.provenance
    assert all(figure.cases >= 10 for figure in card.metrics)


def test_the_index_is_that_of_the_files():
    written = Index(**json.loads((SHELF / INDEX).read_text(encoding="utf-8")))
    assert written == index_of(SHELF)
    assert tuple(model.name for model in written.models) == RELEASED
