"""docs/how-to/extending: what each page begins with works, and its files are there."""

import re
from pathlib import Path

import pytest

from trivox.cli import app
from trivox.datasets.layouts.choice import LAYOUTS
from trivox.evaluation.conventions.choice import CONVENTIONS
from trivox.learning.losses.choice import LOSSES
from trivox.networks.registry import NETWORKS, PATCH_NETWORKS
from trivox.tasks.choice import TASKS

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "how-to" / "extending").glob("*.md"))
FOLDERS = "src|tests|docs|scripts|benchmarks|examples"
PATH = re.compile(rf"`((?:{FOLDERS})/[^`\s]*|[A-Z]+\.md)`")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@pytest.fixture
def restored():
    """Registries as they were before the test, whatever it adds to them."""
    registries = (NETWORKS, PATCH_NETWORKS, LOSSES, LAYOUTS, CONVENTIONS, TASKS)
    before = [dict(registry) for registry in registries]
    commands = list(app.registered_commands)
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)
    app.registered_commands[:] = commands


def first_block(page):
    return re.search(
        r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S
    )[1]


@each_page
def test_a_page_starts_with_lines_that_work(page, tmp_path, monkeypatch, restored):
    monkeypatch.chdir(tmp_path)
    code = compile(first_block(page), str(page), "exec")
    exec(code, {"__name__": "example"})


@each_page
def test_a_page_starts_with_its_example(page):
    title, _, rest = page.read_text(encoding="utf-8").partition("\n")
    assert title.startswith("# Add a")
    assert rest.lstrip().startswith("```python")


@each_page
def test_the_files_that_a_page_names_are_there(page):
    names = PATH.findall(page.read_text(encoding="utf-8"))
    assert names
    for name in names:
        if "NAME" not in name:  # the module to write
            assert (ROOT / name).exists(), name


def test_there_is_a_page_for_each_seam():
    seams = {"network", "loss", "layout", "convention", "task", "verb"}
    assert {page.stem.removeprefix("add-a-") for page in PAGES} == seams
