"""Generates HAProxy's files from the cluster's settings. Pure functions without side effects.

A front of cells has the same side towards clients; it takes the public functions for it.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from jigsaw_triton.gpus.gateway import Edge, EdgeLimits, EdgeTls, GatewayPorts
from jigsaw_triton.servers.edge.keys import ApiKey
from jigsaw_triton.servers.haproxy.config import (
    CONFIG,
    Place,
    Section,
    configuration,
    http_error,
    process_lines,
    reply,
)

LUA = Path(__file__).with_name("edge.lua")
"""Path of the edge's Lua code."""

PROTOCOLS = ("http", "grpc")
"""Names of the protocols in the names of sections and sockets."""

_KEYS = "keys.map"
_CERT, _CLIENT_CA = "tls.pem", "client_ca.pem"
_RETRIES = 10
"""Retries of a request: the streams of a broken connection may meet several more before they reach the queue."""

_FILES_OF_PROCESS, _FILES_OF_CONNECTION = 256, 8
"""File descriptors of HAProxy itself, and of each connection, including connections to the queue."""

_HELD_FACTOR = 2
"""Connections for each connection of a client: itself, and at most one that waits inside HAProxy."""

_GRPC_CODES = {"RESOURCE_EXHAUSTED": 8, "UNIMPLEMENTED": 12, "UNAVAILABLE": 14, "UNAUTHENTICATED": 16}
_GRPC_REFUSALS = {
    "key": ("UNAUTHENTICATED", "a valid API key is required"),
    "rate": ("RESOURCE_EXHAUSTED", "the client exceeds its request rate"),
    "size": ("RESOURCE_EXHAUSTED", "a message may have at most {} MiB"),
    "packed": ("UNIMPLEMENTED", "compressed messages are not accepted"),
    "down": ("UNAVAILABLE", "the gateway is not ready"),
}
"""Name of a gRPC refusal -> its status and message."""

_HTTP_ERRORS = {
    400: "the request is malformed, or a shape in its JSON claims more elements than its data has",
    408: "the client sent the request too slowly",
    413: "the body of the request is too large",
    429: "the client exceeds its request rate",
    500: "the edge failed",
    502: "the gateway failed before it answered",
    503: "the gateway is not ready",
    504: "the gateway did not answer in time",
}


def live(place: Place, protocol: str) -> Path:
    """Returns the path of the gateway's socket, which exists only while all models are loaded."""
    return place.folder / f"live.{protocol}"


def _hold(place: Place, protocol: str) -> Path:
    """Returns the path of the queue's socket."""
    return place.folder / f"hold.{protocol}"


def links(edge: Edge) -> Mapping[str, str]:
    """Returns link name -> file of the user; HAProxy reads the targets of the links at each reload."""
    if edge.tls is None:
        return {}
    found = {_CERT: edge.tls.cert, f"{_CERT}.key": edge.tls.key}
    return found if edge.tls.client_ca is None else {**found, _CLIENT_CA: edge.tls.client_ca}


def files(edge: Edge, ports: GatewayPorts, place: Place, keys: tuple[ApiKey, ...] | None) -> dict[str, str]:
    """Generates the files of the edge.

    Args:
        edge: Settings of the edge.
        ports: Public address and ports.
        place: Folder and resources of the edge.
        keys: API keys of clients; None if no key is required.

    Returns:
        Name of a file -> its content.
    """
    keyed = keys is not None
    sections = [
        process_section(edge.limits, place),
        defaults(edge.limits),
        *(error_section(protocol, place) for protocol in PROTOCOLS),
        *(public_section(protocol, edge, ports, place, keyed=keyed) for protocol in PROTOCOLS),
        *(_servers(protocol, place) for protocol in PROTOCOLS),
        *(_queue(protocol, edge, place) for protocol in PROTOCOLS),
        *(_again(protocol, place) for protocol in PROTOCOLS),
        *tables(),
        exporter(edge, ports),
    ]
    return {CONFIG: configuration(sections), **named_files(edge.limits, keys)}


def named_files(
    limits: EdgeLimits, keys: tuple[ApiKey, ...] | None, errors: Mapping[int, str] = MappingProxyType({})
) -> dict[str, str]:
    """Generates the files that the sections towards clients name.

    Args:
        limits: Limits of the edge.
        keys: API keys of clients; None if no key is required.
        errors: Status -> message, where it differs from that of an edge.
    """
    found = {}
    for status, message in {**_HTTP_ERRORS, **errors}.items():
        found[f"http.{status}"] = http_error(status, message)
        found[f"grpc.{status}"] = _grpc_error("UNAVAILABLE", message)
    for name, (code, message) in _GRPC_REFUSALS.items():
        found[f"grpc.{name}"] = _grpc_error(code, message.format(limits.body_mib))
    if keys is not None:
        found[_KEYS] = "".join(f"{key.sha256} {key.name}\n" for key in keys)
    return found


def _connections(limits: EdgeLimits, place: Place) -> int:
    return max(min(limits.connections, (place.files - _FILES_OF_PROCESS) // _FILES_OF_CONNECTION), 1)


def process_section(limits: EdgeLimits, place: Place) -> Section:
    """Returns the section `global`."""
    return (
        "global",
        *process_lines(place),
        f"maxconn {_HELD_FACTOR * len(PROTOCOLS) * _connections(limits, place)}",
        f"lua-load {LUA}",
        f"hard-stop-after {limits.answer_s}s",
        # HAProxy copies a whole buffer for each request that it may resend: 128 KiB double the cost of a request.
        f"tune.bufsize {limits.resend_kib * 2**10}",
        # With HTTP/2's usual window of 64 KiB, a large tensor would wait for several round trips.
        "tune.h2.fe.initial-window-size 1048576",
        "tune.h2.be.initial-window-size 1048576",
        "tune.h2.fe.max-concurrent-streams 1000",
        "tune.h2.be.max-concurrent-streams 1000",
        "ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets",
    )


def defaults(limits: EdgeLimits) -> Section:
    """Returns the section `defaults`."""
    return (
        "defaults",
        "mode http",
        "timeout connect 5s",
        "timeout check 5s",
        f"timeout client {limits.idle_s}s",
        f"timeout http-request {limits.header_s}s",
        f"timeout http-keep-alive {limits.idle_s}s",
        f"timeout server {limits.answer_s + limits.queue_s}s",
        f"timeout queue {limits.queue_s}s" if limits.queue_s else "timeout queue 1ms",
        "option abortonclose",
        "option dontlognull",
        # A reload closes idle connections only with the next answer, so that no client sends into a closed one.
        "option idle-close-on-response",
        "http-reuse always",
    )


def error_section(protocol: str, place: Place) -> Section:
    """Returns the section that names the errors of a protocol, which are in `named_files`."""
    return (
        f"http-errors {protocol}",
        *(f"errorfile {status} {place.folder / f'{protocol}.{status}'}" for status in _HTTP_ERRORS),
    )


def _bind(protocol: str, edge: Edge, ports: GatewayPorts, place: Place) -> str:
    port = ports.http if protocol == "http" else ports.grpc
    return f"bind {ports.address}:{port} {_security(protocol, edge.tls, place)}".rstrip()


def _security(protocol: str, tls: EdgeTls | None, place: Place) -> str:
    if tls is None:
        return "proto h2" if protocol == "grpc" else ""
    verify = "" if tls.client_ca is None else f" ca-file {place.folder / _CLIENT_CA} verify required"
    alpn = "h2" if protocol == "grpc" else "h2,http/1.1"
    return f"ssl crt {place.folder / _CERT} alpn {alpn}{verify}"


def public_section(
    protocol: str, edge: Edge, ports: GatewayPorts, place: Place, *, keyed: bool, routing: Iterable[str] = ()
) -> Section:
    """Returns the section of the port that clients connect to.

    Args:
        protocol: Protocol on the port.
        edge: Settings of the edge.
        ports: Public address and ports.
        place: Folder and resources of the edge.
        keyed: True if clients need a key.
        routing: Rules that choose another backend than the one with the protocol's name.
    """
    limits = edge.limits
    return (
        f"frontend {protocol}",
        _bind(protocol, edge, ports, place),
        f"maxconn {_connections(limits, place)}",
        f"errorfiles {protocol}",
        *_logging(edge),
        *_per_connection(protocol, limits),
        "http-request set-var(txn.id) req.hdr(x-request-id)",
        "http-request set-var(txn.id) uuid if !{ var(txn.id) -m reg ^[A-Za-z0-9._:/+=-]{1,128}$ }",
        "http-request set-header x-request-id %[var(txn.id)]",
        # Clients must not be able to forge the address that the gateway sees.
        "http-request del-header x-forwarded-for",
        *_health(protocol),
        *(_authentication(protocol, place) if keyed else ()),
        "http-request set-var(txn.client) src if !{ var(txn.client) -m found }",
        *_rate(protocol, limits, place),
        *(_http_bodies(limits) if protocol == "http" else _grpc_bodies(limits, place)),
        "http-after-response set-header x-request-id %[var(txn.id)]",
        *(("http-response set-header retry-after 1 if { status 503 }",) if protocol == "http" else ()),
        *routing,
        f"default_backend {protocol}",
    )


def _logging(edge: Edge) -> Iterator[str]:
    if edge.access_log != "none":
        yield "log global"
        yield from ("option dontlog-normal",) if edge.access_log == "problems" else ()
        yield (
            'log-format "%tr %ci:%cp client=%[var(txn.client)] id=%[var(txn.id)] %HM %HPO %ST bytes=%U/%B '
            'ms=%TR/%Tw/%Tc/%Tr/%Ta end=%tsc retries=%rc"'
        )


def _per_connection(protocol: str, limits: EdgeLimits) -> Iterator[str]:
    if limits.client_connections is not None:
        yield f"tcp-request connection track-sc1 src table {protocol}_connections"
        yield f"tcp-request connection reject if {{ sc1_conn_cur gt {limits.client_connections} }}"


def _health(protocol: str) -> Iterator[str]:
    paths = "/v2/health/live /v2/health/ready"
    if protocol == "grpc":
        service = "/inference.GRPCInferenceService"
        paths = f"{service}/ServerLive {service}/ServerReady /grpc.health.v1.Health/Check"
    yield f"acl health path {paths}"


def _authentication(protocol: str, place: Place) -> Iterator[str]:
    yield "http-request set-var(txn.key) http_auth_bearer"
    yield "http-request set-var(txn.key) req.hdr(x-api-key) if !{ var(txn.key) -m found }"
    # Keys are compared as digests, so that the time of the comparison reveals nothing about them.
    yield f"http-request set-var(txn.client) var(txn.key),sha2(256),hex,lower,map_str({place.folder / _KEYS})"
    http = reply(401, "a valid API key is required") + " hdr www-authenticate Bearer"
    answer = http if protocol == "http" else _refusal("key", place)
    yield f"{answer} if !health !{{ var(txn.client) -m found }}"
    yield "http-request del-header authorization"
    yield "http-request del-header x-api-key"


def _rate(protocol: str, limits: EdgeLimits, place: Place) -> Iterator[str]:
    if limits.client_rps is not None:
        yield "http-request track-sc0 var(txn.client) table clients if !health"
        http = reply(429, "the client exceeds its request rate") + " hdr retry-after 1"
        answer = http if protocol == "http" else _refusal("rate", place)
        yield f"{answer} if !health {{ sc_http_req_rate(0) gt {limits.client_rps} }}"


def _http_bodies(limits: EdgeLimits) -> Iterator[str]:
    largest = limits.body_mib * 2**20
    no_length = reply(411, "the request needs a Content-Length")
    yield f"{no_length} if METH_POST !{{ req.hdr(content-length) -m found }}"
    too_large = reply(413, f"the body of a request may have at most {limits.body_mib} MiB")
    yield f"{too_large} if {{ req.hdr_val(content-length) gt {largest} }}"
    packed = reply(415, "compressed requests are not accepted")
    yield f"{packed} if {{ req.hdr(content-encoding) -m found }} !{{ req.hdr(content-encoding) -i identity }}"
    # Triton 24.10 reads a body with the content type of form data into the stack of its thread.
    yield (
        "http-request set-header content-type application/json if { req.hdr(content-type) -m sub -i form-urlencoded }"
    )
    yield f"http-request wait-for-body time {limits.header_s}s if METH_POST"
    yield "filter lua.json_claims"


def _grpc_bodies(limits: EdgeLimits, place: Place) -> Iterator[str]:
    largest = limits.body_mib * 2**20
    yield "acl unary path /inference.GRPCInferenceService/ModelInfer"
    yield f"http-request wait-for-body time {limits.header_s}s if unary"
    # A message begins with one byte that says if it is compressed, and four bytes with its length.
    yield f"{_refusal('packed', place)} if unary !{{ req.body,bytes(0,1),hex 00 }} {{ req.body_len ge 5 }}"
    yield f"{_refusal('size', place)} if unary {{ req.body,bytes(1,4),hex,hex2i gt {largest} }}"


def _servers(protocol: str, place: Place) -> Section:
    check = "check inter 1s fastinter 50ms downinter 50ms rise 1 fall 10"
    watch = "observe layer4 error-limit 1 on-error mark-down"
    return (
        f"backend {protocol}",
        f"errorfiles {protocol}",
        f"retries {_RETRIES}",
        "option redispatch 1",
        "retry-on conn-failure empty-response junk-response",
        *(("option httpchk GET /v2/health/ready",) if protocol == "http" else ()),
        f"server gateway unix@{live(place, protocol)}{_h2(protocol)} {check} {watch}",
        # The queue takes requests while the gateway is down, and those that it left unanswered.
        f"server queue unix@{_hold(place, protocol)}{_h2(protocol)} backup",
    )


def _queue(protocol: str, edge: Edge, place: Place) -> Section:
    """Queues requests until the gateway is up and sends them once, so that no request crashes it more than twice."""
    http = reply(503, "the gateway is not ready") + " hdr retry-after 1"
    return (
        f"frontend {protocol}_queue",
        f"bind unix@{_hold(place, protocol)} mode 600{_h2(protocol)}",
        f"errorfiles {protocol}",
        f"http-request lua.hold {protocol}_again {edge.limits.queue_s}",
        f"{http if protocol == 'http' else _refusal('down', place)} if {{ var(txn.given_up) -m bool }}",
        f"default_backend {protocol}_again",
    )


def _again(protocol: str, place: Place) -> Section:
    return (
        f"backend {protocol}_again",
        f"errorfiles {protocol}",
        "retry-on conn-failure",
        f"server gateway unix@{live(place, protocol)}{_h2(protocol)} track {protocol}/gateway",
    )


def tables() -> Iterator[Section]:
    """Yields the tables of clients and their connections."""
    yield "backend clients", "stick-table type string len 64 size 100k expire 10s store http_req_rate(1s)"
    for protocol in PROTOCOLS:
        yield f"backend {protocol}_connections", "stick-table type ip size 100k expire 10s store conn_cur"


def exporter(edge: Edge, ports: GatewayPorts) -> Section:
    """Returns the section of HAProxy's own metrics."""
    return (
        "frontend exporter",
        f"bind {ports.address}:{edge.metrics}",
        "http-request use-service prometheus-exporter if { path /metrics }",
        "http-request return status 404",
    )


def _h2(protocol: str) -> str:
    return " proto h2" if protocol == "grpc" else ""


def _refusal(name: str, place: Place) -> str:
    """Returns a rule that answers over gRPC with a gRPC status."""
    return f"http-request return status 200 errorfile {place.folder / f'grpc.{name}'}"


def _grpc_error(code: str, message: str) -> str:
    """Returns a gRPC response that consists only of a status."""
    head = (
        "HTTP/1.1 200 OK",
        "Content-Type: application/grpc",
        "Content-Length: 0",
        f"grpc-status: {_GRPC_CODES[code]}",
        f"grpc-message: {message}",
    )
    return "\r\n".join((*head, "", ""))
