import json
import os
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from jigsaw_triton.export.kubernetes.agents import RESTARTING
from jigsaw_triton.export.kubernetes.manifests import manifests
from jigsaw_triton.export.kubernetes.settings import AGENT_PORT, ray_settings
from tests.export.kubernetes.samples import ALL, RAY, of_kind, pods

CRD = "KUBERAY_CRD"
"""Environment variable with the path of KubeRay's `ray.io_rayclusters.yaml`."""


def groups() -> dict[str, dict[str, Any]]:
    (cluster,) = of_kind(RAY, "RayCluster").values()
    return {group["groupName"]: group for group in cluster["spec"]["workerGroupSpecs"]}


def test_each_node_is_one_raylet_that_offers_its_name_and_no_gpu() -> None:
    for node in ("a", "b"):
        group = groups()[f"agent-{node}"]
        assert (group["minReplicas"], group["replicas"], group["maxReplicas"]) == (1, 1, 1)
        parameters = group["rayStartParams"]
        # KubeRay's command line goes through a shell.
        (resources,) = shlex.split(parameters["resources"])
        assert json.loads(resources) == {f"node:{node}": 1}
        assert parameters["num-gpus"] == "0"
        assert group["template"]["spec"]["nodeSelector"] == {"jigsaw-triton/node": node}


def test_servers_outlive_ray_in_their_pods() -> None:
    (cluster,) = of_kind(RAY, "RayCluster").values()
    assert cluster["metadata"]["annotations"] == {"ray.io/overwrite-container-cmd": "true"}
    for name, group in groups().items():
        (container,) = group["template"]["spec"]["containers"]
        assert container["command"][2] == RESTARTING, name
        assert container["args"][-1] == 'eval "$KUBERAY_GEN_RAY_START_CMD"'
        # Without a probe of its own, the container would get one of KubeRay that ends it.
        assert container["livenessProbe"] == {"exec": {"command": ["true"]}}


def test_the_controller_reaches_the_head_and_has_the_token_of_the_raylets() -> None:
    assert ray_settings() == {
        "address": "ray://ray-head-svc:10001",
        "port": AGENT_PORT,
        "state": "/var/lib/jigsaw-triton",
    }
    tokens = {
        name: entry["valueFrom"]["secretKeyRef"]
        for name, pod in pods(RAY).items()
        for entry in pod["containers"][0]["env"]
        if entry["name"] == "RAY_AUTH_TOKEN"
    }
    assert tokens.keys() == {"controller", "ray-head", "agent-a", "agent-b"}
    assert all(token == {"name": "ray", "key": "auth_token"} for token in tokens.values())


def test_ray_takes_the_place_of_the_daemon_sets() -> None:
    files = manifests(RAY)
    assert "raycluster.yaml" in files and "agents.yaml" not in files
    assert not of_kind(RAY, "DaemonSet")
    assert "destroys MIG instances that it does not know" in files["raycluster.yaml"].replace("\n# ", " ")


def closed(schema: Any) -> Any:
    """Returns a schema that allows no unknown fields, unless it keeps them as they are."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    kept = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema and not kept:
        made["additionalProperties"] = False
    return made


@pytest.mark.parametrize("settings", [one for one in ALL.values() if one.ray])
def test_the_schema_of_kuberay_accepts_the_cluster(settings: Any) -> None:
    if CRD not in os.environ:
        pytest.skip(f"{CRD} does not name KubeRay's ray.io_rayclusters.yaml")
    definition = yaml.safe_load(Path(os.environ[CRD]).read_text())
    (version,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    schema = closed(version["schema"]["openAPIV3Schema"])
    # Kubernetes itself defines the schema of metadata.
    schema["properties"]["metadata"] = {"type": "object"}
    (cluster,) = of_kind(settings, "RayCluster").values()
    jsonschema.validate(cluster, schema)
    cluster["spec"]["workerGroupSpecs"][0]["replica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        jsonschema.validate(cluster, schema)
