"""docs/reference/schemas: current, valid, and what our files fit."""

import importlib.util
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from json_schemas import ENDING, SCHEMAS, complaints, schema

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.name.removesuffix(ENDING) for path in SCHEMAS.iterdir())


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(
        "schemas", ROOT / "scripts" / "schemas.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_schemas_are_those_of_the_models(script):
    made = {name: script.text_of(each) for name, each in script.all_schemas().items()}
    assert sorted(made) == NAMES, "run: scripts/schemas.py"
    for name, text in made.items():
        written = (SCHEMAS / f"{name}{ENDING}").read_text(encoding="utf-8")
        assert written == text, f"{name}: run: scripts/schemas.py"


def objects(part):
    if isinstance(part, dict):
        yield part
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from objects(each)


@pytest.mark.parametrize("name", NAMES)
def test_every_schema_is_one_and_lets_later_fields_pass(name):
    content = schema(name)
    Draft202012Validator.check_schema(content)
    assert content["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert content["$id"] == f"urn:trivox:schema:{name}"
    assert "description" in content or "anyOf" in content
    assert all(
        part.get("additionalProperties") is not False for part in objects(content)
    )


def test_a_schema_refuses_what_is_wrong():
    assert complaints("error", {"task": None, "format_version": 1, "verb": "check"})
    assert complaints("check", {"task": None, "format_version": 1, "verb": "plan"})
    assert complaints("check-file", {"task": None, "format_version": 2})


def test_what_people_write_fits_its_schema(tiny_data):
    manifest = json.loads((tiny_data / "manifest.json").read_text(encoding="utf-8"))
    assert complaints("manifest-file", manifest) == []
    known = (ROOT / "src" / "trivox" / "results" / "codes.json").read_text("utf-8")
    assert complaints("codes-file", json.loads(known)) == []


def test_lines_of_a_training_fit_their_schema(tiny_run):
    lines = (tiny_run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines
    for line in lines:
        assert complaints("metrics-line", json.loads(line)) == []


@pytest.mark.slow
def test_files_of_a_reconstruction_fit_their_schemas(xray_run, xray_data):
    files = {
        "bundle": xray_run / "bundle" / "bundle.json",
        "check": xray_run / "check.json",
        "dataset": xray_run / "dataset.json",
        "geometry": next(xray_data.glob("patients/*/geometry.json")),
        "metrics": xray_run / "validation" / "metrics.json",
        "plan": xray_run / "plan.json",
        "recipe": xray_run / "recipe.json",
    }
    for name, file in files.items():
        assert complaints(f"{name}-file", json.loads(file.read_text())) == []
