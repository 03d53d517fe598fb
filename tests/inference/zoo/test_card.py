"""A card is data that people read: it changes no answer and no older file."""

import json

import pytest

from releases import CARD, described
from trivox.errors import BundleError
from trivox.inference.bundle import read_any_bundle
from trivox.inference.descriptions import digest_of
from trivox.inference.zoo.card import Card
from untrained_models import write_untrained


@pytest.fixture
def bundle(tmp_path):
    return write_untrained(tmp_path / "model")


def test_a_card_counts_in_no_identity_and_no_digest(bundle):
    plain = read_any_bundle(bundle).description
    carded = read_any_bundle(described(bundle, card=CARD)).description
    assert carded.card == Card.model_validate(CARD)
    assert carded.identity == plain.identity
    assert digest_of([carded]) == digest_of([plain])


def test_bundles_without_a_card_are_written_and_read_as_before(bundle):
    content = json.loads((bundle / "bundle.json").read_text())
    assert "card" not in content
    assert read_any_bundle(bundle).description.card is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"licence": ""}, "card.licence"),
        ({"failure_modes": []}, "card.failure_modes"),
        ({"metrics": []}, "card.metrics"),
        ({"metrics": [{**CARD["metrics"][0], "ci95": [0.6, 0.7]}]}, "card.metrics.0"),
        ({"metrics": [{**CARD["metrics"][0], "cases": 0}]}, "card.metrics.0.cases"),
        ({"invented": 1}, "card.invented"),
    ],
)
def test_a_card_that_says_too_little_or_what_cannot_be_is_refused(bundle, change, said):
    described(bundle, card={**CARD, **change})
    with pytest.raises(BundleError, match=said):
        read_any_bundle(bundle)
