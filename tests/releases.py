"""Releases of models, for tests that fetch them."""

import json
import shutil

from trivox.inference.zoo.release import index_of
from untrained_models import write_untrained

CARD = {
    "summary": "A network that was never trained.",
    "data": "none",
    "licence": "MIT",
    "attribution": ["nobody"],
    "provenance": {"made by": "a test"},
    "intended_use": "tests",
    "failure_modes": ["always"],
    "measured_on": "nothing",
    "metrics": [
        {
            "target": "a",
            "metric": "dice",
            "mean": 0.5,
            "ci95": [0.4, 0.6],
            "cases": 3,
        }
    ],
}
NAME = "small-one"


def described(bundle, **changes):
    """A bundle whose description says something else."""
    file = bundle / "bundle.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, **changes}), encoding="utf-8")
    return bundle


def write_index(release):
    """Write the index of a release, again."""
    content = index_of(release).model_dump(mode="json")
    (release / "index.json").write_text(json.dumps(content), encoding="utf-8")
    return release


def write_release(folder):
    """A release with one model, `small-one`, whose network was never trained."""
    bundle = described(write_untrained(folder / "made"), card=CARD)
    release = folder / "release"
    shutil.copytree(bundle, release / NAME)
    return write_index(release)
