"""Generates the configurations of both HAProxies of the transport. Pure functions without side effects.

The timeouts are longer than any call, because the compiled backend ends calls at deadlines of its own. A status of 503
means that no worker has seen the call; both HAProxies therefore never repeat one.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.errors import InputError
from jigsaw_triton.servers.certificates.credentials import CONTROLLER, Credentials, identity
from jigsaw_triton.servers.haproxy.config import (
    CONFIG,
    Place,
    Section,
    configuration,
    http_error,
    process_lines,
)

WORKER_HEADER = "jigsaw-worker"
"""Header that names the worker of a call; without it, the call is for the node's agent."""

NODE_HEADER = "jigsaw-node"
"""Header that names the node of a call."""

EPOCH_HEADER = "jigsaw-epoch"
"""Header with the epoch of the controller whose gateway or which itself makes a call."""

ALIVE_PATH = "/jigsaw-triton/alive"
"""Path that the node's HAProxy answers itself, for health checks."""

LINKS = "links"
"""Folder of the sockets that HAProxy creates for links, in its own folder."""

LUA = Path(__file__).with_name("node.lua")
"""Path of the Lua code of the node's side."""

_REFUSALS = "refused.sock"
"""Socket at which the node's HAProxy refuses calls that it cannot pass on."""

_OVER = "if for_worker !of_epoch !of_later_epoch"
"""Condition under which a call comes from the gateway of a controller that another one has replaced."""

_CERT, _CA = "node.pem", "ca.pem"

_CALL_S = 86_400
"""Seconds that a call may take and a connection may be idle. The backend's deadlines are far shorter."""

_DRAIN_S = 3_600
"""Seconds after a reload until the process before cuts the calls that are still in progress there."""

_CONNECT_MS, _CHECK_MS = 1_000, 500
"""Milliseconds for a connection to a node with its TLS handshake, and between health checks of a node."""

_LOST_MS = 2_000
"""Milliseconds after which sent data that a node's kernel has not acknowledged ends the connection."""

_FILES_OF_PROCESS, _FILES_OF_CALL = 256, 2
"""File descriptors of HAProxy itself, and of each call."""

_BUFFER_BYTES = 65_536
"""Size of HAProxy's buffers. Tensors of 600 kB take more wake-ups with the default of 16 KiB."""

_ERRORS = {
    400: "the request is malformed",
    408: "the request came too slowly",
    500: "the transport failed",
    502: "the connection broke before the answer was complete",
    504: "no answer came in time",
}


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


def node_at(name: str, address: str) -> Node:
    """Returns a node, given its host and port as cluster.yaml has them."""
    host, _, port = address.rpartition(":")
    return Node(name, host.strip("[]"), int(port))


@dataclass(frozen=True, slots=True)
class Link:
    """A worker of another node that is called as if it listened on a Unix socket of this one.

    Attributes:
        worker: Name of the worker.
        node: Name of its node.
        incarnation: Number or text that identifies one process of the worker, and differs for the next one.
        socket: Path of the socket that callers connect to, on the file system of HAProxy's folder.
    """

    worker: str
    node: str
    incarnation: str
    socket: Path

    def bound(self, place: Place) -> Path:
        """Returns the path at which HAProxy creates the socket. It is another one for each incarnation."""
        return place.folder / LINKS / self._digest().hex()

    @property
    def identity(self) -> int:
        """Modification time that the socket gets, in nanoseconds.

        The backend recognises a worker's process by it. So it differs for each incarnation, and is the same if HAProxy
        makes the socket again. With 60 bits it is a time before 2007, which every file system can keep.
        """
        return int.from_bytes(self._digest()) >> 4

    def _digest(self) -> bytes:
        return hashlib.sha256(f"{self.node}\n{self.worker}\n{self.incarnation}".encode()).digest()[:8]


def _forbidden() -> str:
    """Returns the line that refuses commands for an agent which do not come from the controller."""
    error = {
        "message": f"only a certificate with the common name {CONTROLLER} may command agents",
        "where": "",
        "hint": f"make it with `jigsaw-triton certificates issue {CONTROLLER}`, and name its folder in cluster.yaml",
        "code": InputError.exit_code,
    }
    body = json.dumps({"error": error}).replace('"', '\\"')
    answer = f'status 403 content-type application/json string "{body}"'
    return f"http-request return {answer} if !for_worker !from_controller"


def agent_socket(place: Place, node: str) -> Path:
    """Returns the path of the socket through which the agent of a node is called."""
    return place.folder / f"{node}.agent"


def credential_links(credentials: Credentials) -> Mapping[str, str]:
    """Returns link name -> file of the user; HAProxy reads the targets of the links at each reload."""
    return {_CERT: str(credentials.cert), f"{_CERT}.key": str(credentials.key), _CA: str(credentials.ca)}


def node_files(
    node: str, address: str, port: int, workers: Mapping[str, Path], agent: Path, place: Place, fence: str = ""
) -> dict[str, str]:
    """Generates the files of the HAProxy at a node.

    Args:
        node: Name of the node.
        address: Address to listen on.
        port: Port to listen on.
        workers: Name of each worker -> its socket.
        agent: Socket of the node's agent.
        place: Folder and resources of HAProxy.
        fence: Epoch; workers refuse gateways of earlier controllers, and of another one of the same number. Empty to
            refuse none.

    Returns:
        Name of a file -> its content.
    """
    refusals = place.folder / _REFUSALS
    frontend = (
        "frontend calls",
        f"bind {_address(address, port)} {_tls(place)} alpn http/1.1 tcp-ut {_LOST_MS}ms",
        # The gateway's side reuses idle connections: each is closed with an answer, and never under a new call.
        "option idle-close-on-response",
        f"acl here req.fhdr({NODE_HEADER}) -m str {node}",
        f"acl for_worker req.fhdr({WORKER_HEADER}) -m found",
        *_refusal(f"this is node {node}, and the call is for another one", "if !here"),
        f"http-request return status 200 if {{ path {ALIVE_PATH} }}",
        *_fenced(fence),
        f"use_backend worker.%[req.fhdr({WORKER_HEADER})] if for_worker",
        f"acl from_controller ssl_c_s_dn(cn) -m str {CONTROLLER}",
        _forbidden(),
        "use_backend agent if !for_worker",
        # A backend that does not exist leads to the default.
        "default_backend unknown",
    )
    unknown = ("backend unknown", *_refusal(f"node {node} has no worker of this name"))
    refused = (
        "frontend refused",
        f"bind unix@{refusals} mode 600",
        *_refusal(f"the server on node {node} does not listen"),
    )
    servers = [("agent", "agent", agent), *((f"worker.{name}", name, path) for name, path in sorted(workers.items()))]
    backends = (
        (
            f"backend {section}",
            # If the first server cannot be connected to, the call goes to the second one, which refuses it.
            "balance first",
            "retries 1",
            "option redispatch 1",
            f"server {name} unix@{path}",
            f"server refused unix@{refusals}",
        )
        for section, name, path in servers
    )
    return _files((frontend, unknown, refused, *backends), f"node {node} refuses the call", place, f"lua-load {LUA}")


def _fenced(fence: str) -> tuple[str, ...]:
    """Returns rules that refuse calls from the gateway of a controller that another one has replaced."""
    if not fence:
        return ()
    number = fence.partition(".")[0]
    return (
        f"acl of_epoch req.fhdr({EPOCH_HEADER}) -m str {fence}",
        f"acl of_later_epoch req.fhdr({EPOCH_HEADER}),field(1,.) -m int gt {number}",
        *_refusal(f"epoch {number} has begun, and another controller has the workers", _OVER),
    )


def _refusal(reason: str, condition: str = "") -> tuple[str, ...]:
    """Returns rules that answer with status 503, once the whole call has been read."""
    return (
        f'http-request set-var-fmt(req.reason) "{reason}" {condition}'.rstrip(),
        f"http-request use-service lua.refuse {condition}".rstrip(),
    )


def gateway_files(nodes: Iterable[Node], links: Iterable[Link], place: Place, epoch: str = "") -> dict[str, str]:
    """Generates the files of the HAProxy at a gateway.

    Args:
        nodes: Nodes to call.
        links: Workers to offer, each on one of these nodes.
        place: Folder and resources of HAProxy.
        epoch: Epoch of the controller that commands the gateway; empty for none.

    Returns:
        Name of a file -> its content.
    """
    by_node: dict[str, list[Link]] = {node.name: [] for node in sorted(nodes, key=lambda node: node.name)}
    known = {node.name: node for node in nodes}
    for link in sorted(links, key=lambda link: link.worker):
        by_node[link.node].append(link)
    sections = [section for name, own in by_node.items() for section in _called_node(known[name], own, place, epoch)]
    return _files(sections, "the node cannot be reached", place)


def _called_node(node: Node, links: Iterable[Link], place: Place, epoch: str) -> Iterator[Section]:
    name = node.certificate_name or identity(node.name)
    yield (
        f"backend node.{node.name}",
        "option httpchk",
        f"http-check send meth GET uri {ALIVE_PATH} ver HTTP/1.1 hdr host {name} hdr {NODE_HEADER} {node.name}",
        "http-check expect status 200",
        f"http-request set-header {NODE_HEADER} {node.name}",
        f"server {node.name} {_address(node.host, node.port)} {_tls(place)} verifyhost {name} sni str({name}) "
        f"alpn http/1.1 check check-sni {name} check-alpn http/1.1 inter {_CHECK_MS}ms fall 2 rise 1 "
        f"tcp-ut {_LOST_MS}ms "
        "init-addr last,libc,none",
    )
    yield (
        f"frontend {node.name}.agent",
        f"bind unix@{agent_socket(place, node.name)} mode 600",
        f"http-request del-header {WORKER_HEADER}",
        f"default_backend node.{node.name}",
    )
    binds = [f"bind unix@{link.bound(place)} mode 600 name {link.worker}" for link in links]
    if binds:
        yield (
            f"frontend {node.name}.workers",
            *binds,
            f"http-request set-header {WORKER_HEADER} %[so_name]",
            *((f"http-request set-header {EPOCH_HEADER} {epoch}",) if epoch else ()),
            f"default_backend node.{node.name}",
        )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tls(place: Place) -> str:
    """Returns the options with which both sides show their certificate, and accept only their authorities'."""
    return f"ssl crt {place.folder / _CERT} ca-file {place.folder / _CA} verify required"


def _files(sections: Iterable[Section], unreachable: str, place: Place, *more: str) -> dict[str, str]:
    errors = {**_ERRORS, 503: unreachable}
    found = {f"error.{status}": http_error(status, message) for status, message in errors.items()}
    return {CONFIG: configuration(((*_global(place), *more), _defaults(errors, place), *sections)), **found}


def _global(place: Place) -> Section:
    return (
        "global",
        *process_lines(place),
        f"maxconn {max((place.files - _FILES_OF_PROCESS) // _FILES_OF_CALL, 1)}",
        f"hard-stop-after {_DRAIN_S}s",
        f"tune.bufsize {_BUFFER_BYTES}",
        "ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets",
        "ssl-default-server-options ssl-min-ver TLSv1.3",
    )


def _defaults(errors: Iterable[int], place: Place) -> Section:
    return (
        "defaults",
        "mode http",
        "log global",
        "option dontlog-normal",
        "option dontlognull",
        'log-format "%ft %b/%s %HM %HU %ST bytes=%U/%B ms=%TR/%Tw/%Tc/%Tr/%Ta end=%tsc"',
        f"timeout connect {_CONNECT_MS}ms",
        f"timeout check {_CONNECT_MS}ms",
        f"timeout client {_CALL_S}s",
        f"timeout server {_CALL_S}s",
        f"timeout tunnel {_CALL_S}s",
        f"timeout http-keep-alive {_CALL_S}s",
        # A host that vanishes leaves connections that carry no data open.
        *(line for side in ("cli", "srv") for line in _keepalive(side)),
        "retries 0",
        "option abortonclose",
        "http-reuse always",
        *(f"errorfile {status} {place.folder / f'error.{status}'}" for status in sorted(errors)),
    )


def _keepalive(side: str) -> tuple[str, ...]:
    return (f"option {side}tcpka", f"{side}tcpka-idle 1s", f"{side}tcpka-intvl 1s", f"{side}tcpka-cnt 2")
