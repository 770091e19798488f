"""Generates the configuration of both HAProxies of the transport. Pure functions without side effects."""

from dataclasses import dataclass
from pathlib import Path

WORKER_HEADER = "jigsaw-worker"
"""Header that names the worker of a call; without it, the call is for the node's agent."""

NODE_HEADER = "jigsaw-node"
"""Header that names the node of a call."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node that the gateway's side calls.

    Attributes:
        name: Name of the node.
        host: Host name or address of the node.
        port: TCP port of the node's side.
        certificate_name: DNS name that the node's certificate must carry; empty for `credentials.identity(name)`, which
            certificates of the deployment's own authority carry.
    """

    name: str
    host: str
    port: int
    certificate_name: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A worker of another node that is called as if it listened on a Unix socket of this one.

    Attributes:
        worker: Name of the worker.
        node: Name of its node.
        incarnation: Number or text that identifies one process of the worker, and differs for the next one. The socket
            gets a new inode with it, by which the compiled backend tells a restarted worker from its predecessor.
        socket: Path of the socket that callers connect to.
    """

    worker: str
    node: str
    incarnation: str
    socket: Path
