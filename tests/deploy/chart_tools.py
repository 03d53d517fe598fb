"""Run by the Python of `make test-deploy`: renders the chart with Helm's own engine, and
judges manifests by the schemas of Kubernetes and compose files by the compose specification.

    python chart_tools.py CHART COMPOSE... < CASES.json

Each case is `{"values": {...}}`; an answer is `{"manifests": [...]}` or `{"error": "..."}`.
"""

import json
import re
import sys
from pathlib import Path

import helm_python
import kubernetes_validate
import yaml
from compose_spec import PyCompose

RELEASE = {"name": "scan", "namespace": "clinic"}
VERSIONS = ("1.27", "1.31", "1.37")


def main():
    """Answer on standard output."""
    chart, *composes = sys.argv[1:]
    loaded = helm_python.Chart.load(chart)
    answers = [rendered(loaded, case["values"]) for case in json.load(sys.stdin)]
    lint = helm_python.lint(chart, strict=True)
    complaints = {Path(file).name: judged(file) for file in composes}
    facts = {"answers": answers, "lint": lint, "compose": complaints}
    print(json.dumps(facts))


def rendered(chart, values):
    """What Helm makes of values, and what Kubernetes says of it."""
    try:
        chart.validate_schema(chart.merge_values(values))
        files = chart.render(values, **RELEASE)
    except helm_python.HelmError as error:
        return {"error": str(error)}
    manifests = []
    for name, text in files.items():
        if name.endswith(".yaml"):
            manifests += [each for each in yaml.safe_load_all(text) if each]
    return {"manifests": manifests, "complaints": complaints(manifests)}


def complaints(manifests):
    """What the schemas of several versions find wrong."""
    said = []
    for manifest in manifests:
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                said.append(f"{version} {manifest['kind']}: {error.message}")
    return said


def judged(file):
    """What the compose specification finds wrong, blank for nothing."""
    text = Path(file).read_text(encoding="utf-8")
    text = re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", text)  # variables as their defaults
    try:
        # this loader knows merge keys, the parser that judges does not
        spec = PyCompose.from_yaml(yaml.safe_dump(yaml.safe_load(text)))
        spec.validate()
    except Exception as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main()
