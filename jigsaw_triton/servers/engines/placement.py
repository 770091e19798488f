"""Agents that are to run on the raylets of a Ray cluster, and the raylet of each node of cluster.yaml."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jigsaw_triton.errors import InputError
from jigsaw_triton.spec.words import nearest

_RESOURCE = "node:"


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """The agent that Ray is to keep running on a node.

    Attributes:
        node: Name of the node.
        address: Host and port by which the controller reaches it; empty for the address that Ray has.
        port: Port to listen on.
        state: Folder of the node's state; empty for that of the user there.
        files: Name of each file of the node's certificates -> its text.
    """

    node: str
    address: str
    port: int
    state: str
    files: Mapping[str, str] = field(repr=False)

    @property
    def everywhere(self) -> bool:
        """True if the agent listens on all networks of the node, because Ray may not know the network of `address`."""
        return bool(self.address)

    @property
    def actor(self) -> str:
        """Name of its actor, which differs for each content of these settings."""
        settings = repr((self.node, self.everywhere, self.port, self.state, sorted(self.files.items())))
        return f"{prefix(self.node)}{hashlib.sha256(settings.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Placed:
    """Result of placing agents.

    Attributes:
        addresses: Node -> host and port of its agent, for the agents that listen.
        errors: Node -> reason why its agent does not listen.
    """

    addresses: Mapping[str, str]
    errors: Mapping[str, InputError]


def resource(node: str) -> str:
    """Returns the name of the custom resource that the raylet of a node offers."""
    return f"{_RESOURCE}{node}"


def prefix(node: str) -> str:
    """Returns how the names of the actors of a node begin."""
    return f"agent {node} "


def hosts(raylets: Sequence[Mapping[str, Any]], nodes: Iterable[str]) -> tuple[dict[str, str], dict[str, InputError]]:
    """Finds the raylet of each node.

    Args:
        raylets: Ray's node table.
        nodes: Names of the nodes.

    Returns:
        Node -> address of its raylet, and node -> mistake for the others.
    """
    alive = [raylet for raylet in raylets if raylet["Alive"]]
    offered: dict[str, list[str]] = {}
    for raylet in alive:
        for name in raylet["Resources"]:
            offered.setdefault(name, []).append(raylet["NodeManagerAddress"])
    # Resources of this form that Ray makes itself.
    by_ray = {"__internal_head__", *(raylet["NodeManagerAddress"] for raylet in alive)}
    names = {name.removeprefix(_RESOURCE) for name in offered if name.startswith(_RESOURCE)} - by_ray
    found, mistakes = {}, {}
    for node in nodes:
        addresses = offered.get(resource(node), [])
        if len(addresses) == 1:
            found[node] = addresses[0]
            continue
        where = f"node {node}"
        if addresses:
            message = f"{len(addresses)} raylets offer {resource(node)}: {', '.join(sorted(addresses))}"
            mistakes[node] = InputError(message, where=where, hint="give each raylet a name of its own")
        else:
            start = f"start one there: ray start --num-gpus=0 --resources='{{\"{resource(node)}\": 1}}' ..."
            known = nearest(node, names, "nodes that are offered")
            hint = "; ".join(filter(None, (start, known)))
            message = f"none of the {len(alive)} raylets offers the resource {resource(node)}"
            mistakes[node] = InputError(message, where=where, hint=hint)
    return found, mistakes


def endpoint(spec: AgentSpec, host: str) -> str:
    """Returns the address of an agent, given that of its raylet."""
    return spec.address or f"{f'[{host}]' if ':' in host else host}:{spec.port}"
