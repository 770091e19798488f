"""Input of the manifests, and what all of them share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jigsaw_triton.export.cluster_file import ClusterFile

Object = dict[str, Any]
"""A Kubernetes object."""

AGENT_PORT = 7440
"""Port of the agents, on addresses that belong to their pods alone."""

CONTROLLER, GATEWAY, AGENT = "controller", "gateway", "agent"
"""Names of objects, and values of the label `app.kubernetes.io/component`."""

RAY = "ray"
"""Name of the RayCluster, and of the Secret with its token."""

RAY_GCS, RAY_CLIENT = 6379, 10001
"""Ports of Ray's head: for raylets, and for the controller."""

RAY_LABELS = {"ray.io/cluster": RAY}
"""Label that KubeRay gives the pods of the RayCluster."""

NODE_LABEL = "jigsaw-triton/node"
"""Label of a Kubernetes node that says which node of cluster.yaml it is."""

STATE, CACHE, RUN = "/var/lib/jigsaw-triton", "/var/cache/jigsaw-triton", "/run/user"
APPS, CONFIG = "/srv/jigsaw-triton", "/etc/jigsaw-triton"
EDGE, CERTIFICATES = f"{CONFIG}/edge", f"{CONFIG}/certificates"
"""Folders in the containers."""

NAME_LABEL = {"app.kubernetes.io/name": "jigsaw-triton"}
"""Label of all objects."""

USER_ID = 10001
"""User and group of the containers that need no privilege."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph to serve.

    Attributes:
        label: DNS label that stands for the graph's name.
        file: Path of the graph's file in its folder.
        files: Path in the folder -> content of each file that the deployment reads. Empty if the volume claim has them.
    """

    label: str
    file: str
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports on which clients reach the gateway, or the edge in front of it.

    Attributes:
        http: Port for HTTP.
        grpc: Port for gRPC.
        metrics: Port of the gateway's metrics.
        edge_metrics: Port of the edge's metrics; None if there is no edge.
    """

    http: int
    grpc: int
    metrics: int
    edge_metrics: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Input of all manifests.

    Attributes:
        namespace: Namespace of all objects.
        image: Image with tritonserver and jigsaw-triton, for all containers.
        driver: MIG driver.
        graphs: Graphs to serve by name.
        demand: Requests a second by graph.
        nodes: Names of the nodes with GPUs, which are DNS labels.
        cluster: cluster.yaml for the controller.
        ports: Ports of the gateway.
        probe: Probe of the HTTP port: `HTTP` or `HTTPS` for a request, `TCP` where a request would need a key.
        gateway_memory_mib: Largest heap of the gateway.
        storage: Size of the controller's volume.
        models: Name of the volume claim with a folder for each graph; None if the files are in ConfigMaps.
        runtime_class: RuntimeClass of the agents, which gives them NVIDIA's driver; empty for the cluster's default.
        parent: Namespace and name of the Gateway (of the Gateway API) for routes; None for no routes. An empty
            namespace is that of the objects.
        hostnames: Host names of the routes; none for all of the Gateway.
        monitor: True for a ServiceMonitor.
        ray: True if Ray starts the agents in a RayCluster of KubeRay; False for DaemonSets.
    """

    namespace: str
    image: str
    driver: Literal["nvml", "emulated"]
    graphs: Mapping[str, Graph]
    demand: Mapping[str, float]
    nodes: tuple[str, ...]
    cluster: ClusterFile
    ports: Ports
    probe: Literal["HTTP", "HTTPS", "TCP"] = "HTTP"
    gateway_memory_mib: int = 4096
    storage: str = "20Gi"
    models: str | None = None
    runtime_class: str = ""
    parent: tuple[str, str] | None = None
    hostnames: tuple[str, ...] = ()
    monitor: bool = False
    ray: bool = False


def ray_settings() -> dict[str, Any]:
    """Returns the section `ray` of the controller's cluster.yaml. KubeRay makes the Service of the head."""
    return {"address": f"ray://{RAY}-head-svc:{RAY_CLIENT}", "port": AGENT_PORT, "state": STATE}


def agent_name(node: str) -> str:
    """Returns the name of the objects of a node's agent."""
    return f"{AGENT}-{node}"


def metadata(settings: Settings, name: str, component: str, **more: Any) -> Object:
    """Returns the metadata of an object."""
    return {"name": name, "namespace": settings.namespace, "labels": labels(component), **more}


def labels(component: str, node: str | None = None) -> dict[str, str]:
    """Returns the labels of the objects of one component, and of one node's agent. Its pods are found by them."""
    own = {NODE_LABEL: node} if node is not None else {}
    return {**NAME_LABEL, "app.kubernetes.io/component": component, **own}


def environment() -> list[Object]:
    """Returns the environment variables of all containers."""
    return [
        {"name": "JIGSAW_STATE", "value": STATE},
        {"name": "JIGSAW_CACHE", "value": CACHE},
        {"name": "XDG_RUNTIME_DIR", "value": RUN},
        {"name": "HOME", "value": "/tmp"},
    ]


def ray_environment() -> list[Object]:
    """Returns the environment variables of containers that talk to Ray, with its token."""
    token = {"secretKeyRef": {"name": RAY, "key": "auth_token"}}
    return [{"name": "RAY_AUTH_MODE", "value": "token"}, {"name": "RAY_AUTH_TOKEN", "valueFrom": token}]


def scratch_mounts() -> list[Object]:
    """Returns the mounts of the volumes of `scratch_volumes`."""
    return [
        {"name": "run", "mountPath": RUN},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shm", "mountPath": "/dev/shm"},
        {"name": "cache", "mountPath": CACHE},
    ]


def scratch_volumes() -> list[Object]:
    """Returns the volumes that last as long as a pod. A container's own /dev/shm has 64 MiB, too few for Triton."""
    return [
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
        {"name": "cache", "emptyDir": {}},
    ]


def unprivileged_pod() -> Object:
    """Returns the security context of a pod that needs no privilege; see `unprivileged_container`."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        # The group may write to the volumes and read the Secrets.
        "fsGroup": USER_ID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def unprivileged_container() -> Object:
    """Returns the security context of a container that needs no privilege: Kubernetes' level `restricted`."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
