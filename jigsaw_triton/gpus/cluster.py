"""Builds a `Cluster` from the document of a cluster.yaml or of `--gpus`."""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from jigsaw_triton.gpus.gateway import (
    Edge,
    EdgeLimits,
    EdgeTls,
    GatewayLimits,
    GatewayPorts,
    Otlp,
    ServerImage,
    StandbyGateway,
)
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import (
    NODE,
    Agents,
    Board,
    Cluster,
    Gpu,
    GpuId,
    Layout,
    Placement,
    RayCluster,
    Survive,
)
from jigsaw_triton.spec.cluster_schema import (
    CERTIFICATE_FILES,
    LIMIT_GPUS,
    ClusterDocument,
    ClusterSpec,
    EdgeEntry,
    ForeignEntry,
    GpusEntry,
    NodeEntry,
    RayEntry,
)
from jigsaw_triton.spec.load import Loaded
from jigsaw_triton.spec.source import Path, Report
from jigsaw_triton.spec.words import LOCAL_NODE, nearest, shown

_ENDPOINT = re.compile(
    r"(?P<scheme>https?|grpcs?)://(?P<user>[!-.0-?A-~]*@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.~-]+)"
    r"(?::(?P<port>\d{1,5}))?(?P<path>/[\w.~!$&'()*+,;=:@%/-]*)?",
    re.ASCII,
)
"""Form of the address of an OTLP receiver."""

_OTLP_GRPC_PORT = "4317"
"""Usual port of OTLP over gRPC. Over HTTP, it is 4318."""

_TAKEN: Mapping[str, str] = {
    LOCAL_NODE: "the controller's own machine",
    "controller": "the name in the controller's certificate, whose owner may command all agents",
}
"""Names that no node with an agent can have, and what they stand for."""


def build_cluster(
    loaded: Loaded[ClusterDocument],
    catalog: Mapping[str, Board],
    *,
    driver: Literal["nvml", "emulated"] = "emulated",
) -> Cluster:
    """Builds the cluster that a document describes.

    Args:
        loaded: Document from `spec.load.load_cluster` or `parse_gpus`.
        catalog: Known boards by name.
        driver: MIG driver to use if the document names none.

    Raises:
        SpecError: The document has structural or semantic errors; all of them are reported.
    """
    report = Report(loaded.source, loaded.problems)
    spec = loaded.document.spec
    gpus = _gpus(spec.nodes, catalog, loaded, report)
    gateway = GatewayPorts(spec.gateway.http, spec.gateway.grpc, spec.gateway.metrics, spec.gateway.address)
    for mistake in gateway_mistakes(gateway):
        report.add(("spec", "gateway", *mistake.field), mistake.message, mistake.hint)
    otlp = Otlp(spec.gateway.otlp.endpoint, spec.gateway.otlp.sample) if spec.gateway.otlp is not None else None
    for mistake in otlp_mistakes(otlp):
        report.add(("spec", "gateway", "otlp", *mistake.field), mistake.message, mistake.hint)
    edge = _edge(spec.edge, gateway, loaded, report)
    agents = _agents(spec, loaded, report)
    standby_gateway = _standby_gateway(spec, report)
    survive = _survive(spec, report)
    report.raise_if_any()
    image = ServerImage(spec.gateway.image, spec.gateway.runtime) if spec.gateway.image is not None else None
    return Cluster(
        gpus=tuple(sorted(gpus, key=lambda gpu: gpu.id)),
        driver=spec.driver or (driver if agents is None else _driver_elsewhere(gpus)),
        processes=spec.processes,
        gateway=gateway,
        image=ServerImage(spec.server.image, spec.server.runtime) if spec.server is not None else None,
        edge=edge,
        gateway_image=image,
        gateway_memory_mib=spec.gateway.memory_mib,
        agents=agents,
        gateway_limits=GatewayLimits(spec.gateway.processors, spec.gateway.workers),
        topology={node.name: dict(node.topology) for node in spec.nodes if node.topology},
        survive=survive,
        gateway_node=_gateway_node(spec),
        otlp=otlp,
        standby_gateway=standby_gateway,
    )


def _driver_elsewhere(gpus: list[Gpu]) -> Literal["nvml", "emulated"]:
    """Returns the driver of other machines if none is named. Whether there are GPUs here says nothing about them."""
    return "emulated" if all(gpu.board.arch == "cpu" for gpu in gpus) else "nvml"


class Mistake(NamedTuple):
    """An error in the gateway's settings; `field` is empty if it concerns several fields."""

    field: tuple[str, ...]
    message: str
    hint: str


def gateway_mistakes(gateway: GatewayPorts) -> Iterator[Mistake]:
    """Yields the reasons why the gateway cannot listen on this address and these ports."""
    ports = {"http": gateway.http, "grpc": gateway.grpc, "metrics": gateway.metrics}
    if len(set(ports.values())) < len(ports):
        taken = ", ".join(f"{name} {port}" for name, port in ports.items())
        yield Mistake((), f"the gateway's ports are not distinct: {taken}", "give each its own port")
    try:
        # Triton's HTTP server accepts no IPv6 address.
        ipaddress.IPv4Address(gateway.address)
    except ValueError:
        hint = "write 127.0.0.1 for this machine only, 0.0.0.0 for all networks"
        yield Mistake(("address",), f"{shown(gateway.address)} is not an IPv4 address", hint)


def otlp_mistakes(otlp: Otlp | None) -> Iterator[Mistake]:
    """Yields the reasons why traces cannot be exported like this."""
    if otlp is None:
        return
    found = _ENDPOINT.fullmatch(otlp.endpoint)
    if found is None or not 0 < int(found["port"] or 80) < 2**16:
        hint = "write http://localhost:4318 for OTLP over HTTP, or grpc://localhost:4317 for OTLP over gRPC"
        yield Mistake(("endpoint",), f"{shown(otlp.endpoint)} is not an http, https, grpc or grpcs address", hint)
    elif found["user"]:
        hint = "let a collector on this machine add the credentials"
        yield Mistake(("endpoint",), "the address of the receiver contains credentials", hint)
    elif found["scheme"].startswith("grpc"):
        if (found["path"] or "/") != "/":
            hint = "remove the path: calls by gRPC have a fixed one"
            yield Mistake(("endpoint",), f"{shown(otlp.endpoint)} has a path", hint)
    elif found["port"] == _OTLP_GRPC_PORT and (found["path"] or "/") == "/":
        scheme, host = found["scheme"].replace("http", "grpc"), found["host"]
        hint = (
            f"write {scheme}://{host}:{_OTLP_GRPC_PORT} for gRPC, or {found['scheme']}://{host}:4318 for HTTP; a "
            f"receiver of HTTP on that port has an address that ends in :{_OTLP_GRPC_PORT}/v1/traces"
        )
        yield Mistake(("endpoint",), f"port {_OTLP_GRPC_PORT} is that of OTLP over gRPC", hint)
    if not 0 <= otlp.sample <= 1:
        yield Mistake(("sample",), f"{otlp.sample:g} is not a share between 0 and 1", "write 0.01 for one percent")


def _agents(spec: ClusterSpec, loaded: Loaded[ClusterDocument], report: Report) -> Agents | None:
    """Builds the addresses and certificates of the engines `agents` and `ray`, and checks that all are there."""
    if spec.engine != "ray" and spec.ray is not None:
        report.add(("spec", "ray"), "this belongs to the engine `ray`", "write `engine: ray`, or remove it")
    if spec.engine == "local":
        given: list[Path] = [("nodes", number, "agent") for number, node in enumerate(spec.nodes) if node.agent]
        if spec.certificates is not None:
            given.append(("certificates",))
        for path in given:
            hint = "write that engine, or remove it"
            report.add(("spec", *path), "this belongs to the engines `agents` and `ray`", hint)
        return None
    _check_agents(spec, loaded, report)
    certificates = _certificates(spec, loaded, report)
    addresses = tuple((node.name, node.agent or "") for node in spec.nodes)
    if spec.engine == "agents":
        return Agents(addresses, certificates)
    ray = spec.ray or RayEntry()
    return Agents(addresses, certificates, RayCluster(ray.address, ray.port, ray.state or ""))


def _check_agents(spec: ClusterSpec, loaded: Loaded[ClusterDocument], report: Report) -> None:
    """Reports nodes that lack an agent, share one, or have a name that is taken."""
    lines: dict[str, int] = {}
    for number, node in enumerate(spec.nodes):
        place: Path = ("spec", "nodes", number)
        if node.agent is None:
            if spec.engine == "agents":
                hint = "write `agent: HOST:PORT`, where `jigsaw-triton agent` listens on that machine"
                report.add(place, f"node '{node.name}' has no agent", hint)
        elif node.agent in lines:
            report.add((*place, "agent"), f"two nodes have the agent {node.agent}", f"see line {lines[node.agent]}")
        else:
            lines[node.agent] = loaded.source.line((*place, "agent"))
            port = int(node.agent.rpartition(":")[2])
            if port >= 2**16:
                report.add((*place, "agent"), f"there is no port {port}", "ports are numbers up to 65535")
        if node.name in _TAKEN:
            report.add((*place, "name"), f"'{node.name}' is {_TAKEN[node.name]}", "choose another name")


def _certificates(spec: ClusterSpec, loaded: Loaded[ClusterDocument], report: Report) -> str:
    """Returns the folder of the controller's certificates; empty if there is none."""
    folder = spec.certificates
    if folder is None:
        if spec.engine == "agents":
            hint = "write the folder that `jigsaw-triton certificates issue` made for the controller"
            report.add(("spec",), "the engine `agents` needs `certificates`", hint)
        return ""
    files = [loaded.files[f"{folder}/{name}"] for name in CERTIFICATE_FILES]
    if missing := [file.path.name for file in files if not file.exists]:
        hint = "make them with `jigsaw-triton certificates`; the path is relative to this file's folder"
        report.add(("spec", "certificates"), f"the folder {shown(folder)} has no {', '.join(missing)}", hint)
    return str(files[0].path.parent)


def _edge(
    entry: EdgeEntry | None, gateway: GatewayPorts, loaded: Loaded[ClusterDocument], report: Report
) -> Edge | None:
    """Builds the edge and checks that its files exist."""
    if entry is None:
        return None
    path: Path = ("spec", "edge")

    def file(text: str, *keys: str) -> str:
        found = loaded.files[text]
        if not found.exists:
            report.add(
                (*path, *keys), f"there is no file {shown(text)}", "write its path relative to this file's folder"
            )
        return str(found.path)

    tls = None
    if entry.tls is not None:
        ca = file(entry.tls.client_ca, "tls", "client_ca") if entry.tls.client_ca is not None else None
        tls = EdgeTls(file(entry.tls.cert, "tls", "cert"), file(entry.tls.key, "tls", "key"), ca)
    keys = file(entry.api_keys, "api_keys") if entry.api_keys is not None else None
    if entry.metrics in (gateway.http, gateway.grpc, gateway.metrics):
        message = f"port {entry.metrics} is already used by the gateway"
        report.add((*path, "metrics"), message, "choose another for edge.metrics")
    return Edge(entry.kind, tls, keys, EdgeLimits(**entry.limits.model_dump()), entry.metrics, entry.access_log)


def _gateway_node(spec: ClusterSpec) -> str:
    """Returns the node that the controller and its gateway run on, which agents never have."""
    names = [node.name for node in spec.nodes]
    if spec.engine != "local":
        return LOCAL_NODE
    return LOCAL_NODE if LOCAL_NODE in names else names[0]


def _standby_gateway(spec: ClusterSpec, report: Report) -> StandbyGateway | None:
    """Builds the standby of the gateway, and checks that one of the agents can keep it."""
    entry = spec.gateway.standby
    path: Path = ("spec", "gateway", "standby")
    if entry is None:
        return None
    if spec.engine != "agents":
        report.add(path, "a standby gateway needs the engine `agents`", "write `engine: agents`, or remove it")
    names = [node.name for node in spec.nodes]
    if entry.node not in names:
        report.add(path, f"the cluster has no node {shown(entry.node)}", nearest(entry.node, names, "nodes"))
    address = entry.address or spec.gateway.address
    for mistake in gateway_mistakes(GatewayPorts(address=address)) if entry.address is not None else ():
        report.add((*path, *mistake.field), mistake.message, mistake.hint)
    return StandbyGateway(entry.node, address)


def _survive(spec: ClusterSpec, report: Report) -> Survive | None:
    """Builds the loss to survive, and checks that each node is in a failure domain."""
    for number, node in enumerate(spec.nodes):
        if NODE in node.topology:
            path: Path = ("spec", "nodes", number, "topology", NODE)
            report.add(path, f"'{NODE}' is no label, for it stands for the node itself", "choose another label")
        elif spec.survive is not None and spec.survive.loss_of not in (NODE, *node.topology):
            label = spec.survive.loss_of
            report.add(
                ("spec", "nodes", number),
                f"node '{node.name}' has no label '{label}', whose loss plans must survive",
                f"add `topology: {{{label}: ...}}`, or write `survive: {NODE}`",
            )
    return Survive(spec.survive.loss_of, spec.survive.share) if spec.survive is not None else None


def _gpus(
    nodes: list[NodeEntry], catalog: Mapping[str, Board], loaded: Loaded[ClusterDocument], report: Report
) -> list[Gpu]:
    lines: dict[str, int] = {}
    gpus: list[Gpu] = []
    total = sum(entry.count for node in nodes for entry in node.gpus)
    if total > LIMIT_GPUS:
        report.add(("spec", "nodes"), f"the cluster has {total} GPUs", f"at most {LIMIT_GPUS} are supported")
        return gpus
    for number, node in enumerate(nodes):
        path: Path = ("spec", "nodes", number)
        if node.name in lines:
            report.add(path, f"node '{node.name}' is repeated", f"the first is on line {lines[node.name]}")
        lines.setdefault(node.name, loaded.source.line(path))
        found: list[tuple[Board, Layout, float | None]] = []
        for position, entry in enumerate(node.gpus):
            board = catalog.get(entry.model)
            if board is None:
                hint = nearest(entry.model, catalog, "known models")
                report.add((*path, "gpus", position, "model"), f"there is no GPU model {shown(entry.model)}", hint)
            else:
                foreign = _foreign(entry.foreign, board, (*path, "gpus", position, "foreign"), report)
                found += [(board, foreign, entry.cost)] * entry.count
        gpus += [
            Gpu(GpuId(node.name, index), board, foreign, cost=cost)
            for index, (board, foreign, cost) in enumerate(found)
        ]
    if not loaded.problems:
        # The document lacks a cost that is not a number, so costs are compared only if the file has no mistake.
        _check_costs(nodes, loaded, report)
    return gpus


def _check_costs(nodes: list[NodeEntry], loaded: Loaded[ClusterDocument], report: Report) -> None:
    """Reports costs that some GPUs have and others have not, and models of GPU with two costs."""
    entries: list[tuple[Path, GpusEntry]] = [
        (("spec", "nodes", number, "gpus", position), entry)
        for number, node in enumerate(nodes)
        for position, entry in enumerate(node.gpus)
    ]
    priced = [(path, entry) for path, entry in entries if entry.cost is not None]
    first: dict[str, tuple[Path, float | None]] = {}
    for path, entry in entries:
        known, cost = first.setdefault(entry.model, (path, entry.cost))
        if priced and entry.cost is None:
            line = loaded.source.line((*priced[0][0], "cost"))
            report.add(
                path,
                f"these GPUs have no cost, but others have one on line {line}",
                "give the cost per hour of all GPUs, or of none",
            )
        elif cost is not None and entry.cost != cost:
            line = loaded.source.line((*known, "cost"))
            report.add(
                (*path, "cost"),
                f"GPUs of the model {entry.model} cost {entry.cost:g} here, but {cost:g} on line {line}",
                "give all GPUs of a model the same cost",
            )


def _foreign(entries: Iterable[ForeignEntry], board: Board, path: Path, report: Report) -> Layout:
    """Returns the placements of others' instances on a GPU."""
    foreign: list[Placement] = []
    for number, entry in enumerate(entries):
        placement = Placement(entry.start, entry.slice)
        if reason := fits(board, [*foreign, placement]):
            report.add(
                (*path, number),
                f"this instance cannot be there: {reason}",
                "list the instances as `nvidia-smi mig -lgi` prints them",
            )
        else:
            foreign.append(placement)
    return tuple(sorted(foreign))
