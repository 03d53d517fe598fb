"""The image: its Dockerfile, its steps, and what runs in it."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from container_inputs import scan
from locked_down import locked
from trivox.version import __version__

MINUTES = 40
POSIX = pytest.mark.skipif(os.name == "nt", reason="a shell script")


def instructions(file):
    """Instruction and arguments of each line, continued lines joined."""
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    return [line.split(maxsplit=1) for line in lines if not line.startswith("#")]


def stages(file):
    """Name of a stage -> its instructions."""
    by_name = {}
    for what, arguments in instructions(file):
        if what == "FROM":
            base, _, name = arguments.partition(" AS ")
            by_name[name] = [("FROM", base)]
        elif by_name:
            by_name[name].append((what, arguments))
    return by_name


def inherited(all_stages, name):
    """Instructions of a stage and of those that it begins with."""
    lines = all_stages[name]
    base = lines[0][1]
    before = inherited(all_stages, base) if base in all_stages else []
    return before + lines[1:]


def steps_of(lines):
    """Steps and numbers of arguments of the calls of build-steps.sh."""
    for what, arguments in lines:
        if what == "RUN":
            _, step, *given = json.loads(arguments)
            yield step, len(given)


@pytest.fixture(scope="module")
def built(deploy):
    return stages(deploy / "Dockerfile")


@pytest.fixture(scope="module")
def signatures(deploy):
    """Steps of build-steps.sh -> how many arguments they take, from what it says."""
    text = (deploy / "image" / "build-steps.sh").read_text()
    lines = re.findall(r"^#   build-steps\.sh (\w+)((?: [A-Z]+)*)", text, re.MULTILINE)
    return {name: len(arguments.split()) for name, arguments in lines}


def test_hadolint_finds_nothing(deploy, linted):
    linted("hadolint", deploy / "Dockerfile")


def test_shellcheck_finds_nothing(deploy, linted):
    linted("shellcheck", *deploy.rglob("*.sh"))


def test_only_the_scripts_build(built, signatures):
    """All that happens in a build can be run without Docker."""
    for lines in built.values():
        for step, count in steps_of(lines):
            assert signatures[step] == count


def test_apptainer_runs_the_same_steps(deploy, built, signatures):
    text = (deploy / "trivox.def").read_text()
    calls = re.findall(r"^    \$steps (\w+)(.*)$", text, re.MULTILINE)
    docker = [step for step, _ in steps_of(inherited(built, "wheel"))]
    docker += [step for step, _ in steps_of(inherited(built, "train-packages"))]
    assert [step for step, _ in calls] == list(dict.fromkeys(docker))
    for step, arguments in calls:
        assert len(re.sub(r"\{\{.*?\}\}", "x", arguments).split()) == signatures[step]


def test_apptainer_copies_what_docker_copies(deploy, root, built):
    text = (deploy / "trivox.def").read_text()
    section = re.search(r"%files\n(.*?)\n\n", text, re.DOTALL)[1]
    copied = {line.split()[0].rstrip("/") for line in section.splitlines()}
    assert copied == context_files(built)
    assert all((root / name).exists() for name in copied)


def context_files(built):
    """What the Dockerfile copies from the checkout."""
    names = set()
    for lines in built.values():
        for what, arguments in lines:
            if what == "COPY" and not arguments.startswith("--from"):
                names |= {name.rstrip("/") for name in arguments.split()[:-1]}
    return names


def test_what_is_copied_is_there_and_not_ignored(deploy, root, built):
    lines = (deploy / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert context_files(built) == allowed
    assert all((root / name).exists() for name in allowed)


def test_extras_that_are_installed_exist(built, root):
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    known = {*project["optional-dependencies"]}
    for name in ("predict", "train", "serve"):
        (extras,) = [
            json.loads(arguments)[-1]
            for what, arguments in built[f"{name}-packages"]
            if what == "RUN"
        ]
        assert {*extras.split(",")} <= known


@pytest.mark.parametrize("target", ["predict", "train", "serve"])
def test_images_run_without_rights_in_exec_form(built, target):
    lines = inherited(built, target)
    names = [what for what, _ in lines]
    assert dict(lines)["USER"] == "10001:10001"
    after = names[len(names) - names[::-1].index("USER") :]
    assert not {"RUN", "ADD", "USER"} & {*after}
    assert "ADD" not in names
    assert isinstance(json.loads(dict(lines)["ENTRYPOINT"]), list)
    health = dict(lines)["HEALTHCHECK"]
    assert ("healthcheck.py" in health) == (target == "serve")
    labels = dict(lines)["LABEL"]
    for label in ("title", "version", "licenses", "source", "revision"):
        assert f"org.opencontainers.image.{label}=" in labels


def test_images_write_nowhere_but_where_they_may(built):
    (variables,) = (text for what, text in built["run"] if what == "ENV")
    places = dict(pair.split("=", 1) for pair in variables.split())
    for name in ("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
        assert places[name].startswith("/tmp")
    assert places["PYTHONDONTWRITEBYTECODE"] == "1"


# -- the bill of materials -------------------------------------------------------------
@pytest.fixture(scope="module")
def sbom(deploy, tmp_path_factory):
    """The bill of what is installed here."""
    folder = tmp_path_factory.mktemp("sbom")
    for name in ("one", "two"):
        subprocess.run(
            [sys.executable, deploy / "image" / "sbom.py", folder / name],
            check=True,
            capture_output=True,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        )
    assert (folder / "one").read_bytes() == (folder / "two").read_bytes()
    return json.loads((folder / "one").read_text())


def test_the_bill_names_every_installed_package(sbom):
    # in a process of its own: setuptools, once imported, shows what it carries for itself
    code = "import importlib.metadata as m; print(*{d.name for d in m.distributions()})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in done.stdout.split()}
    listed = [component["name"] for component in sbom["components"]]
    assert listed == sorted(names - {"trivox"})
    assert {"torch", "numpy"} <= {*listed}
    assert sbom["metadata"]["component"]["name"] == "trivox"
    assert sbom["metadata"]["timestamp"].startswith("2023-11-14T22:13:20")


def test_references_of_the_bill_lead_somewhere(sbom):
    references = {component["bom-ref"] for component in sbom["components"]}
    references.add(sbom["metadata"]["component"]["bom-ref"])
    assert len(references) == len(sbom["components"]) + 1
    by_name = {entry["ref"]: entry["dependsOn"] for entry in sbom["dependencies"]}
    assert by_name.keys() == references
    for needed in by_name.values():
        assert {*needed} <= references
    trivox = by_name[sbom["metadata"]["component"]["bom-ref"]]
    assert any(reference.startswith("pkg:pypi/torch@") for reference in trivox)
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", sbom["serialNumber"])


# -- the server's start ----------------------------------------------------------------
@pytest.fixture
def start(deploy, tmp_path):
    """Runs serve.sh with a trivox that says how it was called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    fake = programs / "trivox"
    fake.write_text('#!/bin/sh\nfor each in "$@"; do echo "$each"; done\n')
    fake.chmod(0o755)
    token = tmp_path / "token"
    token.write_text("x" * 32)
    (tmp_path / "models").mkdir()

    def run(*arguments, **variables):
        usual = {
            "TRIVOX_TOKEN_FILE": str(token),
            "TRIVOX_MODEL_FOLDER": str(tmp_path / "models"),
            "PATH": f"{programs}:{os.environ['PATH']}",
        }
        command = [deploy / "image" / "serve.sh", *arguments]
        done = subprocess.run(
            command, env=usual | variables, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout.splitlines(), done.stderr

    return run


@POSIX
def test_every_folder_of_models_is_served(start, tmp_path):
    for name in ("liver", "brain tumour"):
        (tmp_path / "models" / name).mkdir()
    (tmp_path / "models" / "README").write_text("no model")
    code, said, _ = start("--keep-hours", "2", TRIVOX_ALLOW_HOSTS="a.example b")
    assert code == 0
    assert said[0] == "serve"
    models = {str(tmp_path / "models" / name) for name in ("liver", "brain tumour")}
    assert models <= {*said}
    assert not any("README" in each for each in said)
    pairs = [*pairwise(said)]
    for pair in [
        ("--keep-hours", "2"),
        ("--allow-host", "a.example"),
        ("--allow-host", "b"),
        ("--host", "0.0.0.0"),
        ("--state", "/data"),
        ("--token-file", str(tmp_path / "token")),
    ]:
        assert pair in pairs


@POSIX
def test_models_are_named(start):
    variables = {"TRIVOX_SCANS": "/scans", "TRIVOX_JOB_MEMORY_GB": "12"}
    code, said, _ = start(TRIVOX_MODELS="/m/a hippocampus", **variables)
    assert code == 0
    assert {"/m/a", "hippocampus"} <= {*said}
    assert ("--data", "/scans") in [*pairwise(said)]
    assert ("--job-memory-gb", "12") in [*pairwise(said)]


@POSIX
def test_no_server_starts_without_a_token_or_a_model(start, tmp_path):
    code, said, error = start(TRIVOX_TOKEN_FILE=str(tmp_path / "none"))
    assert (code, said) == (2, [])
    assert "no token there" in error
    code, said, error = start()
    assert (code, said) == (2, [])
    assert "no model" in error


def test_the_server_has_every_option_that_it_is_started_with(deploy):
    from typer.main import get_command

    from trivox.cli import app

    command = get_command(app).commands["serve"]
    known = {name for option in command.params for name in option.opts}
    chart = deploy / "helm" / "trivox"
    texts = [
        (deploy / "image" / "serve.sh").read_text(),
        (chart / "templates" / "statefulset.yaml").read_text(),
    ]
    used = {name for text in texts for name in re.findall(r" (--[a-z-]+)", text)}
    assert {"--state", "--token-file", "--keep-hours", "--tls-key"} <= used
    assert used <= known
    schema = json.loads((chart / "values.schema.json").read_text())
    arguments = schema["properties"]["serve"]["properties"]["extraArgs"]["items"]
    (pattern,) = arguments["not"].values()
    refused = re.search(r"\((.*?)\)", pattern)[1].split("|")
    assert {f"--{name}" for name in refused} <= known


def test_the_autoscaler_asks_for_a_figure_that_the_server_has(deploy):
    import yaml

    from trivox.service.serve.api import metrics

    values = yaml.safe_load((deploy / "helm" / "trivox" / "values.yaml").read_text())
    metric = values["autoscaling"]["metric"]
    source = Path(metrics.__file__).read_text()
    assert f'"{metric["name"]}"' in source
    for label in metric["selector"]:
        assert f'labels=["{label}"]' in source


@pytest.fixture
def server():
    """A server that answers with a status."""

    class Handler(BaseHTTPRequestHandler):
        status = 200

        def do_GET(self):
            self.send_response(self.status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield Handler, listening.server_port
    listening.shutdown()
    listening.server_close()
    thread.join()


def test_health_is_what_the_server_answers(deploy, server, monkeypatch):
    file = deploy / "image" / "healthcheck.py"
    handler, port = server
    monkeypatch.setenv("TRIVOX_PORT", str(port))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    spec = importlib.util.spec_from_file_location("healthcheck", file)
    health = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(health)
    assert health.main() == 0
    handler.status = 503
    assert health.main() == 1
    monkeypatch.setenv("TRIVOX_HEALTH_URL", "http://127.0.0.1:1/healthz")
    assert health.main() == 1


# -- the steps themselves --------------------------------------------------------------
@pytest.fixture
def open_folder():
    """A folder that any user may look into."""
    with TemporaryDirectory(prefix="trivox-image-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def build(script, root, environment):
    """Run the steps of the image `predict` in a fresh environment; what the last said."""
    wheels = environment.with_name("wheels")
    constraints = root / "constraints.txt"
    # what pip has here in place of PyTorch's own index
    variables = {**os.environ, "TORCH_INDEX": "", "PYTHONPATH": ""}
    for step in (
        ["system"],
        ["wheel", root, wheels],
        ["torch", environment, constraints],
        ["trivox", environment, constraints, wheels, "dicom,openvino"],
    ):
        done = subprocess.run(
            [script, *step],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=MINUTES * 60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def predict_locked(environment, root, folder):
    """Predict as the image's user, on a read-only file system, without network."""
    scan(folder / "in" / "case.nii.gz", 0)
    out = folder / "out"
    out.mkdir()
    out.chmod(0o777)
    places = [f"{name}={out}/.{name}" for name in ("HOME", "XDG_CACHE_HOME")]
    places += [f"MPLCONFIGDIR={out}/.mpl", f"TMPDIR={out}"]
    program = [environment / "bin" / "trivox", "predict", root / "models/hippocampus"]
    command = ["env", *places, *program, folder / "in"]
    done = locked([*command, "--out", out, "--device", "cpu"], writable=out, user=10001)
    assert done.returncode == 0, done.stderr
    assert (out / "case.nii.gz").is_file()


@pytest.mark.slow
@POSIX
def test_the_steps_build_a_trivox_that_predicts(deploy, root, open_folder):
    environment = open_folder / "trivox"
    script = deploy / "image" / "build-steps.sh"
    assert build(script, root, environment)[-1] == __version__
    content = json.loads((environment / "sbom.cdx.json").read_text())
    names = {each["name"] for each in content["components"]}
    assert {"torch", "highdicom", "openvino"} <= names
    assert not {"torchvision", "timm"} & names
    predict_locked(environment, root, open_folder)
