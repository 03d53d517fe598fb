import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "trivox").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT / "src" / "trivox")) for path in SOURCES]
each_module = pytest.mark.parametrize("path", SOURCES, ids=NAMES)


def loaded_by(code):
    """Top-level packages that are in `sys.modules` after running `code`, and the CPU
    seconds it took.
    """
    script = f"import time, sys, json; s = time.process_time(); {code}\n"
    script += "print(json.dumps([sorted({m.split('.')[0] for m in sys.modules}), time.process_time() - s]))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    modules, seconds = json.loads(done.stdout.splitlines()[-1])
    return set(modules), seconds


def test_imports_point_one_way():
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_and_its_command_line_load_nothing_heavy():
    modules, seconds = loaded_by("import trivox, trivox.cli")
    assert not modules & {
        "torch",
        "numpy",
        "scipy",
        "SimpleITK",
        "nibabel",
        "pydantic",
        "matplotlib",
        "pydicom",
    }
    assert seconds < 0.5


@each_module
def test_modules_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@each_module
def test_no_module_executes_data_or_reads_the_environment(path):
    """No eval, no exec, no pickle, weights_only everywhere; only torchrun's variables
    are read, in `runtime`.
    """
    imported, found = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.split(".")[0])
        if isinstance(node, ast.Attribute) and node.attr in (
            "environ",
            "getenv",
            "putenv",
        ):
            found.add("environment")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in ("eval", "exec", "os.system", "__import__"):
                found.add(name)
            if name == "torch.load":
                options = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert options.get("weights_only") == "True"
            if name.startswith("subprocess."):
                assert all(k.arg != "shell" for k in node.keywords)
    if path.name == "rivals.py":  # MONAI's networks, imported when one of them is built
        imported.discard("monai")
    assert not imported & {
        "pickle",
        "dill",
        "joblib",
        "shelve",
        "marshal",
        "monai",
        "torchvision",
        "timm",
    }
    allowed = {"environment"} if path.name == "runtime.py" else set()
    assert found <= allowed


def test_runtime_reads_the_variables_of_torchrun_alone():
    text = (ROOT / "src" / "trivox" / "learning" / "runtime.py").read_text(
        encoding="utf-8"
    )
    names = {
        node.args[0].value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and "environ" in ast.unparse(node.func)
    }
    assert names <= {"LOCAL_RANK", "RANK", "WORLD_SIZE"}


def test_functions_are_short():
    """The design's aim: median about 9 lines, 95 % at most 35."""
    lengths = sorted(
        node.end_lineno - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    )
    assert lengths[len(lengths) // 2] <= 12
    assert lengths[int(0.95 * len(lengths))] <= 35


def test_tests_mirror_the_rooms():
    rooms = {
        path.name
        for path in (ROOT / "src" / "trivox").iterdir()
        if (path / "__init__.py").exists()
    }
    tested = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert rooms <= tested
