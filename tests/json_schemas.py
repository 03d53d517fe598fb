"""The committed schemas, and what they say of a document."""

import json
from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).parents[1] / "docs" / "reference" / "schemas"
ENDING = ".schema.json"


@cache
def schema(name):
    """A committed schema."""
    return json.loads((SCHEMAS / f"{name}{ENDING}").read_text(encoding="utf-8"))


def complaints(name, document):
    """What is wrong with a document by a committed schema."""
    errors = Draft202012Validator(schema(name)).iter_errors(document)
    return [f"{each.json_path}: {each.message[:200]}" for each in errors]
