"""Stand-ins of gateways behind a real edge with TLS."""

import subprocess
from http.server import ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

from jigsaw_triton.gpus.gateway import Edge, EdgeLimits, EdgeTls, GatewayPorts
from jigsaw_triton.servers.edge.config import files, links, live
from jigsaw_triton.servers.haproxy.config import Place
from jigsaw_triton.servers.haproxy.process import haproxy_argv, write_files
from jigsaw_triton.servers.haproxy.program import find_haproxy
from tests.front.grpc_gateway import GrpcGateway
from tests.front.world import Gateway, Server, handler


class _UnixServer(Server):
    address_family = ThreadingUnixStreamServer.address_family

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "gateway", 0


class EdgedGateway(Gateway):
    """A stand-in of a gateway, with an edge in front of it.

    Args:
        name: Name of the cell.
        ports: Ports of the edge for HTTP, gRPC and its metrics.
        folder: Folder of the edge.
        tls: Certificates of the edge.
    """

    def __init__(self, name: str, ports: tuple[int, int, int], folder: Path, tls: EdgeTls) -> None:
        super().__init__(name, ports[0])
        self.grpc = ports[1]
        self._place = Place(folder, files=2048)
        edge = Edge(tls=tls, limits=EdgeLimits(queue_s=0), metrics=ports[2])
        write_files(self._place, files(edge, GatewayPorts(*ports), self._place, None), links(edge))
        self._over_grpc = GrpcGateway(name, f"unix:{live(self._place, 'grpc')}")
        self._edge: subprocess.Popen[bytes] | None = None

    def _listen(self) -> ThreadingHTTPServer:
        answering = handler(self)
        answering.disable_nagle_algorithm = False  # A Unix socket has no such option.
        return _UnixServer(str(live(self._place, "http")), answering)

    def start(self) -> None:
        """Begins to listen."""
        super().start()
        self._over_grpc.start()
        argv = haproxy_argv(find_haproxy(), self._place)
        with (self._place.folder / "log").open("wb") as log:
            self._edge = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self) -> None:
        """Ends the edge, and closes all connections."""
        if self._edge is not None:
            self._edge.kill()
            self._edge.wait()
        self._over_grpc.stop()
        super().stop()
