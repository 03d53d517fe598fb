"""The server beside an archive on one machine: what compose.yaml starts, and its secrets."""

import json
import os
import shutil
import subprocess

import pytest
import yaml

from trivox.service.profiles import read_profiles
from trivox.service.rules import read_rules

SERVICES = ("serve", "watch", "orthanc")
each_service = pytest.mark.parametrize("name", SERVICES)
LOOPBACK = "127.0.0.1:"
SECRET_WORDS = ("password", "token", "secret", "registered_users")


@pytest.fixture(scope="module")
def compose(deploy):
    return yaml.safe_load((deploy / "compose.yaml").read_text())


def test_nothing_but_these_is_started(compose):
    assert tuple(compose["services"]) == SERVICES


@each_service
def test_services_have_no_rights_that_they_do_not_need(compose, name):
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    if name != "orthanc":  # its image begins as root
        assert service["user"] == "10001:10001"


@each_service
def test_ports_are_those_of_this_machine(compose, name):
    for port in compose["services"][name].get("ports", ()):
        assert port.startswith(LOOPBACK)


@each_service
def test_no_secret_stands_in_a_variable(compose, name):
    for variable, value in compose["services"][name].get("environment", {}).items():
        secret = any(word in variable.lower() for word in SECRET_WORDS)
        assert not secret or value.startswith("/run/secrets/")


@each_service
def test_what_is_mounted_is_declared(compose, name):
    service = compose["services"][name]
    for mount in service.get("volumes", ()):
        source = mount.split(":")[0]
        assert source in compose["volumes"] or source.startswith("./")
        if source.startswith("./"):
            assert mount.endswith(":ro")
    for secret in service.get("secrets", ()):
        source = secret if isinstance(secret, str) else secret["source"]
        assert source in compose["secrets"]
    for network in service["networks"]:
        assert network in compose["networks"]
    for other in service.get("depends_on", ()):
        assert other in compose["services"]


def test_services_that_answer_say_whether_they_are_well(compose, deploy):
    services = compose["services"]
    assert services["orthanc"]["healthcheck"]["test"]
    assert "HEALTHCHECK --interval" in (deploy / "Dockerfile").read_text()
    assert "healthcheck" not in services["serve"]  # that of the image
    # else the image's would ask for a server that is not there
    assert services["watch"]["healthcheck"] == {"disable": True}


def test_the_watcher_reaches_nothing_but_the_archive(compose):
    networks = compose["services"]["watch"]["networks"]
    assert all(compose["networks"][name]["internal"] for name in networks)


def test_jobs_stay_below_the_limit_of_their_container(compose):
    service = compose["services"]["serve"]
    job = service["environment"]["TRIVOX_JOB_MEMORY_GB"].split(":-")[1].rstrip("}")
    limit = service["mem_limit"].split(":-")[1].rstrip("}")
    assert limit.endswith("g")
    assert float(job) < float(limit[:-1])


def test_what_is_added_for_a_gpu_is_for_services_that_predict(compose, deploy):
    added = yaml.safe_load((deploy / "compose.gpu.yaml").read_text())["services"]
    assert added.keys() == {"serve", "watch"}
    assert added.keys() < compose["services"].keys()


# -- secrets ---------------------------------------------------------------------------
@pytest.fixture
def made(deploy, tmp_path):
    """A copy of the folder in which the secrets were made twice."""
    copy = tmp_path / "deploy"
    copy.mkdir()
    shutil.copy(deploy / "secrets.sh", copy)
    contents = []
    for _ in range(2):
        subprocess.run([copy / "secrets.sh"], check=True, capture_output=True)
        files = sorted((copy / "secrets").iterdir())
        contents.append({path.name: path.read_text() for path in files})
    assert contents[0] == contents[1]
    return copy


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_secrets_are_made_once_for_all_that_compose_reads(made, compose):
    for secret in compose["secrets"].values():
        assert (made / secret["file"]).is_file()
    folder = made / "secrets"
    assert folder.stat().st_mode & 0o777 == 0o700
    # the user in the container has to read what is put there
    assert (made / "models").stat().st_mode & 0o777 == 0o755
    password = (folder / "orthanc-password").read_text()
    token = (folder / "trivox-token").read_text()
    assert len({password, token}) == 2
    assert all(len(each) == 64 and each.isalnum() for each in (password, token))
    users = json.loads((folder / "orthanc-users.json").read_text())
    assert users == {"trivox": password}


def test_secrets_stay_out_of_the_repository_and_the_image(deploy, root):
    assert "/secrets/" in (deploy / ".gitignore").read_text().splitlines()
    lines = (deploy / "Dockerfile.dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    assert "!deploy" not in lines
    done = subprocess.run(
        ["git", "ls-files", "deploy/secrets", "deploy/models"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""


# -- the watcher's files ---------------------------------------------------------------
def test_profiles_and_rules_are_those_that_the_watcher_reads(compose, deploy):
    profiles = read_profiles(deploy / "compose" / "pacs.toml")
    rules = read_rules(deploy / "compose" / "rules.toml")
    rules.require_profiles(profiles)
    command = compose["services"]["watch"]["command"]
    assert profiles[command[command.index("--pacs") + 1]].user == "trivox"


def test_files_of_the_watcher_lie_where_it_looks(compose, deploy):
    service = compose["services"]["watch"]
    mounts = dict(mount.split(":")[:2] for mount in service["volumes"])
    assert mounts["./compose"] == "/etc/trivox"
    for argument in service["command"]:
        if argument.startswith("/etc/trivox/"):
            assert (
                deploy / "compose" / argument.removeprefix("/etc/trivox/")
            ).is_file()
