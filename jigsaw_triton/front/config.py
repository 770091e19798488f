"""Generates HAProxy's files of a front. Pure functions without side effects.

Each graph has a backend for each protocol, in which each cell that serves the graph is a server. A cell is healthy for
a graph if its gateway has the graph's model ready. The check is made over HTTP, and counts for gRPC too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from jigsaw_triton.front.model import Front, FrontCell, GatewayAddress, host_of
from jigsaw_triton.front.rules import (
    AGAIN_MS,
    CHECK_MS,
    CHECK_TIMEOUT_MS,
    CONNECT_MS,
    LOST_MS,
    NAMED,
    RETRIES,
    SERVICE,
    backend,
    ready_path,
)
from jigsaw_triton.front.shares import weights
from jigsaw_triton.servers.edge.config import (
    PROTOCOLS,
    defaults,
    error_section,
    exporter,
    named_files,
    process_section,
    public_section,
    tables,
)
from jigsaw_triton.servers.edge.config import links as edge_links
from jigsaw_triton.servers.edge.keys import ApiKey
from jigsaw_triton.servers.haproxy.config import CONFIG, Place, Section, configuration
from jigsaw_triton.servers.names import is_address

STATE = "servers.state"
"""Name of the file with the state of all servers, from which a process continues after a reload."""

STANDBY, LAST = ".standby", ".last"
"""Suffixes of the servers of a standby gateway. The first has a weight while the cell's gateway is down, which the
front changes; the second serves at once if no cell is left, which HAProxy knows itself."""

_BACKEND, _SERVER, _ADDRESS, _PORT = 1, 3, 4, 18
"""Columns of HAProxy's states of servers."""

_CA, _CERT = "gateways.pem", "front.pem"
"""Names of the links to the files for TLS to the gateways."""

_UNKNOWN: Mapping[str, str] = MappingProxyType({})

_ERRORS = {
    500: "the front failed",
    502: "the cell's gateway failed before it answered",
    503: "no cell has this model ready",
    504: "the cell's gateway did not answer in time",
}


def links(front: Front) -> dict[str, str]:
    """Returns link name -> file of the user; HAProxy reads the targets of the links at each reload."""
    found, tls = dict(edge_links(front.edge)), front.gateway_tls
    if tls is not None:
        found[_CA] = tls.ca
        if tls.cert is not None and tls.key is not None:
            found |= {_CERT: tls.cert, f"{_CERT}.key": tls.key}
    return found


def files(
    front: Front, place: Place, keys: tuple[ApiKey, ...] | None, addresses: Mapping[str, str] = _UNKNOWN
) -> dict[str, str]:
    """Generates the files of the front.

    Args:
        front: Settings of the front.
        place: Folder and resources of HAProxy.
        keys: API keys of clients; None if no key is required.
        addresses: Host of a gateway -> its address. HAProxy resolves no names: a gateway whose host has a name and no
            address here is out of service.

    Returns:
        Name of a file -> its content.
    """
    limits, keyed = front.edge.limits, keys is not None
    make = _Servers(front, place, addresses)
    sections: list[Section] = [
        (*process_section(limits, place), f"server-state-file {place.folder / STATE}", *_least_tls(front)),
        (*defaults(limits), "load-server-state-from-file global"),
        *(error_section(protocol, place) for protocol in PROTOCOLS),
        *(
            public_section(protocol, front.edge, front.ports, place, keyed=keyed, routing=_routing(protocol, front))
            for protocol in PROTOCOLS
        ),
        *(_any_model(protocol, front, make) for protocol in PROTOCOLS),
        *(_graph(protocol, graph, front, make) for graph in front.graphs for protocol in PROTOCOLS),
        *tables(),
        exporter(front.edge, front.ports),
    ]
    return {CONFIG: configuration(sections), **named_files(limits, keys, _ERRORS)}


def state_of(front: Front, text: str, addresses: Mapping[str, str] = _UNKNOWN) -> str:
    """Returns the states of servers without those of servers that have another address now.

    HAProxy takes a port from a state rather than from its configuration, so it would go on with the port before.

    Args:
        front: Settings of the front.
        text: States as HAProxy writes them.
        addresses: Host of a gateway -> its address.
    """
    gateways = _gateways(front)

    def kept(line: str) -> bool:
        words = line.split()
        if len(words) <= _PORT or line.startswith("#"):
            # These lines hold the version of the format and the names of the columns, or are empty.
            return True
        protocol, gateway = words[_BACKEND].partition(".")[0], gateways.get(words[_SERVER])
        if gateway is None or protocol not in PROTOCOLS:
            return False
        host, port = gateway.host(protocol), gateway.of(protocol).rpartition(":")[2]
        return (addresses.get(host, host), port) == (words[_ADDRESS], words[_PORT])

    return "".join(line for line in text.splitlines(keepends=True) if kept(line))


def addresses_in(front: Front, text: str) -> dict[str, str]:
    """Returns host -> address, as HAProxy's states of servers have them.

    Args:
        front: Settings of the front.
        text: States as HAProxy writes them.
    """
    gateways = _gateways(front)
    found = {}
    for words in map(str.split, text.splitlines()):
        if len(words) > _PORT and words[_SERVER] in gateways and is_address(words[_ADDRESS]):
            protocol = words[_BACKEND].partition(".")[0]
            found[gateways[words[_SERVER]].host(protocol)] = words[_ADDRESS]
    return found


def _gateways(front: Front) -> dict[str, GatewayAddress]:
    """Returns name of a server -> its gateway."""
    found = {cell.name: cell.gateway for cell in front.cells}
    return found | {cell.name + end: cell.standby for cell in front.cells if cell.standby for end in (STANDBY, LAST)}


def _routing(protocol: str, front: Front) -> Iterator[str]:
    """Yields the rules that choose the backend by the model that a request names."""
    if protocol == "http":
        yield "http-request set-var(txn.graph) path,field(4,/) if { path_beg /v2/models/ }"
    else:
        yield f"acl named path {' '.join(f'{SERVICE}/{call}' for call in NAMED)}"
        yield f"http-request wait-for-body time {front.edge.limits.header_s}s if named"
        yield "http-request set-var(txn.graph) req.body,ungrpc(1) if named"
    # A backend that does not exist leads to the default, where a gateway answers that it has no such model.
    yield f"use_backend {protocol}.%[var(txn.graph)] if {{ var(txn.graph) -m found }}"


def _graph(protocol: str, graph: str, front: Front, make: "_Servers") -> Section:
    cells = front.cells_of(graph)
    return (
        f"backend {backend(protocol, graph)}",
        *_backend_lines(protocol, ready_path(graph)),
        *_statistics(protocol, cells),
        *make.of(protocol, backend("http", graph), cells, weights({c.name: c.shares[graph] for c in cells})),
    )


def _any_model(protocol: str, front: Front, make: "_Servers") -> Section:
    """Returns the backend of requests that name none of the graphs, and of gRPC streams, which may name any."""
    cells = front.complete_cells
    return (
        f"backend {protocol}",
        *_backend_lines(protocol, ready_path(None)),
        *_statistics(protocol, cells),
        *make.of(protocol, "http", cells, {cell.name: 1 for cell in cells}),
    )


def _backend_lines(protocol: str, check: str) -> Iterator[str]:
    yield f"errorfiles {protocol}"
    yield "balance roundrobin"
    yield f"timeout connect {CONNECT_MS}ms"
    yield f"retries {RETRIES}"
    # A request is sent to another cell only if no connection was made, so that none is executed twice.
    yield "retry-on conn-failure"
    yield "option redispatch 1"
    yield "option srvtcpka"
    yield from ("srvtcpka-idle 1s", "srvtcpka-intvl 1s", "srvtcpka-cnt 2")
    if protocol == "http":
        yield f"timeout check {CHECK_TIMEOUT_MS}ms"
        yield "option httpchk"
        yield f"http-check send meth GET uri {check} ver HTTP/1.1 hdr host front"
        yield "http-check expect status 200"


def _statistics(protocol: str, cells: tuple[FrontCell, ...]) -> Iterator[str]:
    """Yields rules by which one cell, the first that is up, answers all requests for statistics.

    They are counters of one gateway. A client that compares two answers, such as perf_analyzer, needs the same one.
    """
    condition = "path_end /stats" if protocol == "http" else f"path {SERVICE}/ModelStatistics"
    yield from (f"use-server {cell.name} if {{ {condition} }}" for cell in cells)


@dataclass(frozen=True, slots=True)
class _Servers:
    """Makes the servers of backends.

    Attributes:
        front: Settings of the front.
        place: Folder of HAProxy.
        addresses: Host of a gateway -> its address.
    """

    front: Front
    place: Place
    addresses: Mapping[str, str]

    def of(
        self, protocol: str, checked: str, cells: tuple[FrontCell, ...], by_cell: Mapping[str, int]
    ) -> Iterator[str]:
        """Yields the servers of a backend.

        Args:
            protocol: Protocol of the backend.
            checked: Name of the backend whose servers are checked, if it is another one.
            cells: Cells that are servers.
            by_cell: Weight of each cell.
        """
        for cell in cells:
            yield self._server(protocol, checked, cell.name, cell.gateway, f"weight {by_cell[cell.name]}")
            if cell.standby is not None:
                name = cell.name + STANDBY
                yield self._server(protocol, checked, name, cell.standby, "weight 0")
                yield self._server(protocol, checked, cell.name + LAST, cell.standby, "backup", track=name)

    def _server(
        self, protocol: str, checked: str, name: str, gateway: GatewayAddress, more: str, *, track: str | None = None
    ) -> str:
        """Returns the line of a server, which tracks the check of the server of this name over HTTP if it has none."""
        host = gateway.host(protocol)
        line = f"server {name} {self._address(gateway.of(protocol))} {self._security(protocol, host)}{more}"
        # HAProxy must start even if a name has no address yet.
        line += f" tcp-ut {LOST_MS}ms init-addr none"
        if protocol != "http" or track is not None:
            return f"{line} track {checked}/{track or name}"
        intervals = f"inter {CHECK_MS}ms fastinter {AGAIN_MS}ms downinter {CHECK_MS}ms fall 2 rise 1"
        return f"{line} check {intervals} observe layer4 error-limit 1 on-error mark-down"

    def _address(self, address: str) -> str:
        host = self.addresses.get(host_of(address), host_of(address))
        return f"{f'[{host}]' if ':' in host else host}:{address.rpartition(':')[2]}"

    def _security(self, protocol: str, host: str) -> str:
        """Returns the options by which both sides speak the protocol, and by which the front verifies the gateway."""
        tls = self.front.gateway_tls
        if tls is None:
            return "proto h2 " if protocol == "grpc" else ""
        name = tls.name_of(host)
        own = f" crt {self.place.folder / _CERT}" if tls.cert is not None else ""
        alpn = "alpn h2" if protocol == "grpc" else f"alpn http/1.1 check-sni {name} check-alpn http/1.1"
        ca = self.place.folder / _CA
        return f"ssl{own} ca-file {ca} verify required verifyhost {name} sni str({name}) {alpn} "


def _least_tls(front: Front) -> tuple[str, ...]:
    return ("ssl-default-server-options ssl-min-ver TLSv1.2",) if front.gateway_tls is not None else ()
