"""The values of the Helm chart: those that make sense are allowed, others refused."""

import json

import jsonschema
import pytest
import yaml

from chart_cases import CASES, WRONG
from trivox.version import __version__

GOOD = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def values(chart):
    return yaml.safe_load((chart / "values.yaml").read_text())


def merged(below, above):
    """One tree of values over another, as Helm lays them: None takes away."""
    result = dict(below)
    for name, value in above.items():
        if isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = merged(result[name], value)
        elif value is None:
            result.pop(name, None)
        else:
            result[name] = value
    return result


@pytest.fixture(scope="module")
def valid(chart, values):
    """Whether values are those that the schema allows."""
    schema = json.loads((chart / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    return lambda given: validator.is_valid(merged(values, given))


@GOOD
def test_values_that_make_sense_are_allowed(valid, case):
    assert valid(CASES[case])


@pytest.mark.parametrize("case", WRONG)
def test_values_that_make_none_are_refused(valid, case):
    assert not valid(WRONG[case])


def test_every_value_is_described(chart, values):
    schema = json.loads((chart / "values.schema.json").read_text())

    def unknown(given, described, place=()):
        properties = described.get("properties")
        if properties is None or not isinstance(given, dict):
            return
        for name, value in given.items():
            if name not in properties:
                yield (*place, name)
            else:
                yield from unknown(value, properties[name], (*place, name))

    assert list(unknown(values, schema)) == []


def test_the_chart_is_of_this_version(chart):
    facts = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert facts["appVersion"] == __version__
