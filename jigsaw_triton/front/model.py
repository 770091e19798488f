"""Settings of a front."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jigsaw_triton.gpus.gateway import Edge, GatewayPorts


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Addresses of a gateway, each as `HOST:PORT`.

    Attributes:
        http: Address for HTTP.
        grpc: Address for gRPC.
        metrics: Address of its metrics; None if the front does not read them.
    """

    http: str
    grpc: str
    metrics: str | None = None

    def of(self, protocol: str) -> str:
        """Returns the address for a protocol."""
        return self.http if protocol == "http" else self.grpc

    def host(self, protocol: str) -> str:
        """Returns the host for a protocol, without brackets."""
        return host_of(self.of(protocol))


def host_of(address: str) -> str:
    """Returns the host of `HOST:PORT`, without brackets."""
    return address.rpartition(":")[0].strip("[]")


@dataclass(frozen=True, slots=True)
class GatewayTls:
    """TLS to the gateways. Files are absolute paths of PEM files.

    Attributes:
        ca: Certificate authorities of the gateways.
        server_name: DNS name that all certificates of gateways carry; None if each carries the host of its gateway.
        cert: Certificate of the front with its intermediates; None if gateways require none.
        key: Private key of the front's certificate; None if there is none.
    """

    ca: str
    server_name: str | None = None
    cert: str | None = None
    key: str | None = None

    def name_of(self, host: str) -> str:
        """Returns the DNS name that the certificate of the gateway on a host carries."""
        return self.server_name or host


@dataclass(frozen=True, slots=True)
class FrontCell:
    """A cell that a front sends requests to.

    Attributes:
        name: Name of the cell.
        gateway: Addresses of its gateway.
        shares: Graph -> planned share of the graph's requests, above 0. Other graphs are absent.
        standby: Addresses of its standby gateway; None if it has none.
    """

    name: str
    gateway: GatewayAddress
    shares: Mapping[str, float] = field(hash=False)
    standby: GatewayAddress | None = None


@dataclass(frozen=True, slots=True)
class Front:
    """A front.

    Attributes:
        cells: Cells, whose shares of each graph add up to 1.
        ports: Address and ports that clients connect to; `metrics` is the port of HAProxy's own metrics.
        edge: Settings towards clients: certificates, API keys and limits.
        gateway_tls: TLS to the gateways; None if they are reached without it.
    """

    cells: tuple[FrontCell, ...]
    ports: GatewayPorts
    edge: Edge
    gateway_tls: GatewayTls | None = None

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of all graphs, sorted."""
        return tuple(sorted({graph for cell in self.cells for graph in cell.shares}))

    def cells_of(self, graph: str) -> tuple[FrontCell, ...]:
        """Returns the cells that serve a graph."""
        return tuple(cell for cell in self.cells if graph in cell.shares)

    @property
    def hosts(self) -> frozenset[str]:
        """Hosts of all gateways."""
        gateways = [gateway for cell in self.cells for gateway in (cell.gateway, cell.standby) if gateway is not None]
        return frozenset(gateway.host(protocol) for gateway in gateways for protocol in ("http", "grpc"))

    @property
    def complete_cells(self) -> tuple[FrontCell, ...]:
        """Cells that serve all graphs; all cells if there are none."""
        return tuple(cell for cell in self.cells if len(cell.shares) == len(self.graphs)) or self.cells
