"""The agents under Ray: a RayCluster of KubeRay with one worker pod for each node, and a head without GPUs."""

import json

from jigsaw_triton.export.kubernetes.agents import RESTARTING, agent_container, agent_pod, off_and_rights
from jigsaw_triton.export.kubernetes.settings import (
    AGENT,
    NODE_LABEL,
    RAY,
    RAY_CLIENT,
    RAY_GCS,
    STATE,
    Object,
    Settings,
    agent_name,
    environment,
    labels,
    metadata,
    ray_environment,
    scratch_mounts,
    scratch_volumes,
    unprivileged_container,
    unprivileged_pod,
)

RAY_API = "ray.io/v1"
_RAYLET_PORT = 6380

_RAY_COMMAND: Object = {
    "command": ["/bin/sh", "-c", RESTARTING, RAY],
    "args": ["/bin/bash", "-c", 'eval "$KUBERAY_GEN_RAY_START_CMD"'],
}
"""Command that starts Ray again whenever it ends."""

COMMENT = """\
A RayCluster for KubeRay. Each node with the label {label}: NODE has one worker pod, whose raylet offers the resource
node:NODE. The controller has Ray start the agent of the node there, and hands over its certificate. Requests, orders
and files go from the controller's pod to the agents, and never through Ray.

{off_and_rights}

The end of a worker pod ends the node's servers. For each node in turn, run `jigsaw-triton node drain NODE` in the
controller's pod, delete the worker pod, and run `jigsaw-triton node uncordon NODE`.
If Ray itself ends in a pod, a shell starts it again, and agents and servers go on meanwhile. So Ray needs no Redis, and
worker pods have no liveness probe; theirs always succeeds, because KubeRay would add one of its own.
"""


def comment(settings: Settings) -> str:
    """Returns the comment at the head of the file."""
    return COMMENT.format(label=NODE_LABEL, off_and_rights=off_and_rights(settings))


def ray_cluster(settings: Settings) -> list[Object]:
    """Returns the RayCluster."""
    return [
        {
            "apiVersion": RAY_API,
            "kind": "RayCluster",
            # The shell in the worker pods starts Ray.
            "metadata": metadata(settings, RAY, AGENT, annotations={"ray.io/overwrite-container-cmd": "true"}),
            "spec": {
                "enableInTreeAutoscaling": False,
                "headGroupSpec": {
                    "serviceType": "ClusterIP",
                    # Nothing but Ray itself runs on the head.
                    "rayStartParams": {"num-cpus": "0", "num-gpus": "0", "include-dashboard": "false"},
                    "template": {"metadata": {"labels": labels(RAY)}, "spec": _head(settings)},
                },
                "workerGroupSpecs": [_worker(settings, node) for node in settings.nodes],
            },
        }
    ]


def _head(settings: Settings) -> Object:
    container: Object = {
        "name": "ray-head",
        "image": settings.image,
        "env": [*environment(), *ray_environment()],
        "ports": [{"name": "gcs", "containerPort": RAY_GCS}, {"name": "client", "containerPort": RAY_CLIENT}],
        **_RAY_COMMAND,
        "readinessProbe": _probe("gcs"),
        "livenessProbe": {**_probe("gcs"), "initialDelaySeconds": 60, "failureThreshold": 24},
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
        "securityContext": unprivileged_container(),
        "volumeMounts": [{"name": "state", "mountPath": STATE}, *scratch_mounts()],
    }
    return {
        "serviceAccountName": AGENT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": unprivileged_pod(),
        "containers": [container],
        "volumes": [{"name": "state", "emptyDir": {}}, *scratch_volumes()],
    }


def _worker(settings: Settings, node: str) -> Object:
    container = {
        **agent_container(settings),
        **_RAY_COMMAND,
        "readinessProbe": _probe("raylet"),
        "livenessProbe": {"exec": {"command": ["true"]}},
    }
    # By default Ray starts actors, and so the servers, with a low priority.
    container["env"].extend([*ray_environment(), {"name": "RAY_worker_niceness", "value": "0"}])
    container["ports"].append({"name": "raylet", "containerPort": _RAYLET_PORT})
    # KubeRay puts the parameters into a command line of a shell.
    resources = json.dumps(json.dumps({f"node:{node}": 1}))
    return {
        "groupName": agent_name(node),
        "replicas": 1,
        "minReplicas": 1,
        "maxReplicas": 1,
        # The agent owns the GPUs, and Ray knows of none.
        "rayStartParams": {"num-gpus": "0", "node-manager-port": str(_RAYLET_PORT), "resources": resources},
        "template": {
            "metadata": {"labels": labels(AGENT, node)},
            "spec": agent_pod(settings, node, container),
        },
    }


def _probe(port: str) -> Object:
    return {"tcpSocket": {"port": port}, "periodSeconds": 5}
