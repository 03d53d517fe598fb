"""What holds the house together: one direction, no circles, ceilings that only fall."""

import ast
import importlib.util
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import get_args

import pytest

from trivox.config.choices import TaskName
from trivox.tasks.choice import PRETRAINING

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "trivox"
SOURCES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in SOURCES]
each_module = pytest.mark.parametrize("path", SOURCES, ids=NAMES)

TASK_NAMES = {*get_args(TaskName), PRETRAINING.name}
KNOW_TASKS = ("tasks", "config", "verbs")
"""Rooms that may name a task."""


def structure_script():
    loader = SourceFileLoader("structure", str(ROOT / "scripts" / "structure"))
    spec = importlib.util.spec_from_loader("structure", loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules["structure"] = module
    loader.exec_module(module)
    return module


structure = structure_script()
MODULES = structure.read_package()
FIGURES = structure.figures(MODULES)


def syntax(path):
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


# -- rooms -----------------------------------------------------------------------------
def test_imports_point_one_way_and_never_in_a_circle():
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_room_is_in_the_list_of_layers():
    layers = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for path in PACKAGE.iterdir():
        name = path.stem
        is_room = (path / "__init__.py").exists() or path.suffix == ".py"
        if is_room and not name.startswith("__"):
            assert f'"trivox.{name}"' in layers, name


def test_rooms_have_no_faces():
    """A name is imported from the module that defines it: `__init__` only says what the
    room is for. The package itself and the command line are what users see.
    """
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent in (PACKAGE, PACKAGE / "cli"):
            continue
        (only,) = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(only, ast.Expr), path
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def literals(path):
    """Strings of a module that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    alone = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in alone:
            continue
        if isinstance(node.value, str):
            yield node.value


@each_module
def test_only_tasks_settings_and_verbs_know_a_task_by_name(path):
    if path.name == "folders.py":  # a folder of label maps may be called so
        return
    room = path.relative_to(PACKAGE).parts[0]
    if room not in KNOW_TASKS:
        assert not TASK_NAMES & set(literals(path))


def test_tests_mirror_the_rooms():
    rooms = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    tested = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert rooms <= tested


# -- ceilings --------------------------------------------------------------------------
@pytest.mark.parametrize("figure", structure.CEILINGS)
def test_figures_stay_under_their_ceilings(figure):
    assert FIGURES[figure] <= structure.CEILINGS[figure]


def test_the_figures_measure_what_they_say():
    text = '''"""Text."""

def f(x):
    """Text that does not count."""
    a, b = x, 1  # neither does this
    found = [y for row in x for y in row]

    return 1 if a else 2 if b else found
'''
    module = structure.Module(Path("m.py"), "m", text)
    assert module.code_lines == 4
    assert module.nested == [6]
    assert structure.function_lines(module.functions[0]) == 6
    remarks = {remark.what for remark in module.remarks()}
    assert remarks == {
        "nested comprehension",
        "a, b = x, y",
        "a variable called found",
        "conditional within a conditional",
    }
    swapped = ast.parse("a, b = b, a").body[0]
    assert not structure.is_double_assignment(swapped)
    branches = "def g(x):\n    for y in x:\n        if y:\n            return y\n"
    assert structure.complexity(ast.parse(branches).body[0]) == 3


def test_circles_are_found():
    texts = {"p.a": "import p.b", "p.b": "from p import a", "p.c": "import p.a"}
    modules = [structure.Module(Path("x"), *each) for each in texts.items()]
    assert structure.circles(modules) == [["p.a", "p.b"]]


# -- safety ----------------------------------------------------------------------------
def loaded_by(code):
    """Top-level packages that are in `sys.modules` after running `code`."""
    script = f"import sys; {code}; print(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_package_and_its_command_line_load_nothing_heavy():
    heavy = {
        "torch",
        "numpy",
        "scipy",
        "sklearn",
        "SimpleITK",
        "nibabel",
        "pydantic",
        "matplotlib",
        "pydicom",
    }
    assert not loaded_by("import trivox, trivox.cli") & heavy


FORBIDDEN_CALLS = ("eval", "exec", "os.system", "__import__")
FORBIDDEN_IMPORTS = {
    "pickle",
    "dill",
    "joblib",
    "shelve",
    "marshal",
    "monai",
    "torchvision",
    "timm",
}
READ_THE_ENVIRONMENT = {"runtime.py", "caches.py", "secret.py", "variables.py"}
NOT_EVERYWHERE = {"resource", "fcntl", "pwd", "grp", "termios"}
"""Modules that Windows does not have."""


@each_module
def test_no_module_executes_data_or_reads_the_environment(path):
    """No eval, no exec, no pickle, weights_only everywhere; only torchrun's variables
    are read, in `runtime`, where the system keeps caches, secrets of archives, and those
    of containers.
    """
    for node in syntax(path):
        if isinstance(node, ast.Attribute) and path.name not in READ_THE_ENVIRONMENT:
            assert node.attr not in ("environ", "getenv", "putenv")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert name not in FORBIDDEN_CALLS
            assert name != "torch.load" or options.get("weights_only") == "True"
            assert not name.startswith("subprocess.") or "shell" not in options


def imported(nodes):
    packages = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            packages.add(node.module.split(".")[0])
    return packages


@each_module
def test_forbidden_packages_are_imported_nowhere(path):
    packages = imported(syntax(path))
    if path.name == "rivals.py":  # MONAI's networks, when one of them is built
        packages.discard("monai")
    assert not packages & FORBIDDEN_IMPORTS


@each_module
def test_every_module_can_be_imported_on_windows(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not imported(tree.body) & NOT_EVERYWHERE


def test_runtime_reads_the_variables_of_torchrun_alone():
    names = {
        node.args[0].value
        for node in syntax(PACKAGE / "learning" / "runtime.py")
        if isinstance(node, ast.Call) and "environ" in ast.unparse(node.func)
    }
    assert names <= {"LOCAL_RANK", "RANK", "WORLD_SIZE"}
