"""Settings of manifests, and their objects."""

import copy
from dataclasses import replace
from typing import Any

import yaml

from jigsaw_triton.export.cluster_file import ClusterFile
from jigsaw_triton.export.kubernetes.manifests import manifests
from jigsaw_triton.export.kubernetes.settings import Graph, Ports, Settings

PLAIN = Settings(
    namespace="serving",
    image="registry.example/jigsaw:1",
    driver="nvml",
    graphs={
        "Hello_1": Graph("hello-1", "graph.yaml", {"graph.yaml": b"kind: TaskGraph\n", "models/a b.py": b"x = 1\n"})
    },
    demand={"Hello_1": 20.0},
    nodes=("a", "b"),
    cluster=ClusterFile("kind: Cluster\n"),
    ports=Ports(8000, 8001, 8002),
    runtime_class="nvidia",
)
FULL = replace(
    PLAIN,
    cluster=ClusterFile("kind: Cluster\n", {"cert.pem": "secret/cert.pem", "key.pem": "secret/key.pem"}),
    ports=Ports(8000, 8001, 8002, 8003),
    graphs={"Hello_1": Graph("hello-1", "graph.yaml")},
    probe="HTTPS",
    models="claim",
    parent=("infra", "public"),
    hostnames=("a.example", "*.b.example"),
    monitor=True,
)
EMULATED = replace(PLAIN, driver="emulated", parent=("", "public"))
RAY = replace(PLAIN, ray=True)
ALL = {"plain": PLAIN, "full": FULL, "emulated": EMULATED, "ray": RAY, "ray emulated": replace(EMULATED, ray=True)}


_made: dict[str, list[dict[str, Any]]] = {}
"""Settings as text -> objects of their manifests. Making and parsing these takes tenths of a second."""


def objects(settings: Settings) -> list[dict[str, Any]]:
    """Returns all objects of the manifests but the kustomization."""
    key = repr(settings)
    if key not in _made:
        texts = [text for name, text in manifests(settings).items() if name != "kustomization.yaml"]
        _made[key] = [made for text in texts for made in yaml.safe_load_all(text)]
    return copy.deepcopy(_made[key])


def of_kind(settings: Settings, kind: str) -> dict[str, dict[str, Any]]:
    """Returns the objects of one kind by name."""
    return {made["metadata"]["name"]: made for made in objects(settings) if made["kind"] == kind}


def pods(settings: Settings) -> dict[str, dict[str, Any]]:
    """Returns the pod of each Deployment and DaemonSet, and of each group of a RayCluster, by name."""
    return {name: made["spec"] for name, made in templates(settings).items()}


def templates(settings: Settings) -> dict[str, dict[str, Any]]:
    """Returns the template of each pod by name, with the label that KubeRay adds."""
    found = {
        name: made["spec"]["template"]
        for kind in ("Deployment", "DaemonSet")
        for name, made in of_kind(settings, kind).items()
    }
    for made in of_kind(settings, "RayCluster").values():
        groups = {group["groupName"]: group for group in made["spec"]["workerGroupSpecs"]}
        for name, group in {"ray-head": made["spec"]["headGroupSpec"], **groups}.items():
            found[name] = copy.deepcopy(group["template"])
            found[name]["metadata"]["labels"]["ray.io/cluster"] = made["metadata"]["name"]
    return found
