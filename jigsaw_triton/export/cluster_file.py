"""The cluster.yaml of a deployment in containers: the user's file, with paths and addresses as they are in there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jigsaw_triton.spec.cluster_schema import ClusterDocument
from jigsaw_triton.spec.yaml_writer import dump_yaml

EVERYWHERE = "0.0.0.0"
"""Address of the gateway in a container, whose ports only those reach to whom the container is published."""

EDGE_FILES: Mapping[tuple[str, ...], str] = {
    ("tls", "cert"): "cert.pem",
    ("tls", "key"): "key.pem",
    ("tls", "client_ca"): "client_ca.pem",
    ("api_keys",): "api_keys",
}
"""Entry of the edge -> name of its file in a container."""


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """A cluster.yaml for a container.

    Attributes:
        text: Content of the file.
        edge_files: Name of each file of the edge in the container's folder -> path as the user's file has it.
    """

    text: str
    edge_files: Mapping[str, str] = field(default_factory=dict)


def cluster_file(
    document: ClusterDocument,
    *,
    driver: str,
    edge_folder: str,
    agents: Mapping[str, str] | None = None,
    certificates: str | None = None,
    ray: Mapping[str, Any] | None = None,
) -> ClusterFile:
    """Returns a cluster.yaml for a container.

    Args:
        document: The user's cluster.
        driver: MIG driver.
        edge_folder: Folder of the edge's certificates and keys in the container.
        agents: Node -> host and port of its agent; None for a deployment on one machine.
        certificates: Folder of the controller's certificates in the container, with agents.
        ray: Ray cluster that starts the agents; None if nothing of Ray runs.
    """
    data: dict[str, Any] = document.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    spec = data["spec"]
    spec["driver"] = driver
    spec["gateway"] = {**spec.get("gateway", {}), "address": EVERYWHERE}
    edge_files = {}
    for path, name in EDGE_FILES.items():
        *parents, last = path
        holder = spec.get("edge") or {}
        for key in parents:
            holder = holder.get(key) or {}
        if holder.get(last) is not None:
            edge_files[name] = holder[last]
            holder[last] = f"{edge_folder}/{name}"
    if ray is not None:
        spec.update(engine="ray", ray=dict(ray))
        spec.pop("certificates", None)
        for node in spec["nodes"]:
            node.pop("agent", None)
    if agents is not None:
        spec.pop("ray", None)
        spec["engine"] = "agents"
        spec["certificates"] = certificates
        for node in spec["nodes"]:
            node["agent"] = agents[node["name"]]
    return ClusterFile(dump_yaml(data), edge_files)
