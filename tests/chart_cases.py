"""Values of the Helm chart: some that make sense, and some that must be refused."""

DIGEST = "sha256:" + "0" * 64

CASES = {
    "usual": {},
    "gpu": {
        "gpu": {"enabled": True, "count": 2, "runtimeClassName": "nvidia"},
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "batch", "operator": "Exists"}],
    },
    "scaled": {"autoscaling": {"enabled": True, "maxReplicas": 8}},
    "scaled-down": {"autoscaling": {"enabled": True, "scaleDown": True}},
    "tls": {"tls": {"existingSecret": "trivox-tls"}},
    "named": {
        "fullnameOverride": "scans",
        "image": {"repository": "r.example/trivox", "digest": DIGEST},
        "serve": {
            "models": ["hippocampus", "/models/ct"],
            "allowHosts": ["scans.example"],
            "extraArgs": ["--max-upload-gb", "8"],
        },
        "token": {"existingSecret": "door", "key": "clients"},
        "models": {"existingClaim": "shelf", "subPath": "v3"},
    },
    "open": {
        "networkPolicy": {
            "from": [{"namespaceSelector": {"matchLabels": {"clinic": "yes"}}}],
            "egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
        },
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "persistence": {"storageClass": "fast"},
        "image": {"pullSecrets": ["registry"]},
    },
    "no-policy": {
        "networkPolicy": {"enabled": False},
        "disruptionBudget": {"enabled": False},
    },
}
WRONG = {
    "kind": {"replicas": "two"},
    "unknown": {"replica": 2},
    "no-token": {"token": {"existingSecret": ""}},
    "value-of-token": {"token": {"value": "hunter2"}},
    "no-models": {"models": {"existingClaim": ""}},
    "no-memory-limit": {"resources": {"limits": {"memory": None}}},
    "no-auth": {"serve": {"extraArgs": ["--insecure-no-auth"]}},
    "host": {"serve": {"extraArgs": ["--host=::"]}},
    "blank-host": {"serve": {"allowHosts": ["a b"]}},
    "digest": {"image": {"digest": "latest"}},
}
