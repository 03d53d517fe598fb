"""The documentation says what the code does."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from trivox.version import __version__

ROOT = Path(__file__).parents[1]


def reference_script():
    spec = importlib.util.spec_from_file_location(
        "reference", ROOT / "scripts" / "reference.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["commands", "python", "recipe"])
def test_reference_pages_are_current(page):
    script = reference_script()
    written = (script.DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert written == getattr(script, f"{page}_page")(), "run: scripts/reference.py"


def test_every_setting_is_described():
    from trivox.config.recipe import Recipe

    assert [
        name for name, field in Recipe.model_fields.items() if not field.description
    ] == []


def test_links_between_pages_lead_somewhere():
    for page in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
    ]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (
                f"{page.name} links to {target}, which is not there"
            )


def test_readme_names_every_verb_and_make_target():
    from trivox.cli import app

    readme = (ROOT / "README.md").read_text()
    for command in app.registered_commands:
        assert f"trivox {command.callback.__name__}" in readme
    assert "make demo" in readme
    assert "make test" in readme


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == "MIT"
