"""The content of a gateway, as it is sent to the agent that keeps its standby.

The whole content is sent each time; files go apart, by the digest of their content, so that only new ones are sent.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

from jigsaw_triton.compiler.bundle import ModelFolder, Worker
from jigsaw_triton.compiler.route import route_json
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.fleet.wire import (
    Digest,
    Json,
    Sealed,
    digests,
    opened,
    opened_folder,
    sealed,
    sealed_folder,
)
from jigsaw_triton.gpus.gateway import Edge, EdgeLimits, EdgeTls, GatewayPorts, ServerImage
from jigsaw_triton.gpus.model import Cluster


@dataclass(frozen=True, slots=True)
class RemoteWorker:
    """A worker that a gateway calls on another node.

    Attributes:
        name: Name of the worker.
        node: Name of its node.
        incarnation: Text that differs for each process of the worker.
    """

    name: str
    node: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class GatewayContent:
    """Models and routes of a standby gateway, and all that it needs to serve them.

    Attributes:
        models: One-task fronts and pipelines, in loading order.
        fronts: Fronts of the graphs.
        routes: Name of a route -> content of its file. Tasks come after those that they depend on.
        steps: Workers without a GPU, which run beside each gateway.
        graphs: Names of the served graphs, whose fronts stay although a change of them is in progress.
        workers: Workers that run on all nodes.
        nodes: Name of each node -> host and port of its agent.
        epoch: Epoch of the controller, with which calls to workers are made.
        ports: Address and ports to listen on.
        edge: Proxy in front; None for none.
        image: Image to run from; None for the machine's own tritonserver.
        memory_mib: Largest heap.
    """

    models: tuple[ModelFolder, ...]
    fronts: tuple[ModelFolder, ...]
    routes: Mapping[str, str]
    steps: tuple[Worker, ...]
    graphs: tuple[str, ...]
    workers: tuple[RemoteWorker, ...]
    nodes: Mapping[str, str]
    epoch: str
    ports: GatewayPorts
    edge: Edge | None
    image: ServerImage | None
    memory_mib: int


def standby_content(
    actual: Actual,
    graphs: tuple[str, ...],
    cluster: Cluster,
    workers: tuple[RemoteWorker, ...],
    nodes: Mapping[str, str],
    epoch: str,
) -> GatewayContent | None:
    """Returns what the standby serves while the gateway serves what exists; None if there is no gateway.

    Args:
        actual: Servers, models and routes that exist.
        graphs: Names of the served graphs.
        cluster: Cluster with a standby gateway.
        workers: Workers that run on all nodes.
        nodes: Name of each node -> host and port of its agent.
        epoch: Epoch of the controller.
    """
    if not actual.gateway or cluster.standby_gateway is None:
        return None
    number = int(epoch.partition(".")[0] or 0)
    return GatewayContent(
        models=tuple(actual.models.values()),
        fronts=tuple(actual.fronts.values()),
        routes={name: route_json(entries, number).decode() for name, entries in actual.routes.items()},
        steps=tuple(worker for worker in actual.workers.values() if worker.place is None),
        graphs=graphs,
        workers=workers,
        nodes=nodes,
        epoch=epoch,
        ports=replace(cluster.gateway, address=cluster.standby_gateway.address),
        edge=cluster.edge,
        image=cluster.gateway_image,
        memory_mib=cluster.gateway_memory_mib,
    )


def sealed_content(content: GatewayContent, digest: Digest, state: bytes, copies: Collection[str] = ()) -> Sealed:
    """Returns the content of a gateway as it travels. Blocks while it reads files.

    Args:
        content: The content.
        digest: Function that returns the SHA-256 of a file.
        state: Copy of the controller's state, by `state_copy.copied`, which goes along.
        copies: Names of the copies of deployed files, which the next controller needs. They are sent last.
    """
    copy = sha256(state).hexdigest()
    contents: dict[str, bytes | Path] = {copy: state} | {name: Path(name) for name in copies}
    steps = [sealed(worker, digest) for worker in content.steps]
    data = {
        "models": [sealed_folder(folder, digest, contents) for folder in content.models],
        "fronts": [sealed_folder(folder, digest, contents) for folder in content.fronts],
        # A list, because the order matters.
        "routes": [[name, text] for name, text in content.routes.items()],
        "steps": [step.json for step in steps],
        "graphs": list(content.graphs),
        "workers": [asdict(worker) for worker in content.workers],
        "nodes": dict(content.nodes),
        "epoch": content.epoch,
        "ports": asdict(content.ports),
        "edge": _edge_json(content.edge, digest, contents) if content.edge is not None else None,
        "image": asdict(content.image) if content.image is not None else None,
        "memory_mib": content.memory_mib,
        "state": copy,
        "copies": sorted(copies),
    }
    for step in steps:
        contents |= step.contents
    return Sealed(data, contents)


def opened_content(data: Json, content: Callable[[str], Path]) -> GatewayContent:
    """Returns the content of `sealed_content`.

    Args:
        data: JSON of the content.
        content: Function that returns the file with the content of a digest.
    """
    image = data["image"]
    return GatewayContent(
        models=tuple(opened_folder(folder, content) for folder in data["models"]),
        fronts=tuple(opened_folder(folder, content) for folder in data["fronts"]),
        routes=dict(data["routes"]),
        steps=tuple(opened(worker, content) for worker in data["steps"]),
        graphs=tuple(data["graphs"]),
        workers=tuple(RemoteWorker(**worker) for worker in data["workers"]),
        nodes=data["nodes"],
        epoch=data["epoch"],
        ports=GatewayPorts(**data["ports"]),
        edge=_edge(data["edge"], content) if data["edge"] is not None else None,
        image=ServerImage(**image) if image is not None else None,
        memory_mib=data["memory_mib"],
    )


def copy_digests(data: Json) -> tuple[str, ...]:
    """Returns the digests of the files that only the next controller needs. Earlier releases name none."""
    return tuple(data.get("copies", ()))


def content_digests(data: Json) -> Iterator[str]:
    """Yields the digests of all files that the content of a gateway needs."""
    yield data["state"]
    for folder in (*data["models"], *data["fronts"]):
        yield from folder["files"].values()
    for worker in data["steps"]:
        yield from digests(worker)
    if data["edge"] is not None:
        yield from data["edge"]["files"].values()


def _edge_json(edge: Edge, digest: Digest, contents: dict[str, bytes | Path]) -> Json:
    """Returns an edge as it travels: a digest in place of each of its files."""
    tls = edge.tls
    named = {"api_keys": edge.api_keys}
    if tls is not None:
        named |= {"cert": tls.cert, "key": tls.key, "client_ca": tls.client_ca}
    files = {}
    for name, path in named.items():
        if path is not None:
            files[name] = digest(Path(path))
            contents[files[name]] = Path(path)
    return {
        "kind": edge.kind,
        "limits": asdict(edge.limits),
        "metrics": edge.metrics,
        "access_log": edge.access_log,
        "files": files,
    }


def _edge(data: Json, content: Callable[[str], Path]) -> Edge:
    files = {name: str(content(digest)) for name, digest in data["files"].items()}
    tls = EdgeTls(files["cert"], files["key"], files.get("client_ca")) if "cert" in files else None
    return Edge(
        kind=data["kind"],
        tls=tls,
        api_keys=files.get("api_keys"),
        limits=EdgeLimits(**data["limits"]),
        metrics=data["metrics"],
        access_log=data["access_log"],
    )
