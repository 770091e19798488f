"""Builds a `Front` from the document of a front.yaml. Pure functions without side effects."""

from collections.abc import Iterator

from jigsaw_triton.front.model import Front, FrontCell, GatewayAddress, GatewayTls, host_of
from jigsaw_triton.gpus.cluster import gateway_mistakes
from jigsaw_triton.gpus.gateway import Edge, EdgeLimits, EdgeTls, GatewayPorts
from jigsaw_triton.servers.names import is_address
from jigsaw_triton.spec.cells import FrontDocument, FrontSpec, GatewayAddressEntry
from jigsaw_triton.spec.load import Loaded
from jigsaw_triton.spec.source import Path, Report
from jigsaw_triton.spec.words import shown

_MOST_PORT = 65_535


def build_front(loaded: Loaded[FrontDocument]) -> Front:
    """Builds the front that a document describes.

    Raises:
        SpecError: The document has structural or semantic errors; all of them are reported.
    """
    report = Report(loaded.source, loaded.problems)
    spec = loaded.document.spec
    ports = GatewayPorts(spec.listen.http, spec.listen.grpc, spec.listen.metrics, spec.listen.address)
    for mistake in gateway_mistakes(ports):
        message = mistake.message.replace("the gateway's ports", "the front's ports")
        report.add(("spec", "listen", *mistake.field), message, mistake.hint)
    _check_names(spec, loaded, report)
    _check_addresses(spec, loaded, report)
    totals: dict[str, float] = {}
    for cell in spec.cells:
        for graph, weight in cell.weights.items():
            totals[graph] = totals.get(graph, 0.0) + weight
    for graph, total in totals.items():
        if not total:
            report.add(("spec", "cells"), f"all weights of the graph {graph} are 0", "give one cell a weight above 0")
    edge, gateway_tls = _edge(loaded, report), _gateway_tls(loaded, report)
    report.raise_if_any()
    cells = tuple(
        FrontCell(
            cell.name,
            _address(cell),
            {graph: weight / totals[graph] for graph, weight in cell.weights.items() if weight},
            _address(cell.standby) if cell.standby is not None else None,
        )
        for cell in spec.cells
    )
    return Front(cells, ports, edge, gateway_tls)


def _address(entry: GatewayAddressEntry) -> GatewayAddress:
    return GatewayAddress(entry.http, entry.grpc, entry.metrics)


def _check_names(spec: FrontSpec, loaded: Loaded[FrontDocument], report: Report) -> None:
    lines: dict[str, int] = {}
    for number, cell in enumerate(spec.cells):
        path: Path = ("spec", "cells", number)
        if cell.name in lines:
            report.add(path, f"cell '{cell.name}' is repeated", f"the first is on line {lines[cell.name]}")
        lines.setdefault(cell.name, loaded.source.line(path))


def _check_addresses(spec: FrontSpec, loaded: Loaded[FrontDocument], report: Report) -> None:
    """Reports ports that do not exist, and two addresses for requests that are the same."""
    lines: dict[str, int] = {}
    for path, address in _addresses(spec):
        if int(address.rpartition(":")[2]) > _MOST_PORT:
            report.add(path, f"{shown(address)} has no valid port", f"a port is at most {_MOST_PORT}")
        elif path[-1] != "metrics" and address in lines:
            hint = f"the other is on line {lines[address]}"
            report.add(path, f"two servers have the address {address}", hint)
        lines.setdefault(address, loaded.source.line(path))


def _addresses(spec: FrontSpec) -> Iterator[tuple[Path, str]]:
    """Yields the addresses of all gateways with their places in the document."""
    for number, cell in enumerate(spec.cells):
        places: list[tuple[Path, GatewayAddressEntry | None]] = [
            (("spec", "cells", number), cell),
            (("spec", "cells", number, "standby"), cell.standby),
        ]
        for place, entry in places:
            if entry is not None:
                found = {"http": entry.http, "grpc": entry.grpc, "metrics": entry.metrics}
                yield from (((*place, key), address) for key, address in found.items() if address is not None)


def _edge(loaded: Loaded[FrontDocument], report: Report) -> Edge:
    """Builds the settings towards clients, and checks that the files exist."""
    spec = loaded.document.spec
    tls = None
    if spec.tls is not None:
        named = spec.tls.model_dump(exclude_none=True)
        tls = EdgeTls(**{key: _file(loaded, text, report, "tls", key) for key, text in named.items()})
    keys = _file(loaded, spec.api_keys, report, "api_keys") if spec.api_keys is not None else None
    # The front holds no request while a cell is away, since another one may answer it.
    limits = EdgeLimits(**spec.limits.model_dump(), queue_s=0)
    return Edge("haproxy", tls, keys, limits, spec.listen.metrics, spec.access_log)


def _gateway_tls(loaded: Loaded[FrontDocument], report: Report) -> GatewayTls | None:
    """Builds the settings of TLS to the gateways, and checks that files exist and that names can be verified."""
    entry = loaded.document.spec.gateway_tls
    if entry is None:
        return None
    place = ("spec", "gateway_tls")
    if (entry.cert is None) != (entry.key is None):
        report.add(place, "cert and key belong together", "write both, or none")
    if entry.server_name is None:
        for path, address in _addresses(loaded.document.spec):
            if path[-1] != "metrics" and is_address(host_of(address)):
                message = f"the certificate at {address} cannot be verified, because HAProxy compares names alone"
                report.add(path, message, "write the name in the certificate as gateway_tls.server_name")
    named = entry.model_dump(exclude_none=True, exclude={"server_name"})
    files = {key: _file(loaded, text, report, "gateway_tls", key) for key, text in named.items()}
    return GatewayTls(server_name=entry.server_name, **files)


def _file(loaded: Loaded[FrontDocument], text: str, report: Report, *keys: str) -> str:
    """Returns the absolute path of a file, and reports if it does not exist."""
    found = loaded.files[text]
    if not found.exists:
        hint = "write its path relative to this file's folder"
        report.add(("spec", *keys), f"there is no file {shown(text)}", hint)
    return str(found.path)
