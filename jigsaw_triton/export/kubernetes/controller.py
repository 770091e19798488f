"""The controller with the gateway: ConfigMaps, a volume claim, a Deployment of one pod, and a disruption budget."""

import base64
import re
from collections.abc import Mapping

from jigsaw_triton.export.commands import PROGRAM, SUPERVISOR, Deploy, Gpus
from jigsaw_triton.export.kubernetes.settings import (
    APPS,
    CERTIFICATES,
    CONFIG,
    CONTROLLER,
    EDGE,
    GATEWAY,
    STATE,
    Graph,
    Object,
    Settings,
    environment,
    labels,
    metadata,
    ray_environment,
    scratch_mounts,
    scratch_volumes,
    unprivileged_container,
    unprivileged_pod,
)
from jigsaw_triton.spec.yaml_writer import Block

COMMENT = """\
The controller, and the gateway that it starts in its own container.

There is one controller at a time. `Recreate` starts no second one beside the first, and only one pod of the whole
cluster can mount a volume with the mode ReadWriteOncePod. If a controller nevertheless keeps running on a node that
cannot be reached, agents refuse its commands as those of an earlier epoch. So nothing takes a Lease, and nothing calls
the API server: the service accounts have no role and no token.

When the container starts, it runs the supervisor, which restarts a controller that dies, and then `deploy`. If that
fails, an event of the pod and deploy.log in the volume say why. When the container ends, the gateway ends too, and
requests fail until the next one serves; the servers of the nodes go on. There is no liveness probe, because a
controller restarts its gateway, and the supervisor a controller that hangs.
"""

DEPLOYING = (
    "/bin/sh",
    "-c",
    Block(
        """\
"$@" 2> "$JIGSAW_STATE/deploy.log" && exit
# If the files have become wrong, or nodes are missing, what is served already is served on.
cat "$JIGSAW_STATE/deploy.log" >&2
exec jigsaw-triton status
"""
    ),
    "deploy",
)
"""Command that runs its further arguments. It fails if they fail and the deployment does not serve."""

_CONTROLLER_MIB = 4096
"""Memory in MiB that the controller and its solver get beside the gateway."""

_GRAPH_PREFIX = "graph"

_KEY, _NUMBERED = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}"), "file-"
"""Keys that a ConfigMap can have, and the beginning of those that stand for other paths."""


def controller(settings: Settings) -> list[Object]:
    """Returns the volume claim, the Deployment and its disruption budget."""
    return [_claim(settings), _deployment(settings), _disruption_budget(settings)]


def config_maps(settings: Settings) -> list[Object]:
    """Returns the ConfigMaps with cluster.yaml and with the files of each graph."""
    cluster = {"cluster.yaml": Block(settings.cluster.text)}
    found: list[Object] = [_config_map(settings, "cluster", {"data": cluster})]
    for graph in settings.graphs.values():
        if graph.files:
            found.append(_config_map(settings, f"{_GRAPH_PREFIX}-{graph.label}", _contents(graph)))
    return found


def update_command(settings: Settings) -> tuple[str, ...]:
    """Returns the command that updates the deployment when it is run in the controller's container."""
    return (PROGRAM, *_deploy(settings).detached)


def _deploy(settings: Settings) -> Deploy:
    return Deploy(
        graphs=tuple(f"{APPS}/{graph.label}/{graph.file}" for graph in settings.graphs.values()),
        gpus=Gpus(("--cluster", f"{CONFIG}/cluster.yaml"), settings.driver),
        demand=settings.demand,
    )


def _config_map(settings: Settings, name: str, content: Object) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(settings, name, CONTROLLER), **content}


def keys(graph: Graph) -> Mapping[str, str]:
    """Returns the key of each file of a graph in its ConfigMap: its path, or a number if no key can be like it."""
    return {
        path: path if _KEY.fullmatch(path) and not path.startswith(_NUMBERED) else f"{_NUMBERED}{number}"
        for number, path in enumerate(sorted(graph.files))
    }


def _contents(graph: Graph) -> Object:
    texts: dict[str, str] = {}
    binaries: dict[str, str] = {}
    for path, key in keys(graph).items():
        try:
            text = graph.files[path].decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        # YAML has no way to write some of the characters of UTF-8.
        if all(character.isprintable() or character in "\n\t" for character in text):
            texts[key] = Block(text)
        else:
            binaries[key] = base64.b64encode(graph.files[path]).decode("ascii")
    return {**({"data": texts} if texts else {}), **({"binaryData": binaries} if binaries else {})}


def _claim(settings: Settings) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(settings, "state", CONTROLLER),
        "spec": {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": settings.storage}}},
    }


def _deployment(settings: Settings) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(settings, CONTROLLER, CONTROLLER),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels(CONTROLLER)},
            "template": {"metadata": {"labels": labels(CONTROLLER)}, "spec": _pod(settings)},
        },
    }


def _pod(settings: Settings) -> Object:
    memory = f"{settings.gateway_memory_mib + _CONTROLLER_MIB}Mi"
    ports = settings.ports
    container: Object = {
        "name": CONTROLLER,
        "image": settings.image,
        "command": ["python3", *SUPERVISOR, STATE],
        "lifecycle": {"postStart": {"exec": {"command": [*DEPLOYING, *update_command(settings)]}}},
        "env": [*environment(), *(ray_environment() if settings.ray else [])],
        "ports": [
            {"name": "http", "containerPort": ports.http},
            {"name": "grpc", "containerPort": ports.grpc},
            {"name": "metrics", "containerPort": ports.metrics},
            *(
                [{"name": "edge-metrics", "containerPort": ports.edge_metrics}]
                if ports.edge_metrics is not None
                else []
            ),
        ],
        "readinessProbe": {**_probe(settings), "periodSeconds": 5, "timeoutSeconds": 3},
        "resources": {"requests": {"cpu": "2", "memory": memory}, "limits": {"memory": memory}},
        "securityContext": unprivileged_container(),
        "volumeMounts": [
            {"name": "state", "mountPath": STATE},
            {"name": "cluster", "mountPath": CONFIG, "readOnly": True},
            *(() if settings.ray else ({"name": "certificates", "mountPath": CERTIFICATES, "readOnly": True},)),
            *([{"name": "edge", "mountPath": EDGE, "readOnly": True}] if settings.cluster.edge_files else []),
            *_graph_mounts(settings),
            *scratch_mounts(),
        ],
    }
    return {
        "serviceAccountName": CONTROLLER,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": unprivileged_pod(),
        "containers": [container],
        "volumes": [
            {"name": "state", "persistentVolumeClaim": {"claimName": "state"}},
            {"name": "cluster", "configMap": {"name": "cluster"}},
            *(
                ()
                if settings.ray
                else ({"name": "certificates", "secret": {"secretName": CONTROLLER, "defaultMode": 0o440}},)
            ),
            *(
                [{"name": "edge", "secret": {"secretName": "edge", "defaultMode": 0o440}}]
                if settings.cluster.edge_files
                else []
            ),
            *_graph_volumes(settings),
            *scratch_volumes(),
        ],
    }


def _graph_mounts(settings: Settings) -> list[Object]:
    if settings.models is not None:
        return [{"name": "models", "mountPath": APPS, "readOnly": True}]
    return [
        {"name": f"{_GRAPH_PREFIX}-{graph.label}", "mountPath": f"{APPS}/{graph.label}", "readOnly": True}
        for graph in settings.graphs.values()
    ]


def _graph_volumes(settings: Settings) -> list[Object]:
    if settings.models is not None:
        return [{"name": "models", "persistentVolumeClaim": {"claimName": settings.models, "readOnly": True}}]
    return [
        {
            "name": f"{_GRAPH_PREFIX}-{graph.label}",
            "configMap": {
                "name": f"{_GRAPH_PREFIX}-{graph.label}",
                "items": [{"key": key, "path": path} for path, key in keys(graph).items()],
            },
        }
        for graph in settings.graphs.values()
    ]


def _probe(settings: Settings) -> Object:
    if settings.probe == "TCP":
        return {"tcpSocket": {"port": "http"}}
    return {"httpGet": {"path": "/v2/health/ready", "port": "http", "scheme": settings.probe}}


def _disruption_budget(settings: Settings) -> Object:
    """Returns the budget that makes `kubectl drain` wait, since requests fail while the gateway moves."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(settings, GATEWAY, GATEWAY),
        "spec": {"maxUnavailable": 0, "selector": {"matchLabels": labels(CONTROLLER)}},
    }
