"""Files of a cluster that is divided into cells: a folder for each cell, and the front's front.yaml.

Clients connect to the front, so it gets the ports and the edge of the user's cluster.yaml. A gateway that has a machine
of its own listens there on the same ports, and the other gateways on further ones of the front's machine. With
certificates for gateways, each has an edge that speaks TLS with the front.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from jigsaw_triton.errors import InputError
from jigsaw_triton.spec.cluster_schema import ClusterDocument, GatewayEntry, LimitsEntry
from jigsaw_triton.spec.entries import API_VERSION
from jigsaw_triton.spec.yaml_writer import Inline, dump_yaml

FRONT = "front.yaml"
CELLS = "cells"
"""Folder of the cells' folders."""

CELL, CLUSTER, PLAN = "cell.yaml", "cluster.yaml", "plan.json"
"""Files of a cell."""

LOOPBACK = "127.0.0.1"
_EDGE = "edge"
_STEP = 10
_MOST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class CellContent:
    """A cell to write files of.

    Attributes:
        name: Name of the cell.
        nodes: Names of its nodes.
        graphs: Graph -> absolute path of its folder or file.
        demand: Graph -> requests per second to provide for.
        weights: Graph -> share of its requests.
        plan: Text of the plan that the cell is expected to have.
        host: Host of the gateway; None if it is on the front's machine.
        standby: Host of the standby gateway; None if there is none.
    """

    name: str
    nodes: tuple[str, ...]
    graphs: Mapping[str, str]
    demand: Mapping[str, float]
    weights: Mapping[str, float]
    plan: str
    host: str | None = None
    standby: str | None = None


@dataclass(frozen=True, slots=True)
class GatewayCertificates:
    """Certificates with which the front and the gateways show each other who they are, as absolute paths.

    Attributes:
        cert: Certificate.
        key: Private key of the certificate.
        ca: Authorities of the certificate, which both sides trust.
        name: DNS name that the certificate carries.
    """

    cert: str
    key: str
    ca: str
    name: str


def cell_files(
    document: ClusterDocument,
    files: Mapping[str, str],
    cells: Sequence[CellContent],
    certificates: GatewayCertificates | None = None,
) -> dict[str, str]:
    """Returns the text of each file by its path in the folder of the cells.

    Args:
        document: The user's cluster.
        files: Path as the document has it -> absolute path, for certificates and keys.
        cells: Cells, with the weights of each graph.
        certificates: Certificates of the gateways; None if the front reaches them without TLS.

    Raises:
        InputError: The machine has too few ports for all gateways.
    """
    found = {FRONT: dump_yaml(_front(document, files, cells, certificates))}
    for index, cell in enumerate(cells):
        folder = PurePosixPath(CELLS, cell.name)
        found[str(folder / CLUSTER)] = dump_yaml(_cluster(document, files, cell, index, certificates))
        found[str(folder / CELL)] = dump_yaml(_cell(cell))
        found[str(folder / PLAN)] = cell.plan
    return found


def _cell(cell: CellContent) -> dict[str, Any]:
    demand = {name: float(rps) for name, rps in sorted(cell.demand.items())}
    return _document("Cell", {"graphs": dict(sorted(cell.graphs.items())), "demand": demand})


def _cluster(
    document: ClusterDocument,
    files: Mapping[str, str],
    cell: CellContent,
    index: int,
    certificates: GatewayCertificates | None,
) -> dict[str, Any]:
    data: dict[str, Any] = document.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    spec = data["spec"]
    spec.pop("edge", None)
    spec["nodes"] = [node for node in spec["nodes"] if node["name"] in cell.nodes]
    if document.spec.certificates is not None:
        # `files` maps files only, so one file of the folder gives the folder's new path.
        spec["certificates"] = str(PurePosixPath(files[f"{document.spec.certificates}/cert.pem"]).parent)
    base = document.spec.gateway
    gateway = _gateway(base, cell, index, edge=certificates is not None)
    if certificates is not None:
        spec["edge"] = _edge(document, certificates, gateway.pop(_EDGE))
    spec["gateway"] = {**spec.get("gateway", {}), **gateway}
    if (standby := base.standby) is not None:
        # The standby belongs to the cell that has its node, and cannot listen on the address of another machine.
        own = {"node": standby.node, "address": standby.address or base.address}
        del spec["gateway"]["standby"]
        spec["gateway"] |= {"standby": own} if standby.node in cell.nodes else {}
    return data


def _edge(document: ClusterDocument, certificates: GatewayCertificates, port: int) -> dict[str, Any]:
    """Returns the edge of a gateway, whose only clients are fronts."""
    edge: dict[str, Any] = {"kind": "haproxy", "metrics": port}
    tls = {"cert": certificates.cert, "key": certificates.key, "client_ca": certificates.ca}
    if document.spec.edge is not None:
        own = {"client_connections", "client_rps"}
        edge["limits"] = document.spec.edge.limits.model_dump(exclude=own, exclude_defaults=True)
    return {**edge, "tls": Inline(tls)}


def _gateway(base: GatewayEntry, cell: CellContent, index: int, *, edge: bool) -> dict[str, Any]:
    """Returns the address and the ports that the gateway of a cell, and its edge if it has one, listen on."""
    ports = {"http": base.http, "grpc": base.grpc, "metrics": base.metrics}
    ports |= {_EDGE: max(ports.values()) + 1} if edge else {}
    address, hint = LOOPBACK, "choose lower ports, or give gateways machines of their own with --gateway-host"
    if cell.host is not None:
        numbers = cell.host.split(".")
        is_address = len(numbers) == 4 and all(number.isdecimal() for number in numbers)
        address, hint = cell.host if is_address else "0.0.0.0", "choose lower ports"
    else:
        # Steps are wider than the ports of one gateway, so that those of two never meet.
        step = -(-(max(ports.values()) - min(ports.values()) + 1) // _STEP) * _STEP
        ports = {name: port + (index + 1) * step for name, port in ports.items()}
    if (largest := max(ports.values())) > _MOST_PORT:
        message = f"the gateway of cell {cell.name} would have port {largest}"
        raise InputError(message, where="spec.gateway", hint=hint)
    return {"address": address, **ports}


def _front(
    document: ClusterDocument,
    files: Mapping[str, str],
    cells: Sequence[CellContent],
    certificates: GatewayCertificates | None,
) -> dict[str, Any]:
    base, edge = document.spec.gateway, document.spec.edge
    metrics = base.metrics if edge is None else edge.metrics
    spec: dict[str, Any] = {
        "listen": Inline(address=base.address, http=base.http, grpc=base.grpc, metrics=metrics),
        "cells": [
            _front_cell(cell, _gateway(base, cell, index, edge=certificates is not None))
            for index, cell in enumerate(cells)
        ],
    }
    if certificates is not None:
        own = {"ca": certificates.ca, "server_name": certificates.name}
        spec["gateway_tls"] = Inline(**own, cert=certificates.cert, key=certificates.key)
    if edge is not None:
        if edge.tls is not None:
            named = edge.tls.model_dump(exclude_none=True)
            spec["tls"] = Inline({key: files[path] for key, path in named.items()})
        if edge.api_keys is not None:
            spec["api_keys"] = files[edge.api_keys]
        limits = edge.limits.model_dump(include=set(LimitsEntry.model_fields), exclude_defaults=True)
        if limits:
            spec["limits"] = Inline(limits)
        spec["access_log"] = edge.access_log
    return _document("Front", spec)


def _front_cell(cell: CellContent, gateway: Mapping[str, Any]) -> dict[str, Any]:
    ports = {key: gateway[key] for key in ("http", "grpc", "metrics")}

    def at(host: str) -> dict[str, str]:
        return {key: f"{host}:{port}" for key, port in ports.items()}

    found = {
        "name": cell.name,
        **at(cell.host or LOOPBACK),
        "weights": Inline({name: round(float(weight), 6) for name, weight in sorted(cell.weights.items())}),
    }
    return found | ({"standby": Inline(at(cell.standby))} if cell.standby is not None else {})


def _document(kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "spec": dict(spec)}
