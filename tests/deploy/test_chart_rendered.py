"""What Helm's own engine makes of the chart, judged by the schemas of Kubernetes; and
the compose files, judged by the compose specification.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from chart_cases import CASES, DIGEST, WRONG

ROOT = Path(__file__).parents[2]
TOOLS = Path(__file__).with_name("chart_tools.py")
PYTHON = Path(os.environ.get("TRIVOX_DEPLOY_TOOLS", ROOT / "build/deploy/bin/python"))
if not PYTHON.is_file():
    pytest.skip(
        "no engine of Helm here; run: make test-deploy", allow_module_level=True
    )
GOOD = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def judged(chart, deploy):
    """What the tools of `make test-deploy` say of everything."""
    cases = [{"values": values} for values in (CASES | WRONG).values()]
    done = subprocess.run(
        [PYTHON, TOOLS, chart, *deploy.glob("compose*.yaml")],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    facts["answers"] = dict(zip((*CASES, *WRONG), facts["answers"], strict=True))
    return facts


@pytest.fixture
def manifests(judged, case):
    """Kind -> manifests of a case."""
    by_kind = {}
    for manifest in judged["answers"][case]["manifests"]:
        by_kind.setdefault(manifest["kind"], []).append(manifest)
    return by_kind


def only(manifests, kind):
    (manifest,) = manifests[kind]
    return manifest


@GOOD
def test_manifests_are_those_that_kubernetes_knows(judged, case):
    assert judged["answers"][case]["complaints"] == []


@pytest.mark.parametrize("case", WRONG)
def test_helm_refuses_what_the_schema_refuses(judged, case):
    assert "manifests" not in judged["answers"][case]


def test_helm_and_compose_find_nothing(judged):
    assert judged["lint"]["errors"] == []
    assert judged["compose"] == {"compose.yaml": "", "compose.gpu.yaml": ""}


@GOOD
def test_pods_keep_the_restricted_standard(manifests, case):
    """Of Kubernetes' pod security standards."""
    pod = only(manifests, "StatefulSet")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    account = only(manifests, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert account["metadata"]["name"] == pod["serviceAccountName"]
    allowed = {"emptyDir", "secret", "persistentVolumeClaim"}
    assert all({*volume} - {"name"} <= allowed for volume in pod["volumes"])
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["path"] == "/healthz"


@GOOD
def test_parts_of_the_chart_belong_together(manifests, case):
    pods = only(manifests, "StatefulSet")["spec"]
    labels = pods["template"]["metadata"]["labels"]
    for service in manifests["Service"]:
        assert service["spec"]["selector"].items() <= labels.items()
    assert pods["serviceName"] in [
        service["metadata"]["name"]
        for service in manifests["Service"]
        if service["spec"].get("clusterIP") == "None"
    ]
    for kind, place in (
        ("NetworkPolicy", "podSelector"),
        ("PodDisruptionBudget", None),
    ):
        for manifest in manifests.get(kind, ()):
            spec = manifest["spec"]
            selector = spec[place or "selector"]["matchLabels"]
            assert selector.items() <= labels.items()
    volumes = {volume["name"] for volume in pods["template"]["spec"]["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in pods["volumeClaimTemplates"]}
    (container,) = pods["template"]["spec"]["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert "Secret" not in manifests  # it exists already


def variables(manifests):
    (container,) = only(manifests, "StatefulSet")["spec"]["template"]["spec"][
        "containers"
    ]
    return {each["name"]: each["value"] for each in container["env"]}, container


@pytest.mark.parametrize("case", ["usual"])
def test_the_server_knows_the_names_of_its_service(manifests, case):
    given, _ = variables(manifests)
    names = given["TRIVOX_ALLOW_HOSTS"].split()
    assert names[0] in [service["metadata"]["name"] for service in manifests["Service"]]
    assert names[-1] == f"{names[0]}.clinic.svc.cluster.local"


@pytest.mark.parametrize("case", ["named"])
def test_names_reach_their_places(manifests, case):
    given, container = variables(manifests)
    assert given["TRIVOX_MODELS"] == "hippocampus /models/ct"
    assert given["TRIVOX_ALLOW_HOSTS"].split()[-1] == "scans.example"
    assert given["TRIVOX_TOKEN_FILE"].endswith("/clients")
    assert container["image"] == f"r.example/trivox@{DIGEST}"
    assert container["args"][-2:] == ["--max-upload-gb", "8"]
    pod = only(manifests, "StatefulSet")["spec"]["template"]["spec"]
    sources = {volume["name"]: volume for volume in pod["volumes"]}
    assert sources["token"]["secret"]["secretName"] == "door"
    assert sources["models"]["persistentVolumeClaim"]["claimName"] == "shelf"


def test_the_variables_are_those_that_the_start_reads(judged, deploy):
    script = (deploy / "image" / "serve.sh").read_text()
    for case in CASES:
        by_kind = {
            each["kind"]: [each] for each in judged["answers"][case]["manifests"]
        }
        given, _ = variables(by_kind)
        assert all(f"${{{name}:-" in script for name in given)


@pytest.mark.parametrize("case", ["gpu"])
def test_a_gpu_is_asked_for_where_there_is_one(manifests, case):
    pod = only(manifests, "StatefulSet")["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert pod["nodeSelector"] == {"zone": "a", "nvidia.com/gpu.present": "true"}
    assert [each["key"] for each in pod["tolerations"]] == ["batch", "nvidia.com/gpu"]
    assert pod["runtimeClassName"] == "nvidia"


@pytest.mark.parametrize("case", ["scaled", "scaled-down"])
def test_replicas_follow_the_queue(manifests, case):
    scaler = only(manifests, "HorizontalPodAutoscaler")["spec"]
    pods = only(manifests, "StatefulSet")
    assert "replicas" not in pods["spec"]  # else every upgrade would undo the scaler
    assert scaler["scaleTargetRef"]["name"] == pods["metadata"]["name"]
    metric = scaler["metrics"][0]["pods"]["metric"]
    assert metric["name"] == "trivox_jobs_open"
    assert metric["selector"] == {"matchLabels": {"state": "queued"}}
    disabled = scaler["behavior"]["scaleDown"].get("selectPolicy") == "Disabled"
    assert disabled == (case == "scaled")


@pytest.mark.parametrize("case", ["usual"])
def test_nobody_outside_the_namespace_comes_in_and_nothing_goes_out(manifests, case):
    spec = only(manifests, "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["egress"] == []
    (rule,) = spec["ingress"]
    assert rule["from"] == [{"podSelector": {}}]
    (port,) = rule["ports"]
    (container,) = only(manifests, "StatefulSet")["spec"]["template"]["spec"][
        "containers"
    ]
    assert port["port"] in [each["name"] for each in container["ports"]]


@pytest.mark.parametrize("case", ["tls"])
def test_probes_speak_what_the_server_speaks(manifests, case):
    _, container = variables(manifests)
    assert "--tls-cert" in container["args"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
