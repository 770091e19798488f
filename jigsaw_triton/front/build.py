"""Builds a `Front` from the document of a front.yaml. Pure functions without side effects."""

from jigsaw_triton.front.model import Front, FrontCell, GatewayAddress
from jigsaw_triton.gpus.cluster import gateway_mistakes
from jigsaw_triton.gpus.gateway import Edge, EdgeLimits, EdgeTls, GatewayPorts
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
    edge = _edge(loaded, report)
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
    return Front(cells, ports, edge)


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
    for number, cell in enumerate(spec.cells):
        places: list[tuple[Path, GatewayAddressEntry]] = [(("spec", "cells", number), cell)]
        if cell.standby is not None:
            places.append((("spec", "cells", number, "standby"), cell.standby))
        for place, entry in places:
            for key, address in (("http", entry.http), ("grpc", entry.grpc), ("metrics", entry.metrics)):
                if address is None:
                    continue
                path: Path = (*place, key)
                if int(address.rpartition(":")[2]) > _MOST_PORT:
                    report.add(path, f"{shown(address)} has no valid port", f"a port is at most {_MOST_PORT}")
                elif key != "metrics" and address in lines:
                    hint = f"the other is on line {lines[address]}"
                    report.add(path, f"two servers have the address {address}", hint)
                lines.setdefault(address, loaded.source.line(path))


def _edge(loaded: Loaded[FrontDocument], report: Report) -> Edge:
    """Builds the settings towards clients, and checks that the files exist."""
    spec = loaded.document.spec

    def file(text: str, *keys: str) -> str:
        found = loaded.files[text]
        if not found.exists:
            hint = "write its path relative to this file's folder"
            report.add(("spec", *keys), f"there is no file {shown(text)}", hint)
        return str(found.path)

    tls = None
    if spec.tls is not None:
        ca = file(spec.tls.client_ca, "tls", "client_ca") if spec.tls.client_ca is not None else None
        tls = EdgeTls(file(spec.tls.cert, "tls", "cert"), file(spec.tls.key, "tls", "key"), ca)
    keys = file(spec.api_keys, "api_keys") if spec.api_keys is not None else None
    # The front holds no request while a cell is away, since another one may answer it.
    limits = EdgeLimits(**spec.limits.model_dump(), queue_s=0)
    return Edge("haproxy", tls, keys, limits, spec.listen.metrics, spec.access_log)
