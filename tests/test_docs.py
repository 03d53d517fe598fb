"""The documentation says what the code does."""

import ast
import importlib
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from trivox.version import __version__

ROOT = Path(__file__).parents[1]
FILE = r"`((?:src|tests|docs|scripts|benchmarks|examples|\.github)/[\w./-]+)"
"""A path of the repository in a page's text."""


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


def pages():
    """All pages of the documentation but the first, by their place under docs/."""
    docs = ROOT / "docs"
    return {p.relative_to(docs).as_posix() for p in docs.rglob("*.md")} - {"index.md"}


def test_the_index_links_every_page_once():
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^- \[[^]]+\]\((\S+\.md)\): ", text, re.M)) == sorted(
        pages()
    )


def test_the_navigation_has_every_page_once():
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    named = re.findall(r"'([^']+\.md)'", str(site["project"]["nav"]))
    assert sorted(named) == sorted({*pages(), "index.md"})


def test_files_that_pages_name_are_there():
    written = [
        ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")
    ]
    for page in [*written, *(ROOT / "docs").rglob("*.md")]:
        for name in re.findall(FILE, page.read_text(encoding="utf-8")):
            if "NAME" not in name:  # of what a reader writes
                assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_modules_and_names_in_the_documentation_exist():
    """Imports of Python blocks, and dotted names in the text."""
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and node.module.startswith(
                    "trivox"
                ):
                    module = importlib.import_module(node.module)
                    for alias in node.names:
                        assert hasattr(module, alias.name), (page.name, alias.name)
        for name in re.findall(r"`trivox\.([\w.]+)", text):
            assert exists(f"trivox.{name}"), (page.name, name)


def exists(name):
    """Whether a dotted name is a module, or something that a module holds."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            here = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            here = getattr(here, part, None)
        return here is not None
    return False


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


def test_what_can_go_wrong_names_tests_that_there_are():
    page = (ROOT / "docs" / "explanation" / "what-can-go-wrong.md").read_text()
    named = set(re.findall(r"`([\w/]+\.py)`", page))
    assert len(named) > 40
    missing = [
        n for n in named if not any((ROOT / p / n).exists() for p in ("tests", ""))
    ]
    assert not missing
